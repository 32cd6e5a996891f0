"""A WebSocket client that does what no library would: bytes in, frames out, no rule kept."""

import base64
import os
import socket
import struct
from types import TracebackType
from typing import Self

HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: {version}\r\n{extra}\r\n"
)


class RawSocket:
    """One connection; ``status`` is that of the handshake's answer."""

    def __init__(
        self, port: int, path: str, *, extra: str = "", version: str = "13", eager: bytes = b"", timeout_s: float = 10.0
    ) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        key = base64.b64encode(os.urandom(16)).decode()
        request = HANDSHAKE.format(path=path, key=key, version=version, extra=extra)
        self._socket.sendall(request.encode() + eager)
        self._rest = b""
        head = self._until(b"\r\n\r\n")
        self.head = head.decode("latin-1")
        self.status = int(head.split(b" ", 2)[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def _more(self) -> None:
        data = self._socket.recv(65_536)
        if not data:
            raise EOFError("closed")
        self._rest += data

    def _until(self, end: bytes) -> bytes:
        while end not in self._rest:
            self._more()
        found, self._rest = self._rest.split(end, 1)
        return found

    def _exactly(self, count: int) -> bytes:
        while len(self._rest) < count:
            self._more()
        found, self._rest = self._rest[:count], self._rest[count:]
        return found

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def receive(self) -> tuple[int, bytes]:
        """Return the first byte and the payload of the next frame. Raises EOFError at the end."""
        first, second = self._exactly(2)
        assert not second & 0x80, "a server must not mask"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", self._exactly(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self._exactly(8))
        return first, self._exactly(size)

    def receive_close(self) -> int:
        """Return the code of the close frame that comes next, and see the connection's end behind it."""
        first, payload = self.receive()
        assert first == 0x88, f"frame {first:#x} {payload[:40]!r} instead of a close"
        code = int.from_bytes(payload[:2], "big") if payload else 1005
        self.expect_end()
        return code

    def expect_end(self) -> None:
        """Read until the server has closed; no byte may come any more."""
        try:
            data = self._rest or self._socket.recv(1)
        except ConnectionResetError:
            return
        assert data == b"", f"{data!r} behind the end"


def masked(first: int, payload: bytes, *, mask: bytes = b"abcd", length: int | None = None) -> bytes:
    """Build a frame as clients send it; length: another than the true one."""
    size = len(payload) if length is None else length
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65_536:
        head = struct.pack(">BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack(">BBQ", first, 0x80 | 127, size)
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
