"""Which connections Mongrel2 is asked for, besides the keep-alives."""

import gevent
import pytest

from m2gate.link.probe import Prober
from tests.link.fakes import FakeMongrel2, settle

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
