"""A gateway that says what a test wants, a Mongrel2 that only listens, and a worker between them, in one process."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import zmq
from gevent import get_hub

from m2gate import App
from m2gate.link.clock import Clock
from m2gate.link.server import LinkSettings
from m2gate.link.tally import Tally
from m2gate.wire import attach
from m2gate.wire.attach import Attach, ServerNote
from m2gate.wire.mongrel2 import Request
from m2gate.worker.attached import AttachedSettings, AttachLink
from m2gate.worker.pool import Pool
from tests.system.processes import short_directory
from tests.wire.frames import build_message

DEADLINE_S = 10.0


def until(condition: Callable[[], Any]) -> Any:
    """Wait for a condition, and return what it returned."""
    with gevent.Timeout(DEADLINE_S):
        while not (found := condition()):
            gevent.sleep(0.001)
    return found


class FakeGateway:
    """The ROUTER that a worker attaches to."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", folder: Path) -> None:
        self.identity = b""
        self._socket = context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.bind(f"ipc://{folder}/workers")

    def receive(self, kind: bytes) -> bytes:
        """Return the next message, which is of this kind."""
        message: bytes = until(self._receive)
        assert message[:1] == kind, message
        return message

    def next_of(self, kind: bytes) -> bytes:
        """Return the next message of this kind; others are passed over."""
        while True:
            message: bytes = until(self._receive)
            if message[:1] == kind:
                return message

    def _receive(self) -> bytes | None:
        try:
            self.identity, message = self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        return message

    def is_silent(self) -> bool:
        """Tell that nothing was said, after everybody had a chance to."""
        for _ in range(20):
            gevent.sleep(0.001)
        return self._receive() is None

    def done(self) -> tuple[int, list[tuple[int, int, int, int]]]:
        """Return the next report: frames seen, and its records."""
        seen, records = attach.parse_done(self.receive(attach.DONE))
        return seen, list(records)

    def say(self, *messages: bytes) -> None:
        for message in messages:
            self._socket.send_multipart([self.identity, message], zmq.NOBLOCK)

    def frames(self, *frames: bytes) -> None:
        self.say(attach.build_frames(frames))

    def close(self, linger_ms: int = 0) -> None:
        self._socket.close(linger=linger_ms)


class FakeMongrel2:
    """The SUB of one Mongrel2: what it was sent."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", folder: Path, ident: str = "m2") -> None:
        self.ident = ident.encode()
        self.spec = f"ipc://{folder}/{ident}"
        self.sent: list[bytes] = []
        self._socket = context.socket(zmq.SUB)
        self._socket.linger = 0
        self._socket.bind(self.spec)
        self._socket.subscribe(self.ident + b" ")
        # A subscription leaves only when somebody uses the socket after the other end has come.
        self._reader = gevent.spawn(self._read)

    def note(self, number: int) -> ServerNote:
        return ServerNote(number, self.ident, self.spec, "")

    def request(self, conn_id: int, path: bytes = b"/", method: bytes = b"GET", **headers: bytes) -> bytes:
        fields: dict[bytes, Any] = {
            b"METHOD": method, b"VERSION": b"HTTP/1.1", b"PATTERN": b"/", b"DOWNLOAD_CREDITS": b"102400",
        }  # fmt: skip
        fields |= {name.encode(): value for name, value in headers.items()}
        return build_message(Request(self.ident, conn_id, path, fields, b""))

    def handshake(self, conn_id: int, path: bytes = b"/ws") -> bytes:
        fields: dict[bytes, Any] = {
            b"METHOD": b"WEBSOCKET_HANDSHAKE", b"VERSION": b"HTTP/1.1", b"PATTERN": b"/", b"host": b"h",
            b"sec-websocket-version": b"13", b"DOWNLOAD_CREDITS": b"102400",
        }  # fmt: skip
        return build_message(Request(self.ident, conn_id, path, fields, b"accept"))

    def credits(self, conn_id: int, amount: int) -> bytes:
        headers = b"16:DOWNLOAD_CREDITS,%d:%d,6:METHOD,4:JSON," % (len(b"%d" % amount), amount)
        return b'%b %d @* %d:%b}18:{"type":"credits"},' % (self.ident, conn_id, len(headers), headers)

    def leave(self, conn_id: int) -> bytes:
        return b'%b %d @* 16:6:METHOD,4:JSON,}21:{"type":"disconnect"},' % (self.ident, conn_id)

    def _read(self) -> None:
        while True:
            try:
                self.sent.append(self._socket.recv(zmq.NOBLOCK))
            except zmq.Again:
                gevent.sleep(0.001)

    def taken(self, conn_id: int) -> bytes:
        """Return what the client of conn_id was sent so far."""
        found = []
        for frame in self.sent:
            targets, _, body = frame.split(b" ", 1)[1].partition(b":")[2].partition(b", ")
            if b"%d" % conn_id in targets.split(b" ") and not targets.startswith(b"X"):
                found.append(body)
        return b"".join(found)

    def close(self) -> None:
        self._reader.kill()
        self._socket.close(linger=0)


class Attached:
    """A worker with an App, its gateway and its Mongrel2."""

    def __init__(self, app: App, folder: Path, max_handlers: int) -> None:
        self.folder = folder
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.gateway = FakeGateway(self.context, folder)
        self.mongrel2 = FakeMongrel2(self.context, folder)
        self.app = app
        self.tally = Tally()
        self.pool = Pool(app.handle, max_handlers)
        settings = AttachedSettings(folder=folder, name="w1", generation=2, capacity=max_handlers)
        self.link = AttachLink(self.context, settings, self.pool, LinkSettings(), clock=Clock(), tally=self.tally)
        app.broadcast = self.link.broadcast
        self.link.start()
        self.link.may_serve.set()

    def introduction(self) -> Attach:
        return attach.parse_attach(self.gateway.receive(attach.ATTACH))

    def connect(self, number: int = 1) -> Attach:
        """Attach, and connect to the Mongrel2 as the server of this number."""
        found = self.introduction()
        self.gateway.say(attach.build_servers([self.mongrel2.note(number)]))
        assert attach.parse_connected(self.gateway.next_of(attach.CONNECTED)) == number
        return found

    def restart_gateway(self, linger_ms: int = 0) -> None:
        """Let the gateway die, until the worker has noticed, and another one come."""
        self.gateway.close(linger_ms)
        until(lambda: not self.link.is_attached)
        self.gateway = FakeGateway(self.context, self.folder)

    def sent(self, conn_id: int, end: bytes) -> bytes:
        """Wait until the client of conn_id was sent something that ends so; return all of it."""
        until(lambda: self.mongrel2.taken(conn_id).endswith(end))
        return self.mongrel2.taken(conn_id)

    def close(self) -> None:
        with gevent.Timeout(DEADLINE_S):
            self.link.stop()
        self.gateway.close()
        self.mongrel2.close()
        self.context.destroy(linger=0)


@contextmanager
def attached(app: App, max_handlers: int = 100) -> Iterator[Attached]:
    """Run an App attached to a FakeGateway."""
    with short_directory() as folder:
        worker = Attached(app, folder, max_handlers)
        try:
            yield worker
        finally:
            worker.close()


def block_thread(seconds: float) -> None:
    """Compute, without letting anybody else in this thread run."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        pass
    get_hub()
