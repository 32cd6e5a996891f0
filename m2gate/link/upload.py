"""A request body that Mongrel2 hands over piece by piece, as fast as credits are granted.

Source: docs/reference/mongrel2-wire.md, "Uploads".
"""

from collections import deque
from typing import TYPE_CHECKING, Final

from m2gate.errors import WireError
from m2gate.link.wait import Turnstile

if TYPE_CHECKING:
    from m2gate.link.connection import Connection

# Credits are bytes. A chunk may drive the server's balance below zero by at most 102,400, so a
# window above that always gets the next chunk through; twice that keeps a fast client busy.
CHUNK_BYTES: Final = 102_401
WINDOW_BYTES: Final = 262_144


class Upload:
    """The pieces of one streamed body; the reader's pace is the client's.

    Bound: at most WINDOW_BYTES plus one piece wait here, in at most inbox_messages pieces (beyond
    that, pieces are joined); then no credits are granted and the client waits.
    """

    __slots__ = (
        "_connection",
        "_owed",
        "_pieces",
        "_turnstile",
        "_waiting_bytes",
        "abandoned",
        "granted",
        "is_broken",
        "is_done",
        "last_s",
        "length",
        "received",
    )

    def __init__(self, connection: "Connection", length: int | None) -> None:
        self._connection = connection
        self._pieces: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._turnstile = Turnstile(connection.server)
        self._owed = WINDOW_BYTES
        self.length = length
        self.granted = 0
        self.received = 0
        self.is_done = False
        self.is_broken = False
        self.abandoned = False
        self.last_s = connection.server.now_s

    def feed(self, offset: int, piece: bytes, *, is_last: bool) -> None:
        """File one piece that came from the server.

        Raises WireError if it does not follow what came before, or the sum is not Content-Length.
        """
        if offset != self.received:
            raise WireError(f"piece at offset {offset} where {self.received} was due", 0, b"")
        self.last_s = self._connection.server.now_s
        self.received += len(piece)
        if self.length is not None and (self.received > self.length or (is_last and self.received != self.length)):
            raise WireError(f"{self.received} bytes of a body of {self.length}", 0, b"")
        self.is_done = self.is_done or is_last
        if self.abandoned:
            self._owed += len(piece)
            self._grant()
            return
        if piece:
            if len(self._pieces) >= self._connection.server.inbox_messages:
                self._pieces[-1] += piece
            else:
                self._pieces.append(piece)
            self._waiting_bytes += len(piece)
        self._turnstile.turn()

    def read(self, timeout_s: float | None = None) -> bytes:
        """Return the next piece, ``b""`` at the end. Blocks the greenlet.

        Raises ConnectionGone if the client left, or the server did, before the end; TimeoutError.
        """
        while not self._pieces:
            if self.is_done:
                return b""
            if self._connection.gone or self.is_broken:
                raise self._connection.error()
            self._grant()  # all that is owed: without credits Mongrel2 does not notice a client that left
            if not self._turnstile.wait(timeout_s):
                raise TimeoutError(f"no piece of the body within {timeout_s} s")
        piece = self._pieces.popleft()
        self._waiting_bytes -= len(piece)
        self._owed += len(piece)
        if self._owed >= WINDOW_BYTES // 4:
            self._grant()
        return piece

    def ask_again(self) -> None:
        """Let one more chunk through than was read: what was granted may have been spent on pieces that were lost.

        If so, the next piece does not follow what came before, and the upload breaks off.
        """
        self._owed += CHUNK_BYTES
        self._grant()

    @property
    def is_incomplete(self) -> bool:
        """True while more is to come."""
        return not self.is_done and not self.is_broken

    @property
    def is_waiting(self) -> bool:
        """True while the reader has had all that came, and more is to come."""
        return self.is_incomplete and not self._pieces

    def is_stalled(self, since_s: float) -> bool:
        """Tell whether the client may send and has not since then."""
        return not self.is_done and not self._pieces and self._owed == 0 and self.last_s < since_s

    def _grant(self) -> None:
        """Let the client send what has been read since the last grant (at first the window)."""
        if self.is_done or not self._owed or self._connection.gone:
            return
        self._connection.server.send_control([self._connection.conn_id], credits=self._owed)
        self.granted += self._owed
        self._owed = 0

    def abandon(self) -> None:
        """Nobody reads on: drop what is here and what still comes."""
        self.abandoned = True
        self._owed += self._waiting_bytes
        self._pieces.clear()
        self._waiting_bytes = 0
        if not self.is_done:
            self._grant()

    def break_off(self) -> None:
        """The server's pieces do not fit together: whoever reads gets ConnectionGone."""
        self.is_broken = True
        self._turnstile.turn()

    def turn(self) -> None:
        """Wake the reader to look at the connection again."""
        self._turnstile.turn()
