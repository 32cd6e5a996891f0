"""One WebSocket: Mongrel2 reassembles and unmasks frames, all other rules of RFC 6455 are here.

Mongrel2 answers neither ping nor close, knows no size limit, no UTF-8 and no origin.
Source: docs/reference/mongrel2-wire.md, "WebSocket".
"""

from collections import deque
from typing import TYPE_CHECKING, Final

from m2gate.link.exchange import FINISHED, STARTED, Exchange
from m2gate.link.wait import Turnstile
from m2gate.wire import websocket as codec
from m2gate.wire.http import build_fields
from m2gate.wire.mongrel2 import Request, request_bytes

if TYPE_CHECKING:
    from m2gate.link.connection import Connection

MESSAGE_MAX: Final = 4 << 20  # bytes of one message; the App may say otherwise
GOING_AWAY: Final = 1001  # close code of a service that stops
SERVICE_RESTART: Final = 1012  # close code of a service that was lost and is back
CLOSE_WAIT_S: Final = 5.0  # for the peer's close frame after ours; then the connection is closed


class WebSocketExchange(Exchange):
    """The session of one WebSocket: accept, then receive and send messages until a close.

    Bound: the server's inbox_messages and inbox_bytes of unread messages; Mongrel2 cannot slow a
    WebSocket client down, so one that overruns its handler is closed with 1013.
    ``close_code``/``close_reason`` are the peer's once it has closed (1006: without a close frame).
    """

    is_websocket = True

    def __init__(self, connection: "Connection", head: Request) -> None:
        super().__init__(connection, head)
        self.accepted = False
        self.close_sent = False
        self.close_code = 0
        self.close_reason = ""
        self.max_message = MESSAGE_MAX
        self._early: list[Request] = []
        self._inbox: deque[str | bytes] = deque()
        self._inbox_bytes = 0
        self._frame_bytes = 0
        self._turnstile = Turnstile(connection.server)

    @property
    def form(self) -> str:
        """How a hub wraps an item for this connection."""
        return "websocket"

    @property
    def bytes_received(self) -> int:
        """How long the handshake and the frames that came here were on the connection, written as clients write them.

        Never more than Mongrel2 has read. Less, if a message did not arrive; if the client still sends one;
        and for good, if its connection had requests before the handshake or if it splits messages into frames.
        """
        return request_bytes(self.head) + self._frame_bytes

    # -- the handler's side ---------------------------------------------------------------------

    def accept(self, subprotocol: str | None = None) -> None:
        """Answer the handshake with 101. Blocks the greenlet only without credits.

        Raises ConnectionGone if the client has left; ValueError for a subprotocol that is no token.
        """
        fields: list[tuple[str, str]] = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", self.head.body.decode("latin-1")),
        ]
        if subprotocol:
            fields.append(("Sec-WebSocket-Protocol", subprotocol))
        self.connection.write(b"HTTP/1.1 101 Switching Protocols\r\n" + build_fields(fields) + b"\r\n")
        self.accepted = True
        self.state = STARTED
        self.status = 101
        early, self._early = self._early, []
        self._inbox_bytes = 0
        for frame in early:
            self.feed(frame)
        if self.connection.server.is_draining:
            self.go_away()

    def receive(self, timeout_s: float | None = None) -> str | bytes:
        """Return the next message: str for text, bytes for binary. Blocks the greenlet.

        Raises ConnectionGone once the peer has closed or left and all messages are read, TimeoutError.
        """
        while not self._inbox:
            if self.close_code or self.close_sent or self.connection.gone:
                raise self.connection.error()
            if not self._turnstile.wait(timeout_s):
                raise TimeoutError(f"no message within {timeout_s} s")
        message = self._inbox.popleft()
        self._inbox_bytes -= len(message)
        return message

    def send(self, message: str | bytes) -> None:
        """Send one message, text or binary by its type. Blocks the greenlet without credits.

        Raises ConnectionGone once either side has closed.
        """
        if self.close_sent or self.close_code:
            raise self.connection.error()
        if isinstance(message, str):
            frame = codec.build_frame(codec.TEXT, message.encode())
        else:
            frame = codec.build_frame(codec.BINARY, message)
        self.written += len(frame)
        self.connection.write(frame)

    def ping(self, data: bytes = b"") -> None:
        """Send a ping of at most 125 bytes. Blocks the greenlet without credits.

        Raises ConnectionGone once either side has closed; ValueError for longer data.
        """
        if len(data) > 125:
            raise ValueError(f"{len(data)} bytes of ping data; a control frame takes at most 125")
        if self.close_sent or self.close_code:
            raise self.connection.error()
        self.connection.write(codec.build_frame(codec.PING, data))

    def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Send a close frame; the connection ends when the peer answers, or after CLOSE_WAIT_S.

        Does not block. Idempotent. Raises ValueError for a code that may not be sent.
        """
        if code is not None and not codec.is_sendable_code(code):
            raise ValueError(f"close code {code}: may not be sent (RFC 6455, section 7.4)")
        if self.close_sent or self.connection.gone:
            return
        self.connection.announce_close()
        self.close_sent = True
        self.connection.post(codec.build_frame(codec.CLOSE, codec.build_close(code, reason)))
        self._turnstile.turn()
        if self.close_code:
            self.connection.close()
        else:
            self.connection.server.expect_close(self.connection, CLOSE_WAIT_S)

    def go_away(self) -> None:
        """Close because the service stops; before the 101, which brings it about, do nothing."""
        if self.accepted:
            self.close(GOING_AWAY, "the service is stopping")

    def end(self) -> None:
        """The handler has returned: nothing is received any more, the close handshake goes on."""
        if self.state != FINISHED:
            self.state = FINISHED
            self.is_cut = self.close_code == 1006
            tally = self.connection.server.tally
            if self.failure:
                tally.failed[self.failure] += 1
            else:
                tally.finished += 1
            self._inbox.clear()
            self._inbox_bytes = 0
            if self.on_end is not None:
                self.on_end(self)

    # -- the peer's side --------------------------------------------------------------------------

    def feed(self, head: Request) -> None:
        """File one frame that came from the server; what breaks a rule closes the WebSocket."""
        if not self.accepted and not self.close_sent and self.state != FINISHED:
            self._wait_for_accept(head)
            return
        self._frame_bytes += codec.client_frame_bytes(len(head.body))
        try:
            opcode = codec.parse_flags(head.headers.get(b"FLAGS", b""))
            payload = head.body
            if opcode == codec.PING:
                if not self.close_sent:
                    self._pong(payload)
            elif opcode == codec.CLOSE:
                self._peer_closed(payload)
            elif opcode != codec.PONG:
                self._file(codec.check_message(opcode, payload, self.max_message))
        except codec.Violation as error:
            self.fail(error.close_code, error.rule)

    def _wait_for_accept(self, head: Request) -> None:
        # A client that does not wait for the 101 has the same bounds; there is no close frame yet.
        server = self.connection.server
        if len(self._early) >= server.inbox_messages or self._inbox_bytes >= server.inbox_bytes:
            self.connection.abort()
            return
        self._early.append(head)
        self._inbox_bytes += len(head.body)

    def _file(self, message: str | bytes) -> None:
        if self.close_sent or self.close_code or self.state == FINISHED:
            return
        server = self.connection.server
        if len(self._inbox) >= server.inbox_messages or self._inbox_bytes >= server.inbox_bytes:
            self.fail(1013, "messages come faster than they are read")
            return
        self._inbox.append(message)
        self._inbox_bytes += len(message)
        self._turnstile.turn()

    def _pong(self, payload: bytes) -> None:
        # A client that pings but does not read must not fill our memory with pongs.
        if self.connection.queued > self.connection.server.inbox_bytes:
            self.connection.abort()
            return
        self.connection.post(codec.build_frame(codec.PONG, payload))

    def _peer_closed(self, payload: bytes) -> None:
        code, self.close_reason = codec.parse_close(payload)
        self.close_code = code or 1005
        if not self.close_sent:
            self.connection.announce_close()
            self.close_sent = True
            self.connection.post(codec.build_frame(codec.CLOSE, codec.build_close(code)))
        self._turnstile.turn()
        self.connection.close()

    def fail(self, code: int, reason: str) -> None:
        """Close because the peer broke a rule or a limit: a close frame, then the connection."""
        if not self.close_sent:
            self.connection.announce_close()
            self.close_sent = True
            self.close_code = code
            self.connection.post(codec.build_frame(codec.CLOSE, codec.build_close(code, reason)))
        self._turnstile.turn()
        self.connection.close()

    def connection_lost(self) -> None:
        """Hear from the connection that its client is gone."""
        if not self.close_code and not self.close_sent:
            self.close_code = 1006
        self._turnstile.turn()
        super().connection_lost()
