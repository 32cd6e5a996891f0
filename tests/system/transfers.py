"""What the tests of transfers share: sockets that speak HTTP byte by byte, and looks at memory."""

import hashlib
import http.client
import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from m2gate.site.records import SettingValue
from tests.system.support import ROOT, Mongrel2, Served, mongrel2, running
from tests.system.transfer_app import content

APP: Final = ROOT / "tests/system/transfer_app.py"
TIMEOUT_S: Final = 30.0


@dataclass
class Answer:
    """One HTTP response; is_whole tells whether its framing ended as announced."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_whole: bool = True

    @property
    def text(self) -> str:
        return self.body.decode()


def read_head(stream: IO[bytes]) -> Answer:
    line = stream.readline()
    assert line.startswith(b"HTTP/1.1 "), f"no response: {line!r}"
    headers: dict[str, str] = {}
    while (field := stream.readline()) not in (b"\r\n", b""):
        name, _, value = field.decode("latin-1").partition(":")
        assert name.lower() not in headers, f"{name} twice"
        headers[name.lower()] = value.strip()
    return Answer(int(line.split()[1]), headers, b"")


def read_answer(stream: IO[bytes], method: str = "GET") -> Answer:
    """Read one response as its own headers frame it."""
    answer = read_head(stream)
    if method == "HEAD" or answer.status in (204, 304):
        return answer
    if answer.headers.get("transfer-encoding") == "chunked":
        answer.body, answer.is_whole = read_chunks(stream)
    elif "content-length" in answer.headers:
        length = int(answer.headers["content-length"])
        answer.body = stream.read(length)
        answer.is_whole = len(answer.body) == length
    else:
        answer.body = stream.read()
    return answer


def read_chunks(stream: IO[bytes]) -> tuple[bytes, bool]:
    parts = []
    while line := stream.readline():
        size = int(line, 16)
        data = stream.read(size + 2)
        parts.append(data[:size])
        if len(data) < size + 2:
            return b"".join(parts), False
        if size == 0:
            return b"".join(parts), True
    return b"".join(parts), False


@contextmanager
def connection(server: Mongrel2, receive_bytes: int | None = None) -> Iterator[socket.socket]:
    """Connect; receive_bytes bounds what the kernel takes for a client that does not read."""
    with socket.socket() as client:
        if receive_bytes is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.settimeout(TIMEOUT_S)
        client.connect(("127.0.0.1", server.port))
        yield client


WEBSOCKET: Final = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def request_bytes(path: str, method: str = "GET", version: str = "1.1", **headers: str) -> bytes:
    """Build the head of a request; an underscore in a header's name stands for a hyphen."""
    lines = [f"{method} {path} HTTP/{version}", "Host: test"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def exchange(server: Mongrel2, data: bytes, method: str = "GET") -> Answer:
    """Send data on a new connection and read one response."""
    with connection(server) as client, client.makefile("rb") as stream:
        client.sendall(data)
        return read_answer(stream, method)


def fetch(
    server: Mongrel2, path: str, method: str = "GET", body: Any = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """Ask as http.client does; an iterator as body is sent in chunks."""
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
    with closing(client):
        client.request(method, path, body=body, headers=dict(headers or {}), encode_chunked=hasattr(body, "__next__"))
        response = client.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, response.read())


class Site:
    """A Mongrel2, the worker behind it, and what its handlers have noted.

    The notes are read over one connection that is opened at first. Mongrel2 can write the rest of a
    message whose client has reset its connection to whoever connects in the same moment, as the
    descriptor is the same, so a test that looks after a client that left must not connect for it.
    """

    def __init__(self, server: Mongrel2, worker: Served) -> None:
        self.server = server
        self.worker = worker
        self._observer = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)

    def ask(self, path: str, method: str = "GET") -> bytes:
        """Return the body of an answer over the connection that is always open."""
        try:
            self._observer.request(method, path)
            response = self._observer.getresponse()
        except ConnectionError:  # it was idle for longer than Mongrel2's limits allow
            self._observer.close()
            self._observer.request(method, path)
            response = self._observer.getresponse()
        assert response.status in (200, 204)
        return response.read()

    def notes(self) -> dict[str, Any]:
        """Return what the handlers have noted."""
        found: dict[str, Any] = json.loads(self.ask("/notes"))
        return found

    def note(self, name: str, key: str) -> Any:
        """Return one note, None if there is none yet."""
        return self.notes().get(name, {}).get(key)

    def close(self) -> None:
        self._observer.close()


@contextmanager
def site(
    settings: Mapping[str, SettingValue] | None = None, app: Path = APP, *, upload_store: bool = False, **options: Any
) -> Iterator[Site]:
    """Run an application that has /hello and /notes behind a Mongrel2 of its own.

    settings, upload_store: of Mongrel2. options: of the worker.
    """
    with (
        mongrel2(settings=settings, upload_store=upload_store) as server,
        running(app, server, **options) as worker,
        closing(Site(server, worker)) as one,
    ):
        one.ask("/hello")
        yield one


def sha256(size: int) -> str:
    """Return the digest of that many bytes of the application's content."""
    hashed = hashlib.sha256()
    for piece in content(size):
        hashed.update(piece)
    return hashed.hexdigest()


def rss_kib(pid: int) -> int:
    """Return the resident memory of a process in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"process {pid} is gone")


class Memory:
    """The growth of some processes' memory since the beginning, at its highest."""

    def __init__(self, *pids: int) -> None:
        self._start = {pid: rss_kib(pid) for pid in pids}
        self._growth = dict.fromkeys(pids, 0)
        self._looked_s = 0.0

    def look(self) -> None:
        """Measure, if the last measurement is a tenth of a second old; call it often."""
        if time.monotonic() - self._looked_s < 0.1:
            return
        self._looked_s = time.monotonic()
        for pid, start in self._start.items():
            self._growth[pid] = max(self._growth[pid], rss_kib(pid) - start)

    @property
    def growth_mib(self) -> float:
        """The growth of the process that grew most."""
        return max(self._growth.values()) / 1024


def wait_stable(read: Any, hold_s: float = 0.5, timeout_s: float = 20.0) -> Any:
    """Poll until read() has returned the same true value for hold_s seconds; return it."""
    deadline = time.monotonic() + timeout_s
    value, since = read(), time.monotonic()
    while not value or time.monotonic() - since < hold_s:
        assert time.monotonic() < deadline, f"still changing after {timeout_s:g} s: {value!r}"
        time.sleep(0.02)
        new = read()
        if new != value:
            value, since = new, time.monotonic()
    return value
