// A real browser. FANFARE_TOOLS is where playwright-core is.
import { createRequire } from "node:module";

const { chromium } = createRequire(`${process.env.FANFARE_TOOLS}/`)("playwright-core");

/** Starts Chromium, which is to ask nobody for anything. */
export function launch() {
  return chromium.launch({
    executablePath: process.env.FANFARE_CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}

/** Asks the harness to cut every connection through the proxy, and waits until it has. */
export async function cut() {
  console.log("cut");
  await new Promise((resolve) => process.stdin.once("data", resolve));
}
