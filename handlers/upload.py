"""Upload with a progress bar.

The handler gets the body in pieces while the browser is still sending, and keeps none of them.

It reads as slowly as it likes: what it has not read, the browser has to wait with, and the memory of the server
stays flat whatever the size.
"""

import hashlib
import time
from typing import Any, Final

import gevent
from _page import html_page

from m2gate import App, HTTPError, Request, Response

app = App()

MIB: Final = 1 << 20
LARGEST: Final = 4 << 30  # bytes; more is answered 413


@app.get("/")
def page(request: Request) -> Response:
    return html_page(__file__)


@app.route("/file", methods=["POST"], max_body=LARGEST)
def receive(request: Request) -> dict[str, Any]:
    """Hash the body as it comes; ``?rate=N`` reads at most N MiB a second."""
    rate = number(request.query.get("rate", "0")) * MIB
    begin = time.monotonic()
    digest = hashlib.sha256()
    size = 0
    for piece in request.stream:
        digest.update(piece)
        size += len(piece)
        if rate:
            gevent.sleep(max(0.0, begin + size / rate - time.monotonic()))
    return {"bytes": size, "sha256": digest.hexdigest(), "seconds": round(time.monotonic() - begin, 3)}


def number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise HTTPError(400, "rate is a whole number of MiB a second")
    return int(text)
