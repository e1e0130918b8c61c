// A real browser's EventSource: it hears, it is cut off and comes back by itself with everything it missed, it
// survives refusals, and the demo page works. FANFARE_URL is the server, FANFARE_PROXY a way to it that is cut off
// whenever a line is read from standard input.
import assert from "node:assert/strict";
import { cut, launch } from "../support/chromium.mjs";

const { FANFARE_URL: url, FANFARE_PROXY: proxy } = process.env;

const browser = await launch();

async function post(path, body) {
  const response = await fetch(url + path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  assert.equal(response.status, 200, await response.text());
}

try {
  const page = await browser.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));

  // The demo page, as a newcomer would use it.
  await page.goto(url);
  await page.waitForFunction(() => document.body.innerText.includes("Live"));
  await post("/publish", { channel: "demo", data: "hello from the test" });
  await page.waitForFunction(() => document.body.innerText.includes("hello from the test"));
  assert.deepEqual(problems, [], "the page has no errors");

  // A plain EventSource, cut off again and again while events are published.
  await page.goto(`${proxy}/healthz`);
  await page.evaluate(() => {
    window.heard = [];
    window.opened = 0;
    window.gaps = 0;
    const source = new EventSource("/events?user=browser&channel=a&channel=b");
    source.onopen = () => window.opened++;
    source.onmessage = (event) => window.heard.push(event.data);
    source.addEventListener("notification", (event) => window.heard.push(JSON.parse(event.data).message));
    source.addEventListener("gap", () => window.gaps++);
    source.addEventListener("connected", (event) => (window.hello = JSON.parse(event.data)));
  });
  await page.waitForFunction(() => window.hello?.userId === "browser");
  const published = [];
  const say = async (text) => {
    published.push(text);
    if (published.length % 3 === 0) await post("/notify", { userId: "browser", message: text });
    else await post("/publish", { channel: published.length % 3 === 1 ? "a" : "b", data: text });
  };
  for (let round = 0; round < 3; round++) {
    for (let n = 0; n < 10; n++) await say(`round ${round} live ${n}`);
    await page.waitForFunction((count) => window.heard.length >= count, published.length);
    await cut();
    for (let n = 0; n < 10; n++) await say(`round ${round} missed ${n}\nin two lines`);
    await page.waitForFunction((count) => window.heard.length >= count, published.length);
  }
  assert.deepEqual(await page.evaluate(() => window.heard), published, "each once, in order");
  assert.equal(await page.evaluate(() => window.gaps), 0);
  assert.ok((await page.evaluate(() => window.opened)) >= 4, "the browser came back by itself");
  console.log("browser: ok");
} finally {
  await browser.close();
}
process.exit(0);
