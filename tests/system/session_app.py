"""An application whose sessions are silent for as long as a test likes, and note their end."""

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import gevent

from m2gate import App, EventStream, Hold
from m2gate.errors import ConnectionGone
from tests.system.shared import Gate, Notes

LONG_S = 3600

app = App()
notes = Notes()


def begin(name: str, conn_id: int) -> dict[str, Any]:
    notes[name] = {"conn_id": conn_id, "ended": 0.0}
    own: dict[str, Any] = notes[name]
    return own


@app.get("/hello")
def hello(request: Any) -> str:
    return "hello"


@app.get("/notes")
def read_notes(request: Any) -> dict[str, Any]:
    return notes.read()


@app.post("/open/{name}")
def open_gate(request: Any, name: str) -> None:
    """Let the silent ones of this name speak."""
    Gate(name).set()
    app.channel(name).publish("published")


@app.get("/stream/{name}")
def stream(request: Any, name: str) -> Iterator[str]:
    own = begin(f"stream-{name}", request.conn_id)
    try:
        yield "first\n"
        Gate(name).wait()
        yield "last\n"
    finally:
        own["ended"] = time.monotonic()


@app.get("/events/{name}")
def events(request: Any, name: str) -> EventStream:
    """Silent server-sent events, without comments in between."""

    def source() -> Iterator[str]:
        own = begin(f"events-{name}", request.conn_id)
        try:
            yield "first"
            Gate(name).wait()
            yield "last"
        finally:
            own["ended"] = time.monotonic()

    return EventStream(source(), ping=LONG_S)


@app.get("/channel/{name}")
def channel(request: Any, name: str) -> EventStream:
    return EventStream(app.channel(name), ping=LONG_S)


@app.get("/poll/{name}")
def poll(request: Any, name: str) -> str:
    """Answer when the gate opens; a client that left meanwhile is seen by asking."""
    own = begin(f"poll-{name}", request.conn_id)
    while not Gate(name).wait(0.05):
        if not request.connected:
            own["ended"] = time.monotonic()
            raise ConnectionGone(request.server, request.conn_id)
    return "answered"


@app.get("/hold/{name}")
def hold(request: Any, name: str) -> Hold:
    begin(f"hold-{name}", request.conn_id)
    return Hold(channels=[name], mode="response", timeout=LONG_S)


@app.post("/upload/{name}")
def upload(request: Any, name: str) -> str:
    own = begin(f"upload-{name}", request.conn_id)
    try:
        return str(sum(len(piece) for piece in request.stream))
    finally:
        own["ended"] = time.monotonic()


@app.websocket("/ws/{name}")
def talk(ws: Any, name: str) -> None:
    own = begin(f"ws-{name}", ws.request.conn_id)
    for message in ws:
        ws.send(message)
    own["ended"] = time.monotonic()


@app.websocket("/idle")
def idle(ws: Any) -> None:
    """Close a client that says nothing for half a second."""
    while True:
        try:
            ws.send(ws.receive(timeout=0.5))
        except TimeoutError:
            ws.close(4000, "idle")
            return


@app.get("/patience")
def patience(request: Any) -> Iterator[str]:
    """End a stream after half a second in which its source had nothing to say."""
    yield "first\n"
    with suppress(gevent.Timeout), gevent.Timeout(0.5):
        Gate("never").wait()
    yield "gave up\n"
