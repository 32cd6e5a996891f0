"""The ZeroMQ sockets to one Mongrel2, for as long as that Mongrel2 lives.

The sockets never reconnect by themselves. A restarted Mongrel2 gives the same ids to other clients,
so everything that belongs to the old one, unread messages included, must be gone before the first
message of the new one: when a socket disconnects all are closed, and new ones are opened.
"""

import logging
import time
from dataclasses import dataclass
from typing import Final

import zmq
from gevent import get_hub
from gevent.event import Event

from m2gate.link.monitor import LOST, Monitor
from m2gate.link.wait import READ
from m2gate.wire.mongrel2 import check_ident

logger = logging.getLogger(__name__)

RETRY_S: Final = 0.05  # between attempts to reach a Mongrel2 that is not there
SETTLE_S: Final = 3.0  # for the handshakes and the subscription; then a new attempt
DELIVER_MS: Final = 2_000  # for what is queued when the sockets are closed on purpose
CLOSING_S: Final = 0.05
CLOSING_EACH_S: Final = 0.001
CLOSING_MAX_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectServer:
    """One Mongrel2 to connect to, named as in its Handler.

    send_spec:  where it pushes requests.        recv_spec: where it subscribes to responses.
    send_ident: letters, digits and ``-``; its recv_ident must be this and a blank.
    upload_store: its upload.temp_store, if it stores large bodies in files instead of sending them.
    control_spec: its control port, if connections that a former worker left are to be closed.
    """

    send_spec: str
    recv_spec: str
    send_ident: str
    upload_store: str | None = None
    control_spec: str | None = None

    def __post_init__(self) -> None:
        check_ident(self.send_ident.encode())


class Replies:
    """The XPUB to one Mongrel2, connected and settled; used once, never reconnected.

    XPUB instead of PUB: it shows the moment at which Mongrel2's subscription has arrived, before
    which every response would be dropped silently.
    """

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", send_ident: str, recv_spec: str) -> None:
        self._send_ident = send_ident
        self._recv_spec = recv_spec
        self._lost = Event()
        self._ready = Event()
        self._monitors: list[Monitor] = []
        self.replies = context.socket(zmq.XPUB)
        self.replies.linger = 0
        self.replies.reconnect_ivl = -1
        self.replies.sndhwm = 0  # XPUB drops silently at its mark; credits bound what is queued

    def open(self) -> bool:
        """Connect and settle. Blocks the greenlet; False if Mongrel2 is not there."""
        try:
            return self._connect() and not self._lost.is_set()
        except zmq.ZMQError as error:
            logger.error("cannot connect send_ident=%s error=%s", self._send_ident, error)
            return False

    def _connect(self) -> bool:
        self._watch(self.replies)
        self.replies.connect(self._recv_spec)
        return self._wait_subscribed()

    def _wait_subscribed(self) -> bool:
        watcher = get_hub().loop.io(self.replies.fileno(), READ)
        watcher.start(self._ready.set)
        own = self._send_ident.encode() + b" "
        deadline_s = time.monotonic() + SETTLE_S
        try:
            while not self._lost.is_set():
                subscription = self._receive(self.replies)
                if subscription is None:
                    self._ready.clear()
                    if not self._ready.wait(deadline_s - time.monotonic()):
                        return False
                elif subscription[:1] == b"\x01" and own.startswith(subscription[1:]):
                    self._warn_of_prefix(subscription[1:])
                    return True
                else:
                    ident = self._send_ident
                    logger.warning("another recv_ident send_ident=%s recv_ident=%r", ident, subscription[1:])
            return False
        finally:
            watcher.stop()
            watcher.close()

    def _warn_of_prefix(self, recv_ident: bytes) -> None:
        if recv_ident != self._send_ident.encode() + b" ":
            logger.warning(
                "recv_ident should be the send_ident and a blank send_ident=%s recv_ident=%r",
                self._send_ident,
                recv_ident,
            )

    @staticmethod
    def _receive(socket: "zmq.Socket[bytes]") -> bytes | None:
        try:
            return socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def _watch(self, socket: "zmq.Socket[bytes]") -> None:
        self._monitors.append(Monitor(socket, self._happened))

    def _happened(self, event: int) -> None:
        if event & LOST:
            self._lost.set()
            self._ready.set()

    def wait_lost(self) -> None:
        """Blocks the greenlet until a socket has lost its Mongrel2."""
        self._lost.wait()

    def give_up(self) -> None:
        """End open and wait_lost: the sockets are not wanted any more."""
        self._lost.set()
        self._ready.set()

    def close(self, *, deliver: bool = False) -> None:
        """Close; deliver: let what is queued still reach Mongrel2, for DELIVER_MS at most."""
        for monitor in self._monitors:
            monitor.close()
        self._monitors.clear()
        self.replies.close(linger=DELIVER_MS if deliver else 0)


class Sockets(Replies):
    """PULL and XPUB to one Mongrel2."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", server: DirectServer) -> None:
        super().__init__(context, server.send_ident, server.recv_spec)
        self._send_spec = server.send_spec
        self.requests = context.socket(zmq.PULL)
        self.requests.linger = 0
        self.requests.reconnect_ivl = -1

    def _connect(self) -> bool:
        self._watch(self.requests)
        if not super()._connect():
            return False
        self.requests.connect(self._send_spec)
        return True

    def close(self, *, deliver: bool = False) -> None:
        """Close both; see Replies."""
        super().close(deliver=deliver)
        self.requests.close(linger=0)


def closing_s(count: int) -> float:
    """Return for how long messages are to be read after so many connections were told to close.

    Mongrel2 tells what it has written to a client before it closes; where nobody takes that it
    waits, and the client with it.
    """
    return min(CLOSING_S + count * CLOSING_EACH_S, CLOSING_MAX_S)
