"""Items by ZeroMQ over real sockets: each form, what is none, and what stays bounded."""

import gc
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gevent
import pytest
import tnetstring
import zmq
from gevent.event import Event
from hypothesis import given
from hypothesis import strategies as st

from m2gate.errors import ConfigError, LimitReached
from m2gate.hub.grip import parse_item
from m2gate.hub.item import Item
from m2gate.hub.work import NOBODY, Receipt
from m2gate.inputs import publish_zmq as module
from m2gate.inputs.publish_zmq import PullInput, SubInput, parse_payload
from tests.system.processes import free_port, short_directory

DEADLINE_S = 10.0
DATE = "Wed, 25 Nov 2026 04:22:00 GMT"
Context = zmq.Context[zmq.Socket[bytes]]


class Peers:
    """A hub that takes items, and everything that a test opens."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.spec = f"ipc://{folder}/items"
        self.context = Context()
        self.items: list[Item] = []
        self.before: Callable[[Item], None] = lambda item: None
        self._sockets: list[zmq.Socket[bytes]] = []
        self._stack = stack
        stack.callback(self.context.destroy, linger=0)

    def publish(self, item: Item) -> Receipt:
        self.before(item)
        self.items.append(item)
        return NOBODY

    def start(self, kind: type[PullInput] | type[SubInput]) -> Any:
        one = kind(self.context, self.spec, self.publish, lambda: DATE)
        one.start()
        self._stack.callback(one.stop)
        return one

    def connect(self, kind: int, **options: int) -> "zmq.Socket[bytes]":
        socket = self.context.socket(kind)
        self.keep(socket)
        for name, value in options.items():
            setattr(socket, name, value)
        socket.connect(self.spec)
        return socket

    def keep(self, socket: "zmq.Socket[bytes]") -> None:
        """Let a socket live until the context ends."""
        self._sockets.append(socket)

    def until(self, condition: Callable[[], object]) -> None:
        with gevent.Timeout(DEADLINE_S):
            while not condition():
                gevent.sleep(0.001)

    @property
    def contents(self) -> list[str | bytes | None]:
        return [item.content for item in self.items]


@pytest.fixture
def peers() -> Iterator[Peers]:
    with short_directory() as folder, ExitStack() as stack:
        yield Peers(folder, stack)
    gc.collect()


def json_item(content: str = "x", channel: str = "c") -> bytes:
    return b"J" + json.dumps({"channel": channel, "formats": {"m2gate": {"content": content}}}).encode()


TNETSTRING = tnetstring.dumps({b"channel": b"c", b"formats": {b"m2gate": {b"content": b"x"}}})
FORMS = [
    pytest.param(json_item(), id="json"),
    pytest.param(b"J \n" + json_item()[1:] + b"\n", id="json-spaces"),
    pytest.param(b"T" + TNETSTRING, id="tnetstring"),
    pytest.param(TNETSTRING, id="bare-tnetstring"),
]


@pytest.mark.parametrize("frame", FORMS)
def test_each_form(peers: Peers, frame: bytes) -> None:
    pull = peers.start(PullInput)
    peers.connect(zmq.PUSH).send(frame)
    peers.until(lambda: peers.items)
    assert peers.items == [Item(channel="c", content="x", date=DATE)]
    assert pull.rejected == 0


JUNK: list[Any] = [
    pytest.param([b""], id="empty"),
    pytest.param([b"J"], id="bare-j"),
    pytest.param([b"T"], id="bare-t"),
    pytest.param([json_item()[1:]], id="json-without-j"),
    pytest.param([b"X" + json_item()], id="other-letter"),
    pytest.param([b"J{"], id="cut-json"),
    pytest.param([b"J\xff"], id="binary-json"),
    pytest.param([b"J" + b"[" * 100_000], id="nested-json"),
    pytest.param([b"T999:x"], id="cut-tnetstring"),
    pytest.param([b"T99999999999999999999:x,"], id="long-tnetstring"),
    pytest.param([b"T8:1:1#1:a,}"], id="number-for-key"),
    pytest.param([b"T6:0:]0:,}"], id="list-for-key"),
    pytest.param([b"T8:1:\xff,1:a,}"], id="binary-key"),
    pytest.param([TNETSTRING.replace(b"1:c", b"1:\xff")], id="binary-channel"),
    pytest.param([b"J[]"], id="list"),
    pytest.param([b"Jnull"], id="null"),
    pytest.param([b'J{"channel": "c", "formats": {"m2gate": {"json": 1e999}}}'], id="infinity"),
    pytest.param([b'J{"channel": "\\ud800", "m2gate": {"content": "x"}}'], id="half-a-character"),
    pytest.param([json_item(), json_item()], id="two-frames"),
    pytest.param([b"c", json_item()], id="as-for-sub"),
]


@pytest.mark.parametrize("frames", JUNK)
def test_junk_is_counted_and_nothing_else_is_lost(
    peers: Peers, frames: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    pull = peers.start(PullInput)
    push = peers.connect(zmq.PUSH)
    push.send(json_item("before"))
    push.send_multipart(frames)
    push.send(json_item("behind"))
    peers.until(lambda: len(peers.items) == 2)
    assert peers.contents == ["before", "behind"]
    assert pull.rejected == 1
    (record,) = caplog.records
    assert record.message.startswith("item rejected input=publish_pull error=")
    assert record.message.endswith(" rejected=1")


@given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda tail: b"J" + tail))
def test_a_frame_is_an_item_or_a_value_error(frame: bytes) -> None:
    try:
        parse_item(parse_payload(frame), DATE)
    except ValueError:
        pass  # everything else would end the input


@given(st.integers(0, len(TNETSTRING) - 1), st.integers(0, 255))
def test_a_damaged_tnetstring_is_an_item_or_a_value_error(position: int, byte: int) -> None:
    for frame in (TNETSTRING[:position], TNETSTRING[:position] + bytes([byte]) + TNETSTRING[position + 1 :]):
        try:
            parse_item(parse_payload(frame), DATE)
        except ValueError:
            pass  # everything else would end the input


NESTED = b'J{"channel":"c","formats":{"m2gate":{"json":%b%b}}}'


def test_deep_nesting_ends_no_input(peers: Peers) -> None:
    pull = peers.start(PullInput)
    push = peers.connect(zmq.PUSH)
    depths = range(700, 1_010, 3)
    for depth in depths:
        push.send(NESTED % (b"[" * depth, b"]" * depth))
    peers.until(lambda: len(peers.items) + pull.rejected == len(depths))


def test_the_log_says_it_once_a_second_and_in_one_line(
    peers: Peers, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr(module, "monotonic", lambda: now_s)
    pull = peers.start(PullInput)
    push = peers.connect(zmq.PUSH)
    junk = b"J" + json.dumps({"channel": "c", "meta": {"\r\nERROR \ud800" + "x" * 1_000: 1}}).encode()
    for _ in range(50):
        push.send(junk)
    peers.until(lambda: pull.rejected == 50)
    now_s = 101.0
    push.send(junk)
    peers.until(lambda: pull.rejected == 51)
    first, second = (record.message for record in caplog.records)
    assert first.endswith(" rejected=1")
    assert second.endswith(" rejected=51")
    assert first.isprintable()
    assert len(first) < 400


def test_a_hub_that_is_full_loses_only_that_item(peers: Peers, caplog: pytest.LogCaptureFixture) -> None:
    def before(item: Item) -> None:
        if item.content == "2":
            raise LimitReached(10, 11, "items that wait")

    peers.before = before
    pull = peers.start(PullInput)
    push = peers.connect(zmq.PUSH)
    for number in range(4):
        push.send(json_item(str(number)))
    peers.until(lambda: len(peers.items) == 3)
    assert (peers.contents, pull.rejected) == (["0", "1", "3"], 1)
    assert "items that wait: 11 is over the limit of 10" in caplog.text


def test_who_sends_too_much_is_cut(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ITEM_MAX", 1_000)
    pull = peers.start(PullInput)
    large = peers.connect(zmq.PUSH, reconnect_ivl=-1)
    monitor = large.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    peers.keep(monitor)
    large.send(json_item("x" * 1_000))
    other = peers.connect(zmq.PUSH)
    other.send(json_item("other"))
    peers.until(lambda: peers.items and monitor.poll(0))
    assert (peers.contents, pull.rejected) == (["other"], 0)


def test_a_publish_that_blocks_lets_publishers_wait(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 10)
    free = Event()

    def before(item: Item) -> None:
        free.wait(DEADLINE_S)

    peers.before = before
    peers.start(PullInput)
    push = peers.connect(zmq.PUSH, sndhwm=10)
    content, sent = "x" * 100_000, 0
    with gevent.Timeout(DEADLINE_S):
        refused = 0
        while refused < 50:  # the sockets' own buffers fill for a moment
            try:
                push.send(json_item(f"{sent}{content}"), zmq.NOBLOCK)
                sent, refused = sent + 1, 0
            except zmq.Again:
                refused += 1
                gevent.sleep(0.001)
    assert 20 <= sent <= 40  # both ends hold 10, and some are under way
    assert peers.items == []
    free.set()
    peers.until(lambda: len(peers.items) == sent)
    assert [str(one)[: -len(content)] for one in peers.contents] == [str(number) for number in range(sent)]


def test_many_items_let_others_have_their_turn(peers: Peers) -> None:
    push = peers.connect(zmq.PUSH)
    for number in range(1_000):
        push.send(json_item(str(number)))
    turns = set()
    peers.start(PullInput)

    def count() -> bool:
        turns.add(len(peers.items))
        return len(peers.items) == 1_000

    with gevent.Timeout(DEADLINE_S):
        while not count():
            gevent.sleep(0)
    assert peers.contents == [str(number) for number in range(1_000)]
    assert len(turns) >= 1_000 // module.TURN_ITEMS


# -- SUB ----------------------------------------------------------------------------------------------


def next_subscription(peers: Peers, xpub: "zmq.Socket[bytes]") -> bytes:
    peers.until(lambda: xpub.poll(0))  # SUB answers in this thread
    return xpub.recv()


def test_sub_is_subscribed_to_what_has_subscribers(peers: Peers) -> None:
    sub = peers.start(SubInput)
    xpub = peers.connect(zmq.XPUB)
    sub.opened("news")
    assert next_subscription(peers, xpub) == b"\1news"
    sub.opened("é")
    assert next_subscription(peers, xpub) == b"\1" + "é".encode()
    sub.emptied("news")
    assert next_subscription(peers, xpub) == b"\0news"
    xpub.send_multipart([b"news", json_item("lost")])
    xpub.send_multipart(["é".encode(), json_item("heard")])
    peers.until(lambda: peers.items)
    assert [(item.channel, item.content) for item in peers.items] == [("é", "heard")]


def test_the_channel_of_the_frame_counts(peers: Peers) -> None:
    sub = peers.start(SubInput)
    xpub = peers.connect(zmq.XPUB)
    sub.opened("news")
    assert next_subscription(peers, xpub) == b"\1news"
    xpub.send_multipart([b"news", json_item("1", "other")])
    xpub.send_multipart([b"news", b'J{"channel": 5, "m2gate": {"content": "2"}}'])
    xpub.send_multipart([b"news", b'J{"m2gate": {"content": "3"}}'])
    xpub.send_multipart([b"news", b"T" + TNETSTRING])
    # It begins like a channel with subscribers, but is another one.
    xpub.send_multipart([b"news-2", json_item("4", "news")])
    peers.until(lambda: len(peers.items) == 5)
    assert [(item.channel, item.content) for item in peers.items] == [
        ("news", "1"), ("news", "2"), ("news", "3"), ("news", "x"), ("news-2", "4"),
    ]  # fmt: skip
    assert sub.rejected == 0


SUB_JUNK = [
    pytest.param([b"c"], id="no-item"),
    pytest.param([b"c", b""], id="empty"),
    pytest.param([b"c", json_item(), b""], id="three-frames"),
    pytest.param([b"c\xff", json_item()], id="binary-channel"),
    pytest.param([b"c", b"T999:x"], id="cut"),
]


@pytest.mark.parametrize("frames", SUB_JUNK)
def test_junk_from_publishers(peers: Peers, frames: list[bytes], caplog: pytest.LogCaptureFixture) -> None:
    sub = peers.start(SubInput)
    xpub = peers.connect(zmq.XPUB)
    sub.opened("c")
    assert next_subscription(peers, xpub) == b"\1c"
    xpub.send_multipart(frames)
    xpub.send_multipart([b"c", json_item("behind")])
    peers.until(lambda: peers.items)
    assert (peers.contents, sub.rejected) == (["behind"], 1)
    assert caplog.text.count("item rejected input=publish_sub") == 1


def test_channels_after_a_stop_change_nothing(peers: Peers) -> None:
    sub = peers.start(SubInput)
    sub.stop()
    sub.opened("c")
    sub.emptied("c")


# -- addresses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [PullInput, SubInput])
@pytest.mark.parametrize("spec", ["5560", "tcp://127.0.0.1", "tcp://192.0.2.1:5560", "ipc:///no-such-folder/items"])
def test_bad_addresses(peers: Peers, kind: type[PullInput] | type[SubInput], spec: str) -> None:
    peers.spec = spec
    one = kind(peers.context, spec, peers.publish, lambda: DATE)
    with pytest.raises(ConfigError, match=f"{kind.key} = '{spec}': .*use an address of this machine"):
        one.start()
    one.stop()


def test_a_successor_gets_the_address_when_it_is_free(peers: Peers, caplog: pytest.LogCaptureFixture) -> None:
    peers.spec = f"tcp://127.0.0.1:{free_port()}"
    first = peers.start(PullInput)
    second = peers.start(PullInput)
    peers.connect(zmq.PUSH).send(json_item("first"))
    peers.until(lambda: peers.items)
    first.stop()
    first.stop()
    peers.until(lambda: second._socket.last_endpoint)
    peers.connect(zmq.PUSH).send(json_item("second"))
    peers.until(lambda: len(peers.items) == 2)
    assert peers.contents == ["first", "second"]
    assert second.rejected == 0
    assert caplog.text == ""


def test_an_address_that_stays_taken_is_said_once(
    peers: Peers, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.001)
    monkeypatch.setattr(module, "PATIENCE_S", 0.003)
    attempts = 0
    bind = PullInput._bind

    def counted(self: PullInput) -> bool:
        nonlocal attempts
        attempts += 1
        return bind(self)

    monkeypatch.setattr(PullInput, "_bind", counted)
    peers.spec = f"tcp://127.0.0.1:{free_port()}"
    peers.start(PullInput)
    peers.start(PullInput)
    peers.until(lambda: attempts > 20)
    assert caplog.text.count(f"address in use, trying again publish_pull={peers.spec}") == 1
