// How browsers live with being refused: a plain EventSource survives it, one that is built anew on every error doesn't
// hammer, and only bad credentials and being disconnected end it. FANFARE_FULL, FANFARE_DRAINING, FANFARE_AWAY (no
// backbone), FANFARE_LOCKED (a token is needed) and FANFARE_OPEN are servers.
import assert from "node:assert/strict";
import { launch } from "../support/chromium.mjs";

const { FANFARE_FULL, FANFARE_DRAINING, FANFARE_AWAY, FANFARE_LOCKED, FANFARE_OPEN } = process.env;
const [CONNECTING, OPEN, CLOSED] = [0, 1, 2];

const browser = await launch();

/** A page of a server, with an EventSource in it, and how often that asked. */
async function open(url, homeMade, path = "/events/c") {
  const page = await browser.newPage();
  await page.goto(`${url}/healthz`);
  const asked = { page, requests: 0 };
  page.on("request", (request) => (asked.requests += request.url().includes("/events") ? 1 : 0));
  const build = ({ homeMade, path }) => {
    window.closings = [];
    window.errors = 0;
    window.build = () => {
      window.source = new EventSource(path);
      window.source.addEventListener("closing", (event) => window.closings.push(JSON.parse(event.data).reason));
      window.source.onerror = () => {
        window.errors++;
        if (homeMade) {
          window.source.close();
          window.build();
        }
      };
    };
    window.build();
  };
  await page.evaluate(build, { homeMade, path });
  return asked;
}

/** Pages in the background draw no frames, which is when playwright would look. */
const looking = { polling: 100, timeout: 60_000 };
const heard = (asked) => asked.page.waitForFunction(() => window.closings.length > 0, null, looking);
const closings = (asked) => asked.page.evaluate(() => window.closings);
const state = (asked) => asked.page.evaluate(() => window.source.readyState);
const turns = (asked, state) =>
  asked.page.waitForFunction((state) => window.source.readyState === state, state, looking);

try {
  const away = await open(FANFARE_AWAY, false);
  const full = await open(FANFARE_FULL, false);
  const draining = await open(FANFARE_DRAINING, false);
  const locked = await open(FANFARE_LOCKED, false);
  const homeMade = [await open(FANFARE_FULL, true), await open(FANFARE_DRAINING, true)];
  const disconnected = await open(FANFARE_OPEN, false, "/events?user=42");
  await turns(disconnected, OPEN);
  const { status } = await fetch(`${FANFARE_OPEN}/users/42/connections`, { method: "DELETE" });
  assert.equal(status, 200);
  for (const [asked, reason] of [
    [full, "limit"],
    [draining, "draining"],
    [disconnected, "disconnected"],
    [homeMade[0], "limit"],
    [homeMade[1], "draining"],
  ]) {
    await heard(asked);
    assert.equal((await closings(asked))[0], reason);
  }
  await locked.page.waitForFunction(() => window.errors > 0, null, looking);
  assert.equal(await state(locked), CLOSED, "bad credentials end it for good");

  // Half a minute later, when the one without a backbone hears that there is none.
  assert.equal(await state(away), OPEN, "a stream without a backbone is open");
  await heard(away);
  assert.deepEqual(await closings(away), ["unavailable"]);
  await turns(away, CONNECTING);
  for (const asked of [full, draining]) {
    assert.notEqual(await state(asked), CLOSED, "it will come back");
    assert.ok(asked.requests <= 2, `${asked.requests} requests in half a minute`);
  }
  for (const { requests } of homeMade) {
    console.log(`a home-made client asked ${requests} times in half a minute`);
    assert.ok(requests <= 3, `${requests} requests: each answer is held open for 15 s at least`);
  }
  assert.equal(locked.requests, 1);
  await turns(disconnected, CLOSED);
  assert.equal(disconnected.requests, 2, "it came back once, and 204 ended it");
  console.log("refusals: ok");
} finally {
  await browser.close();
}
process.exit(0);
