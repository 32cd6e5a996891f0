"""The m2gate side: one route with a parameter; and the same with handlers that wait or compute."""

import time

import gevent

from m2gate import App
from m2gate.app.request import Request

COMPUTING_S = 0.001

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


@app.get("/compute/{name}")
def compute(_request: Request, name: str) -> str:
    """Answer after a millisecond of this thread's CPU, as one who renders a page does."""
    until_s = time.thread_time() + COMPUTING_S
    while time.thread_time() < until_s:
        pass
    return f"Hello {name}\n"
