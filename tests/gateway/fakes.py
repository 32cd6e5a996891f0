"""A Mongrel2 and workers that only note what they are given, and frames as Mongrel2 sends them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from m2gate.gateway.counters import Counters
from m2gate.gateway.dispatch import Dispatcher
from m2gate.gateway.linked import LinkedServer
from m2gate.gateway.routing import Router
from m2gate.gateway.sessions import Session
from m2gate.gateway.settings import SiteSettings
from m2gate.gateway.workers import AttachedWorker, WorkerPools
from m2gate.link.clock import Clock
from m2gate.link.marks import MarkTable
from m2gate.link.server import LinkSettings, Server
from m2gate.link.sockets import DirectServer
from m2gate.wire import attach as wire
from m2gate.wire.mongrel2 import HeaderValue, Request, build_reply
from tests.wire.frames import build_message

FRAME = re.compile(rb"m2 [0-9]+:([0-9 ]+), (.*)", re.DOTALL)  # not what controls connections
FULL = {b"REMOTE_ADDR": b"127.0.0.1", b"URL_SCHEME": b"http", b"PATTERN": b"/", b"VERSION": b"HTTP/1.1"}


def request(conn_id: int, path: bytes = b"/", body: bytes = b"", **headers: HeaderValue) -> bytes:
    named = {name.encode(): value for name, value in headers.items()}
    given: dict[bytes, HeaderValue] = {**FULL, b"METHOD": b"GET", b"URI": path, b"PATH": path, **named}
    return build_message(Request(b"m2", conn_id, path, given, body))


def first(conn_id: int, path: bytes = b"/", **headers: HeaderValue) -> bytes:
    """The first request of a connection, at a server with flow control."""
    return request(conn_id, path, b"", **{"DOWNLOAD_CREDITS": b"102400", **headers})


def piece(conn_id: int, offset: int, body: bytes, *, is_last: bool = False) -> bytes:
    headers: dict[bytes, HeaderValue] = {b"UPLOAD_STREAM": b"%d" % offset}
    if is_last:
        headers[b"UPLOAD_STREAM_DONE"] = b"1"
    return build_message(Request(b"m2", conn_id, b"/up", headers, body))


def frame(conn_id: int, flags: bytes, body: bytes) -> bytes:
    return request(conn_id, b"/ws", body, METHOD=b"WEBSOCKET", FLAGS=flags)


def leave(conn_id: int) -> bytes:
    return b'm2 %d @* 16:6:METHOD,4:JSON,}21:{"type":"disconnect"},' % conn_id


def credits_(conn_id: int, amount: int) -> bytes:
    digits = b"%d" % amount
    headers = b"16:DOWNLOAD_CREDITS,%d:%s,6:METHOD,4:JSON," % (len(digits), digits)
    return b'm2 %d @* %d:%s}18:{"type":"credits"},' % (conn_id, len(headers), headers)


class Gate:
    """A dispatcher with one server and no sockets.

    ``sent``     what the server was sent. ``messages`` what each worker was sent, in order.
    """

    def __init__(
        self,
        folder: Path,
        workers: int = 2,
        capacity: int = 10,
        *,
        waiting_max: int = 10,
        upload_store: str | None = None,
        sites: Sequence[SiteSettings] = (),
    ) -> None:
        self.upload_store = upload_store
        self.folder = folder
        self.sent: list[bytes] = []
        self.messages: dict[str, list[bytes]] = {}
        self.pools = WorkerPools(waiting_max)
        self.pool = self.pools.get("")
        self.dispatcher = Dispatcher(Router(sites, self.pools), Counters())
        self.server = self.link(1)
        self.workers = [self.attach(f"w{number}", capacity) for number in range(1, workers + 1)]

    def link(self, number: int) -> LinkedServer:
        address = DirectServer(
            send_spec="ipc://a", recv_spec="ipc://b", send_ident="m2", upload_store=self.upload_store
        )
        link = Server(b"m2", self.sent.append, lambda _exchange: None, LinkSettings(), Clock())
        server = LinkedServer(number, address, self.sent.append, link)
        self.dispatcher.add(server)
        return server

    def attach(self, name: str, capacity: int = 10, handler: str = "") -> AttachedWorker:
        table = MarkTable.create(self.folder, name)
        attach = wire.Attach(name, 1, 1, table.path.name, capacity, 0, False, [], [], handler)
        messages = self.messages.setdefault(name, [])
        worker = AttachedWorker(name.encode(), attach, table, lambda _, message: messages.append(message), 0.0)
        worker.connected.add(self.server.number)
        self.pools.get(handler).workers[name.encode()] = worker
        return worker

    def take(self, *frames: bytes) -> None:
        for one in frames:
            self.dispatcher.take(self.server, one)
        self.flush()

    def flush(self) -> None:
        for pool in self.pools:
            for worker in pool.workers.values():
                worker.flush()

    def given(self, name: str) -> list[bytes]:
        """The frames that a worker was given so far."""
        messages = [one for one in self.messages[name] if one[:1] == wire.FRAMES]
        return [one for message in messages for one in wire.split_frames(message)]

    def done(self, worker: AttachedWorker, conn_id: int, sent: int = 0, what: int = wire.EXCHANGE_DONE) -> None:
        self.dispatcher.ended(worker, self.server.number, conn_id, what, sent)
        self.flush()

    def session(self, conn_id: int) -> Session:
        return self.server.sessions[conn_id]

    def owner(self, conn_id: int) -> AttachedWorker:
        return cast("AttachedWorker", self.session(conn_id).owner)

    def body(self, conn_id: int) -> bytes:
        """What a client was sent so far."""
        frames = [FRAME.fullmatch(one) for one in self.sent]
        return b"".join(one[2] for one in frames if one and conn_id in map(int, one[1].split()))

    @property
    def open(self) -> int:
        """What is open or waits, over all sessions."""
        sessions = self.server.sessions.values()
        return sum(len(one.open) + len(one.waiting or ()) + (one.held is not None) for one in sessions)

    def assert_counted(self) -> None:
        counters = self.dispatcher.counters
        failed = sum(counters.failed.values())
        assert counters.started == counters.finished + failed + self.open, counters


def reply(conn_id: int, body: bytes) -> bytes:
    return build_reply(b"m2", (conn_id,), body)
