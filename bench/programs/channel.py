"""The m2gate side of the broadcast: held streams on one channel."""

import gevent

from bench.programs.items import ITEM
from m2gate import App, Hold
from m2gate.app.request import Request

app = App()
board = app.channel("board")


@app.get("/stream")
def stream(_request: Request) -> Hold:
    """Hold the connection; everything that is published goes to it."""
    return Hold(channels=["board"], mode="stream")


@app.get("/publish/{count:int}")
def publish(_request: Request, count: int) -> str:
    """Publish that many items, as fast as the channel takes them."""
    for _ in range(count):
        board.publish(ITEM)
    return "published\n"


@app.get("/publish-apart/{count:int}")
def publish_apart(_request: Request, count: int) -> str:
    """Publish that many items, each in a turn of the loop of its own, so that none are merged."""
    for _ in range(count):
        board.publish(ITEM)
        gevent.sleep(0)
    return "published\n"
