"""Which connections Mongrel2 is asked for, besides the keep-alives."""

import gevent
import pytest

from m2gate.errors import ConnectionGone
from m2gate.link.probe import READ_TIMEOUT_S, Prober
from tests.link.fakes import FakeMongrel2, in_greenlet, settle

WINDOW = 102_400


@pytest.fixture
def far() -> FakeMongrel2:
    return FakeMongrel2()


def probes(far: FakeMongrel2) -> list[list[int]]:
    return [conn_ids for conn_ids, _ in far.controls(b"keep-alive")]


@pytest.mark.checklist("mongrel2", 60)
def test_only_those_that_take_nothing_are_asked_for(far: FakeMongrel2) -> None:
    prober = Prober(far.server)
    for conn_id in (1, 2, 3, 4):
        far.opened(conn_id)
    far.connection(1).post(b"x" * WINDOW * 2)  # stalls
    far.connection(2).post(b"x" * WINDOW * 2)  # takes something
    far.connection(3).current.respond(200, (), b"idle")  # type: ignore[union-attr]
    prober.probe()
    assert probes(far) == []
    far.pay_next(2)
    prober.probe()
    assert probes(far) == [[1]]
    far.leave(1)
    prober.probe()
    prober.probe()
    assert probes(far) == [[1], [2], [2]]


@pytest.mark.checklist("mongrel2", 59)
def test_many_are_asked_for_in_groups(far: FakeMongrel2) -> None:
    prober = Prober(far.server)
    for conn_id in range(300):
        far.opened(conn_id)
        far.connection(conn_id).post(b"x")
    prober.probe()
    prober.probe()
    assert [len(conn_ids) for conn_ids in probes(far)] == [127, 127, 46]


def test_a_prober_asks_by_itself_until_it_is_stopped(far: FakeMongrel2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2gate.link.probe.PROBE_S", 0.01)
    prober = Prober(far.server)
    far.opened(1)
    far.connection(1).post(b"x")
    prober.start()
    with gevent.Timeout(5):
        while len(probes(far)) < 3:
            gevent.sleep(0.001)
    prober.stop()
    far.frames.clear()
    gevent.sleep(0.05)
    settle()
    assert probes(far) == []


def pass_time(far: FakeMongrel2, prober: Prober, seconds: float) -> None:
    for _ in range(int(seconds)):
        far.clock.move(1)
        prober.probe()


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_a_client_that_never_reads_frees_its_handler(far: FakeMongrel2, is_streamed: bool) -> None:
    prober = Prober(far.server)
    exchange = far.opened(1)

    def stream() -> None:
        exchange.start(200, (), None)
        while True:
            exchange.advance(lambda: exchange.write(b"x" * 1000))

    handler = in_greenlet(stream if is_streamed else lambda: exchange.respond(200, (), b"x" * WINDOW * 2))
    pass_time(far, prober, READ_TIMEOUT_S)
    assert far.controls(b"cancel") == []
    pass_time(far, prober, 2)
    assert far.controls(b"cancel") == [([1], True)]
    settle()
    assert handler.dead
    assert handler.exception is None or isinstance(handler.exception, ConnectionGone)


def test_a_client_that_reads_slowly_stays(far: FakeMongrel2) -> None:
    prober = Prober(far.server)
    exchange = far.opened(1)

    def stream() -> None:
        exchange.start(200, (), None)
        for _ in range(1000):
            exchange.advance(lambda: exchange.write(b"x" * 1000))

    in_greenlet(stream)
    for _ in range(5):  # its window is full again each time that anybody looks
        pass_time(far, prober, READ_TIMEOUT_S - 1)
        far.pay_next(1)
        settle()
    assert not exchange.gone


def test_a_client_for_whom_nothing_waits_stays(far: FakeMongrel2) -> None:
    prober = Prober(far.server)
    far.opened(1)
    far.connection(1).post(b"x")
    pass_time(far, prober, READ_TIMEOUT_S * 2)
    assert not far.connection(1).gone
