"""One handler for each promise that only a real server shows to be kept."""

import gevent

from m2gate import App, EventStream, Hold, HTTPError, Request
from tests.system.shared import Ledger

app = App(max_body=100)
inner = App(max_body=10)
news = app.channel("news")
seen = Ledger()


@inner.post("/size")
@app.post("/size")
def size(request: Request) -> dict[str, int]:
    return {"size": sum(len(piece) for piece in request.stream)}


@app.get("/refused")
def refused(request: Request) -> None:
    raise HTTPError(409, "taken already", {"X-Reason": "name"})


@app.get("/answer")
def answer(request: Request) -> Hold:
    return Hold(news, mode="response", timeout=30)


@app.get("/late")
def late(request: Request) -> Hold:
    return Hold("nobody", mode="response", timeout=0.2, body={"late": True}, status=202)


@app.get("/stream")
def stream(request: Request) -> Hold:
    return Hold(["news"], mode="stream", body="begin\n")


@app.get("/events")
def events(request: Request) -> EventStream:
    return EventStream(news)


@app.route("/publish", ["POST"], max_body=10_000)
def publish(request: Request) -> dict[str, int]:
    return {"matched": news.publish(**request.json)}


@app.get("/endless")
def endless(request: Request):  # type: ignore[no-untyped-def]  # an iterator of str
    try:
        while True:
            yield "x"
            gevent.sleep(0.01)
    except GeneratorExit:
        seen.append("GeneratorExit")
        raise


@app.get("/seen")
def seen_(request: Request) -> list[str]:
    return seen.read()


app.mount("/in", app=inner)
