"""Many clients at once on plain sockets: what each has received, kept apart, read by one thread."""

import json
import re
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

CHUNK = re.compile(rb"([0-9a-f]+)\r\n")


class Client:
    """One connection that has sent a GET, or a WebSocket handshake, and only listens from then on."""

    def __init__(self, port: int, path: str, *, websocket: bool = False, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", port))
        self.data = b""
        self._pieces: list[bytes] = []
        self.size = 0
        self.is_closed = False
        head = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\n"
        if websocket:
            head += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            head += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        self.socket.sendall(head.encode() + b"\r\n")

    def feed(self) -> None:
        """Take what the socket has."""
        try:
            piece = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except ConnectionResetError:
            piece = b""
        self._pieces.append(piece)
        self.size += len(piece)
        self.is_closed = not piece

    def received(self) -> bytes:
        """Return everything up to now, the head included."""
        self._pieces = [b"".join(self._pieces)]
        return self._pieces[0]

    def body(self) -> bytes:
        """Return what follows the head, as it came."""
        return self.received().partition(b"\r\n\r\n")[2]

    def chunks(self) -> list[bytes]:
        """Return the whole chunks of the body; an empty one ends it."""
        body, at, chunks = self.body(), 0, []
        while (match := CHUNK.match(body, at)) is not None:
            start, size = match.end(), int(match.group(1), 16)
            if start + size + 2 > len(body):
                break
            assert body[start + size : start + size + 2] == b"\r\n"
            chunks.append(body[start : start + size])
            at = start + size + 2
        return chunks

    def frames(self) -> list[tuple[int, bytes]]:
        """Return the whole WebSocket frames as (opcode, payload)."""
        body, at, frames = self.body(), 0, []
        while at + 2 <= len(body):
            size, start = body[at + 1], at + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                size, start = int.from_bytes(body[start : start + width], "big"), start + width
            if start + size > len(body):
                break
            frames.append((body[at] & 0x0F, body[start : start + size]))
            at = start + size
        return frames

    def close(self) -> None:
        self.socket.close()


class Crowd:
    """Clients that all listen; ``stalled`` ones are not read from."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.clients: list[Client] = []
        self._selector = selectors.DefaultSelector()

    def add(self, path: str, count: int = 1, *, websocket: bool = False) -> list[Client]:
        """Connect count clients that ask for path, and wait for the head of each answer."""
        new = []
        for _ in range(count):
            client = Client(self.port, path, websocket=websocket)
            client.socket.setblocking(False)
            self._selector.register(client.socket, selectors.EVENT_READ, client)
            new.append(client)
        self.clients += new
        return new

    def add_stalled(self, path: str) -> Client:
        """Connect a client that reads nothing after its head, and with small buffers."""
        client = Client(self.port, path, receive_buffer=4096)
        while b"\r\n\r\n" not in client.received():
            client.feed()
        self.clients.append(client)
        return client

    def drop(self, client: Client) -> None:
        """Close one client's connection."""
        self._selector.unregister(client.socket)
        client.close()

    def listen(self, done: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
        """Read from all until done(). Raises AssertionError saying ``what`` when the time is over."""
        deadline_s = time.monotonic() + timeout_s
        checked_s = 0.0
        while True:
            for key, _ in self._selector.select(0.05):
                client: Client = key.data
                client.feed()
                if client.is_closed:
                    self._selector.unregister(client.socket)
            now_s = time.monotonic()
            if now_s - checked_s >= 0.05:
                if done():
                    return
                checked_s = now_s
            if now_s > deadline_s:
                raise AssertionError(f"not within {timeout_s:g} s: {what}")

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self._selector.close()


@contextmanager
def crowd(port: int) -> Iterator[Crowd]:
    """Make a crowd that is closed at the end."""
    one = Crowd(port)
    try:
        yield one
    finally:
        one.close()


def ask(port: int, method: str, path: str, body: str = "", timeout_s: float = 120.0) -> Any:
    """Send one request on a connection of its own; return the JSON of its answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request(method, path, body.encode() or None, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        assert response.status == 200, (response.status, text)
        return json.loads(text)
    finally:
        connection.close()
