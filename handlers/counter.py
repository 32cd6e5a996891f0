"""A counter on a JSON socket.

Programs talk to Mongrel2 on the same port without HTTP; this page sees them count.

A message is a name, a JSON text and a NUL byte, and the answer comes the same way. Each one is also published to a
channel, and the page has an event stream from that.
"""

from typing import Any, Final

from _page import html_page

from m2gate import App, EventStream, HTTPError, Request, Response

app = App()
changes = app.channel("counter")

STEP_MAX: Final = 1_000


class Counter:
    """The count of this worker's life."""

    total = 0


@app.json_socket("@counter")
def count(request: Request) -> dict[str, int]:
    """Answer ``{"add": 2}`` with ``{"total": ...}``; ``{}`` adds 1."""
    sent = request.json
    return add(sent.get("add", 1) if isinstance(sent, dict) else None)


@app.get("/")
def page(request: Request) -> Response:
    return html_page(__file__)


@app.post("/add")
def count_by_http(request: Request) -> dict[str, int]:
    return add(1)


@app.get("/total")
def total(request: Request) -> dict[str, int]:
    return {"total": Counter.total}


@app.get("/changes")
def watch(request: Request) -> EventStream:
    return EventStream(changes)


def add(step: Any) -> dict[str, int]:
    if type(step) is not int or abs(step) > STEP_MAX:
        raise HTTPError(400, f'send {{"add": N}} with a whole number up to {STEP_MAX}')
    Counter.total += step
    now = {"total": Counter.total}
    changes.publish(now)
    return now
