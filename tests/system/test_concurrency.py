"""Many handlers at once, and what happens when there are as many as there may be."""

import os
import resource
import select
import signal
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from m2gate.worker.pool import BACKLOG_MAX
from tests.system.support import short_directory, wait_until
from tests.system.transfers import (
    WEBSOCKET,
    Answer,
    Site,
    connection,
    fetch,
    read_answer,
    read_head,
    request_bytes,
    site,
)

# The pool of one worker and its bounds; behind a gateway these are the gateway's: test_gateway_admission.py.
pytestmark = pytest.mark.shape("direct", reason="the bounds of one worker's pool")

APP = Path(__file__).with_name("busy_app.py")
FILES = 8_192  # 2,100 clients here and as many in Mongrel2
HANDLERS = 2_000  # the default bound
FEW = 20
RECEIVE_BYTES = 131_072  # what the kernel takes for a client that does not read
PAUSE_S = 0.3  # for what must not happen


@pytest.fixture(autouse=True, scope="module")
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, FILES), hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Busy:
    """A site, and its application's way around its own handlers."""

    def __init__(self, here: Site, counts: Path) -> None:
        self.here = here
        self._counts = counts

    def waiting(self) -> int:
        """Return how many handlers wait at the gate, without asking one."""
        return int(self._counts.read_text() or "0") if self._counts.exists() else 0

    def wait_for(self, number: int) -> None:
        wait_until(lambda: self.waiting() == number, f"{number} handlers wait", 30)

    def open(self) -> None:
        os.kill(self.here.worker.pid, signal.SIGUSR1)


@contextmanager
def busy(**options: Any) -> Iterator[Busy]:
    with short_directory() as folder:
        counts = folder / "counts"
        with site(app=APP, environ={"COUNTS": str(counts)}, drain_timeout_s=1, **options) as here:
            yield Busy(here, counts)


class Clients:
    """Many connections that each send one request."""

    def __init__(self, stack: ExitStack, here: Site, count: int) -> None:
        self.sockets: list[socket.socket] = []
        self.streams: list[IO[bytes]] = []
        for number in range(count):
            if number % 50 == 49:
                wait_accepted(here)
            self.sockets.append(stack.enter_context(connection(here.server)))
            self.streams.append(stack.enter_context(self.sockets[-1].makefile("rb")))

    def send(self, data: bytes) -> None:
        for one in self.sockets:
            one.sendall(data)

    def answers(self) -> list[Answer]:
        return [read_answer(stream) for stream in self.streams]

    def is_quiet(self) -> bool:
        """Tell whether none has got anything, not even an end, after a pause."""
        poller = select.poll()
        for one in self.sockets:
            poller.register(one, select.POLLIN | select.POLLHUP)
        return poller.poll(PAUSE_S * 1000) == []


def wait_accepted(here: Site) -> None:
    """Wait until Mongrel2 has accepted all that connected before; at a full queue a client tries again after 1 s.

    Mongrel2 itself answers what is no HTTP, so this needs no handler.
    """
    with connection(here.server) as probe:
        probe.sendall(b"no HTTP\r\n\r\n")
        assert probe.recv(100).startswith(b"HTTP/1.1 400")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as one:
        yield one


def test_1000_handlers_that_wait_50_ms(stack: ExitStack) -> None:
    """One after the other they would take 50 s."""
    with busy() as one:
        clients = Clients(stack, one.here, 1_000)
        clients.send(request_bytes("/hello"))
        assert {answer.text for answer in clients.answers()} == {"hello"}
        rounds = []
        for _ in range(3):
            started_s = time.monotonic()
            clients.send(request_bytes("/sleep/50"))
            assert [answer.text for answer in clients.answers()] == ["slept"] * 1_000
            rounds.append(time.monotonic() - started_s)
        assert min(rounds) < 1.0, rounds


def test_while_500_wait_new_requests_are_answered_at_once(stack: ExitStack) -> None:
    with busy() as one:
        clients = Clients(stack, one.here, 500)
        clients.send(request_bytes("/gate"))
        one.wait_for(500)
        delays = []
        for _ in range(50):
            started_s = time.monotonic()
            assert fetch(one.here.server, "/hello").text == "hello"
            delays.append(time.monotonic() - started_s)
        assert statistics.median(delays) < 0.05, delays
        assert clients.is_quiet()
        one.open()
        assert [answer.text for answer in clients.answers()] == ["through"] * 500


@pytest.mark.parametrize(("options", "bound"), [({"max_handlers": FEW}, FEW), ({}, HANDLERS)], ids=["20", "default"])
def test_at_the_bound_requests_wait_and_none_fails(stack: ExitStack, options: dict[str, int], bound: int) -> None:
    with busy(**options) as one:
        first = Clients(stack, one.here, bound)
        first.send(request_bytes("/gate"))
        one.wait_for(bound)
        later = Clients(stack, one.here, 200)
        later.send(request_bytes("/hello"))
        assert later.is_quiet()
        assert one.waiting() == bound
        one.open()
        assert [answer.text for answer in first.answers()] == ["through"] * bound
        assert [answer.text for answer in later.answers()] == ["hello"] * 200
        assert one.here.notes()["most"] == bound


def test_far_more_requests_than_the_worker_takes_in(stack: ExitStack) -> None:
    """1,000 wait in the worker, the rest in ZeroMQ and in Mongrel2."""
    with busy(max_handlers=FEW) as one:
        clients = Clients(stack, one.here, BACKLOG_MAX + 200)
        clients.send(request_bytes("/gate"))
        one.wait_for(FEW)
        assert clients.is_quiet()
        one.open()
        answers = clients.answers()
        assert {(answer.status, answer.text) for answer in answers} == {(200, "through")}
        assert one.here.notes()["most"] == FEW


def test_downloads_at_the_bound_get_their_credits(stack: ExitStack) -> None:
    """The credits lie behind more requests than the backlog takes, and are found there."""
    size = 8_000_000
    with busy(max_handlers=FEW) as one:
        slow = [stack.enter_context(connection(one.here.server, RECEIVE_BYTES)) for _ in range(FEW)]
        for client in slow:
            client.sendall(request_bytes(f"/stream/{size}"))
        one.wait_for(FEW)
        plain = Clients(stack, one.here, BACKLOG_MAX + 200)
        plain.send(request_bytes("/hello"))
        assert plain.is_quiet()
        for client in slow:
            with client.makefile("rb") as stream:
                answer = read_answer(stream)
            assert answer.is_whole
            assert len(answer.body) == size
        assert {(answer.status, answer.text) for answer in plain.answers()} == {(200, "hello")}


def test_clients_that_leave_free_their_handlers_at_the_bound(stack: ExitStack) -> None:
    with busy(max_handlers=FEW) as one:
        with ExitStack() as leaving:
            for _ in range(FEW):
                client = leaving.enter_context(connection(one.here.server, RECEIVE_BYTES))
                client.sendall(request_bytes("/stream/100000000"))
            one.wait_for(FEW)
            plain = Clients(stack, one.here, 50)
            plain.send(request_bytes("/hello"))
            assert plain.is_quiet()
        assert {answer.text for answer in plain.answers()} == {"hello"}


def test_uploads_at_the_bound_get_their_pieces(stack: ExitStack) -> None:
    with busy(max_handlers=FEW) as one:
        uploads = Clients(stack, one.here, FEW)
        uploads.send(request_bytes("/upload", "POST", Content_Length="1000000") + b"x" * 1_000)
        one.wait_for(FEW)
        plain = Clients(stack, one.here, 100)
        plain.send(request_bytes("/hello"))
        assert plain.is_quiet()
        uploads.send(b"x" * 999_000)
        assert {answer.text for answer in uploads.answers()} == {"1000000"}
        assert {answer.text for answer in plain.answers()} == {"hello"}


def frame(text: bytes) -> bytes:
    return bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text


def test_websockets_at_the_bound_get_their_messages(stack: ExitStack) -> None:
    with busy(max_handlers=FEW) as one:
        sessions = Clients(stack, one.here, FEW)
        sessions.send(request_bytes("/echo", **WEBSOCKET))
        sessions.send(frame(b"early"))
        for stream in sessions.streams:
            assert read_head(stream).status == 101
            assert stream.read(7) == b"\x81\x05early"
        plain = Clients(stack, one.here, 100)
        plain.send(request_bytes("/hello"))
        assert plain.is_quiet()
        sessions.send(frame(b"later"))
        assert [stream.read(7) for stream in sessions.streams] == [b"\x81\x05later"] * FEW
        assert plain.is_quiet()
        sessions.sockets[0].sendall(b"\x88\x80\0\0\0\0")
        assert {answer.text for answer in plain.answers()} == {"hello"}


@pytest.mark.parametrize(
    ("options", "size", "fits"),
    [
        pytest.param({}, 10, 256, id="256-messages"),
        pytest.param({}, 65_536, 16, id="1-mib"),
        pytest.param({"inbox_messages": 5}, 10, 5, id="5-messages"),
        pytest.param({"inbox_bytes": 1_000}, 100, 10, id="1000-bytes"),
    ],
)
def test_a_websocket_that_overruns_its_inbox_is_closed(
    stack: ExitStack, options: dict[str, int], size: int, fits: int
) -> None:
    with busy(**options) as one:
        enough, too_many = (stack.enter_context(connection(one.here.server)) for _ in range(2))
        message = b"\x82\xff" + size.to_bytes(8) + bytes(4) + b"x" * size
        for client, count in ((enough, fits), (too_many, fits + 1)):
            client.sendall(request_bytes("/deaf", **WEBSOCKET))
            assert client.recv(1_000).startswith(b"HTTP/1.1 101 ")
            client.sendall(message * count)
        assert too_many.recv(2, socket.MSG_WAITALL)[:1] == b"\x88"
        assert too_many.recv(2) == (1013).to_bytes(2)
        one.open()
        # What fits is read and sent back; a server's frame has no mask.
        with enough.makefile("rb") as stream:
            length = bytes([size]) if size < 126 else b"\x7f" + size.to_bytes(8)
            for _ in range(fits):
                assert stream.read(1 + len(length) + size) == b"\x82" + length + b"x" * size


def test_many_connections_and_requests_one_after_the_other(stack: ExitStack) -> None:
    with busy(max_handlers=FEW) as one:
        clients = Clients(stack, one.here, 100)
        for _ in range(20):
            clients.send(request_bytes("/sleep/1"))
            assert [answer.text for answer in clients.answers()] == ["slept"] * 100
