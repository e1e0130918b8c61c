"""Follows channels with nothing but GET /poll, over connections that are cut while they wait and while they answer."""

import json
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

URL, PROXY = os.environ["FANFARE_URL"], os.environ["FANFARE_PROXY"]
CHANNELS, EVENTS = ["poll:a", "poll:b", "poll:c"], 300


def poll(cursor):
    """One answer; None where the connection was cut."""
    query = {"channels": ",".join(CHANNELS), "user": "poller"}
    if cursor:
        query["last_event_id"] = cursor
    try:
        with urllib.request.urlopen(f"{PROXY}/poll?{urllib.parse.urlencode(query)}", timeout=40) as answer:
            return json.loads(answer.read())
    except (urllib.error.URLError, ConnectionError, json.JSONDecodeError, OSError, ValueError):
        return None
    except Exception as error:  # http.client has its own kinds of broken-off answers.
        if type(error).__module__ != "http.client":
            raise
        return None


def publish(channel, data):
    body = json.dumps({"channel": channel, "data": data}).encode()
    request = urllib.request.Request(f"{URL}/publish", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def main():
    cursor = None
    while cursor is None:
        answer = poll(None)
        cursor = answer and answer["cursor"]
    print("ready", flush=True)

    def publish_all():
        for n in range(EVENTS):
            publish(CHANNELS[n % len(CHANNELS)], str(n))
            time.sleep(0.01)

    publisher = threading.Thread(target=publish_all)
    publisher.start()
    heard, answers, broken = [], 0, 0
    while len(heard) < EVENTS:
        answer = poll(cursor)
        if answer is None:
            broken += 1  # What was in it, if anything, doesn't count: the cursor is the old one.
            continue
        assert all(event["event"] == "message" for event in answer["events"]), answer
        heard += [int(event["data"]) for event in answer["events"]]
        cursor, answers = answer["cursor"], answers + 1
    publisher.join()
    assert heard == list(range(EVENTS)), "each once, in order"
    print(f"{answers} answers, {broken} broken off", flush=True)
    assert broken > 0, "it has been cut off"
    print("polls: ok", flush=True)


main()
