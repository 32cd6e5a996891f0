"""The request body as a file that is read once: the pieces as they come, or any number of bytes."""

import io
from collections.abc import Iterator
from typing import Any

from m2gate.errors import HTTPError
from m2gate.link.exchange import Exchange


class BodyFile(io.RawIOBase):
    """Iterating yields the pieces as the client sends them; read, readline and the like count bytes.

    Bound: max_body bytes in all, then HTTPError 413. At most one piece is kept here.
    """

    def __init__(self, exchange: Exchange, max_body: int) -> None:
        super().__init__()
        self._exchange = exchange
        self._max_body = max_body
        self._rest = b""
        self._total = 0
        self._is_at_end = False

    def readable(self) -> bool:
        """It can be read."""
        return True

    def _next_piece(self) -> bytes:
        if self._rest:
            piece, self._rest = self._rest, b""
            return piece
        if self._is_at_end:
            return b""
        piece = self._exchange.read()
        self._total += len(piece)
        if self._total > self._max_body:
            raise HTTPError(413, f"the limit is {self._max_body} bytes")
        self._is_at_end = not piece
        return piece

    def __iter__(self) -> Iterator[bytes]:  # pieces, not lines
        """Yield the pieces as the client sends them. Blocks the greenlet; raises ConnectionGone."""
        while piece := self._next_piece():
            yield piece

    def read(self, size: int | None = -1) -> bytes:
        """Return size bytes, fewer only at the end; all without a size. Blocks the greenlet."""
        if size is None or size < 0:
            return b"".join(self)
        pieces: list[bytes] = []
        while size > 0 and (piece := self._next_piece()):
            if len(piece) > size:
                self._rest = piece[size:]
                piece = piece[:size]
            size -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def readinto(self, buffer: Any) -> int:
        """Fill buffer with what is there, at least one byte but at the end."""
        piece = self._next_piece()
        count = min(len(piece), len(buffer))
        buffer[:count] = piece[:count]
        self._rest = piece[count:]
        return count

    def readline(self, size: int | None = -1) -> bytes:
        """Return one line with its end, at most size bytes of it. Blocks the greenlet."""
        limit = -1 if size is None else size
        pieces: list[bytes] = []
        while limit != 0 and (piece := self._next_piece()):
            end = piece.find(b"\n") + 1 or len(piece)
            if limit >= 0:
                end = min(end, limit)
                limit -= end
            pieces.append(piece[:end])
            self._rest = piece[end:]
            if pieces[-1].endswith(b"\n"):
                break
        return b"".join(pieces)
