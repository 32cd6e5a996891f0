"""An application behind a proxy: what it sees of its client, and when pieces come and go."""

from collections.abc import Iterator

from gevent.event import Event as Signal

from m2gate import App, EventStream, Request, WebSocket

app = App(trusted_proxies=["127.0.0.1"])
go_on = Signal()
sizes: list[int] = []


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
