// `fetch` with a POST, read as the guides do: decode, split at empty lines, take the fields apart.
import assert from "node:assert/strict";

const url = process.env.FANFARE_URL;

async function* events(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    buffer += decoder.decode(value, { stream: true });
    const blocks = buffer.split("\n\n");
    buffer = blocks.pop() ?? "";
    for (const block of blocks) {
      const event = {};
      for (const line of block.split("\n")) {
        const [field, ...rest] = line.split(":");
        const text = rest.join(":").trim();
        if (field === "event") event.type = text;
        else if (field === "data") event.data = text;
        else if (field === "id") event.id = text;
        else if (field === "retry") event.retry = Number.parseInt(text, 10);
      }
      if (event.data !== undefined) yield { ...event, data: JSON.parse(event.data) };
    }
  }
}

async function subscribe(body) {
  const stop = new AbortController();
  const response = await fetch(`${url}/events?user=node`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
    body: JSON.stringify(body),
    signal: stop.signal,
  });
  assert.equal(response.status, 200);
  const stream = events(response);
  const next = async () => (await stream.next()).value;
  return { next, stop: () => stop.abort() };
}

async function post(path, body) {
  const response = await fetch(url + path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const result = await response.json();
  assert.equal(response.status, 200, JSON.stringify(result));
  assert.equal(result.success, true);
  return result.id;
}

const first = await subscribe({ channels: ["server:7"], types: ["result", "error", "notification"] });
const connected = await first.next();
assert.equal(connected.type, "connected");
assert.ok(connected.retry >= 1000 && connected.retry <= 3000);
await post("/publish", { channel: "server:7", event: "heartbeat:not", data: { filtered: true } });
const id = await post("/publish", { channel: "server:7", event: "result", data: { result: { content: [1] } } });
const result = await first.next();
assert.deepEqual([result.type, result.data], ["result", { result: { content: [1] } }]);
assert.equal(result.id, `${id}@server:7`);
await post("/notify", { userId: "node", message: "hi" });
const notified = await first.next();
assert.deepEqual([notified.type, notified.data.message, notified.data.userId], ["notification", "hi", "node"]);
first.stop();

await post("/publish", { channel: "server:7", event: "error", data: { error: { code: "X", message: "missed" } } });
const second = await subscribe({ channels: ["server:7"], lastEventId: notified.id });
assert.equal((await second.next()).data.resumed, true);
assert.equal((await second.next()).data.error.message, "missed");
second.stop();

const refused = await fetch(`${url}/events`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: '{"tool":"change.open"}',
});
assert.equal(refused.status, 400);
const problem = await refused.json();
assert.equal(problem.code, "INVALID_INPUT");
assert.match(problem.message, /unknown field `tool`/);
console.log("fetch: ok");
