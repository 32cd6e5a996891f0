"""Everything a worker can have open, for tests in which workers are killed and replaced under load."""

import hashlib
import os
import time
from collections.abc import Iterator

import gevent

from m2gate import App, EventStream, Hold, Request, Response, WebSocket

app = App()
news = app.channel("news")
OWN = {"X-Worker": str(os.getpid())}
BLOCK = bytes(range(256)) * 256


@app.get("/ok/{token}")
def ok(_request: Request, token: str) -> Response:
    return Response(token, headers=OWN)


@app.get("/sleep/{ms:int}/{token}")
def sleep(_request: Request, ms: int, token: str) -> Response:
    gevent.sleep(ms / 1000)
    return Response(token, headers=OWN)


@app.get("/compute/{seconds:int}/{token}")
def compute(_request: Request, seconds: int, token: str) -> Response:
    """Let nobody else of this worker have a turn."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        pass
    return Response(token, headers=OWN)


@app.post("/digest")
def digest(request: Request) -> Response:
    hashed = hashlib.sha256()
    for piece in request.stream:
        hashed.update(piece)
    return Response(hashed.hexdigest(), headers=OWN)


@app.get("/blocks/{count:int}/{token}")
def blocks(_request: Request, count: int, token: str) -> Response:
    return Response((b"%b %d " % (token.encode(), number) + BLOCK for number in range(count)), headers=OWN)


@app.get("/ticks")
def ticks(_request: Request) -> Response:
    """Events that their worker makes, for ever."""

    def numbers() -> Iterator[str]:
        number = 0
        while True:
            yield str(number)
            number += 1
            gevent.sleep(0.05)

    return Response(EventStream(numbers()), headers=OWN)


@app.get("/events")
def events(_request: Request) -> EventStream:
    return EventStream(news)


@app.get("/poll")
def poll(_request: Request) -> Hold:
    return Hold(news, mode="response", timeout=30, body="timeout")


@app.websocket("/echo")
def echo(ws: WebSocket) -> None:
    ws.send(f"worker {os.getpid()}")
    for message in ws:
        ws.send(message)


@app.websocket("/news")
def room(ws: WebSocket) -> None:
    ws.send(f"worker {os.getpid()}")  # nothing that is published may come before it
    with news.join(ws):
        for _ in ws:
            pass


@app.post("/publish")
def publish(request: Request) -> dict[str, int]:
    return {"matched": news.publish(request.text)}
