"""An application that sends and takes large bodies, and says what its handlers have seen.

``/notes`` returns what they noted, so that a test sees from outside what happened inside.
"""

import hashlib
import time
from collections.abc import Iterator
from typing import Any

import gevent

from m2gate import App, EventStream, Response
from m2gate.errors import ConnectionGone, HTTPError
from tests.system.shared import Gate, Notes

MIB = 1 << 20
BLOCK = hashlib.shake_128(b"m2gate").digest(MIB)

app = App()
notes = Notes()


def content(size: int, piece: int = MIB) -> Iterator[bytes]:
    """Yield size bytes in such pieces, each of which begins like BLOCK."""
    block = BLOCK * -(-piece // MIB)
    for start in range(0, size, piece):
        yield block[: min(piece, size - start)]


@app.get("/notes")
def read_notes(request: Any) -> dict[str, Any]:
    return notes.read()


@app.post("/open/{name}")
def open_gate(request: Any, name: str) -> None:
    Gate(name).set()


@app.get("/hello")
def hello(request: Any) -> str:
    return "hello"


@app.get("/echo/{text}")
def echo(request: Any, text: str) -> str:
    """Answer with the text; the first of a pipeline may be slow."""
    time.sleep(float(request.query.get("sleep", 0)))
    return text


# -- what it sends ----------------------------------------------------------------------------------


@app.get("/stream/{size:int}")
def stream(request: Any, size: int) -> Iterator[bytes]:
    """Yield size bytes and note how many were asked for."""
    name = request.query.get("name", "stream")
    notes[name] = {"produced": 0, "finally": 0.0}
    try:
        for piece in content(size, int(request.query.get("piece", MIB))):
            yield piece
            notes[name]["produced"] += len(piece)
    finally:
        notes[name]["finally"] = time.monotonic()


@app.get("/whole/{size:int}")
def whole(request: Any, size: int) -> bytes:
    return b"".join(content(size))


@app.get("/small/{count:int}")
def small(request: Any, count: int) -> Iterator[str]:
    for number in range(count):
        yield f"{number}\n"


@app.get("/asleep/{name}")
def asleep(request: Any, name: str) -> Iterator[bytes]:
    """Send one piece, then sleep much longer than a test waits."""
    notes[name] = {"finally": 0.0}
    try:
        yield b"first"
        time.sleep(600)
        yield b"last"
    finally:
        notes[name]["finally"] = time.monotonic()


@app.get("/events/{name}")
def events(request: Any, name: str) -> EventStream:
    def source() -> Iterator[str]:
        notes[name] = {"finally": 0.0}
        try:
            yield "first"
            gevent.sleep(600)
        finally:
            notes[name]["finally"] = time.monotonic()

    return EventStream(source())


@app.get("/broken")
def broken(request: Any) -> Iterator[bytes]:
    """Fail after 300 kB."""
    yield BLOCK[:300_000]
    raise RuntimeError("as a test wants it")


@app.get("/status/{status:int}")
def status(request: Any, status: int) -> Response:
    return Response(b"" if status in (204, 304) else b"body", status)


@app.websocket("/frames/{count:int}")
def frames(ws: Any, count: int) -> None:
    """Send count messages of 1,000 bytes, as fast as the client takes them."""
    notes["frames"] = 0
    for _ in range(count):
        ws.send(BLOCK[:1000])
        notes["frames"] += 1


# -- what it takes ----------------------------------------------------------------------------------


@app.route("/digest", ["POST"], max_body=2000 * MIB)
def digest(request: Any) -> dict[str, Any]:
    hashed, size = hashlib.sha256(), 0
    for piece in request.stream:
        hashed.update(piece)
        size += len(piece)
    headers = sorted(name for name, _ in request.headers if "upload" in name.lower())
    return {"size": size, "sha256": hashed.hexdigest(), "upload_headers": headers}


@app.route("/gated/{name}", ["POST"], max_body=2000 * MIB)
def gated(request: Any, name: str) -> dict[str, Any]:
    """Read one piece, and the rest once the gate of that name is open."""
    size = len(next(iter(request.stream)))
    notes[name] = {"read": size}
    Gate(name).wait()
    for piece in request.stream:
        size += len(piece)
        notes[name]["read"] = size
    return {"size": size}


@app.route("/reader/{name}", ["POST"], max_body=2000 * MIB)
def reader(request: Any, name: str) -> str:
    """Note when the client is gone."""
    notes[name] = {"read": 0, "gone": 0.0}
    if "gate" in request.query:
        Gate(name).wait()
    try:
        for piece in request.stream:
            notes[name]["read"] += len(piece)
    except ConnectionGone:
        notes[name]["gone"] = time.monotonic()
        raise
    return "all"


@app.route("/limited", ["POST"], max_body=MIB)
def limited(request: Any) -> str:
    """Read everything; more than 1 MiB is too much."""
    return str(sum(len(piece) for piece in request.stream))


@app.route("/unread", ["POST"], max_body=2000 * MIB)
def unread(request: Any) -> str:
    return "not read"


@app.route("/half", ["POST"], max_body=2000 * MIB)
def half(request: Any) -> str:
    """Read one piece and answer."""
    return str(len(next(iter(request.stream))) > 0)


@app.route("/refused", ["POST"], max_body=2000 * MIB)
def refused(request: Any) -> str:
    """Refuse after the first piece."""
    next(iter(request.stream))
    raise HTTPError(403, "not you")
