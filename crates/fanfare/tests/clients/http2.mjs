// Node's `http2`, with many streams on one connection: one that stands still, one that is reset, a drain in the middle.
import assert from "node:assert/strict";
import { once } from "node:events";
import http2 from "node:http2";
import readline from "node:readline";

const url = process.env.FANFARE_URL;
const STREAMS = 300;

async function connect() {
  const session = http2.connect(url);
  await once(session, "connect");
  return session;
}

class Stream {
  constructor(session, path, headers = {}) {
    this.request = session.request({ ":path": path, ...headers });
    this.request.setEncoding("utf8");
    this.lastId = "";
    this.ended = new Promise((resolve) => {
      this.request.on("error", () => {}); // The code tells.
      this.request.on("close", () => resolve(this.request.rstCode));
    });
  }

  async open() {
    [this.headers] = await once(this.request, "response");
    this.chunks = this.request[Symbol.asyncIterator]();
    this.buffer = "";
    return this;
  }

  // The next event, or nothing when the stream has ended.
  async next() {
    for (;;) {
      const end = this.buffer.indexOf("\n\n");
      if (end >= 0) {
        const block = this.buffer.slice(0, end);
        this.buffer = this.buffer.slice(end + 2);
        const event = { type: "message" };
        for (const line of block.split("\n")) {
          if (line.startsWith("id: ")) this.lastId = line.slice(4);
          else if (line.startsWith("event: ")) event.type = line.slice(7);
          else if (line.startsWith("data: ")) event.data = line.slice(6);
        }
        if (event.data !== undefined) return event;
        continue;
      }
      const { done, value } = await this.chunks.next();
      if (done) return undefined;
      this.buffer += value;
    }
  }

  async expect(type) {
    const event = await this.next();
    assert.equal(event?.type, type);
    return event.data;
  }
}

async function subscribe(session, path, headers) {
  const stream = await new Stream(session, path, headers).open();
  assert.equal(stream.headers[":status"], 200);
  stream.hello = JSON.parse(await stream.expect("connected"));
  return stream;
}

async function publish(session, channel, data) {
  const request = session.request({ ":path": "/publish", ":method": "POST", "content-type": "application/json" });
  request.end(JSON.stringify({ channel, data }));
  request.setEncoding("utf8");
  let answer = "";
  for await (const chunk of request) answer += chunk;
  assert.equal(JSON.parse(answer).success, true);
}

const session = await connect();
const backend = await connect();

// Everybody hears everything, though one stands still.
const streams = [];
for (let n = 0; n < STREAMS; n++) streams.push(subscribe(session, "/events/demo"));
const all = await Promise.all(streams);
const stalled = await subscribe(session, "/events/demo");
const payload = "x".repeat(40_000);
const EVENTS = 20;
for (let n = 0; n < EVENTS; n++) {
  await publish(backend, "demo", `${n} ${payload}`);
  for (const stream of all) assert.equal((await stream.expect("message")).split(" ")[0], String(n));
}
// It has been closed as too slow; where it went on from, nothing is missing.
assert.equal(await stalled.ended, http2.constants.NGHTTP2_CANCEL);
const back = await subscribe(session, "/events/demo", { "last-event-id": stalled.lastId });
assert.equal(back.hello.resumed, true);
for (let n = 0; n < EVENTS; n++) assert.equal((await back.expect("message")).split(" ")[0], String(n));

// NDJSON: lines are answered while the request is still being written.
const lines = backend.request({ ":path": "/publish", ":method": "POST", "content-type": "application/x-ndjson" });
lines.setEncoding("utf8");
const answers = readline.createInterface({ input: lines })[Symbol.asyncIterator]();
for (const data of ["one", "two"]) {
  lines.write(`${JSON.stringify({ channel: "lines", data })}\n`);
  assert.equal(JSON.parse((await answers.next()).value).success, true);
}
lines.end();
assert.equal((await answers.next()).done, true);

// A stream that is reset leaves the others alone.
all.pop().request.close(http2.constants.NGHTTP2_CANCEL);
await publish(backend, "demo", "after a reset");
for (const stream of all) assert.equal(await stream.expect("message"), "after a reset");

// A drain: the connection is told, every stream hears why and ends, and none is reset.
const told = once(session, "goaway");
console.log("drain");
assert.equal((await told)[0], http2.constants.NGHTTP2_NO_ERROR);
for (const stream of all) {
  assert.equal(await stream.expect("closing"), '{"reason":"draining"}');
  assert.equal(await stream.next(), undefined);
  assert.equal(await stream.ended, http2.constants.NGHTTP2_NO_ERROR);
}
for (const left of [session, backend]) left.close();
console.log("http2: ok");
