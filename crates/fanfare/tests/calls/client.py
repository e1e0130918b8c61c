"""Python's client as the guide to tools over SSE has it: requests, and sseclient over its response."""

import json
import os

import requests
import sseclient

EDGE = os.environ["FANFARE_EDGE"]
TOKEN = os.environ["FANFARE_USER_TOKEN"]


def execute_tool(tool, given):
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {TOKEN}",
        "Accept": "text/event-stream",
    }
    payload = {"tool": tool, "input": given, "apiVersion": "1.0.0"}
    response = requests.post(f"{EDGE}/sse", headers=headers, json=payload, stream=True, timeout=30)
    if response.status_code != 200:
        raise RuntimeError(f"HTTP {response.status_code}: {response.text}")
    heartbeats = 0
    for event in sseclient.SSEClient(response).events():
        data = json.loads(event.data)
        if event.event == "result":
            return data.get("result")
        if event.event == "error":
            raise RuntimeError(f"Tool error: {data['error']['message']} after {heartbeats} heartbeats")
        if event.event == "heartbeat":
            heartbeats += 1
    raise AssertionError("the stream ended without a result")


def refusal(tool):
    try:
        execute_tool(tool, {})
    except RuntimeError as error:
        return str(error)
    raise AssertionError(f"{tool} has a result")


assert execute_tool("now", {"text": "at once"}) == {"content": [{"type": "text", "text": "at once"}]}
assert execute_tool("later", {})["content"][0]["text"] == "later"
assert execute_tool("early", {})["content"][0]["text"] == "early"
assert refusal("refuses").startswith("Tool error: the title is missing"), refusal("refuses")
assert refusal("cut").startswith("Tool error: "), refusal("cut")
late = refusal("silent")
assert late.startswith("Tool error: the call did not end within") and " 0 heartbeats" not in late, late
print("client: ok")
