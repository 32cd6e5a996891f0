"""The m2gate side: one route with a parameter; and the same with a handler that waits."""

import gevent

from m2gate import App
from m2gate.app.request import Request

app = App()


@app.get("/hello/{name}")
def hello(_request: Request, name: str) -> str:
    """Answer at once."""
    return f"Hello {name}\n"


@app.get("/wait/{name}")
def wait(_request: Request, name: str) -> str:
    """Answer after a millisecond, as one who asked a database does."""
    gevent.sleep(0.001)
    return f"Hello {name}\n"
