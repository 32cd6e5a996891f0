"""A clock of server-sent events.

The handler returns a generator, and each event it yields is in the browser at once.

It runs while the browser takes events; when the browser leaves, the generator is closed, and its ``finally`` keeps
the count of watchers right.
"""

import time
from collections.abc import Iterator

import gevent
from _page import html_page

from m2gate import App, Event, EventStream, Request, Response

app = App()


class Watchers:
    """How many streams are open in this worker."""

    count = 0


@app.get("/")
def page(request: Request) -> Response:
    return html_page(__file__)


@app.get("/ticks")
def ticks(request: Request) -> EventStream:
    return EventStream(tick_each_second())


def tick_each_second() -> Iterator[Event]:
    Watchers.count += 1
    try:
        second = int(time.time())
        while True:
            shown = time.strftime("%H:%M:%S", time.localtime(second))
            yield Event({"time": shown, "watchers": Watchers.count}, event="tick", id=str(second))
            second = max(second + 1, int(time.time()))
            gevent.sleep(max(0.0, second - time.time()))
    finally:
        Watchers.count -= 1
