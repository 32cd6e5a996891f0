"""Items of crowded channels: apart from the rest, in order, and never more than the bounds say."""

from collections.abc import Callable

import gevent
import pytest
from gevent.event import Event

from m2gate.errors import LimitReached
from m2gate.hub.item import Item
from m2gate.hub.work import NOBODY, Receipt
from m2gate.inputs import lanes as module
from m2gate.inputs.lanes import Lanes

DEADLINE_S = 10.0


class Hub:
    """A hub whose channel ``slow`` is crowded until its gate opens."""

    def __init__(self) -> None:
        self.gate = Event()
        self.items: list[str] = []
        self.errors: list[Exception] = []
        self.lanes = Lanes(self.publish, self.is_crowded, self.errors.append)

    def is_crowded(self, channel: str) -> bool:
        return channel == "slow" and not self.gate.is_set()

    def publish(self, item: Item) -> Receipt:
        if item.content == "bad":
            raise ValueError("bad")
        if item.content == "bug":
            raise RuntimeError("bug")
        if item.content == "full":
            raise LimitReached(1, 2, "items")
        if self.is_crowded(item.channel):
            self.gate.wait()
        self.items.append(f"{item.channel} {item.content!s}")
        return NOBODY

    def put(self, channel: str, content: object, size: int = 1) -> None:
        self.lanes.put(Item(channel=channel, content=str(content)), size)


def until(condition: Callable[[], object]) -> None:
    with gevent.Timeout(DEADLINE_S):
        while not condition():
            gevent.sleep(0.001)


def test_what_is_not_crowded_never_waits() -> None:
    hub = Hub()
    hub.put("slow", 1)
    hub.put("fast", 1)
    hub.put("slow", 2)
    hub.put("fast", 2)
    gevent.sleep(0)
    assert hub.items == ["fast 1", "fast 2"]
    hub.gate.set()
    hub.put("slow", 3)  # behind those that wait, though there is room now
    until(lambda: len(hub.items) == 5)
    assert hub.items[2:] == ["slow 1", "slow 2", "slow 3"]
    hub.put("slow", 4)
    assert hub.items[-1] == "slow 4"  # and at once when there are none


def test_one_that_is_refused_costs_the_others_nothing() -> None:
    hub = Hub()
    for content in (1, "bad", "full", 2):
        hub.put("slow", content)
    hub.put("fast", "bad")
    hub.gate.set()
    until(lambda: len(hub.items) == 2)
    assert hub.items == ["slow 1", "slow 2"]
    assert [str(error) for error in hub.errors] == ["bad", "bad", "items: 2 is over the limit of 1"]


@pytest.mark.parametrize(("count", "size"), [(5, 1), (3, 40)], ids=["items", "bytes"])
def test_at_the_bound_the_reader_waits(monkeypatch: pytest.MonkeyPatch, count: int, size: int) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 5)
    monkeypatch.setattr(module, "WAITING_BYTES_MAX", 100)
    hub = Hub()
    put: list[int] = []

    def read() -> None:
        for number in range(20):
            hub.put("slow", number, size)
            put.append(number)

    reader = gevent.spawn(read)
    until(lambda: len(put) == count - 1)
    gevent.sleep(0.02)
    assert len(put) == count - 1
    hub.gate.set()
    reader.get(timeout=DEADLINE_S)
    until(lambda: len(hub.items) == 20)
    assert hub.items == [f"slow {number}" for number in range(20)]


def test_a_bug_costs_what_waits_and_not_the_channel(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 3)
    hub = Hub()
    for _ in range(5):  # more often than there is room for
        hub.put("slow", "bug")
        hub.put("slow", "lost with it")
        gevent.sleep(0)
    hub.put("slow", 1)
    hub.gate.set()
    until(lambda: hub.items == ["slow 1"])
    assert "RuntimeError: bug" in capfd.readouterr().err


def test_finish_waits_for_a_bounded_time() -> None:
    hub = Hub()
    hub.put("slow", 1)
    gevent.spawn_later(0.02, hub.gate.set)
    hub.lanes.finish(DEADLINE_S)
    assert hub.items == ["slow 1"]
    hub = Hub()
    hub.put("slow", 1)
    hub.lanes.finish(0.01)
    hub.gate.set()
    gevent.sleep(0.01)
    assert hub.items == []
