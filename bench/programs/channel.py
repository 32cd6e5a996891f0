"""The m2gate side of the broadcast: held streams on one channel or on several."""

import gevent

from bench.programs.items import ITEM
from m2gate import App, Hold
from m2gate.app.request import Request

app = App()

PUBLISHERS = 16


@app.get("/stream/{channel}")
def stream(_request: Request, channel: str) -> Hold:
    """Hold the connection; everything that is published to this channel goes to it."""
    return Hold(channels=[channel], mode="stream")


@app.get("/publish/{count:int}/{channels:int}")
def publish(_request: Request, count: int, channels: int) -> str:
    """Publish that many items, to one channel after the other, as fast as these take them."""
    boards = [app.channel(str(number)) for number in range(channels)]
    for _ in range(count // channels):
        for board in boards:
            board.publish(ITEM)
    return "published\n"


@app.get("/publish-apart/{count:int}/{channels:int}")
def publish_apart(_request: Request, count: int, channels: int) -> str:
    """Publish as above, each item in a turn of the loop of its own, so that none are merged."""
    boards = [app.channel(str(number)) for number in range(channels)]
    for _ in range(count // channels):
        for board in boards:
            board.publish(ITEM)
            gevent.sleep(0)
    return "published\n"


@app.get("/publish-together/{count:int}/{channels:int}")
def publish_together(_request: Request, count: int, channels: int) -> str:
    """Publish as above from PUBLISHERS greenlets, none of which waits for the items of the others to be accepted."""
    boards = [app.channel(str(number)) for number in range(channels)]
    work = iter(boards * (count // channels))

    def publish_some() -> None:
        for board in work:
            board.publish(ITEM)

    gevent.joinall([gevent.spawn(publish_some) for _ in range(PUBLISHERS)], raise_error=True)
    return "published\n"
