"""Connections that the gateway's hub holds: what they are sent, how they end, and what becomes of their sessions."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from m2gate.gateway import holds as module
from m2gate.gateway.channels import Channels
from m2gate.gateway.holds import Shared
from m2gate.gateway.hub import GatewayHub
from m2gate.hub.item import Item
from m2gate.hub.policy import Policy
from m2gate.hub.work import Receipt
from m2gate.link.access_log import AccessLog
from m2gate.wire import attach as wire
from tests.gateway.fakes import Gate, credits_, first, leave
from tests.gateway.holding import hand_over, hold, response, stream, until

HOLD_BYTES_MAX = 4096
LAST_CHUNK = b"0\r\n\r\n"


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path)
    yield gate
    gate.assert_counted()
    assert gate.server.held == sum(one.held is not None for one in gate.server.sessions.values())
    assert len(gate.server.link.connections) <= gate.server.held


@pytest.fixture
def hub(gate: Gate) -> GatewayHub:
    return GatewayHub(gate.dispatcher)


@pytest.fixture
def held(gate: Gate, hub: GatewayHub) -> Gate:
    hold(gate, hub, 1, "c", begin=b"head")
    return gate


def item(content: str = "x", channel: str = "c") -> Item:
    return Item(channel=channel, content=content)


def given(gate: Gate) -> list[bytes]:
    return gate.given("w1") + gate.given("w2")


def ask_to_feed(hub: GatewayHub, conn_id: int, channel: bytes, *, is_joining: bool) -> bytes:
    """Return the answer to a worker that wants a held connection fed from a channel, or no more."""
    answers: list[bytes] = []

    class Worker:
        def send(self, message: bytes) -> None:
            answers.append(message)

    channels: Channels = hub._channels
    payload = wire.dump([1, conn_id, channel, is_joining])
    channels.handle(Worker(), wire.build_numbered(wire.FEED, 1, payload))
    return answers[0][:1]


# -- how they begin -----------------------------------------------------------------------------------


def test_items_of_the_same_turn_come_behind_what_a_stream_begins_with(held: Gate, hub: GatewayHub) -> None:
    hub.publish(item("one"))
    hub.publish(item("two"))
    until(lambda: len(held.sent) == 2)
    assert held.body(1) == b"head3\r\none\r\n3\r\ntwo\r\n"


def test_what_the_worker_had_sent_is_written_first(gate: Gate, hub: GatewayHub) -> None:
    hand_over(gate, hub, 1, stream("c", begin=b"head"), balance=10)
    gate.take(credits_(1, 4))
    assert hub.publish(item("before")).matched == 0
    assert gate.sent == []
    gate.take(credits_(1, 6))
    assert gate.sent == [b"m2 1:1, head"]
    assert hub.publish(item("after")).matched == 1


def test_credits_that_were_lost_are_not_waited_for(
    gate: Gate, hub: GatewayHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_over(gate, hub, 1, stream("c", begin=b"head"), balance=10)
    hub.tick()
    assert gate.sent == []
    monkeypatch.setattr(module, "UNSETTLED_S", 0.0)
    hub.tick()
    assert gate.sent == [b"m2 1:1, head"]


def test_before_it_begins_a_hold_may_be_given_other_channels(gate: Gate, hub: GatewayHub) -> None:
    hand_over(gate, hub, 1, stream("c", begin=b"head"), balance=10)
    assert ask_to_feed(hub, 1, b"d", is_joining=True) == wire.RECEIPT
    assert ask_to_feed(hub, 1, b"d", is_joining=True) == wire.RECEIPT
    assert ask_to_feed(hub, 1, b"c", is_joining=False) == wire.RECEIPT
    gate.take(credits_(1, 10))
    assert (hub.publish(item(channel="d")).matched, hub.publish(item()).matched) == (1, 0)


def test_a_client_that_left_meanwhile_is_not_held(gate: Gate, hub: GatewayHub) -> None:
    gate.take(first(1))
    session = gate.session(1)
    owner = gate.owner(1)
    gate.take(leave(1))
    gate.dispatcher.hold(owner, session)
    hub.hold(session, response("c"))
    assert hub.publish(item()).matched == 0
    assert not gate.server.sessions
    assert gate.dispatcher.counters.failed == {"client-left": 1}


def test_while_the_gateway_drains_a_hold_ends_as_it_begins(gate: Gate, hub: GatewayHub) -> None:
    hub.begin_drain()
    hold(gate, hub, 1, "c", begin=b"head")
    assert gate.body(1) == b"head" + LAST_CHUNK
    assert gate.session(1).held is None


# -- how they are fed ---------------------------------------------------------------------------------


def test_a_held_session_may_be_fed_from_more_channels(held: Gate, hub: GatewayHub) -> None:
    assert ask_to_feed(hub, 1, b"d", is_joining=True) == wire.RECEIPT
    assert ask_to_feed(hub, 1, b"c", is_joining=False) == wire.RECEIPT
    assert (hub.publish(item(channel="d")).matched, hub.publish(item()).matched) == (1, 0)
    assert ask_to_feed(hub, 99, b"d", is_joining=True) == wire.REFUSAL


def test_a_quiet_stream_is_kept_alive(gate: Gate, hub: GatewayHub) -> None:
    hand_over(gate, hub, 1, stream("c", begin=b"head", ping=b"ping"))

    def is_pinged() -> bool:
        hub.tick()
        return gate.body(1) == b"headping"

    until(is_pinged)


def test_a_subscriber_that_does_not_read_is_cut(held: Gate, hub: GatewayHub) -> None:
    hub._channels.broadcast.configure("c", Policy("block", 1_000))
    for _ in range(4):
        held.take(credits_(1, 4))
        hub._channels.broadcast.accept(item("x" * 60_000))
        hub._channels.broadcast.flush()
    assert held.dispatcher.counters.failed == {"subscriber-slow": 1}
    assert not held.server.sessions
    assert hub.part().drops["over-limit"] > 0


# -- how they end -------------------------------------------------------------------------------------


def test_a_stream_that_its_client_leaves_has_ended(held: Gate, hub: GatewayHub) -> None:
    held.take(leave(1))
    assert not held.server.sessions
    assert hub.publish(item()) == Receipt(0, 0, 0)
    assert (held.dispatcher.counters.finished, dict(held.dispatcher.counters.failed)) == (1, {})


@pytest.mark.parametrize("balance", [0, 10], ids=["begun", "unsettled"])
def test_a_response_whose_client_leaves_has_failed(
    gate: Gate, hub: GatewayHub, balance: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNSETTLED_S", 0.0)
    hand_over(gate, hub, 1, response("c"), balance=balance)
    gate.take(leave(1))
    hub.tick()
    assert not gate.server.sessions
    assert hub.publish(item()).matched == 0
    assert gate.dispatcher.counters.failed == {"client-left": 1}


@pytest.mark.parametrize("balance", [0, 10], ids=["begun", "unsettled"])
def test_a_hold_ends_with_its_server(gate: Gate, hub: GatewayHub, balance: int) -> None:
    hand_over(gate, hub, 1, stream("c", begin=b"head"), balance=balance)
    gate.take(first(1, b"/next"))
    gate.dispatcher.lose(gate.server)
    assert gate.dispatcher.counters.failed == {"server-lost": 2}
    assert not gate.server.sessions
    assert hub.publish(item()).matched == 0
    hub.tick()


@pytest.mark.parametrize("balance", [0, 10], ids=["begun", "unsettled"])
def test_a_client_with_too_many_requests_behind_its_hold_is_cut(gate: Gate, hub: GatewayHub, balance: int) -> None:
    hand_over(gate, hub, 1, response("c"), balance=balance)
    for number in range(65):
        gate.take(first(1, b"/%d" % number))
    assert not gate.server.sessions
    assert hub.publish(item()).matched == 0


def test_after_a_hold_the_session_serves_requests(held: Gate, hub: GatewayHub) -> None:
    held.take(first(1, b"/next"))
    hub.begin_drain()
    assert held.body(1) == b"head" + LAST_CHUNK
    assert held.session(1).held is None
    before = given(held)
    held.take(credits_(1, 4))
    assert given(held) == before
    held.take(credits_(1, 5))
    assert given(held) == [*before, first(1, b"/next")]
    assert held.dispatcher.counters.finished == 1


def test_a_stream_may_end_with_its_connection(gate: Gate, hub: GatewayHub) -> None:
    hand_over(gate, hub, 1, stream("c", begin=b"head", close=True))
    hub.begin_drain()
    assert gate.sent[-2:] == [b"m2 1:1, " + LAST_CHUNK, b"m2 1:1, "]
    assert not gate.server.sessions
    assert gate.dispatcher.counters.finished == 1


def test_a_response_is_answered_by_one_item(gate: Gate, hub: GatewayHub) -> None:
    hand_over(gate, hub, 1, response("c", "d"))
    assert hub.publish(item("first")).matched == 1
    assert hub.publish(item("second", "d")).matched == 0
    until(lambda: gate.session(1).held is None)
    answer = gate.body(1)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\nfirst")
    assert gate.session(1).balance == len(answer)


def test_a_large_response_waits_for_credits(gate: Gate, hub: GatewayHub) -> None:
    hand_over(gate, hub, 1, response("c"))
    assert hub.publish(item("y" * 150_000)).matched == 1
    until(lambda: gate.sent)
    gate.take(first(1, b"/next"))
    assert gate.session(1).held is not None

    def is_over() -> bool:
        gate.take(credits_(1, 10_000))
        return gate.session(1).held is None

    until(is_over)
    assert gate.session(1).balance > 0
    assert gate.body(1).endswith(b"\r\n\r\n" + b"y" * 150_000)


def test_a_response_closes_its_connection_once_all_is_sent(gate: Gate, hub: GatewayHub) -> None:
    hand_over(gate, hub, 1, response("c", close=True))
    hub.publish(item("y" * 150_000))
    until(lambda: gate.sent)
    assert gate.session(1).held is not None
    while gate.server.sessions:
        gate.take(credits_(1, 10_000))
    assert gate.sent[-1] == b"m2 1:1, "
    assert gate.dispatcher.counters.finished == 1


def test_a_response_that_nobody_answers_times_out(gate: Gate, hub: GatewayHub) -> None:
    hand_over(gate, hub, 1, response("c", timeout_ms=1))

    def is_over() -> bool:
        hub.tick()
        return gate.session(1).held is None

    until(is_over)
    assert gate.body(1).startswith(b"HTTP/1.1 204 ")
    assert hub.publish(item()).matched == 0


def test_a_client_that_never_reads_its_answer_is_let_go_when_it_leaves(gate: Gate, hub: GatewayHub) -> None:
    hand_over(gate, hub, 1, response("c"))
    hub.publish(item("y" * 150_000))
    until(lambda: gate.sent)
    gate.take(leave(1))
    assert not gate.server.sessions
    assert gate.dispatcher.counters.finished + gate.dispatcher.counters.failed["client-left"] == 1


def test_without_flow_control_holds_are_served_as_well(gate: Gate, hub: GatewayHub) -> None:
    gate.take(first(1, DOWNLOAD_CREDITS=[]))
    gate.server.has_credits = False
    session = gate.session(1)
    gate.dispatcher.hold(gate.owner(1), session)
    hub.hold(session, stream("c", begin=b"head"))
    assert hub.publish(item("one")).matched == 1
    until(lambda: gate.body(1) == b"head3\r\none\r\n")
    hub.begin_drain()
    until(lambda: gate.body(1).endswith(LAST_CHUNK))
    until(lambda: session.held is None)


# -- bounds and logs ----------------------------------------------------------------------------------


def test_each_held_request_has_its_line_in_the_access_log(gate: Gate, hub: GatewayHub, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(str(path), "gateway", 0)
    hub.log_to(log)
    for conn_id in (1, 2):
        hold(gate, hub, conn_id, "c", begin=b"head")
    hand_over(gate, hub, 3, response("c"), balance=10)
    hand_over(gate, hub, 4, response("d"))
    gate.take(leave(2), leave(3))
    hub.publish(item(channel="d"))
    hub.begin_drain()
    log._file.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["status"], line["gone"]) for line in lines] == [(200, True), (0, True), (200, False), (200, False)]
    assert {(line["method"], line["path"], line["client"]) for line in lines} == {("GET", "/held", "10.0.0.1")}


def test_values_that_are_shared_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARED_MAX", 2)
    shared = Shared()
    one = shared("a" * 2)
    assert shared("".join(["a", "a"])) is one
    for value in ("b", "c", "d"):
        shared(value)
    assert len(shared._values) <= 2


def test_a_held_connection_takes_less_than_four_kilobytes() -> None:
    for kind in ("stream", "response"):
        command = [sys.executable, "-m", "tests.gateway.hold_memory", kind]
        found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert 500 < int(found.stdout) < HOLD_BYTES_MAX
