"""The App that test_broadcast.py runs."""

from typing import Any

from m2gate import App, EventStream, Hold, Request, WebSocket

app = App()
news = app.channel("news")
tight = app.channel("tight", policy="block", limit=65_536)
oldest = app.channel("oldest", policy="drop-oldest", limit=65_536)
latest = app.channel("latest", policy="latest")
channels = {channel.name: channel for channel in (news, tight, oldest, latest)}


@app.get("/stream/{name}")
def stream(request: Request, name: str) -> Hold:
    return Hold(name, headers={"Content-Type": "text/plain"})


@app.get("/events/{name}")
def events(request: Request, name: str) -> EventStream:
    return EventStream(channels[name], ping=1)


@app.get("/poll/{name}")
def poll(request: Request, name: str) -> Hold:
    timeout = float(request.query.get("timeout", "55"))
    return Hold(name, mode="response", timeout=timeout, body={"timeout": True}, headers={"X-Hold": "yes"})


@app.websocket("/ws/{name}")
def talk(ws: WebSocket, name: str) -> None:
    with channels[name].join(ws):
        for message in ws:
            channels[name].publish(message)


@app.post("/publish/{name}")
def publish(request: Request, name: str) -> dict[str, Any]:
    """Publish ``count`` items of ``size`` bytes that begin with their number; tell how many each matched."""
    count, size = int(request.query["count"]), int(request.query["size"])
    first = int(request.query.get("first", "0"))
    matched = [channels[name].publish(f"{number:06d};".ljust(size, "x")) for number in range(first, first + count)]
    return {"matched": matched}


@app.post("/say/{name}")
def say(request: Request, name: str) -> dict[str, int]:
    return {"matched": channels[name].publish(request.json, event=request.query.get("event"))}


@app.get("/hello")
def hello(request: Request) -> str:
    return "hello"
