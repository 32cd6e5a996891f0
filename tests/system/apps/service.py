"""An App for tests of restarts, drains, tokens and JSON sockets."""

from collections.abc import Iterator

import gevent

from m2gate import App, Connection, ConnectionGone, HTTPError, Request, Response, WebSocket
from tests.system.shared import Ledger, Notes

app = App()
events = Ledger()
tokens = Notes("tokens")


@app.on_start
def start() -> None:
    events.append("start")


@app.get("/ok/{name}")
def ok(_request: Request, name: str) -> str:
    return name


@app.get("/sleep/{ms:int}/{name}")
def sleep(_request: Request, ms: int, name: str) -> str:
    gevent.sleep(ms / 1000)
    return name


@app.get("/events")
def seen(_request: Request) -> list[str]:
    return events.read()


@app.get("/stream/{name}")
def stream(_request: Request, name: str) -> Response:
    def pieces() -> Iterator[bytes]:
        try:
            while True:
                yield b"piece\n"
                gevent.sleep(0.05)
        finally:
            events.append(f"finally {name}")

    return Response(pieces())


@app.get("/flood/{name}")
def flood(_request: Request, name: str) -> Response:
    def pieces() -> Iterator[bytes]:
        while True:
            yield bytes(65_536)

    return Response(pieces())


@app.post("/body/{name}")
def body(request: Request, name: str) -> str:
    try:
        for _ in request.stream:
            pass
    except ConnectionGone:
        events.append(f"gone {name}")
        raise
    return name


@app.websocket("/ws/{name}")
def ws(ws: WebSocket, name: str) -> None:
    for message in ws:
        ws.send(message)
    events.append(f"ws {name} {ws.close_code}")


@app.get("/detach/{name}")
def detach(request: Request, name: str) -> None:
    tokens[name] = request.detach().token


@app.get("/token/{name}")
def token(_request: Request, name: str) -> str:
    return str(tokens[name])


@app.get("/answer/{name}/{text}")
def answer(_request: Request, name: str, text: str) -> str:
    connection = Connection.from_token(tokens[name])
    try:
        connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
    except ConnectionGone:
        raise HTTPError(410) from None
    return "sent"


@app.json_socket("@sum")
def add(request: Request) -> dict[str, int]:
    return {"sum": sum(request.json["numbers"])}


@app.json_socket("@text")
def text(_request: Request) -> str:
    return "plain text"
