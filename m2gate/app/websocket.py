"""What a WebSocket handler gets: messages by iteration, send, ping, close."""

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from m2gate.errors import ConnectionGone, HTTPError
from m2gate.link.websocket import WebSocketExchange

if TYPE_CHECKING:
    from m2gate.app.request import Request


class WebSocket:
    """One WebSocket connection, as its handler sees it.

    ``request``     the handshake.
    ``subprotocol`` the one agreed on, or None.
    The 101 goes out at the first receive or send; until then an HTTPError refuses the handshake.
    Iterating ends when the peer closes; messages are str (text) or bytes (binary).
    """

    def __init__(self, exchange: WebSocketExchange, request: "Request", subprotocol: str | None) -> None:
        self.request = request
        self.subprotocol = subprotocol
        self.exchange = exchange

    def accept(self) -> None:
        """Complete the handshake now; receive and send do it by themselves. Blocks the greenlet.

        Raises ConnectionGone if the client has left.
        """
        if not self.exchange.accepted:
            self.exchange.accept(self.subprotocol)

    def receive(self, timeout: float | None = None) -> str | bytes:
        """Return the next message. Blocks the greenlet, for timeout seconds at most.

        Raises TimeoutError, and ConnectionGone once the peer has closed or left.
        """
        self.accept()
        return self.exchange.receive(timeout)

    def send(self, message: str | bytes) -> None:
        """Send one message: text for str, binary for bytes. Blocks the greenlet while the client is slow.

        Raises ConnectionGone once either side has closed; TypeError for anything else.
        """
        if not isinstance(message, str | bytes):
            raise TypeError(f"a message is str or bytes, not {type(message).__name__}")
        self.accept()
        self.exchange.send(message)

    def ping(self, data: bytes = b"") -> None:
        """Send a ping with at most 125 bytes; the peer's pong keeps the connection alive.

        Raises ConnectionGone, ValueError for longer data.
        """
        self.accept()
        self.exchange.ping(data)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Start the close handshake; nothing can be sent or received after it.

        Raises ValueError for a code that may not be sent.
        """
        self.accept()
        self.exchange.close(code, reason)

    @property
    def close_code(self) -> int:
        """The peer's close code: 0 while open, 1005 without a code, 1006 without a close frame."""
        return self.exchange.close_code

    @property
    def connected(self) -> bool:
        """True while messages can be sent."""
        return not (self.exchange.gone or self.exchange.close_sent or self.exchange.close_code)

    def __iter__(self) -> Iterator[str | bytes]:
        while True:
            try:
                message = self.receive()
            except ConnectionGone:
                return
            yield message


def check_handshake(
    exchange: WebSocketExchange, host: str, origins: Collection[str], offered: Sequence[str]
) -> str | None:
    """Decide whether a handshake may be accepted; return the subprotocol to agree on, or None.

    host:    the Host header.
    origins: further origins that may connect, such as ``https://app.example``, or ``*``.
    offered: the subprotocols that the route speaks, the preferred one first.
    Raises HTTPError: 426 for a version other than 13, 403 for a foreign origin.
    """
    headers = exchange.head.headers
    if headers.get(b"sec-websocket-version") != b"13":
        raise HTTPError(426, "WebSocket version 13 is spoken here", {"Sec-WebSocket-Version": "13"})
    origin = headers.get(b"origin")
    if origin is not None and not _is_allowed(origin, host, origins):
        raise HTTPError(403, "this origin may not connect")
    wanted = headers.get(b"sec-websocket-protocol", b"")
    lines = wanted if isinstance(wanted, list) else [wanted]
    client = {name.strip().decode("latin-1") for line in lines for name in line.split(b",")}
    return next((name for name in offered if name in client), None)


def _is_allowed(origin: bytes | list[bytes], host: str, origins: Collection[str]) -> bool:
    if not isinstance(origin, bytes):
        return False
    text = origin.decode("latin-1").lower()
    if "*" in origins or text in {one.lower().rstrip("/") for one in origins}:
        return True
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    # The scheme is not compared: behind a TLS terminator the page is https where this is http.
    default = {"http": ":80", "https": ":443"}.get(parts.scheme)
    if default is None or not parts.netloc or parts.path:
        return False
    own = host.lower()
    return parts.netloc.removesuffix(default) == own.removesuffix(default) or parts.netloc == own
