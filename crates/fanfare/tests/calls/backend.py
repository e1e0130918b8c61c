"""A tool server, as a guide to SSE has it, behind Fanfare: it answers as it always did, or says that it will.

It prints a line of JSON for everything that it gets: requests whole, and callers that hang up. FANFARE_PUBLISH and
FANFARE_KEY are where and how it publishes; a line on standard input lets tools go on that wait for one.
"""

import http.server
import json
import os
import select
import sys
import threading
import urllib.error
import urllib.request

PUBLISH = os.environ["FANFARE_PUBLISH"]
KEY = os.environ["FANFARE_KEY"]
printing = threading.Lock()
gone_on = threading.Semaphore(0)


def say(**what):
    with printing:
        print(json.dumps(what), flush=True)


def result(text):
    return {"apiVersion": "1.0.0", "result": {"content": [{"type": "text", "text": text}]}}


def error(code, message, **more):
    return {"apiVersion": "1.0.0", "error": {"code": code, "message": message, **more}}


def publish(channel, event, data):
    """As a backend does that wants it to arrive: again until it is answered, with a key."""
    body = {"channel": channel, "event": event, "data": data, "idempotencyKey": f"{channel} {event} {json.dumps(data)}"}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    request = urllib.request.Request(f"{PUBLISH}/publish", json.dumps(body).encode(), headers)
    for _ in range(600):
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as refused:
            if refused.code != 503:
                return refused.code
            threading.Event().wait(0.1)
    return None


class Tools(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        try:
            request = json.loads(body)
        except ValueError:
            request = {}
        tool, given = request.get("tool", "now"), request.get("input", {})
        headers = [[name, value] for name, value in self.headers.items()]
        say(got=tool, path=self.path, headers=headers, body=body.decode("utf-8", "replace"))
        channel = self.headers["Fanfare-Channel"]
        getattr(self, f"tool_{tool}")(channel, given)

    def answer(self, status, body, content_type="application/json; charset=utf-8"):
        text = body if isinstance(body, str) else json.dumps(body, indent=2)
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def accept(self):
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def tool_now(self, channel, given):
        self.answer(200, result(given.get("text", "at once")))

    def tool_large(self, channel, given):
        self.answer(200, result("x" * given["bytes"]))

    def tool_later(self, channel, given):
        self.accept()

        def work():
            for step in range(given.get("steps", 2)):
                publish(channel, "progress", {"step": step})
            publish(channel, "result", result("later"))
            say(afterwards=publish(channel, "progress", {"step": "after the end"}))

        threading.Thread(target=work, daemon=True).start()

    def tool_early(self, channel, given):
        publish(channel, "result", result("early"))
        self.accept()
        say(answered=True)

    def tool_fails(self, channel, given):
        self.accept()
        publish(channel, "error", error("TOOL_FAILED", "it went wrong half-way", hint="look at the input"))

    def tool_waits(self, channel, given):
        """Accepts, and publishes when a line comes on standard input."""
        self.accept()

        def work():
            gone_on.acquire()
            say(published=publish(channel, "result", result("waited")))

        threading.Thread(target=work, daemon=True).start()

    def tool_silent(self, channel, given):
        self.accept()

    def tool_never(self, channel, given):
        """Works on and on, and notices when nobody waits for it any more."""
        select.select([self.connection], [], [])
        if self.connection.recv(1) == b"":
            say(hung_up=self.headers["X-Request-Id"])
        self.close_connection = True

    def tool_refuses(self, channel, given):
        details = {"field": "title", "limit": 1.10}
        self.answer(422, error("INVALID_INPUT", "the title is missing", hint="set title", details=details))

    def tool_breaks(self, channel, given):
        self.answer(500, "Internal Server Error: password=hunter2", "text/plain")

    def tool_text(self, channel, given):
        self.answer(200, "done", "text/plain")

    def tool_cut(self, channel, given):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b'{"apiVersion":')
        self.close_connection = True

    def log_message(self, *arguments):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True


def listen_to_standard_input():
    for _ in sys.stdin:
        gone_on.release()


server = Server(("127.0.0.1", 0), Tools)
threading.Thread(target=listen_to_standard_input, daemon=True).start()
say(listens=server.server_address[1])
server.serve_forever()
