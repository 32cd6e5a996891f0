"""A Server without sockets: what Mongrel2 would say goes in as frames, what it is told is a list."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent
import tnetstring

from m2gate.link.clock import Clock
from m2gate.link.connection import Connection
from m2gate.link.exchange import Exchange
from m2gate.link.server import LinkSettings, Server
from m2gate.wire.mongrel2 import HeaderValue, Request
from tests.wire.frames import build_message

DEADLINE_S = 10.0
_SENT = re.compile(rb"([A-Za-z0-9-]+) (\d+):((?:X )?[0-9 ]+), (.*)", re.DOTALL)


@dataclass
class Sent:
    """One frame to Mongrel2, parsed as Mongrel2 does; control is the dictionary of a ``ctl``."""

    ident: bytes
    conn_ids: list[int]
    body: bytes
    control: dict[bytes, Any] | None = None


def parse_sent(frame: bytes) -> Sent:
    found = _SENT.fullmatch(frame)
    assert found is not None, frame[:200]
    ident, length, targets, body = found.groups()
    assert int(length) == len(targets)
    words = targets.split(b" ")
    if words[0] != b"X":
        return Sent(ident, [int(word) for word in words], body)
    assert len(words) <= 128  # X counts
    (key, entries), rest = tnetstring.pop(body)
    assert (key, rest) == (b"ctl", b"")
    return Sent(ident, [int(word) for word in words[1:]], b"", entries)


class ManualClock(Clock):
    """A clock that stands still until a test moves it."""

    __slots__ = ()

    def tick(self) -> None:
        """Keep the time; there must be a Date line."""
        self.date_line = b"Date: now\r\n"

    def move(self, seconds: float) -> None:
        self.now_s += seconds


class FakeMongrel2:
    """The far end of one Server: say what comes from Mongrel2, look at what goes to it."""

    def __init__(self, ident: bytes = b"m2", upload_store: str | None = None, **settings: Any) -> None:
        self.ident = ident
        self.frames: list[bytes] = []
        self.runnable: list[Exchange] = []
        self.clock = ManualClock()
        self._paid: dict[int, int] = {}
        self.server = Server(
            ident,
            self.frames.append,
            self.runnable.append,
            LinkSettings(**settings),
            self.clock,
            upload_store=upload_store,
        )

    def message(self, conn_id: int, headers: dict[bytes, HeaderValue], body: bytes = b"", path: bytes = b"/") -> Any:
        return self.server.dispatch(build_message(Request(self.ident, conn_id, path, headers, body)))

    def request(
        self,
        conn_id: int,
        method: bytes = b"GET",
        path: bytes = b"/",
        body: bytes = b"",
        credits: int | None = 102_400,  # noqa: A002
        **headers: HeaderValue,
    ) -> Any:
        """Let a request come; return the exchange that may run now, if any."""
        fields: dict[bytes, HeaderValue] = {b"METHOD": method, b"VERSION": b"HTTP/1.1", b"PATTERN": b"/"}
        if credits is not None:
            fields[b"DOWNLOAD_CREDITS"] = b"%d" % credits
        for name, value in headers.items():
            fields[name.replace("_", "-").encode() if name.islower() else name.encode()] = value
        return self.message(conn_id, fields, body, path)

    def opened(self, conn_id: int, method: bytes = b"GET", **options: Any) -> Exchange:
        exchange = self.request(conn_id, method, **options)
        assert isinstance(exchange, Exchange)
        return exchange

    def piece(self, conn_id: int, offset: int, data: bytes, *, is_last: bool = False) -> None:
        headers: dict[bytes, HeaderValue] = {b"UPLOAD_STREAM": b"%d" % offset}
        if is_last:
            headers[b"UPLOAD_STREAM_DONE"] = b"1"
        self.message(conn_id, headers, data)

    def leave(self, conn_id: int) -> None:
        self.server.dispatch(b'%b %d @* 16:6:METHOD,4:JSON,}21:{"type":"disconnect"},' % (self.ident, conn_id))

    def pay(self, conn_id: int, amount: int) -> None:
        digits = b"%d" % amount
        headers = b"16:DOWNLOAD_CREDITS,%d:%b,6:METHOD,4:JSON," % (len(digits), digits)
        self.server.dispatch(b'%b %d @* %d:%b}18:{"type":"credits"},' % (self.ident, conn_id, len(headers), headers))

    def pay_next(self, conn_id: int) -> int:
        """Let the credits of the oldest message to conn_id come back; return how many."""
        number = self._paid.get(conn_id, 0)
        self._paid[conn_id] = number + 1
        amount = [len(one.body) for one in self.sent if conn_id in one.conn_ids][number]
        self.pay(conn_id, amount)
        return amount

    def connection(self, conn_id: int) -> Connection:
        return self.server.connections[conn_id]

    @property
    def sent(self) -> list[Sent]:
        return [parse_sent(frame) for frame in self.frames]

    def taken(self, conn_id: int) -> bytes:
        """Return everything that the client of conn_id was sent."""
        return b"".join(one.body for one in self.sent if conn_id in one.conn_ids)

    def controls(self, entry: bytes) -> list[tuple[list[int], Any]]:
        """Return targets and value of each control message with this entry."""
        return [(one.conn_ids, one.control[entry]) for one in self.sent if one.control and entry in one.control]

    def closed(self, conn_id: int) -> int:
        """Count the closing messages to conn_id."""
        return sum(one.control is None and one.body == b"" and conn_id in one.conn_ids for one in self.sent)


def settle() -> None:
    """Let every greenlet run until it waits for something that has not happened."""
    for _ in range(5):
        gevent.sleep(0)


def in_greenlet(function: Callable[[], Any]) -> "gevent.Greenlet[[], Any]":
    """Run function in a greenlet up to its first wait."""
    greenlet = gevent.spawn(function)
    settle()
    return greenlet


def finish(*greenlets: "gevent.Greenlet[..., Any]") -> list[Any]:
    """Wait for greenlets; return their results, or raise what one of them raised."""
    for greenlet in greenlets:
        greenlet.get(timeout=DEADLINE_S)
    return [greenlet.value for greenlet in greenlets]
