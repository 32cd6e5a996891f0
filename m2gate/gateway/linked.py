"""One life of one Mongrel2, as the gateway sees it: its sessions and what is said to it."""

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Final

from m2gate.gateway.sessions import Session
from m2gate.link.server import Server
from m2gate.link.sockets import DirectServer
from m2gate.wire.attach import ServerNote
from m2gate.wire.mongrel2 import TARGETS_MAX, build_control, build_reply, split_ids

CLOSED_REMEMBERED_S: Final = 30.0  # what was under way when a connection was closed arrives within this
CLOSED_REMEMBERED_MAX: Final = 100_000


class LinkedServer:
    """The sessions of one running Mongrel2; a restarted one is another LinkedServer with another number.

    link:        the connections that the gateway's hub feeds.
    has_credits: it does download flow control, so that the gateway knows what has been written.
    """

    def __init__(self, number: int, address: DirectServer, send: Callable[[bytes], object], link: Server) -> None:
        self.number = number
        self.address = address
        self.send_ident = link.send_ident
        self.prefix = link.send_ident + b" "
        self.send = send
        self.link = link
        self.sessions: dict[int, Session] = {}
        self.has_credits = False
        self.frames_in = 0
        self.requests = 0
        self.rejected = 0
        self.held = 0
        self.is_closed = False
        self._closed: dict[int, float] = {}

    @property
    def connections(self) -> dict[int, Session]:
        """The connections that were heard of, by conn_id."""
        return self.sessions

    def note(self) -> ServerNote:
        """Return what workers are told of this server."""
        return ServerNote(self.number, self.send_ident, self.address.recv_spec, self.address.upload_store or "")

    # -- what is said to it -----------------------------------------------------------------------

    def reply(self, conn_id: int, data: bytes) -> None:
        """Send bytes to a client that nobody else writes to now."""
        self.send(build_reply(self.send_ident, (conn_id,), data))

    def control(self, conn_ids: Sequence[int], **entries: int | bool) -> None:
        """Send a control message to any number of connections."""
        for some in split_ids(conn_ids, TARGETS_MAX - 1):
            self.send(build_control(self.send_ident, some, **entries))

    def close_connections(self, conn_ids: Sequence[int], now_s: float) -> None:
        """Close connections once what was sent to them is written; what still comes from them is ignored."""
        for some in split_ids(conn_ids, TARGETS_MAX):
            self.send(build_reply(self.send_ident, some, b""))
        for conn_id in conn_ids:
            self.forget(conn_id, now_s)

    # -- connections that were ------------------------------------------------------------------------

    def forget(self, conn_id: int, now_s: float) -> None:
        """Drop the session of a connection that is closed; the last messages from it are ignored.

        At CLOSED_REMEMBERED_MAX a further one is not remembered: then such a message opens a session anew.
        """
        self.sessions.pop(conn_id, None)
        if len(self._closed) < CLOSED_REMEMBERED_MAX:
            self._closed[conn_id] = now_s

    def was_closed(self, conn_id: int) -> bool:
        """Tell whether this connection was closed a moment ago."""
        return conn_id in self._closed

    def tick(self, now_s: float) -> None:
        """Forget what was closed long ago; once a second."""
        old_s = now_s - CLOSED_REMEMBERED_S
        for conn_id in [*takewhile(lambda one: self._closed[one] < old_s, self._closed)]:
            del self._closed[conn_id]
