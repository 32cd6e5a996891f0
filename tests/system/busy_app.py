"""An application whose handlers wait together, and which can be told to go on when no handler is free.

$COUNTS names a file with the number of those that wait at the gate; SIGUSR1 opens the gate.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event as Flag

from m2gate import App

app = App()
gate = Flag()
counts = Path(os.environ["COUNTS"])
tally = {"waiting": 0, "most": 0}


@app.on_start
def listen() -> None:
    gevent.signal_handler(signal.SIGUSR1, gate.set)


def count(change: int) -> None:
    tally["waiting"] += change
    tally["most"] = max(tally["most"], tally["waiting"])
    counts.write_text(str(tally["waiting"]))


@app.get("/hello")
def hello(request: Any) -> str:
    return "hello"


@app.get("/notes")
def notes(request: Any) -> dict[str, int]:
    return tally


@app.get("/sleep/{milliseconds:int}")
def sleep(request: Any, milliseconds: int) -> str:
    time.sleep(milliseconds / 1000)
    return "slept"


@app.get("/gate")
def wait(request: Any) -> str:
    count(1)
    gate.wait()
    count(-1)
    return "through"


@app.get("/stream/{size:int}")
def stream(request: Any, size: int) -> Iterator[bytes]:
    count(1)
    for _ in range(size // 10_000):
        yield b"x" * 10_000
    count(-1)


@app.post("/upload")
def upload(request: Any) -> str:
    count(1)
    size = sum(len(piece) for piece in request.stream)
    count(-1)
    return str(size)


@app.websocket("/echo")
def echo(ws: Any) -> None:
    count(1)
    for message in ws:
        ws.send(message)
    count(-1)


@app.websocket("/deaf")
def deaf(ws: Any) -> None:
    """Accept, and read nothing before the gate opens; then send everything back."""
    ws.accept()
    count(1)
    gate.wait()
    for message in ws:
        ws.send(message)
    count(-1)
