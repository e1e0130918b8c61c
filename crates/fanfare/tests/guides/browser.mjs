// Pages as guides to SSE write them, in a real browser, on a site of their own: they were made for other servers, and
// are connected to Fanfare by nothing but configured paths. FANFARE_EDGE is reached through a proxy that cuts all
// connections whenever a line is read from standard input.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { cut, launch } from "../support/chromium.mjs";

const { FANFARE_EDGE: edge, FANFARE_PUBLISH: publisher, FANFARE_KEY: key, FANFARE_USER_TOKEN: token } = process.env;

// The application's own site: another origin than the edge's.
const site = createServer((_, response) => {
  response.setHeader("Content-Type", "text/html");
  response.end("<!doctype html><title>an application</title>");
});
await new Promise((listening) => site.listen(Number(process.env.SITE_PORT), "127.0.0.1", listening));
const origin = `http://127.0.0.1:${process.env.SITE_PORT}`;

const browser = await launch();

async function publish(channel, event, data) {
  const response = await fetch(`${publisher}/publish`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${key}` },
    body: JSON.stringify(event ? { channel, event, data } : { channel, data }),
  });
  assert.equal(response.status, 200, await response.text());
}

/** A server's dashboard: the token in the query behind a second question mark, a filter by type, and a new
 * EventSource on every error, which knows nothing of the last id. */
async function monitorsServers(page) {
  await page.evaluate(
    ([edge, token]) => {
      const seen = new Set();
      const state = (window.monitor = { status: "unknown", cpu: 0, logs: [], other: [], opened: 0, twice: 0 });
      let attempts = 0;
      const connect = () => {
        const url = `${edge}/api/servers/7/events?types=server:*,metrics:*,logs:*`;
        const source = new EventSource(`${url}?auth=${token}`);
        source.onopen = () => {
          attempts = 0;
          state.opened++;
        };
        source.addEventListener("server:online", (event) => (state.status = JSON.parse(event.data).state));
        source.addEventListener("metrics:cpu", (event) => (state.cpu = JSON.parse(event.data).value));
        source.addEventListener("logs:app", (event) => {
          const data = JSON.parse(event.data);
          if (seen.has(data.id)) return state.twice++;
          seen.add(data.id);
          state.logs = [...state.logs.slice(-99), data];
        });
        source.addEventListener("deployment:started", () => state.other.push("deployment:started"));
        source.onmessage = (event) => state.other.push(JSON.parse(event.data));
        source.onerror = () => {
          source.close();
          if (attempts++ < 5) setTimeout(connect, 100);
        };
        state.stop = () => source.close();
      };
      connect();
    },
    [edge, token],
  );
  await page.waitForFunction(() => window.monitor.opened === 1);
  await publish("server:7", "deployment:started", { id: "d1" });
  await publish("server:7", "server:online", { state: "online" });
  await publish("server:7", "metrics:cpu", { type: "cpu", value: 42 });
  await publish("server:7", "logs:app", { id: "l1", text: "before" });
  await page.waitForFunction(() => window.monitor.logs.length === 1);
  await cut();
  for (const id of ["l2", "l3", "l4"]) await publish("server:7", "logs:app", { id, text: "while it was away" });
  await page.waitForFunction(() => window.monitor.logs.length === 4);
  const monitor = await page.evaluate(() => {
    window.monitor.stop();
    return window.monitor;
  });
  assert.deepEqual([monitor.status, monitor.cpu], ["online", 42]);
  assert.deepEqual(monitor.logs.map((log) => log.id), ["l1", "l2", "l3", "l4"], "nothing is missed, in order");
  assert.deepEqual(monitor.other, [], "only the types that were asked for, and nothing that it does not know");
  assert.ok(monitor.opened >= 2);
}

/** A dashboard's service: cookies, `onmessage` alone, pings among the data, and only CLOSED counts as the end. */
async function keepsADashboard(page) {
  await page.evaluate((edge) => {
    const state = (window.dashboard = { heard: [], pings: 0, opened: 0, closed: 0 });
    const source = new EventSource(`${edge}/live/campaigns`, { withCredentials: true });
    source.onopen = () => state.opened++;
    source.onmessage = (event) => {
      const data = JSON.parse(event.data);
      if (data.trigger === "ping") state.pings++;
      else state.heard.push(data);
    };
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) state.closed++;
    };
    state.stop = () => source.close();
  }, edge);
  await page.waitForFunction(() => window.dashboard.pings >= 2);
  await publish("campaigns", undefined, { trigger: "campaign_updated", id: 1 });
  await page.waitForFunction(() => window.dashboard.heard.length === 1);
  await cut();
  await publish("campaigns", undefined, { trigger: "campaign_updated", id: 2 });
  await publish("campaigns", undefined, { trigger: "campaign_updated", id: 3 });
  await page.waitForFunction(() => window.dashboard.heard.length >= 3);
  const pings = await page.evaluate(() => window.dashboard.pings);
  await page.waitForFunction((pings) => window.dashboard.pings > pings, pings);
  const dashboard = await page.evaluate(() => {
    window.dashboard.stop();
    return window.dashboard;
  });
  assert.deepEqual(dashboard.heard.map(({ id }) => id), [1, 2, 3], "each once, in order");
  assert.equal(dashboard.closed, 0, "the browser came back by itself");
  assert.ok(dashboard.opened >= 2);
}

/** A hook that appends `?token=`, hears `onmessage` alone, and looks into the data for the type. */
async function hearsNotifications(page) {
  await page.evaluate(
    ([edge, token]) => {
      const state = (window.hook = { connected: false, notifications: [], types: [] });
      const source = new EventSource(`${edge}/api/events?token=${token}`);
      source.onopen = () => (state.connected = true);
      source.onmessage = (event) => {
        const data = JSON.parse(event.data);
        state.types.push(data.type);
        if (data.type === "announcement") state.notifications.push(data);
      };
      state.stop = () => source.close();
    },
    [edge, token],
  );
  await page.waitForFunction(() => window.hook.types.includes("connected"));
  const response = await fetch(`${publisher}/broadcast`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${key}` },
    body: JSON.stringify({ message: "hello" }),
  });
  assert.deepEqual([response.status, (await response.json()).success], [200, true]);
  await page.waitForFunction(() => window.hook.notifications.length === 1);
  assert.equal(await page.evaluate(() => (window.hook.stop(), window.hook.notifications[0].message)), "hello");
}

/** A progress bar that closes when the work is done. */
async function showsProgress(page) {
  await page.evaluate((edge) => {
    const state = (window.progress = { steps: [], ready: 0 });
    const source = new EventSource(`${edge}/task-progress/12345`, { withCredentials: true });
    // Before that, it has the head of a stream that has not begun.
    source.addEventListener("connected", () => (state.ready = 1));
    source.onmessage = (event) => {
      const progress = JSON.parse(event.data);
      state.steps.push(progress.percentage);
      if (progress.status === "completed") source.close();
      state.closed = source.readyState === EventSource.CLOSED;
    };
  }, edge);
  await page.waitForFunction(() => window.progress.ready);
  for (const step of [0, 50, 100]) {
    const status = step < 100 ? "processing" : "completed";
    await publish("task:12345", undefined, { task_id: "12345", percentage: step, status });
  }
  await page.waitForFunction(() => window.progress.closed);
  assert.deepEqual(await page.evaluate(() => window.progress.steps), [0, 50, 100]);
}

try {
  const context = await browser.newContext();
  await context.addCookies([{ name: "fanfare_token", value: token, url: edge, httpOnly: true, sameSite: "Lax" }]);
  const page = await context.newPage();
  await page.goto(origin);
  await monitorsServers(page);
  await keepsADashboard(page);
  await hearsNotifications(page);
  await showsProgress(page);
  // A page of another site gets nothing, cookies or not.
  await page.goto(origin.replace("127.0.0.1", "localhost"));
  const refused = await page.evaluate(async (edge) => {
    const source = new EventSource(`${edge}/live/campaigns`, { withCredentials: true });
    return new Promise((resolve) => {
      source.onopen = () => resolve("open");
      source.onerror = () => resolve(source.readyState);
    });
  }, edge);
  assert.equal(refused, 2, "closed, and for good");
  console.log("browser: ok");
} finally {
  await browser.close();
  site.close();
}
process.exit(0);
