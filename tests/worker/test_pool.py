"""The pool of greenlets, fed over real sockets in this process by a stand-in for Mongrel2."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import gevent
import pytest
import zmq
from gevent.event import Event

from m2gate.errors import ConnectionGone
from m2gate.link.clock import Clock
from m2gate.link.exchange import Exchange
from m2gate.link.outbox import Outbox
from m2gate.link.server import LinkSettings, Server
from m2gate.wire.mongrel2 import Request
from m2gate.worker import pool as pool_module
from m2gate.worker.pool import Pool, Source
from tests.wire.frames import build_message

DEADLINE_S = 10.0


def credits_notice(conn_id: int, amount: int) -> bytes:
    headers = b"16:DOWNLOAD_CREDITS,%d:%d,6:METHOD,4:JSON," % (len(b"%d" % amount), amount)
    return b'm2 %d @* %d:%b}18:{"type":"credits"},' % (conn_id, len(headers), headers)


def leave_notice(conn_id: int) -> bytes:
    return b'm2 %d @* 16:6:METHOD,4:JSON,}21:{"type":"disconnect"},' % conn_id


class Feeder:
    """What Mongrel2 is to a pool: a socket that requests come from, and a list of what was sent."""

    def __init__(self, context: Any, handle: Callable[[Exchange], None], max_handlers: int) -> None:
        self.sent: list[bytes] = []
        self.handled: list[int] = []
        self._handle = handle
        self.pool = Pool(self.run, max_handlers)
        self._push = context.socket(zmq.PUSH)
        self._pull = context.socket(zmq.PULL)
        self._push.sndhwm = self._pull.rcvhwm = 0
        self._push.bind("inproc://pool")
        self._pull.connect("inproc://pool")
        outbox = Outbox(self.sent.append, gevent.get_hub().loop.run_callback)
        self.server = Server(b"m2", outbox.send, self.pool.run, LinkSettings(), Clock(), send_soon=outbox.send_soon)
        self.source = Source.of(self._pull, self.server, outbox)
        self.pool.attach(self.source)

    def run(self, exchange: Exchange) -> None:
        self.handled.append(exchange.connection.conn_id)
        self._handle(exchange)

    def frame(self, frame: bytes) -> None:
        self._push.send(frame, zmq.NOBLOCK)

    def request(self, conn_id: int, path: bytes = b"/") -> None:
        headers: dict[bytes, Any] = {
            b"METHOD": b"GET", b"VERSION": b"HTTP/1.1", b"PATTERN": b"/", b"DOWNLOAD_CREDITS": b"102400",
        }  # fmt: skip
        self.frame(build_message(Request(b"m2", conn_id, path, headers, b"")))

    def answered(self) -> int:
        return sum(b"HTTP/1.1 200" in one for one in self.sent)

    def has_handled(self, conn_id: int) -> bool:
        return self.handled[-1:] == [conn_id]

    def close(self) -> None:
        self.pool.detach(self.source)
        self._push.close(linger=0)
        self._pull.close(linger=0)


def until(condition: Callable[[], object]) -> None:
    with gevent.Timeout(DEADLINE_S):
        while not condition():
            gevent.sleep(0.001)


def answer(exchange: Exchange) -> None:
    exchange.respond(200, (), b"done")


@contextmanager
def feeding(handle: Callable[[Exchange], None], max_handlers: int = 4) -> Iterator[Feeder]:
    context: Any = zmq.Context()
    feeder = Feeder(context, handle, max_handlers)
    try:
        yield feeder
    finally:
        feeder.close()
        context.term()


def test_handlers_that_do_not_block_share_one_greenlet() -> None:
    greenlets = set()

    def handle(exchange: Exchange) -> None:
        greenlets.add(gevent.getcurrent())
        answer(exchange)

    with feeding(handle) as feeder:
        for number in range(1000):
            feeder.request(number)
        until(lambda: feeder.answered() == 1000)
        assert feeder.handled == list(range(1000))
    assert len(greenlets) == 1


def test_handlers_that_wait_do_so_at_once_up_to_the_bound() -> None:
    gate = Event()
    running: set[int] = set()
    most = 0

    def handle(exchange: Exchange) -> None:
        nonlocal most
        running.add(exchange.connection.conn_id)
        most = max(most, len(running))
        gate.wait()
        running.remove(exchange.connection.conn_id)
        answer(exchange)

    with feeding(handle, 7) as feeder:
        for number in range(100):
            feeder.request(number)
        until(lambda: len(running) == 7)
        until(lambda: feeder.pool.busy == 100)
        assert len(running) == 7
        gate.set()
        until(lambda: feeder.answered() == 100)
        until(lambda: feeder.pool.busy == 0)
    assert most == 7
    assert feeder.handled == list(range(100))


def test_quick_requests_pass_those_that_wait() -> None:
    gate = Event()

    def handle(exchange: Exchange) -> None:
        if exchange.head.path == b"/slow":
            gate.wait()
        answer(exchange)

    with feeding(handle, 50) as feeder:
        for number in range(40):
            feeder.request(number, b"/slow")
        for number in range(40, 300):
            feeder.request(number)
        until(lambda: feeder.answered() == 260)
        assert feeder.pool.busy == 40
        gate.set()
        until(lambda: feeder.answered() == 300)


def test_credits_and_leaves_come_through_at_the_bound() -> None:
    """Every handler waits for credits, and behind them in the socket lie requests, then the credits."""
    big = b"x" * 300_000

    def handle(exchange: Exchange) -> None:
        exchange.respond(200, (), big)

    with feeding(handle, 3) as feeder:
        for number in range(20):
            feeder.request(number)
        until(lambda: feeder.pool.busy == 20)
        answered: set[int] = set()

        def pay() -> bool:
            for number in set(feeder.server.connections) - answered:
                connection = feeder.server.connections[number]
                if connection.outstanding:
                    feeder.frame(credits_notice(number, connection.outstanding))
                elif number in feeder.handled and connection.current is None:
                    answered.add(number)
            return len(answered) == 20

        until(pay)
    assert feeder.handled == list(range(20))
    assert sum(map(len, feeder.sent)) > 20 * len(big)


def test_a_leave_frees_a_handler_at_the_bound() -> None:
    with feeding(lambda exchange: exchange.respond(200, (), b"x" * 300_000), 1) as feeder:
        feeder.request(1)
        feeder.request(2)
        until(lambda: feeder.pool.busy == 2)
        feeder.frame(leave_notice(1))
        until(lambda: feeder.handled == [1, 2])


def test_with_a_full_backlog_nothing_more_is_received(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "BACKLOG_MAX", 10)
    gate = Event()

    def handle(exchange: Exchange) -> None:
        gate.wait()
        answer(exchange)

    with feeding(handle, 2) as feeder:
        for number in range(100):
            feeder.request(number)
        until(lambda: feeder.pool.busy == 12)
        gevent.sleep(0.05)  # nothing else happens meanwhile
        assert feeder.pool.busy == 12
        assert len(feeder.server.connections) == 12
        gate.set()
        until(lambda: feeder.answered() == 100)
        assert feeder.pool.rejected == 0
        assert feeder.handled == list(range(100))


def test_pipelined_requests_run_one_after_the_other() -> None:
    order: list[bytes] = []

    def handle(exchange: Exchange) -> None:
        gevent.sleep(0.001 if exchange.head.path == b"/0" else 0)
        order.append(exchange.head.path)
        answer(exchange)

    with feeding(handle) as feeder:
        for number in range(50):
            feeder.request(1, b"/%d" % number)
        until(lambda: feeder.answered() == 50)
    assert order == [b"/%d" % number for number in range(50)]


def test_an_exception_costs_only_its_own_connection(caplog: pytest.LogCaptureFixture) -> None:
    def handle(exchange: Exchange) -> None:
        if exchange.connection.conn_id % 2:
            raise RuntimeError("as a test wants it")
        answer(exchange)

    with feeding(handle) as feeder:
        for number in range(20):
            feeder.request(number)
        until(lambda: feeder.answered() == 10)
        until(lambda: len(feeder.handled) == 20)
    assert sum("exchange failed" in record.message for record in caplog.records) == 10


def test_a_producer_that_has_just_ended_is_not_killed(caplog: pytest.LogCaptureFixture) -> None:
    """The leave arrives in the very turn of the loop in which the producer comes back by itself."""
    produced = Event()

    def handle(exchange: Exchange) -> None:
        if exchange.head.path == b"/stream":
            exchange.advance(produced.wait)
        answer(exchange)

    with feeding(handle, 2) as feeder:
        for number in range(10):
            feeder.request(number, b"/stream")
            until(partial(feeder.has_handled, number))
            produced.set()
            feeder.server.connections[number].lose()  # its producer is to be ended, but ends by itself first
            until(lambda: feeder.pool.busy == 0)
            produced.clear()
            feeder.request(100 + number)
            until(partial(feeder.has_handled, 100 + number))
        assert feeder.answered() == 10
    assert not caplog.records


def test_a_producer_ends_with_its_client() -> None:
    ended: list[str] = []

    def handle(exchange: Exchange) -> None:
        try:
            exchange.advance(lambda: gevent.sleep(DEADLINE_S * 2))
        except ConnectionGone:
            ended.append("gone")

    with feeding(handle, 2) as feeder:
        feeder.request(1)
        until(partial(feeder.has_handled, 1))
        feeder.frame(leave_notice(1))
        until(lambda: ended == ["gone"])


@pytest.mark.parametrize("exception", [gevent.GreenletExit, gevent.Timeout])
def test_what_a_handler_has_left_running_hits_nobody_else(exception: type[BaseException]) -> None:
    """A Timeout that was never cancelled fires when its greenlet rests, leads, or has another request."""
    greenlets: list[Any] = []

    def handle(exchange: Exchange) -> None:
        greenlets.append(gevent.getcurrent())
        gevent.sleep(0)
        answer(exchange)

    with feeding(handle, 3) as feeder:
        for number in range(3):
            feeder.request(number)
        until(lambda: feeder.pool.busy == 0 and feeder.answered() == 3)
        for one in set(greenlets):
            gevent.get_hub().loop.run_callback(one.throw, exception)
        gevent.sleep(0.01)
        for number in range(10, 20):
            feeder.request(number)
        until(lambda: feeder.answered() == 13)
        until(lambda: feeder.pool.busy == 0)


def test_a_full_backlog_of_which_all_blocks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "BACKLOG_MAX", 4)
    first, second = Event(), Event()

    def handle(exchange: Exchange) -> None:
        if exchange.head.path == b"/":
            (first if exchange.connection.conn_id < 8 else second).wait()
        answer(exchange)

    with feeding(handle, 8) as feeder:
        for number in range(12):
            feeder.request(number)
        until(lambda: feeder.pool.busy == 12)
        first.set()  # eight handlers end together: four take the backlog, which blocks again, four rest
        until(lambda: len(feeder.handled) == 12)
        feeder.request(100, b"/quick")
        until(lambda: feeder.has_handled(100))
        second.set()
        until(lambda: feeder.answered() == 13)
