"""An application whose handlers wait until a test lets all of them go on; it notes in which order they began."""

import os

import gevent
from gevent.event import Event

from m2gate import App, Request
from tests.system.shared import Gate, Ledger

app = App()
begun = Ledger("begun")
is_open = Event()


@app.on_start
def watch() -> None:
    def wait() -> None:
        Gate("go").wait()
        is_open.set()

    gevent.spawn(wait)


@app.get("/block/{number:int}")
def block(_request: Request, number: int) -> str:
    begun.append([os.getpid(), number])
    is_open.wait()
    return str(number)
