"""Channels of several workers and of the gateway's own holds: exactly once, in order, counted."""

import re
from pathlib import Path

import gevent
import pytest

from m2gate.errors import LimitReached, WireError
from m2gate.gateway import channels as module
from m2gate.gateway import lines
from m2gate.gateway.channels import Channels
from m2gate.gateway.hub import GatewayHub
from m2gate.hub.item import Formats, Item, dump_item, load_item
from m2gate.wire import attach as wire
from tests.gateway.fakes import Gate, credits_
from tests.gateway.holding import hold, until

EMPTY = Formats(stream=b"")  # it has nothing for anybody


class Worker:
    """Notes what it is sent."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def send(self, message: bytes) -> None:
        self.messages.append(message)

    def items(self) -> list[str]:
        found = [load_item(one[1:]) for one in self.messages if one[:1] == wire.ITEM]
        return [str(one.content) for one in found]

    def receipts(self) -> list[tuple[int, tuple[int, ...]]]:
        return [wire.parse_receipt(one) for one in self.messages if one[:1] == wire.RECEIPT]

    def refusals(self) -> list[tuple[int, bytes]]:
        return [wire.parse_numbered(one) for one in self.messages if one[:1] == wire.REFUSAL]


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


@pytest.fixture
def hub(gate: Gate) -> GatewayHub:
    return GatewayHub(gate.dispatcher)


@pytest.fixture
def channels(hub: GatewayHub) -> Channels:
    return hub._channels


def join(channels: Channels, worker: Worker, channel: str, form: str = "websocket", number: int = 1) -> None:
    channels.handle(worker, wire.build_numbered(wire.JOIN, number, wire.dump([channel.encode(), form.encode()])))


def leave(channels: Channels, worker: Worker, channel: str, form: str = "websocket") -> None:
    channels.handle(worker, wire.build_numbered(wire.LEAVE, 0, wire.dump([channel.encode(), form.encode()])))


def publish(channels: Channels, worker: Worker, number: int, item: Item) -> None:
    channels.handle(worker, wire.build_numbered(wire.PUBLISH, number, dump_item(item)))


def item(content: str = "x", channel: str = "c") -> Item:
    return Item(channel=channel, content=content)


def item_with_broken_event() -> Item:
    return Item(channel="c", content="x", event="two\nlines")


def test_a_join_is_acknowledged_and_gets_the_items_after_it(channels: Channels) -> None:
    worker = Worker()
    assert channels.publish(item("before")).matched == 0
    join(channels, worker, "c", number=7)
    assert worker.receipts() == [(7, (0, 0, 0, 0, 0))]
    assert channels.publish(item("after")).matched == 1
    leave(channels, worker, "c")
    assert channels.publish(item("too late")).matched == 0
    assert worker.items() == ["after"]


def test_each_worker_gets_an_item_once_however_many_members_it_has(channels: Channels) -> None:
    one, other = Worker(), Worker()
    for form in ("websocket", "websocket", "events"):
        join(channels, one, "c", form)
    join(channels, other, "c")
    assert channels.publish(item()).matched == 4
    assert (one.items(), other.items()) == (["x"], ["x"])


def test_only_members_whose_form_has_a_rendering_count(channels: Channels) -> None:
    worker, other = Worker(), Worker()
    join(channels, worker, "c", "websocket")
    join(channels, worker, "c", "stream")
    join(channels, other, "c", "stream-raw")
    only = Item(channel="c", content=None, formats=Formats(message="m"))
    assert channels.publish(only).matched == 1
    assert not other.items()


def test_a_publish_of_a_worker_reaches_all_and_is_answered(gate: Gate, hub: GatewayHub, channels: Channels) -> None:
    hold(gate, hub, 1, "c", begin=b"head")
    worker, other = Worker(), Worker()
    join(channels, other, "c")
    publish(channels, worker, 5, item("hello"))
    assert worker.receipts() == [(5, (2, 2, 0, 0, 0))]
    assert other.items() == ["hello"]
    until(lambda: len(gate.sent) == 2)
    assert gate.sent == [b"m2 1:1, head", b"m2 1:1, 5\r\nhello\r\n"]


def test_an_item_that_cannot_be_expressed_reaches_nobody(channels: Channels) -> None:
    worker = Worker()
    join(channels, worker, "c", "events")
    publish(channels, worker, 3, item_with_broken_event())
    assert [number for number, _ in worker.refusals()] == [3]
    assert not worker.items()
    with pytest.raises(ValueError, match="event"):
        channels.publish(item_with_broken_event())


def test_of_a_worker_that_is_gone_nothing_is_left(channels: Channels) -> None:
    worker, other = Worker(), Worker()
    join(channels, worker, "c")
    join(channels, worker, "d")
    join(channels, other, "c")
    channels.worker_gone(worker)
    assert channels.publish(item()).matched == 1
    channels.handle(other, wire.CROWDED + wire.dump([b"c", True]))
    channels.worker_gone(other)
    assert channels.part().subscribers_total == 0
    assert channels.part().channels == []
    members = channels._members
    assert (members._channels, members._published, members._crowds) == ({}, {}, {})


def test_a_worker_brings_its_members_along(channels: Channels) -> None:
    worker = Worker()
    join(channels, worker, "old")
    channels.attached(worker, [("c", "websocket", 3), ("c", "nonsense", 1), ("d", "events", 0)])
    assert channels.publish(item()).matched == 3
    assert channels.publish(item(channel="old")).matched == 0


def test_a_crowded_channel_waits_and_keeps_its_order(channels: Channels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_S", 60.0)
    worker = Worker()
    join(channels, worker, "c")
    channels.handle(worker, wire.CROWDED + wire.dump([b"c", True]))
    for number in range(3):
        publish(channels, worker, number, item(str(number)))
    publish(channels, worker, 9, item(channel="other"))
    assert [number for number, _ in worker.receipts()] == [1, 9]
    gevent.idle()  # now the line waits for room
    channels.handle(worker, wire.CROWDED + wire.dump([b"c", False]))
    until(lambda: len(worker.items()) == 3)
    assert worker.items() == ["0", "1", "2"]
    assert [number for number, _ in worker.receipts()] == [1, 9, 0, 1, 2]
    until(lambda: "c" not in channels._lines)


def test_a_crowd_that_is_over_lets_nobody_overtake(channels: Channels) -> None:
    worker = Worker()
    join(channels, worker, "c")
    channels.handle(worker, wire.CROWDED + wire.dump([b"c", True]))
    publish(channels, worker, 5, item("first"))
    channels.handle(worker, wire.CROWDED + wire.dump([b"c", False]))
    publish(channels, worker, 6, item("second"))
    until(lambda: len(worker.items()) == 2)
    assert worker.items() == ["first", "second"]


def test_nobody_waits_for_a_crowd_longer_than_a_second(channels: Channels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.05)
    worker = Worker()
    join(channels, worker, "c")
    channels.handle(worker, wire.CROWDED + wire.dump([b"c", True]))
    assert channels.publish(item()).matched == 1


def test_a_crowd_is_over_when_its_members_have_left(channels: Channels) -> None:
    worker = Worker()
    channels.handle(worker, wire.CROWDED + wire.dump([b"c", True]))
    assert not channels._members._crowds  # there are none to be crowded
    join(channels, worker, "c")
    channels.handle(worker, wire.CROWDED + wire.dump([b"c", True]))
    publish(channels, worker, 5, item())
    leave(channels, worker, "c")
    until(lambda: (5, (0, 0, 0, 0, 0)) in worker.receipts())
    assert not channels._members._crowds


def test_where_items_may_be_dropped_nobody_waits_for_a_crowd(channels: Channels) -> None:
    worker = Worker()
    join(channels, worker, "c")
    channels.handle(worker, wire.POLICY + wire.dump([b"c", b"latest", 5]))
    channels.handle(worker, wire.CROWDED + wire.dump([b"c", True]))
    publish(channels, worker, 5, item())
    assert worker.items() == ["x"]


def test_what_a_lost_worker_has_published_still_goes_out(channels: Channels) -> None:
    worker, other = Worker(), Worker()
    join(channels, other, "c")
    channels.handle(other, wire.CROWDED + wire.dump([b"c", True]))
    publish(channels, worker, 5, item("last"))
    channels.worker_gone(worker)
    channels.handle(other, wire.CROWDED + wire.dump([b"c", False]))
    until(lambda: other.items() == ["last"])


def test_inputs_wait_behind_what_workers_have_published(channels: Channels) -> None:
    worker = Worker()
    join(channels, worker, "c")
    channels.handle(worker, wire.CROWDED + wire.dump([b"c", True]))
    publish(channels, worker, 5, item("first"))
    publishing = gevent.spawn(channels.publish, item("second"))
    empty = gevent.spawn(channels.publish, Item(channel="c", content=None, formats=EMPTY))
    gevent.idle()
    join(channels, worker, "c", "events")
    channels.handle(worker, wire.CROWDED + wire.dump([b"c", False]))
    assert publishing.get(timeout=5).matched == 2
    assert worker.items() == ["first", "second"]
    assert empty.get(timeout=5).matched == 0


def test_in_a_callback_of_the_loop_nobody_waits(channels: Channels) -> None:
    worker = Worker()
    join(channels, worker, "c")
    channels.handle(worker, wire.CROWDED + wire.dump([b"c", True]))
    publish(channels, worker, 5, item("first"))
    found: list[int] = []
    gevent.get_hub().loop.run_callback(lambda: found.append(channels.publish(item("second")).matched))
    until(lambda: found == [1])
    assert worker.items() == ["first", "second"]


def test_who_waits_hears_that_an_item_cannot_be_expressed(channels: Channels) -> None:
    worker = Worker()
    join(channels, worker, "c", "events")
    channels.handle(worker, wire.CROWDED + wire.dump([b"c", True]))

    def refused() -> None:
        with pytest.raises(ValueError, match="event"):
            channels.publish(item_with_broken_event())

    publishing = gevent.spawn(refused)
    gevent.idle()
    channels.handle(worker, wire.CROWDED + wire.dump([b"c", False]))
    publishing.get(timeout=5)
    assert not worker.items()
    assert channels.rejected == 1


def test_at_the_bound_items_are_refused(channels: Channels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "QUEUED_MAX", 2)
    worker = Worker()
    join(channels, worker, "c")
    channels.handle(worker, wire.CROWDED + wire.dump([b"c", True]))
    for number in range(3):
        publish(channels, worker, number, item(str(number)))
    assert worker.refusals() == [(2, b"items that wait for subscribers: 3 is over the limit of 2")]
    with pytest.raises(LimitReached):
        channels.publish(item())
    assert channels.rejected == 2
    channels.handle(worker, wire.CROWDED + wire.dump([b"c", False]))
    until(lambda: len(worker.items()) == 2)
    publish(channels, worker, 9, item())
    until(lambda: len(worker.items()) == 3)


def test_at_the_bound_of_bytes_items_are_refused(channels: Channels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "QUEUED_BYTES_MAX", 100)
    worker = Worker()
    join(channels, worker, "c")
    channels.handle(worker, wire.CROWDED + wire.dump([b"c", True]))
    publish(channels, worker, 1, item("x" * 200))  # the first one is taken whatever its size
    publish(channels, worker, 2, item("x"))
    assert [number for number, _ in worker.refusals()] == [2]
    channels.handle(worker, wire.CROWDED + wire.dump([b"c", False]))
    until(lambda: len(worker.items()) == 1)
    assert channels._lines._queued_bytes == 0


def test_a_congested_channel_of_holds_waits_for_its_clients(gate: Gate, hub: GatewayHub, channels: Channels) -> None:
    hold(gate, hub, 1, "c", begin=b"head")
    worker = Worker()
    for number in range(12):  # the window is 102,400 bytes
        publish(channels, worker, number, item(f"{number:02}" + "x" * 15_000))
    assert 0 < len(worker.receipts()) < 12

    def are_all_read() -> bool:
        gate.take(credits_(1, 15_000))
        return gate.body(1).count(b"\r\n") == 24

    until(are_all_read)
    assert [number for number, _ in worker.receipts()] == list(range(12))
    assert re.findall(rb"\r\n([0-9]{2})x", gate.body(1)) == [b"%02d" % number for number in range(12)]


def test_the_oldest_policy_without_subscribers_is_forgotten(
    channels: Channels, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "POLICIES_MAX", 2)
    worker = Worker()
    join(channels, worker, "a")

    def configure(name: bytes, rule: bytes = b"latest") -> None:
        channels.handle(worker, wire.POLICY + wire.dump([name, rule, 1 << 20]))

    for name in (b"a", b"b", b"c", b"a"):
        configure(name)
    policies = channels.broadcast.hub._policies
    assert list(policies) == ["a", "c"]
    join(channels, worker, "c")
    configure(b"d")
    assert list(policies) == ["a", "c"]
    assert [one.message for one in caplog.records] == ["policy forgotten channel=b limit=2"]  # one a second
    configure(b"c", b"block")
    configure(b"d")
    assert list(policies) == ["a", "d"]


def test_the_first_and_the_last_subscriber_are_heard_of_wherever_they_are(
    gate: Gate, hub: GatewayHub, channels: Channels
) -> None:
    heard: list[str] = []
    channels.on_opened = lambda channel: heard.append(f"+{channel}")
    channels.on_emptied = lambda channel: heard.append(f"-{channel}")
    worker = Worker()
    join(channels, worker, "c")
    hold(gate, hub, 1, "c", "d")
    assert heard == ["+c", "+d"]
    assert sorted(channels.names()) == ["c", "d"]
    leave(channels, worker, "c")
    assert heard == ["+c", "+d"]
    hub.begin_drain()
    assert sorted(heard[2:]) == ["-c", "-d"]
    join(channels, worker, "c")
    channels.worker_gone(worker)
    assert heard[4:] == ["+c", "-c"]
    assert channels.names() == []


@pytest.mark.parametrize(
    "message",
    [
        wire.JOIN,
        wire.build_numbered(wire.JOIN, 1, b"junk"),
        wire.build_numbered(wire.JOIN, 1, wire.dump([b"c"])),
        wire.build_numbered(wire.JOIN, 1, wire.dump([b"c", b"unknown"])),
        wire.build_numbered(wire.JOIN, 1, wire.dump([b"\xff", b"websocket"])),
        wire.build_numbered(wire.PUBLISH, 1, b"junk"),
        wire.build_numbered(wire.FEED, 1, wire.dump([1, 2])),
        wire.POLICY + wire.dump([b"c", b"nonsense", 1]),
        wire.POLICY + b"junk",
        wire.CROWDED + wire.dump([1]),
    ],
)
def test_junk_is_a_wire_error(channels: Channels, message: bytes) -> None:
    with pytest.raises(WireError):
        channels.handle(Worker(), message)


def test_the_status_counts_holds_and_members(gate: Gate, hub: GatewayHub, channels: Channels) -> None:
    hold(gate, hub, 1, "c")
    worker = Worker()
    join(channels, worker, "c")
    join(channels, worker, "d", "events")
    channels.publish(item())
    channels.publish(item(channel="d"))
    part = hub.part()
    rows = {row["name"]: (row["subscribers"], row["published"]) for row in part.channels}
    assert rows == {"c": (2, 1), "d": (1, 1)}
    assert (part.channels_total, part.subscribers_total) == (2, 3)
    assert (part.items_published, part.deliveries) == (2, 3)
