"""The App that test_status.py runs: something of every kind that is counted."""

from collections.abc import Iterator

from gevent.event import Event

from m2gate import App, Hold, Request, WebSocket

app = App()
news = app.channel("news")
go = Event()


@app.get("/")
def index(request: Request) -> str:
    return "here"


@app.post("/size")
def size(request: Request) -> dict[str, int]:
    return {"size": len(request.body)}


@app.get("/fail")
def fail(request: Request) -> str:
    raise RuntimeError("as it was asked to")


@app.get("/break")
def break_off(request: Request) -> Iterator[str]:
    yield "a part"
    raise RuntimeError("in the middle")


@app.get("/wait")
def wait(request: Request) -> str:
    go.wait()
    return "done"


@app.get("/go")
def let_go(request: Request) -> str:
    go.set()
    return "gone"


@app.get("/hold")
def hold(request: Request) -> Hold:
    return Hold("news")


@app.websocket("/talk")
def talk(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)


@app.post("/publish/{count:int}")
def publish(request: Request, count: int) -> dict[str, list[int]]:
    return {"matched": [news.publish(str(number)) for number in range(count)]}
