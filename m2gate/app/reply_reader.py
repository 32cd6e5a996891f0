"""Reading what a client gets: responses with any framing, and the frames of a WebSocket."""

from collections.abc import Callable
from typing import Final

from werkzeug.datastructures import Headers

from m2gate.wire.http import has_body

HEAD_END: Final = b"\r\n\r\n"


class ReplyReader:
    """The bytes of one connection, read as HTTP responses or WebSocket frames.

    receive: returns the next bytes of the connection, ``b""`` at its end; it waits for them.
    Raises EOFError where the connection ends in the middle, ValueError for what is no HTTP.
    """

    def __init__(self, receive: Callable[[], bytes]) -> None:
        self._receive = receive
        self._data = b""
        self._is_chunked = False
        self._left: int | None = 0
        self.is_complete = True

    def read_head(self, method: bytes) -> tuple[int, Headers]:
        """Return status and header fields of the next response that is not 1xx (but 101)."""
        while True:
            lines = self._until(HEAD_END).decode("latin-1").split("\r\n")
            version, status_text, _ = lines[0].split(" ", 2)
            status = int(status_text)
            if version != "HTTP/1.1":
                raise ValueError(f"no status line: {lines[0]!r}")
            if status >= 200 or status == 101:
                break
        headers = Headers()
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers.add(name, value.strip())
        self._begin_body(method, status, headers)
        return status, headers

    def _begin_body(self, method: bytes, status: int, headers: Headers) -> None:
        self._is_chunked = headers.get("Transfer-Encoding") == "chunked"
        length = headers.get("Content-Length")
        self._left = None if length is None else int(length)
        self.is_complete = not has_body(method, status) or (self._left == 0 and not self._is_chunked)

    def read_piece(self) -> bytes:
        """Return the next piece of the body, ``b""`` at its end."""
        if self.is_complete:
            return b""
        if self._is_chunked:
            return self._read_chunk()
        piece = self._take() if self._left is None else self._some()[: self._left]
        if self._left is None:
            self.is_complete = not piece
            return piece
        self._data = self._data[len(piece) :]
        self._left -= len(piece)
        self.is_complete = self._left == 0
        return piece

    def _read_chunk(self) -> bytes:
        size = int(self._until(b"\r\n"), 16)
        piece = self._exactly(size)
        if self._exactly(2) != b"\r\n":
            raise ValueError("a chunk does not end where it says")
        self.is_complete = size == 0
        return piece

    def read_frame(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next WebSocket frame; the server sends no fragments."""
        first, size = self._exactly(2)
        if first & 0xF0 != 0x80 or size > 127:
            raise ValueError(f"no whole, unmasked frame: {first:#x} {size:#x}")
        if size >= 126:
            size = int.from_bytes(self._exactly(2 if size == 126 else 8), "big")
        return first & 0x0F, self._exactly(size)

    # -- bytes --------------------------------------------------------------------------------------

    def _take(self) -> bytes:
        data, self._data = self._data, b""
        return data or self._receive()

    def _some(self) -> bytes:
        if not self._data:
            self._more()
        return self._data

    def _more(self) -> None:
        data = self._receive()
        if not data:
            raise EOFError("the server closed the connection in the middle")
        self._data += data

    def _until(self, end: bytes) -> bytes:
        while end not in self._data:
            self._more()
        found, _, self._data = self._data.partition(end)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._data) < size:
            self._more()
        found, self._data = self._data[:size], self._data[size:]
        return found
