"""More requests than all workers take: they wait in their order, within bounds, and the rest is told to come again."""

import json
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.processes import ROOT
from tests.system.served import Served, running
from tests.system.support import Mongrel2, mongrel2, wait_until
from tests.system.transfers import Answer, connection, exchange, read_answer, request_bytes, rss_kib

pytestmark = [
    pytest.mark.alone,
    pytest.mark.shape("gateway-3", reason="the queue of a gateway; a direct worker's: test_concurrency.py"),
]

APP = ROOT / "tests/system/apps/blocking.py"
WORKERS = 3
BATCH = 100  # what comes within a batch may overtake each other on its way through Mongrel2
FILES = 16_384
WAITING_KIB = 5  # of the gateway's memory for a request that is open or waits
AT_ONCE_S = 2.0  # at once, and a second for a machine that is busy itself


@dataclass(frozen=True)
class Size:
    """clients that ask at once; handlers of each worker; requests that may wait."""

    clients: int
    handlers: int
    queue: int

    @property
    def taken(self) -> int:
        return WORKERS * self.handlers + self.queue


SIZES = [
    pytest.param(Size(5_000, 500, 3_000), id="5000"),
    pytest.param(Size(7_000, 2_000, 800), id="all-handlers", marks=pytest.mark.full),
]


@pytest.fixture(autouse=True, scope="module")
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, FILES), hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Full:
    """A site whose handlers wait at a gate, and clients, each of which asks for its own number."""

    def __init__(self, server: Mongrel2, served: Served, stack: ExitStack) -> None:
        self.server = server
        self.served = served
        self._stack = stack
        self.clients: list[socket.socket] = []

    @property
    def _shared(self) -> Path:
        return self.served.folder.parent / "shared"

    def started(self) -> int:
        return self.served.status()["counters"]["requests_started"]

    def ask(self, count: int) -> None:
        """Let so many clients more ask, in batches: one has come to the gateway before the next is sent."""
        for _ in range(count // BATCH):
            first = len(self.clients)
            for number in range(first, first + BATCH):
                client = self._stack.enter_context(connection(self.server))
                client.sendall(request_bytes(f"/block/{number}"))
                self.clients.append(client)
            wait_until(lambda: self.started() == len(self.clients), "the gateway has all requests", 20)

    def answer(self, number: int) -> Answer:
        with self.clients[number].makefile("rb") as stream:
            return read_answer(stream)

    def open_gate(self) -> None:
        (self._shared / "gates/go").touch()

    def begun(self) -> list[tuple[int, int]]:
        """Worker and number of each request that has begun."""
        return [tuple(json.loads(line)) for line in (self._shared / "begun/lines").read_text().splitlines()]


@pytest.mark.parametrize("size", SIZES)
def test_what_no_worker_takes_waits_in_its_order_or_is_refused(size: Size) -> None:
    with (
        ExitStack() as stack,
        mongrel2() as server,
        running(APP, server, max_handlers=size.handlers, gateway={"queue_max": size.queue}) as served,
    ):
        one = Full(server, served, stack)
        assert served.gateway is not None
        before_kib = rss_kib(served.gateway.pid)
        one.ask(size.clients)
        status = served.status()
        assert [worker["outstanding"] for worker in status["workers"]] == [size.handlers] * WORKERS
        assert status["queue"]["waiting"] == size.queue
        assert 0 < status["queue"]["bytes"] < size.queue * 1_000
        assert rss_kib(served.gateway.pid) - before_kib < 4_096 + WAITING_KIB * size.clients
        # Those above the bound know at once.
        refused = size.clients - size.taken
        assert status["counters"]["requests_failed"]["queue-full"] == refused
        refused_ids = set()
        for number in range(size.taken, size.clients):
            answer = one.answer(number)
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) > 0
            refused_ids.add(answer.headers["x-request-id"])
        assert len(refused_ids) == refused
        one.open_gate()
        for number in range(size.taken):
            answer = one.answer(number)
            assert (answer.status, answer.text) == (200, str(number))
        assert_in_order(one.begun(), size)
        assert_normal(one, size)


def assert_in_order(begun: list[tuple[int, int]], size: Size) -> None:
    """Each worker began its requests in the order of their arrival, and each that was taken once.

    Between workers there is none: one that the machine lets wait begins its share while others do the rest.
    """
    assert sorted(number for _, number in begun) == list(range(size.taken))
    for pid in {pid for pid, _ in begun}:
        batches = [number // BATCH for worker, number in begun if worker == pid]
        assert batches == sorted(batches)


def assert_normal(one: Full, size: Size) -> None:
    """Who was refused is served on the same connection, and others as ever."""
    began_s = time.monotonic()
    assert exchange(one.server, request_bytes("/block/0")).text == "0"
    one.clients[-1].sendall(request_bytes("/block/1"))
    assert one.answer(size.clients - 1).text == "1"
    assert time.monotonic() - began_s < AT_ONCE_S
    status = one.served.status()
    assert status["queue"] == {"waiting": 0, "max": size.queue, "bytes": 0}
    counters = status["counters"]
    assert counters["requests_started"] == counters["requests_finished"] + sum(counters["requests_failed"].values())


def test_clients_that_leave_give_up_their_places() -> None:
    """A queue of clients that are gone is no queue: who comes then is taken."""
    with (
        ExitStack() as stack,
        mongrel2() as server,
        running(APP, server, max_handlers=10, gateway={"queue_max": BATCH}) as served,
    ):
        one = Full(server, served, stack)
        one.ask(2 * BATCH)
        assert served.status()["queue"]["waiting"] == BATCH
        for client in one.clients:
            client.close()
        wait_until(lambda: served.status()["servers"][0]["sessions"] == 0, "the gateway knows", 20)
        status = served.status()
        assert status["queue"] == {"waiting": 0, "max": BATCH, "bytes": 0}
        taken = WORKERS * 10 + BATCH
        assert status["counters"]["requests_failed"]["client-left"] == taken
        assert status["counters"]["requests_failed"]["queue-full"] == 2 * BATCH - taken
        one.open_gate()
        assert exchange(server, request_bytes("/block/7")).text == "7"
