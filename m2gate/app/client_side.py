"""The client's side of a test: a whole response, one that is read as it comes, a WebSocket."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from werkzeug.datastructures import Headers
from werkzeug.http import parse_options_header

from m2gate.app.memory_server import SEND_IDENT, Fields, Peer
from m2gate.app.reply_reader import ReplyReader
from m2gate.errors import ConnectionGone, HTTPError
from m2gate.wire import websocket as codec

WHOLE: Final = 0x80  # FIN, as the first byte of every frame that Mongrel2 hands over has it


class Line:
    """A connection as the client has it: its peer in the server, and what comes from there.

    wait: blocks the greenlet until something is new; raises TimeoutError after its argument's seconds.
    """

    def __init__(self, peer: Peer, wait: Callable[[float | None], None]) -> None:
        self.peer = peer
        self.timeout_s: float | None = None
        self.reader = ReplyReader(self.receive)
        self._wait = wait

    def receive(self) -> bytes:
        """Return the next bytes, ``b""`` at the end. Blocks the greenlet; sends the upload meanwhile."""
        while True:
            data = self.peer.read()
            if data or self.peer.is_closed:
                return data
            if not self.peer.feed():
                self._wait(self.timeout_s)


class TestResponse:
    """A response that is complete.

    ``headers`` are case-insensitive, getlist() gives repeated ones; ``body`` is without chunks.
    """

    __test__ = False

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"<TestResponse {self.status} {len(self.body)} bytes>"

    @property
    def text(self) -> str:
        """The body as text, in the charset of its Content-Type, else UTF-8."""
        charset = parse_options_header(self.headers.get("Content-Type", ""))[1].get("charset", "utf-8")
        return self.body.decode(charset)

    @property
    def json(self) -> Any:
        """The body, which is JSON. Raises ValueError if it is not."""
        return json.loads(self.body)


class TestStream:
    """A response that is read as it comes; what is not read makes the handler wait for credits.

    ``is_complete`` tells whether its end was read. Leaving a ``with`` block disconnects before that.
    """

    __test__ = False

    def __init__(self, line: Line, method: bytes, keep: Callable[[Line], None]) -> None:
        self._line = line
        self._keep = keep
        self._rest = b""
        self.status, self.headers = line.reader.read_head(method)

    @property
    def is_complete(self) -> bool:
        """True once the whole response was read."""
        return self._line.reader.is_complete and not self._rest

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces as the server sends them. Blocks the greenlet; raises EOFError if cut."""
        while piece := self._piece():
            yield piece

    def read(self, size: int | None = None) -> bytes:
        """Return size bytes, fewer only at the end; all without a size. Raises EOFError if cut."""
        pieces: list[bytes] = []
        count = 0
        while (size is None or count < size) and (piece := self._piece()):
            if size is not None and count + len(piece) > size:
                piece, self._rest = piece[: size - count], piece[size - count :]
            count += len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def _piece(self) -> bytes:
        piece, self._rest = self._rest, b""
        return piece or self._line.reader.read_piece()

    def disconnect(self) -> None:
        """Leave, as a client does that closes its socket."""
        self._line.peer.disconnect()

    def __enter__(self) -> "TestStream":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind or not self.is_complete:
            self.disconnect()
        elif self.headers.get("Connection") != "close" and not self._line.peer.is_closed:
            self._keep(self._line)


class TestSocket:
    """A WebSocket as its client has it. Pings are answered by themselves, a close is echoed.

    ``close_code``, ``close_reason``: the server's; 0 while it is open, 1006 without a close frame.
    Raises HTTPError where the handshake is refused, with status, body and headers of the answer.
    """

    __test__ = False

    def __init__(self, line: Line, path: bytes, fields: Fields) -> None:
        self._line = line
        self._path = path
        self._fields = {**fields, b"METHOD": b"WEBSOCKET"}
        self._is_close_sent = False
        self.pongs: list[bytes] = []
        self.close_code = 0
        self.close_reason = ""
        self.status, self.headers = line.reader.read_head(b"GET")
        if self.status != 101:
            body = b"".join(iter(line.reader.read_piece, b""))
            line.peer.disconnect()
            raise HTTPError(self.status, body.decode(errors="replace"), list(self.headers))

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the server has chosen, or None."""
        return self.headers.get("Sec-WebSocket-Protocol")

    def send(self, message: str | bytes) -> None:
        """Send one message: text for str, binary for bytes. Does not block. Raises ConnectionGone."""
        if isinstance(message, str):
            self.send_frame(codec.TEXT, message.encode())
        else:
            self.send_frame(codec.BINARY, message)

    def send_frame(self, opcode: int, payload: bytes, flags: int = WHOLE) -> None:
        """Send one frame as it is, even a wrong one; flags are FIN and the reserved bits."""
        if self._line.peer.is_closed:
            raise ConnectionGone(SEND_IDENT.decode(), self._line.peer.conn_id)
        self._line.peer.send(self._path, {**self._fields, b"FLAGS": b"0x%X" % (flags | opcode)}, payload)

    def ping(self, data: bytes = b"") -> None:
        """Send a ping; the pong's payload appears in ``pongs`` when it is received."""
        self.send_frame(codec.PING, data)

    def receive(self, timeout: float | None = None) -> str | bytes:
        """Return the next message. Blocks the greenlet, for timeout seconds or the client's own.

        Raises ConnectionGone once the server has closed, TimeoutError.
        """
        while not self.close_code:
            opcode, payload = self._frame(timeout)
            if opcode == codec.TEXT:
                return payload.decode()
            if opcode == codec.BINARY:
                return payload
            self._control(opcode, payload)
        raise ConnectionGone(SEND_IDENT.decode(), self._line.peer.conn_id)

    def _frame(self, timeout_s: float | None) -> tuple[int, bytes]:
        self._line.timeout_s = timeout_s
        try:
            return self._line.reader.read_frame()
        except EOFError:
            self.close_code = 1006
            return codec.PONG, b""
        finally:
            self._line.timeout_s = None

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == codec.PING:
            self.send_frame(codec.PONG, payload)
        elif opcode == codec.PONG:
            self.pongs.append(payload)
        elif opcode == codec.CLOSE:
            code, self.close_reason = codec.parse_close(payload)
            self.close_code = code or 1005
            if not self._is_close_sent and not self._line.peer.is_closed:
                self._is_close_sent = True
                self.send_frame(codec.CLOSE, payload[:2])

    def __iter__(self) -> Iterator[str | bytes]:
        while True:
            try:
                message = self.receive()
            except ConnectionGone:
                return
            yield message

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close and wait for the server's close frame; messages before it are lost. Idempotent."""
        if not self._is_close_sent and not self._line.peer.is_closed:
            self._is_close_sent = True
            self.send_frame(codec.CLOSE, codec.build_close(code, reason))
        for _ in self:
            pass

    def disconnect(self) -> None:
        """Leave without a close frame."""
        self._line.peer.disconnect()

    def __enter__(self) -> "TestSocket":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.disconnect()
