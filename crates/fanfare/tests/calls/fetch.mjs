// `fetch` with a POST, read as the guide to tools over SSE does: a block ends at an empty line, the last `data:` line
// of a block is its data, and `result`, `error` and `heartbeat` are all that it knows.
import assert from "node:assert/strict";

const { FANFARE_EDGE: edge, FANFARE_USER_TOKEN: token } = process.env;

async function executeTool(tool, input) {
  const seen = { heartbeats: 0, ids: [] };
  const handle = (block) => {
    const event = {};
    for (const line of block.split("\n")) {
      const [field, ...parts] = line.split(":");
      const value = parts.join(":").trim();
      if (field === "event") event.type = value;
      else if (field === "data") event.data = value;
      else if (field === "id") event.id = value;
      else if (field === "retry") event.retry = Number.parseInt(value, 10);
    }
    if (event.data) event.data = JSON.parse(event.data);
    if (event.id) seen.ids.push(event.id);
    if (event.type === "result") seen.result = event.data;
    else if (event.type === "error") seen.error = event.data;
    else if (event.type === "heartbeat") seen.heartbeats++;
  };
  const response = await fetch(`${edge}/sse`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}`, Accept: "text/event-stream" },
    body: JSON.stringify({ tool, input, apiVersion: "1.0.0" }),
  });
  if (!response.ok) throw new Error(`HTTP ${response.status}: ${response.statusText}`);
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return seen;
    buffer += decoder.decode(value, { stream: true });
    const blocks = buffer.split("\n\n");
    buffer = blocks.pop() || "";
    for (const block of blocks) if (block.trim()) handle(block);
  }
}

const now = await executeTool("now", { text: "grüße\nin two lines" });
assert.deepEqual(now.result.result.content, [{ type: "text", text: "grüße\nin two lines" }]);
assert.equal(now.result.apiVersion, "1.0.0");
assert.equal(now.error, undefined);

const later = await executeTool("later", {});
assert.equal(later.result.result.content[0].text, "later");

const refused = await executeTool("refuses", {});
assert.equal(refused.result, undefined);
assert.deepEqual(refused.error.error, {
  code: "INVALID_INPUT",
  message: "the title is missing",
  hint: "set title",
  details: { field: "title", limit: 1.1 },
});

const failed = await executeTool("fails", {});
assert.equal(failed.error.error.code, "TOOL_FAILED");

const timedOut = await executeTool("silent", {});
assert.equal(timedOut.error.error.code, "TIMEOUT");
assert.ok(timedOut.heartbeats >= 1, "a watchdog hears that it goes on");

const batch = await Promise.all([1, 2, 3].map((n) => executeTool("now", { text: `${n}` })));
assert.deepEqual(batch.map((seen) => seen.result.result.content[0].text), ["1", "2", "3"]);

await assert.rejects(
  fetch(`${edge}/sse`, { method: "POST", headers: { Authorization: "Bearer invalid-token" }, body: "{}" }).then(
    (response) => Promise.reject(new Error(`HTTP ${response.status}`)),
  ),
  /HTTP 401/,
);
console.log("fetch: ok");
process.exit(0);
