"""A Mongrel2 that lives in memory: what TestClient puts in the place of the real one.

It builds and reads the very frames of the protocol, so that everything from the parser upwards is
what a worker runs. Source: docs/reference/mongrel2-wire.md.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import tnetstring
from gevent import get_hub

from m2gate.link.clock import Clock
from m2gate.link.exchange import Exchange
from m2gate.link.server import LinkSettings, Server
from m2gate.wire.mongrel2 import CONN_ID_MASK, CREDITS_INITIAL

SEND_IDENT: Final = b"test-client"
WHOLE_BODY_MAX: Final = 103_424  # bytes; a longer body comes in pieces, as with m2gate's templates
PIECE_BYTES: Final = 65_536
NOTICE: Final = tnetstring.dumps(b'{"type":"disconnect"}')
CREDITS_NOTICE: Final = tnetstring.dumps(b'{"type":"credits"}')

Fields = Mapping[bytes, bytes | list[bytes]]


class Peer:
    """One client connection of the memory server; the client's side of it.

    ``is_closed``  the server has closed; what is left to read comes first.
    ``window``     bytes that may be on their way to the client, who reads them by ``read``.
    ``credits_in`` bytes of an upload that the application lets through.
    """

    def __init__(self, server: "MemoryServer", conn_id: int, window: int) -> None:
        self._server = server
        self.conn_id = conn_id
        self.window = window
        self.is_closed = False
        self.credits_in = 0
        self.is_new = True
        self._messages: deque[bytes] = deque()
        self._unread = 0
        self._upload: Iterator[bytes] | None = None
        self._offset = 0
        self._path = b""

    # -- the server's side ------------------------------------------------------------------------

    def take(self, body: bytes) -> None:
        """Take one message for the client, ``b""`` to close; more than the window cuts the client."""
        if not body:
            self.close()
            return
        self._unread += len(body)
        if self._unread > self.window:
            self._messages.clear()
            self.close()
            return
        self._messages.append(body)
        self._server.arrived()

    def close(self) -> None:
        """Close from the server's side: nobody is told."""
        self.is_closed = True
        self._server.forget(self)

    # -- the client's side ------------------------------------------------------------------------

    def read(self) -> bytes:
        """Return the next message for the client and let its credits go back; ``b""`` if none is there."""
        if not self._messages:
            return b""
        body = self._messages.popleft()
        self._unread -= len(body)
        if not self.is_closed:
            amount = tnetstring.dumps({b"METHOD": b"JSON", b"DOWNLOAD_CREDITS": b"%d" % len(body)})
            self._server.deliver(self, b"@*", amount + CREDITS_NOTICE)
        return body

    def ask(self, path: bytes, fields: Fields, body: bytes | Iterator[bytes]) -> None:
        """Send a request; a body that is an iterator, or long, goes out by feed() as credits allow."""
        head = dict(fields)
        if self.is_new:
            head[b"DOWNLOAD_CREDITS"] = b"%d" % self.window
            self.is_new = False
        if isinstance(body, bytes) and len(body) > WHOLE_BODY_MAX:
            body = iter([body])
        if isinstance(body, bytes):
            self.send(path, head, body)
            return
        self._path, self._upload, self._offset, self.credits_in = path, _cut(body), 0, 0
        self.send(path, head | {b"UPLOAD_STREAM": b"0"}, b"")

    def send(self, path: bytes, fields: Fields, body: bytes) -> None:
        """Deliver one message as it is."""
        self._server.deliver(self, path, tnetstring.dumps(dict(fields)) + tnetstring.dumps(body))

    def feed(self) -> bool:
        """Send one more piece of the upload if credits allow; tell whether one went out."""
        if self._upload is None or self.is_closed or self.credits_in <= 0:
            return False
        piece = next(self._upload, b"")
        fields = {b"UPLOAD_STREAM": b"%d" % self._offset}
        if not piece:
            self._upload = None
            fields[b"UPLOAD_STREAM_DONE"] = b"1"
        self._offset += len(piece)
        self.credits_in -= len(piece)
        self.send(self._path, fields, piece)
        return True

    def grant(self, amount: int) -> None:
        """Let amount bytes more of the upload through."""
        self.credits_in += amount
        self._server.arrived()

    def disconnect(self) -> None:
        """Leave, as a client does that closes its socket."""
        if self.is_closed:
            return
        self.is_closed = True
        self._messages.clear()
        self._server.forget(self)
        # Without credits Mongrel2 reads nothing from a client that uploads, and misses its end.
        if self._upload is None or self.credits_in > 0:
            self._server.leave(self.conn_id)
        self._server.arrived()


class MemoryServer:
    """Plays Mongrel2 for one App: ``link`` is what the App is attached to.

    run:     takes an exchange that is to be answered.
    arrived: called whenever there is something new for a client.
    """

    def __init__(self, run: Callable[[Exchange], None], arrived: Callable[[], None], settings: LinkSettings) -> None:
        self.clock = Clock()
        self.link = Server(SEND_IDENT, self.receive, run, settings, self.clock)
        self.arrived = arrived
        self._run = run
        self._peers: dict[int, Peer] = {}
        self._last_id = 0

    def connect(self, window: int = CREDITS_INITIAL) -> Peer:
        """Open a client connection."""
        self._last_id += 1
        peer = self._peers[self._last_id] = Peer(self, self._last_id, window)
        return peer

    def forget(self, peer: Peer) -> None:
        """Drop a connection that is closed."""
        self._peers.pop(peer.conn_id, None)
        self.arrived()

    def deliver(self, peer: Peer, path: bytes, blocks: bytes) -> None:
        """Hand a message to the link, and run what it opens."""
        exchange = self.link.dispatch(b"%s %d %s %s" % (SEND_IDENT, peer.conn_id, path, blocks))
        if exchange is not None:
            self._run(exchange)

    def leave(self, conn_id: int) -> None:
        """Tell the link that a client is gone."""
        self.link.dispatch(b"%s %d @* %s%s" % (SEND_IDENT, conn_id, tnetstring.dumps({b"METHOD": b"JSON"}), NOTICE))

    def receive(self, frame: bytes) -> None:
        """Take one frame from the link, as Mongrel2's SUB socket would; an unknown id gets a leave.

        Raises ValueError for a frame that Mongrel2 would not understand.
        """
        ident, _, rest = bytes(frame).partition(b" ")
        size, _, rest = rest.partition(b":")
        ids, end, body = rest[: int(size)].split(), rest[int(size) : int(size) + 2], rest[int(size) + 2 :]
        if ident != SEND_IDENT or end != b", ":
            raise ValueError(f"no frame for Mongrel2: {frame[:80]!r}")
        control: dict[bytes, object] | None = None
        if ids[0] == b"X":
            _, control = tnetstring.loads(body)
            ids = ids[1:]
        for text in ids:
            peer = self._peers.get(int(text) & CONN_ID_MASK)
            if peer is None:
                if control is None or b"cancel" not in control:
                    get_hub().loop.run_callback(self.leave, int(text))
            elif control is None:
                peer.take(body)
            else:
                _control(peer, control)

    def close(self) -> None:
        """Go away, as a Mongrel2 that ends: all connections are lost."""
        self.link.close()
        for peer in tuple(self._peers.values()):
            peer.close()


def _control(peer: Peer, entries: Mapping[bytes, object]) -> None:
    amount = entries.get(b"credits")
    if isinstance(amount, int):
        peer.grant(amount)
    if b"cancel" in entries:
        peer.close()


def _cut(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the pieces, none longer than PIECE_BYTES and none empty."""
    for piece in pieces:
        for start in range(0, len(piece), PIECE_BYTES):
            yield piece[start : start + PIECE_BYTES]
