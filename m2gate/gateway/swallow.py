"""Bodies that nobody will read: their rest is taken in for a moment, so that the client sees the answer."""

from collections.abc import Callable
from typing import Final

from m2gate.gateway.linked import LinkedServer
from m2gate.wire.mongrel2 import Request

SWALLOW_S: Final = 2.0  # a close with unread bytes would reset the client before it has read the answer
WINDOW_BYTES: Final = 262_144
SWALLOWED_MAX: Final = 10_000  # connections at a time; one more is closed at once


class Swallower:
    """Lets Mongrel2 read the rest of a refused upload, until it ends or SWALLOW_S have passed; then closes."""

    def __init__(self) -> None:
        self._until_s: dict[tuple[LinkedServer, int], float] = {}

    def begin(self, server: LinkedServer, conn_id: int, now_s: float) -> None:
        """Take in what still comes from a connection that has been answered and is to be closed."""
        if len(self._until_s) >= SWALLOWED_MAX:
            server.close_connections((conn_id,), now_s)
            return
        self._until_s[server, conn_id] = now_s + SWALLOW_S
        server.control((conn_id,), credits=WINDOW_BYTES)

    def take(self, server: LinkedServer, message: Request, now_s: float) -> bool:
        """Take a message of a connection that is swallowed from; False if it is none of them."""
        key = server, message.conn_id
        if key not in self._until_s:
            return False
        if b"UPLOAD_STREAM_DONE" in message.headers or b"METHOD" in message.headers:
            self._close(key, now_s)
        elif message.body:
            server.control((message.conn_id,), credits=len(message.body))
        return True

    def tick(self, now_s: float, *, is_known: Callable[[LinkedServer], bool]) -> None:
        """Close the connections whose time is over."""
        for key in [one for one, until_s in self._until_s.items() if until_s <= now_s or not is_known(one[0])]:
            self._close(key, now_s)

    def _close(self, key: tuple[LinkedServer, int], now_s: float) -> None:
        del self._until_s[key]
        server, conn_id = key
        server.close_connections((conn_id,), now_s)
