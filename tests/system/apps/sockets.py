"""The App of the WebSocket tests."""

import gevent

from m2gate import App, ConnectionGone, HTTPError, WebSocket
from tests.system.shared import Ledger

app = App(origins=["https://friend.example"])
closed = Ledger()


@app.websocket("/echo", subprotocols=["two", "one"])
def echo(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)
    closed.append(ws.close_code)


@app.get("/closed")
def closes(_request: object) -> list[int]:
    return closed.read()


@app.websocket("/refuse")
def refuse(_ws: WebSocket) -> None:
    raise HTTPError(401, "not you")


@app.websocket("/fail")
def fail(ws: WebSocket) -> None:
    ws.receive()
    raise RuntimeError("on purpose")


@app.websocket("/bye")
def bye(ws: WebSocket) -> None:
    ws.close(4001, "bye")


@app.websocket("/return")
def leave(ws: WebSocket) -> None:
    ws.send("only this")


@app.websocket("/late")
def late(ws: WebSocket) -> None:
    gevent.sleep(0.3)  # messages that come before the 101 wait
    for message in ws:
        ws.send(message)


@app.websocket("/slow")
def slow(ws: WebSocket) -> None:
    ws.accept()
    gevent.sleep(30)


@app.websocket("/timeout")
def timeout(ws: WebSocket) -> None:
    try:
        ws.receive(timeout=0.1)
    except TimeoutError:
        ws.send("timeout")


@app.websocket("/ping")
def ping(ws: WebSocket) -> None:
    ws.ping(b"are you there")
    try:
        ws.receive()
    except ConnectionGone:
        closed.append(-1)


@app.websocket("/room/{name}/{n:int}")
def room(ws: WebSocket, name: str, n: int) -> None:
    ws.send(f"{name} {n + 1} {ws.subprotocol}")
