"""What the hub needs to know of a connection; link.connection.Connection is one."""

from collections.abc import Callable, Sized
from typing import Protocol


class Server(Protocol):
    """One Mongrel2; hashable, the same object for all of its connections."""

    @property
    def send_ident(self) -> bytes:
        """The label that its messages begin with."""

    def send(self, frame: bytes) -> None:
        """Send one message; for the owner of the hub, which itself never does."""


class Outlet(Protocol):
    """The outgoing half of one connection; hashable by identity.

    window:      bytes that may be outstanding; None while nobody knows.
    outstanding: bytes whose credits have not come back; the hub adds what it sends.
    on_room:     called when credits came back while nothing waits in ``units``, and when ``units``
                 has become empty. The hub sets it while the connection has items waiting here.
    """

    outstanding: int
    on_room: Callable[[], None] | None

    @property
    def window(self) -> int | None:
        """Bytes that may be outstanding."""

    @property
    def units(self) -> Sized:
        """What waits for credits at the connection itself; nothing may be sent ahead of it."""

    @property
    def server(self) -> Server:
        """The Mongrel2 that has the client's socket."""

    @property
    def conn_id(self) -> int:
        """The connection's number at its server."""

    def post(self, data: bytes) -> None:
        """Send or queue data behind ``units``; for the owner of the hub, which itself never does."""
