"""An application behind a proxy: what it sees of its client, and when pieces come and go."""

from collections.abc import Iterator

from gevent.event import Event as Signal

from m2gate import App, EventStream, Request, WebSocket

app = App(trusted_proxies=["127.0.0.1"])
go_on = Signal()
sizes: list[int] = []
sent: list[int] = []
PIECE = 64 * 1024


@app.get("/whoami")
def whoami(request: Request) -> dict[str, object]:
    return {
        "client": request.client,
        "scheme": request.scheme,
        "host": request.host,
        "forwarded": request.headers.getlist("X-Forwarded-For"),
    }


@app.get("/events")
def events(request: Request) -> EventStream:
    """One event at once, the other one when the client says that it has the first."""

    def source() -> Iterator[str]:
        yield "first"
        go_on.wait()
        yield "second"

    go_on.clear()
    return EventStream(source())


@app.get("/lines")
def lines(request: Request) -> Iterator[str]:
    go_on.clear()
    yield "first\n"
    go_on.wait()
    yield "second\n"


@app.get("/flood")
def flood(request: Request) -> Iterator[bytes]:
    """As much as the client takes."""
    sent[:] = [0]
    try:
        while True:
            yield b"x" * PIECE
            sent[0] += PIECE
    finally:
        sent[0] = -1


@app.get("/silence")
def silence(request: Request) -> Iterator[str]:
    """One line, and then nothing until the client leaves."""
    sent[:] = [0]
    try:
        yield "first\n"
        Signal().wait()
    finally:
        sent[0] = -1


@app.get("/pings")
def pings(request: Request) -> EventStream:
    """As /silence, with a ping each second."""

    def source() -> Iterator[str]:
        sent[:] = [0]
        try:
            yield "first"
            Signal().wait()
        finally:
            sent[0] = -1

    return EventStream(source(), ping=1)


@app.get("/sent")
def tell_sent(request: Request) -> dict[str, int]:
    """What the last flood or silence has sent; -1 once it has ended."""
    return {"size": sum(sent)}


@app.post("/go-on")
def let_go_on(request: Request) -> None:
    go_on.set()


@app.post("/upload")
def upload(request: Request) -> dict[str, int]:
    sizes[:] = [0]
    for piece in request.stream:
        sizes[0] += len(piece)
    return {"size": sizes[0]}


@app.get("/uploaded")
def uploaded(request: Request) -> dict[str, int]:
    return {"size": sum(sizes)}


@app.websocket("/echo")
def echo(ws: WebSocket) -> None:
    ws.send(ws.request.client)
    for message in ws:
        ws.send(message)
