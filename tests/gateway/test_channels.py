"""Channels of several workers and of the gateway's own holds: exactly once, in order, counted."""

from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import gevent
import pytest

from m2gate.errors import WireError
from m2gate.gateway import channels as module
from m2gate.gateway.channels import Channels
from m2gate.gateway.hub import GatewayHub
from m2gate.hub.form import ResponseForm, StreamForm
from m2gate.hub.holding import HoldLog, HoldRequest
from m2gate.hub.item import Formats, Item, ResponseFormat, dump_item, load_item
from m2gate.hub.policy import Policy
from m2gate.hub.work import Receipt
from m2gate.wire import attach as wire
from tests.gateway.fakes import Gate, credits_, first

LOG = HoldLog(request_id="r1", method="GET", path="/", client="-", started_us=0)


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


def hold(gate: Gate, hub: GatewayHub, conn_id: int, *names: str, begin: bytes = b"") -> None:
    """Let a worker hand over the connection."""
    gate.take(first(conn_id))
    session = gate.session(conn_id)
    assert session.owner is not None
    gate.dispatcher.hold(session.owner, session)
    form = StreamForm(chunked=True, events=False)
    hub.hold(session, HoldRequest(channels=names, form=form, status=200, begin=begin, log=LOG))


def until(condition: Callable[[], object]) -> None:
    deadline_s = monotonic() + 5
    while not condition():
        assert monotonic() < deadline_s
        gevent.sleep(0.005)


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
    publish(channels, worker, 3, Item(channel="c", content="x", event="two\nlines"))
    assert [number for number, _ in worker.refusals()] == [3]
    assert not worker.items()
    with pytest.raises(ValueError, match="event"):
        channels.publish(Item(channel="c", content="x", event="two\nlines"))


def test_of_a_worker_that_is_gone_nothing_is_left(channels: Channels) -> None:
    worker, other = Worker(), Worker()
    join(channels, worker, "c")
    join(channels, worker, "d")
    join(channels, other, "c")
    channels.worker_gone(worker)
    assert channels.publish(item()).matched == 1
    channels.worker_gone(other)
    assert channels.members_total == 0
    assert channels.part().channels == []
    assert (channels._members, channels._published, channels._crowded) == ({}, {}, {})


def test_a_worker_brings_its_members_along(channels: Channels) -> None:
    worker = Worker()
    join(channels, worker, "old")
    channels.attached(worker, [("c", "websocket", 3), ("c", "nonsense", 1), ("d", "events", 0)])
    assert channels.publish(item()).matched == 3
    assert channels.publish(item(channel="old")).matched == 0


def test_a_crowded_channel_waits_and_keeps_its_order(channels: Channels) -> None:
    worker = Worker()
    join(channels, worker, "c")
    channels.handle(worker, wire.CROWDED + wire.dump([b"c", True]))
    for number in range(3):
        publish(channels, worker, number, item(str(number)))
    publish(channels, worker, 9, item(channel="other"))
    assert [number for number, _ in worker.receipts()] == [1, 9]
    channels.handle(worker, wire.CROWDED + wire.dump([b"c", False]))
    until(lambda: len(worker.items()) == 3)
    assert worker.items() == ["0", "1", "2"]
    assert [number for number, _ in worker.receipts()] == [1, 9, 0, 1, 2]
    assert not channels._lines


def test_nobody_waits_for_a_crowd_longer_than_a_second(channels: Channels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.05)
    worker = Worker()
    join(channels, worker, "c")
    channels.handle(worker, wire.CROWDED + wire.dump([b"c", True]))
    assert channels.publish(item()).matched == 1


def test_at_the_bound_items_are_refused(channels: Channels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUED_MAX", 2)
    worker = Worker()
    join(channels, worker, "c")
    channels.handle(worker, wire.CROWDED + wire.dump([b"c", True]))
    for number in range(3):
        publish(channels, worker, number, item(str(number)))
    assert [number for number, _ in worker.refusals()] == [2]
    assert channels.rejected == 1
    channels.handle(worker, wire.CROWDED + wire.dump([b"c", False]))
    until(lambda: len(worker.items()) == 2)


def test_policies_are_bounded(channels: Channels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLICIES_MAX", 1)
    worker = Worker()
    for name in (b"c", b"d", b"c"):
        channels.handle(worker, wire.POLICY + wire.dump([name, b"latest", 5]))
    assert channels.broadcast.hub._policies == {"c": Policy("latest", 5)}


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


# -- holds ------------------------------------------------------------------------------------------------


@pytest.fixture
def held(gate: Gate, hub: GatewayHub) -> Iterator[Gate]:
    hold(gate, hub, 1, "c", begin=b"head")
    yield gate
    gate.assert_counted()


def test_a_hold_ends_with_its_client(held: Gate, hub: GatewayHub) -> None:
    held.take(b'm2 1 @* 16:6:METHOD,4:JSON,}21:{"type":"disconnect"},')
    assert not held.server.sessions
    assert not held.server.link.connections
    assert hub.publish(item()) == Receipt(0, 0, 0)
    assert held.dispatcher.counters.finished == 1  # a stream has no other end
    assert held.server.held == 0


def test_a_hold_ends_with_its_server(held: Gate) -> None:
    held.dispatcher.lose(held.server)
    assert held.dispatcher.counters.failed == {"server-lost": 1}
    assert held.server.held == 0


def test_after_a_hold_the_session_serves_requests(held: Gate, hub: GatewayHub) -> None:
    held.take(first(1, b"/next"))
    hub.begin_drain()
    assert held.sent[-1].endswith(b"0\r\n\r\n")
    assert held.session(1).held is None
    before = held.given("w1") + held.given("w2")
    held.take(credits_(1, 4), credits_(1, 5))
    assert held.given("w1") + held.given("w2") == [*before, first(1, b"/next")]
    assert held.dispatcher.counters.finished == 1


def test_a_response_is_answered_by_an_item_and_its_connection_goes_on(gate: Gate, hub: GatewayHub) -> None:
    gate.take(first(1))
    session = gate.session(1)
    assert session.owner is not None
    gate.dispatcher.hold(session.owner, session)
    form = ResponseForm((), close=False, body_less=False)
    answer = form.encode(item("timeout"))
    assert answer is not None
    nothing = ResponseFormat(200, (), b"nothing")
    from_timeout = HoldRequest(channels=("c",), form=form, timeout_ms=60_000, answer=nothing, log=LOG)
    hub.hold(session, from_timeout)
    big = "y" * 150_000
    assert hub.publish(item(big)).matched == 1
    until(lambda: gate.sent)
    assert session.held is not None  # the rest waits for credits

    def is_over() -> bool:
        gate.take(credits_(1, 10_000))
        return gate.session(1).held is None

    until(is_over)
    assert session.balance > 0
    assert b"".join(one.partition(b", ")[2] for one in gate.sent).endswith(b"y" * 100)
    gate.assert_counted()


def test_what_the_worker_had_sent_is_written_first(gate: Gate, hub: GatewayHub) -> None:
    gate.take(first(1))
    session = gate.session(1)
    assert session.owner is not None
    gate.dispatcher.hold(session.owner, session)
    session.balance = 10
    form = StreamForm(chunked=True, events=False)
    hub.hold(session, HoldRequest(channels=("c",), form=form, status=200, begin=b"head", log=LOG))
    assert gate.sent == []
    gate.take(credits_(1, 10))
    assert gate.sent == [b"m2 1:1, head"]


def test_a_held_session_may_be_fed_from_more_channels(held: Gate, hub: GatewayHub, channels: Channels) -> None:
    worker = Worker()
    for number, name, is_joining in ((1, b"d", True), (2, b"c", False)):
        channels.handle(worker, wire.build_numbered(wire.FEED, number, wire.dump([1, 1, name, is_joining])))
    assert [number for number, _ in worker.receipts()] == [1, 2]
    assert (hub.publish(item(channel="d")).matched, hub.publish(item()).matched) == (1, 0)
    channels.handle(worker, wire.build_numbered(wire.FEED, 3, wire.dump([1, 99, b"d", True])))
    assert worker.refusals() == [(3, b"gone")]
