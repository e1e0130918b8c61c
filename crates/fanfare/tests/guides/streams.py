"""Python's readers as guides to SSE write them, on paths that belong to an application."""

import json
import os

import requests

EDGE = os.environ["FANFARE_EDGE"]
PUBLISH = os.environ["FANFARE_PUBLISH"]
KEY = os.environ["FANFARE_KEY"]
TOKEN = os.environ["FANFARE_USER_TOKEN"]


def stream_events(url, **arguments):
    """A character at a time; a block at each empty line; its last `data:` line is the event."""
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache", "Authorization": f"Bearer {TOKEN}"}
    response = requests.get(url, stream=True, headers=headers, timeout=20, **arguments)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    buffer = ""
    for chunk in response.iter_content(chunk_size=1, decode_unicode=True):
        buffer += chunk if isinstance(chunk, str) else chunk.decode()
        if buffer.endswith("\n\n"):
            event = {}
            for line in buffer.strip().split("\n"):
                if line.startswith("data:"):
                    text = line[5:].strip()
                    try:
                        event = json.loads(text)
                    except ValueError:
                        event = {"raw": text}
            yield event
            buffer = ""


def publish(channel, data, event=None):
    body = {"channel": channel, "data": data}
    if event:
        body["event"] = event
    answer = requests.post(f"{PUBLISH}/publish", json=body, headers={"Authorization": f"Bearer {KEY}"}, timeout=10)
    assert answer.status_code == 200, answer.text


def next_with(events, field):
    """What the caller looks for: heartbeats and Fanfare's own events have no such field."""
    return next(event for event in events if field in event)


prices = stream_events(f"{EDGE}/stock-prices")
assert "clientId" in next_with(prices, "clientId")
for symbol, price in [("AAPL", 150.25), ("GOOGL", 2800.5)]:
    publish("stock-prices", {"symbol": symbol, "price": price}, "price_update")
    update = next_with(prices, "symbol")
    assert (update["symbol"], update["price"]) == (symbol, price), update
prices.close()

# One who comes late begins with what the route replays, the newest last.
late = stream_events(f"{EDGE}/chat/main/messages")
next_with(late, "clientId")
publish("chat:main", {"id": 1, "text": "hello"})
assert next_with(late, "id")["id"] == 1
late.close()
again = stream_events(f"{EDGE}/chat/main/messages")
assert next_with(again, "id") == {"id": 1, "text": "hello"}
again.close()

refused = requests.get(f"{EDGE}/chat/main/messages", timeout=10)
assert refused.status_code == 401, refused.text
assert refused.json()["code"] == "AUTHENTICATION_FAILED", refused.text
print("streams: ok")
