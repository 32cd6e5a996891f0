"""How another process reaches a connection of this one: by its token, through a local socket.

A token names the owner's mailbox (an ipc socket in its run directory), the connection and a nonce
of its lifetime; it is base64url text, with a signature if the App has a secret.
"""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import tnetstring
import zmq
from gevent import get_hub
from gevent.event import Event

from m2gate.errors import ConnectionGone
from m2gate.link.wait import READ

if TYPE_CHECKING:
    from m2gate.link.connection import Connection

ANSWER_S: Final = 5.0  # an owner that does not answer within this is taken for gone
DATA_MAX: Final = 64 << 20  # bytes of one send
TOKENS_MAX: Final = 100_000  # connections that have a token at a time; ends with the connection
QUEUED_MAX: Final = 16 << 20  # bytes waiting for one client; then the sender gets "slow"
_OWN: "dict[str, Mailbox]" = {}


@dataclass(frozen=True, slots=True)
class Token:
    """The content of a token: where its owner listens, and which connection it is."""

    mailbox: str
    send_ident: str
    conn_id: int
    nonce: str
    signature: bytes = b""

    def build(self, secret: bytes | None) -> str:
        """Return the text of the token, signed if there is a secret."""
        payload = self._payload()
        signature = hmac.digest(secret, payload, hashlib.sha256) if secret else b""
        return base64.urlsafe_b64encode(tnetstring.dumps([payload, signature])).decode().rstrip("=")

    def _payload(self) -> bytes:
        fields = [self.mailbox.encode(), self.send_ident.encode(), b"%d" % self.conn_id, self.nonce.encode()]
        return tnetstring.dumps(fields)

    def is_signed(self, secret: bytes) -> bool:
        """Tell whether the signature is that of the secret."""
        return hmac.compare_digest(hmac.digest(secret, self._payload(), hashlib.sha256), self.signature)

    @classmethod
    def parse(cls, text: str) -> "Token":
        """Take a token apart. Raises ValueError for anything that build did not make."""
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            payload, signature = tnetstring.loads(raw)
            mailbox, send_ident, conn_id, nonce = tnetstring.loads(payload)
            token = cls(mailbox.decode(), send_ident.decode(), int(conn_id), nonce.decode(), bytes(signature))
        except (ValueError, TypeError, AttributeError, binascii.Error, RecursionError, OverflowError) as error:
            raise ValueError("this is no connection token") from error
        if not token.mailbox.startswith("ipc:///"):
            raise ValueError("this is no connection token: its mailbox is not on this machine")
        return token


class Mailbox:
    """The tokens of one process and the socket on which their holders write.

    Bound: TOKENS_MAX connections with a token, QUEUED_MAX bytes waiting for one client; the sender
    is told.
    """

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", run_dir: Path, secret: bytes | None) -> None:
        self.address = f"ipc://{run_dir.resolve()}/mail-{os.getpid()}"
        self._path = run_dir / f"mail-{os.getpid()}"
        self._secret = secret
        self._open: dict[str, Connection] = {}
        self._nonces: dict[Connection, str] = {}
        self._socket = context.socket(zmq.ROUTER)
        self._socket.linger = 1_000
        self._socket.maxmsgsize = DATA_MAX
        self._socket.bind(self.address)
        self._watcher = get_hub().loop.io(self._socket.fileno(), READ)
        self._watcher.start(self._receive)
        _OWN[self.address] = self

    def issue(self, connection: "Connection") -> str:
        """Return the token of connection, valid until its end.

        Raises RuntimeError at TOKENS_MAX.
        """
        nonce = self._nonces.get(connection)
        if nonce is None:
            nonce = self._open_to(connection)
        ident = connection.server.send_ident.decode()
        return Token(self.address, ident, connection.conn_id, nonce).build(self._secret)

    def _open_to(self, connection: "Connection") -> str:
        if len(self._open) >= TOKENS_MAX:
            raise RuntimeError(f"{TOKENS_MAX} connections have a token already")
        nonce = secrets.token_hex(8)
        self._open[nonce] = connection
        self._nonces[connection] = nonce
        connection.call_when_gone(lambda: self._void(connection))
        return nonce

    def _void(self, connection: "Connection") -> None:
        self._open.pop(self._nonces.pop(connection), None)

    def find(self, token: Token) -> "Connection | None":
        """Return the connection that a token stands for; None if it is gone or the token is not ours."""
        if self._secret and not token.is_signed(self._secret):
            return None
        connection = self._open.get(token.nonce)
        if connection is None or connection.gone or connection.conn_id != token.conn_id:
            return None
        return connection

    def _receive(self) -> None:
        # The FD tells of commands, not of messages: drain until nothing is left.
        while True:
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(parts) == 4:
                self._socket.send_multipart([parts[0], parts[1], self._deliver(parts[2], parts[3])], zmq.NOBLOCK)

    def _deliver(self, text: bytes, data: bytes) -> bytes:
        try:
            token = Token.parse(text.decode("latin-1"))
        except ValueError:
            return b"gone"
        connection = self.find(token)
        if connection is None:
            return b"gone"
        return deliver(connection, data)

    def close(self) -> None:
        """Close the socket; all tokens are void."""
        _OWN.pop(self.address, None)
        self._watcher.stop()
        self._watcher.close()
        self._socket.close()
        self._path.unlink(missing_ok=True)


def deliver(connection: "Connection", data: bytes) -> bytes:
    """Hand data to a connection, ``b""`` to close it: "ok", or "slow" if too much waits already."""
    if connection.current is not None:
        connection.current.take_over()
    elif connection.server.journal is not None:
        return b"gone"  # between requests the gateway may give the connection to somebody else
    if not data:
        connection.close()
    elif connection.queued + len(data) > QUEUED_MAX:
        return b"slow"
    else:
        connection.post(data)
    return b"ok"


def send(text: str, data: bytes) -> None:
    """Send data to the connection of a token, ``b""`` to close it. Blocks until its owner has it.

    Raises ConnectionGone if the connection, its server or its owner is gone, or the token is not
    signed; BufferError if too much waits for that client already; ValueError for no token at all.
    """
    token = Token.parse(text)
    own = _OWN.get(token.mailbox)
    if own is not None:
        connection = own.find(token)
        answer = b"gone" if connection is None else deliver(connection, data)
    else:
        answer = _ask(token, text, data)
    if answer == b"slow":
        raise BufferError(f"over {QUEUED_MAX} bytes wait for this client")
    if answer != b"ok":
        raise ConnectionGone(token.send_ident, token.conn_id)


def _ask(token: Token, text: str, data: bytes) -> bytes:
    if not Path(token.mailbox.removeprefix("ipc://")).exists():
        return b"gone"
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.REQ)
    socket.linger = 0
    try:
        socket.connect(token.mailbox)
        socket.send_multipart([text.encode(), data])
        return _receive_within(socket, ANSWER_S)
    except zmq.ZMQError:
        return b"gone"
    finally:
        socket.close()


def _receive_within(socket: "zmq.Socket[bytes]", timeout_s: float) -> bytes:
    """Blocks the greenlet, not the thread: the process may be a worker itself."""
    arrived = Event()
    watcher = get_hub().loop.io(socket.fileno(), READ)
    watcher.start(arrived.set)
    deadline_s = time.monotonic() + timeout_s
    try:
        while True:
            arrived.clear()
            try:
                return socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                if not arrived.wait(deadline_s - time.monotonic()):
                    return b"gone"
    finally:
        watcher.stop()
        watcher.close()
