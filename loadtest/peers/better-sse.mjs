// The better-sse server that is measured: `node better-sse.mjs LIBRARY PORT`.
//
// - One process: the library's channels live in one, and it has nothing that joins several.
// - An event is serialized once, into an event buffer, which each session sends: the library's own way to spare work.
//   Its `broadcast` serializes anew for every session.
// - Resuming is left to the application by the library. So each channel keeps its newest 100 events, as the others do,
//   and who comes back gets what follows its id. Nothing here waits, so nothing slips in between replay and register.
// - A comment every 15 s keeps idle streams alive, as everywhere.
import http from "node:http";

const [library, port] = process.argv.slice(2);
const { createChannel, createEventBuffer, createSession } = await import(library);

const HISTORY_EVENTS = 100;
const serializer = String; // Events are texts already.
const channels = new Map();
let last = 0;

function channel(name) {
  let found = channels.get(name);
  if (!found) {
    found = { members: createChannel(), history: [] };
    channels.set(name, found);
  }
  return found;
}

async function subscribe(request, response, name) {
  const session = await createSession(request, response, { serializer, keepAlive: 15_000, retry: 1_000 });
  const { members, history } = channel(name);
  const lastId = Number(session.lastId);
  if (lastId) {
    for (const missed of history) if (missed.id > lastId) session.batch(missed.buffer);
  }
  members.register(session);
}

function publish(request, response, name) {
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    const { members, history } = channel(name);
    const id = ++last;
    const buffer = createEventBuffer({ serializer }).id(String(id)).data(Buffer.concat(pieces).toString()).dispatch();
    history.push({ id, buffer });
    if (history.length > HISTORY_EVENTS) history.shift();
    for (const session of members.activeSessions) session.batch(buffer);
    response.writeHead(202, { "Content-Length": 0 }).end();
  });
}

const server = http.createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://localhost");
  const name = searchParams.get("id");
  if (request.method === "GET" && pathname === "/sub") subscribe(request, response, name);
  else if (request.method === "POST" && pathname === "/pub") publish(request, response, name);
  else response.writeHead(404, { "Content-Length": 0 }).end();
});
server.keepAliveTimeout = 0; // Publishers keep their connections.
server.listen({ host: "127.0.0.1", port: Number(port), backlog: 16_384 });
