"""deploy/nginx.conf, by nginx itself, with stand-ins for edges and publisher."""

import contextlib
import http.client
import http.server
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from report import TOP, Failed, Skipped, equal, run

TOKEN = "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiJ9.c2lnbmF0dXJl"
KEY = "Bearer 0123456789abcdef"

FLOOD_MIB_MAX = 64


class StandIn(http.server.BaseHTTPRequestHandler):
    """Says who it is; on /events it sends two events and then nothing."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.server.seen.append((self.request_version, self.path, dict(self.headers)))
        self.send_response(200)
        if self.path.startswith("/events?"):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(2):  # Apart, so that they come in writes of their own.
                time.sleep(0.1)
                self.wfile.write(b"8\r\ndata: %d\n\r\n" % number)
            if "flood" in self.path:
                return self.flood()
            self.server.released.wait(10)
            self.wfile.write(b"0\r\n\r\n")
            return
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_header("Content-Length", str(len(self.server.name)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(self.server.name.encode())

    def flood(self) -> None:
        """Writes until nobody takes any more."""
        self.connection.settimeout(0.5)
        piece = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        with contextlib.suppress(OSError):
            while self.server.taken < FLOOD_MIB_MAX:
                self.connection.sendall(piece)
                self.server.taken += 1
        self.close_connection = True
        self.server.flooded.set()

    do_GET = do_HEAD = do_POST = do_PATCH = do_DELETE = do_OPTIONS = answer

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def stand_in(name: str):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    server.name, server.seen, server.released = name, [], threading.Event()
    server.taken, server.flooded = 0, threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()


def here(upstreams: dict[str, int], port: int, directory: Path) -> list[str]:
    """The command for nginx with this configuration on this machine: names, which exist only between containers,
    become loopback ports, and files that root may write go into a directory. Nothing else is changed."""
    if not shutil.which("nginx"):
        raise Skipped("nginx is not installed (Debian package nginx)")
    directory.chmod(0o755)  # nginx's workers may run as another user.
    text = (TOP / "deploy/nginx.conf").read_text()
    for name, upstream in upstreams.items():
        text, count = re.subn(rf"server {name}:\d+;", f"server 127.0.0.1:{upstream};", text)
        equal(count, 1, f"number of servers called {name}")
    text = text.replace("listen 8080;", f"listen 127.0.0.1:{port};").replace("/dev/stdout", f"{directory}/access.log")
    paths = " ".join(f"{kind}_temp_path {directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    text = text.replace("http {", f"http {{ {paths}", 1)
    # Its master needs no second user, and it is ours to stop.
    (directory / "nginx.conf").write_text(f"pid {directory}/pid; daemon off; {text}")
    return ["nginx", "-p", str(directory), "-c", str(directory / "nginx.conf"), "-e", "stderr"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running():
    """nginx's port and the stand-ins."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fanfare-nginx-")))
        servers = {name: stack.enter_context(stand_in(name)) for name in ("edge-a", "edge-b", "publisher")}
        port = free_port()
        command = here({name: server.server_address[1] for name, server in servers.items()}, port, directory)
        log = stack.enter_context((directory / "stderr.log").open("w+"))
        nginx = subprocess.Popen(command, stdout=log, stderr=log)
        stack.callback(nginx.wait, 10)
        stack.callback(nginx.terminate)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError as error:
                if nginx.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise Failed(f"nginx does not listen: {log.read()}") from error
                time.sleep(0.02)
        yield port, servers, directory


def ask(port: int, method: str, path: str, authorization: str | None = None) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    body = "{}" if method in ("POST", "PATCH") else None
    connection.request(method, path, body, {"Authorization": authorization} if authorization else {})
    return connection.getresponse()


def check_nginx_accepts_it():
    with tempfile.TemporaryDirectory(prefix="fanfare-nginx-") as directory:
        run(*here({"edge-a": 8081, "edge-b": 8082, "publisher": 8083}, 8080, Path(directory)), "-t")


def check_each_path_goes_where_it_belongs():
    cases = [
        ("GET", "/events", None, "edge"),
        ("POST", "/events", None, "edge"),
        ("GET", "/events/server:7", TOKEN, "edge"),
        ("PATCH", "/events/client-id", TOKEN, "edge"),
        ("GET", "/poll?channel=a", None, "edge"),
        ("POST", "/notify", KEY, "publisher"),
        ("POST", "/broadcast", KEY, "publisher"),
        ("POST", "/publish", KEY, "publisher"),
        ("POST", "/tokens", KEY, "publisher"),
        ("POST", "/tickets", KEY, "publisher"),
        ("GET", "/openapi.json", None, "publisher"),
        ("GET", "/channels/a%2Fb", KEY, "publisher"),
        ("DELETE", "/users/42/connections", KEY, "publisher"),
        ("GET", "/channels/a%2Fb/history?limit=5", KEY, "publisher"),
        ("GET", "/channels/a/history", TOKEN, "edge"),
        ("GET", "/channels/a/history", None, "edge"),
        ("OPTIONS", "/channels/a/history", None, "edge"),
        ("DELETE", "/channels/a/history", KEY, "publisher"),
        ("GET", "/metrics", None, None),
        ("GET", "/healthz", None, None),
        ("GET", "/eventsource", None, None),
        ("GET", "/", None, None),
    ]
    with running() as (port, servers, _):
        for method, path, authorization, expected in cases:
            response = ask(port, method, path, authorization)
            body = response.read().decode()
            found = None if response.status == 404 else body.split("-")[0]
            equal(found, expected, f"where {method} {path} goes")
        seen = [request for server in servers.values() for request in server.seen]
        equal({version for version, _, _ in seen}, {"HTTP/1.1"}, "HTTP to upstreams")
        equal("/channels/a%2Fb/history?limit=5" in [path for _, path, _ in seen], True, "whether %2F stays as it is")
        for _, path, headers in seen:
            equal(headers.get("X-Forwarded-For"), "127.0.0.1", f"X-Forwarded-For of {path}")
            equal(headers.get("Host"), f"127.0.0.1:{port}", f"Host of {path}")


def check_events_are_not_held_back_and_edges_share_the_streams():
    with running() as (port, servers, _):
        streams = [ask(port, "GET", "/events?channel=a") for _ in range(6)]
        for stream in streams:
            equal(stream.read(16), b"data: 0\ndata: 1\n", "what arrives while the stream is open")
        equal([len(servers[name].seen) for name in ("edge-a", "edge-b")], [3, 3], "streams of each edge")


def check_a_slow_reader_is_seen_by_its_edge():
    """Else nginx would take all that an edge has into files, and the edge never learn that its client lags."""
    with running() as (port, servers, _):
        edges = [servers["edge-a"], servers["edge-b"]]
        with socket.create_connection(("127.0.0.1", port)) as reader:
            reader.sendall(b"GET /events?flood HTTP/1.1\r\nHost: localhost\r\n\r\n")
            deadline = time.monotonic() + 20
            while not any(edge.flooded.is_set() for edge in edges) and time.monotonic() < deadline:
                time.sleep(0.05)
        taken = sum(edge.taken for edge in edges)
        equal(0 < taken < FLOOD_MIB_MAX / 2, True, f"whether {taken} MiB are about what sockets hold")


def check_no_credential_is_logged():
    with running() as (port, _, directory):
        ask(port, "GET", "/poll?token=very-secret", TOKEN).read()
        ask(port, "PATCH", "/events/client-secret").read()
        deadline = time.monotonic() + 5
        while (text := (directory / "access.log").read_text()).count("\n") < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        equal("/poll" in text and "PATCH" in text, True, "whether requests are logged at all")
        equal("secret" in text or "eyJ" in text, False, "whether a secret is in the log")
