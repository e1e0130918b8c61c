"""Python's line readers, as the guides to SSE write them: byte by byte, line by line, and with sseclient."""

import json
import os
import sys
import threading

import requests
import sseclient

URL = os.environ["FANFARE_URL"]


def by_characters(response):
    """Reads a character at a time and takes a block at each empty line."""
    buffer = ""
    for chunk in response.iter_content(chunk_size=1, decode_unicode=True):
        buffer += chunk if isinstance(chunk, str) else chunk.decode()
        if buffer.endswith("\n\n"):
            block = {"event": "message", "data": []}
            for line in buffer.strip().split("\n"):
                field, _, value = line.partition(":")
                if field == "data":
                    block["data"].append(value.strip())
                elif field == "event":
                    block["event"] = value.strip()
            if block["data"]:
                yield block["event"], "\n".join(block["data"])
            buffer = ""


def by_lines(response):
    """Reads lines and takes what follows `data:`."""
    event = "message"
    for line in response.iter_lines(decode_unicode=True):
        if line.startswith("event:"):
            event = line[6:].strip()
        elif line.startswith("data:"):
            yield event, line[5:].strip()
            event = "message"


def by_sseclient(response):
    """The package that the guides name."""
    for event in sseclient.SSEClient(response).events():
        yield event.event, event.data


def post(path, body):
    answer = requests.post(URL + path, json=body, timeout=10)
    assert answer.status_code == 200, answer.text
    result = answer.json()
    assert result["success"] is True, result


def check(name, reader, number):
    user = f"py{number}"
    response = requests.get(
        f"{URL}/events",
        params={"user": user, "channel": f"py:{number}"},
        headers={"Accept": "text/event-stream", "Cache-Control": "no-cache"},
        stream=True,
        timeout=20,
    )
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = reader(response)
    event, data = next(events)
    assert event == "connected", event
    assert json.loads(data)["userId"] == user
    post("/notify", {"userId": user, "message": {"text": "grüße", "n": 1.10}})
    post("/broadcast", {"message": f"hello from {name}"})
    post("/publish", {"channel": f"py:{number}", "event": "metrics:cpu", "data": {"value": 42}})
    # The other readers' greetings may come at any time.
    heard = {}
    while len(heard) < 3:
        event, data = next(events)
        if event != "announcement" or json.loads(data)["message"] == f"hello from {name}":
            assert event not in heard, f"{event} came twice"
            heard[event] = json.loads(data)
    assert list(heard) == ["notification", "announcement", "metrics:cpu"], list(heard)
    assert heard["notification"]["message"] == {"text": "grüße", "n": 1.10}
    assert heard["metrics:cpu"] == {"value": 42}
    response.close()
    print(f"{name}: ok")


def main():
    failures = []

    def run(*arguments):
        try:
            check(*arguments)
        except BaseException as error:  # noqa: BLE001, whatever it is, the test has failed
            failures.append(f"{arguments[0]}: {error!r}")

    readers = [("by characters", by_characters), ("by lines", by_lines), ("sseclient", by_sseclient)]
    threads = [threading.Thread(target=run, args=(*reader, number)) for number, reader in enumerate(readers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive(), "a reader waits for ever"
    for failure in failures:
        print(failure, file=sys.stderr)
    sys.exit(bool(failures))


main()
