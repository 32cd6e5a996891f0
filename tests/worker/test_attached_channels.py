"""Channels and holds of a worker whose gateway counts: joins, items, publishes, holds, policies."""

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from m2gate import App, Event, EventStream, Hold, Request
from m2gate.errors import BackendError, ConnectionGone
from m2gate.hub.form import ResponseForm, StreamForm
from m2gate.hub.holding import load_hold
from m2gate.hub.item import Item, dump_item, load_item
from m2gate.link import attached_broadcast, dialogue
from m2gate.link.dialogue import LOST
from m2gate.wire import attach
from m2gate.wire.attach import EXCHANGE_DONE
from tests.worker.fake_gateway import Attached, attached, until


@pytest.fixture
def app() -> App:
    app = App()
    chat = app.channel("chat")

    @app.websocket("/ws")
    def talk(ws: Any) -> None:
        with chat.join(ws):
            for message in ws:
                ws.send(message)

    @app.get("/ticks")
    def ticks(request: Request) -> EventStream:
        def events() -> Iterator[Event | str]:
            yield "first"
            gevent.sleep(60)

        stream = EventStream(events())
        chat.join(stream)
        return stream

    @app.route("/poll", methods=["GET", "POST"])
    def poll(request: Request) -> Hold:
        return Hold(chat, mode="response", timeout=7, body="nothing", status=404)

    return app


@pytest.fixture
def worker(app: App) -> Iterator[Attached]:
    with attached(app) as one:
        one.connect()
        yield one


def item(text: str, channel: str = "chat") -> bytes:
    return attach.ITEM + dump_item(Item(channel=channel, content=text))


def sequence(message: bytes) -> int:
    return attach.parse_numbered(message)[0]


def payload(message: bytes) -> Any:
    return attach.load(attach.parse_numbered(message)[1], list)


def joined(worker: Attached, conn_id: int = 1) -> None:
    """Let a WebSocket join the channel."""
    worker.gateway.frames(worker.mongrel2.handshake(conn_id))
    worker.gateway.say(attach.build_receipt(sequence(worker.gateway.next_of(attach.JOIN))))
    until(lambda: (found := worker.link.broadcast.hub.stats().channels.get("chat")) and found.subscribers)


# -- members -----------------------------------------------------------------------------------------------


def test_a_member_gets_the_items_behind_its_receipt(worker: Attached) -> None:
    worker.gateway.frames(worker.mongrel2.handshake(1))
    join = worker.gateway.receive(attach.JOIN)
    assert payload(join) == [b"chat", b"websocket"]
    worker.gateway.say(item("before"), attach.build_receipt(sequence(join)), item("behind"))
    worker.sent(1, b"behind")
    assert b"before" not in worker.mongrel2.taken(1)


def test_a_stream_with_a_producer_joins_behind_its_head(worker: Attached) -> None:
    worker.gateway.frames(worker.mongrel2.request(1, b"/ticks"))
    join = worker.gateway.receive(attach.JOIN)
    assert payload(join) == [b"chat", b"events"]
    assert worker.sent(1, b"\r\n\r\n").startswith(b"HTTP/1.1 200")
    worker.gateway.say(attach.build_receipt(sequence(join)), item("second"))
    taken = worker.sent(1, b"data: second\n\n\r\n")
    assert taken.index(b"first") < taken.index(b"second")


@pytest.mark.parametrize("how", ["leave", "close"])
def test_a_member_that_goes_is_told(worker: Attached, how: str) -> None:
    joined(worker)
    if how == "leave":
        worker.gateway.frames(worker.mongrel2.leave(1))
    else:
        worker.link.servers[0].connections[1].abort()
    assert payload(worker.gateway.next_of(attach.LEAVE)) == [b"chat", b"websocket"]
    assert worker.link.broadcast.members() == []


def test_a_client_that_goes_before_the_receipt_is_told(worker: Attached) -> None:
    worker.gateway.frames(worker.mongrel2.handshake(1))
    join = worker.gateway.receive(attach.JOIN)
    worker.gateway.frames(worker.mongrel2.leave(1))
    worker.gateway.say(attach.build_receipt(sequence(join)))
    assert payload(worker.gateway.next_of(attach.LEAVE)) == [b"chat", b"websocket"]
    assert worker.link.broadcast.members() == []


def test_members_are_announced_to_the_next_gateway(worker: Attached) -> None:
    joined(worker)
    worker.gateway.frames(worker.mongrel2.handshake(2))
    worker.gateway.next_of(attach.JOIN)  # never answered
    worker.restart_gateway()
    assert worker.connect(2).members == [("chat", "websocket", 2)]
    worker.gateway.say(item("again"))
    for conn_id in (1, 2):
        worker.sent(conn_id, b"again")


def test_a_channel_that_cannot_take_more_is_crowded_until_it_can(worker: Attached) -> None:
    joined(worker)
    for _ in range(3):
        worker.gateway.say(item("x" * 60_000))
    crowded = attach.load(worker.gateway.next_of(attach.CROWDED)[1:], list)
    assert crowded == [b"chat", True]
    while worker.link.broadcast.hub.stats().lagging_total:
        worker.gateway.frames(worker.mongrel2.credits(1, 60_014))
        gevent.sleep(0.001)
    assert attach.load(worker.gateway.next_of(attach.CROWDED)[1:], list) == [b"chat", False]


# -- publishing --------------------------------------------------------------------------------------------


def test_publish_returns_what_the_gateway_counts(app: App, worker: Attached) -> None:
    publishing = gevent.spawn(lambda: app.channel("chat").publish("text", event="e"))
    message = worker.gateway.receive(attach.PUBLISH)
    found = load_item(attach.parse_numbered(message)[1])
    assert (found.channel, found.content, found.event) == ("chat", "text", "e")
    assert not publishing.ready()
    worker.gateway.say(attach.build_receipt(sequence(message), (5, 4, 1, 0, 0)))
    assert publishing.get(timeout=5) == 5


def test_an_item_that_is_refused_is_a_value_error(app: App, worker: Attached) -> None:
    publishing = gevent.spawn(lambda: app.channel("chat").publish("text"))
    message = worker.gateway.receive(attach.PUBLISH)
    worker.gateway.say(attach.build_numbered(attach.REFUSAL, sequence(message), b"no such thing"))
    with pytest.raises(ValueError, match="no such thing"):
        publishing.get(timeout=5)


def test_a_publish_in_flight_fails_with_its_gateway(app: App, worker: Attached) -> None:
    publishing = gevent.spawn(lambda: app.channel("chat").publish("text"))
    worker.gateway.receive(attach.PUBLISH)
    worker.restart_gateway()
    with pytest.raises(BackendError, match=LOST):
        publishing.get(timeout=5)


def test_a_publish_waits_for_a_gateway_and_not_for_ever(
    app: App, worker: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.restart_gateway()
    publishing = gevent.spawn(lambda: app.channel("chat").publish("text"))
    worker.connect(2)
    message = worker.gateway.next_of(attach.PUBLISH)
    worker.gateway.say(attach.build_receipt(sequence(message)))
    assert publishing.get(timeout=5) == 0
    monkeypatch.setattr(dialogue, "GATEWAY_WAIT_S", 0.05)
    worker.gateway.close()
    until(lambda: not worker.link.is_attached)
    with pytest.raises(BackendError, match=LOST):
        app.channel("chat").publish("text")


def test_a_publish_in_a_callback_of_the_loop_does_not_wait(app: App, worker: Attached) -> None:
    counts: list[int] = []
    gevent.get_hub().loop.run_callback(lambda: counts.append(app.channel("chat").publish("text")))
    worker.gateway.receive(attach.PUBLISH)
    assert counts == [0]


def test_a_policy_is_told_once_and_to_each_gateway(app: App, worker: Attached) -> None:
    channel = app.channel("chat", policy="drop-oldest", limit=500)
    for _ in range(2):
        publishing = gevent.spawn(lambda: channel.publish("text"))
        message = worker.gateway.next_of(attach.PUBLISH) if _ else worker.gateway.receive(attach.POLICY)
        if message[:1] == attach.POLICY:
            assert attach.load(message[1:], list) == [b"chat", b"drop-oldest", 500]
            message = worker.gateway.receive(attach.PUBLISH)
        worker.gateway.say(attach.build_receipt(sequence(message)))
        publishing.get(timeout=5)
    worker.restart_gateway()
    worker.introduction()
    worker.gateway.say(attach.build_servers([]))
    worker.gateway.receive(attach.POLICY)


# -- holds -------------------------------------------------------------------------------------------------


def test_a_response_hold_is_handed_over(worker: Attached) -> None:
    worker.gateway.frames(worker.mongrel2.request(1, b"/poll", REMOTE_ADDR=b"1.2.3.4"))
    number, conn_id, request = load_hold(worker.gateway.receive(attach.HOLD)[1:])
    assert (number, conn_id, request.channels, request.timeout_ms) == (1, 1, ("chat",), 7_000)
    assert isinstance(request.form, ResponseForm)
    assert request.answer is not None
    assert (request.answer.status, request.answer.body) == (404, b"nothing")
    assert (request.log.method, request.log.path, request.log.client) == ("GET", "/poll", "1.2.3.4")
    assert worker.gateway.is_silent()  # no report
    assert not worker.link.servers[0].connections
    assert worker.mongrel2.taken(1) == b""
    worker.gateway.frames(worker.mongrel2.request(1, b"/nowhere"))
    assert worker.gateway.done()[1][0][:3] == (1, EXCHANGE_DONE, 1)


STREAMS: list[Any] = [
    pytest.param(
        lambda app: EventStream(app.channel("chat"), ping=3), (True, b"", b"4\r\n: \n\n\r\n", 3_000), id="events"
    ),
    pytest.param(lambda app: Hold("chat", body="begin"), (False, b"5\r\nbegin\r\n", b"", 55_000), id="raw"),
]


@pytest.mark.parametrize(("make", "expected"), STREAMS)
def test_a_stream_is_handed_over_with_what_it_begins_with(
    app: App, worker: Attached, make: Callable[[App], Any], expected: tuple[bool, bytes, bytes, int]
) -> None:
    events, body, ping, ping_ms = expected
    app.get("/held")(lambda request: make(app))
    worker.gateway.frames(worker.mongrel2.request(1, b"/held"))
    _, _, request = load_hold(worker.gateway.receive(attach.HOLD)[1:])
    assert request.form == StreamForm(chunked=True, events=events)
    assert request.begin.startswith(b"HTTP/1.1 200 OK\r\n")
    assert request.begin.endswith(b"\r\n\r\n" + body)
    assert (request.status, request.ping, request.ping_ms, request.answer) == (200, ping, ping_ms, None)
    assert (request.close, request.written) == (False, len(body) and 5)
    assert worker.mongrel2.taken(1) == b""


def test_a_hold_joins_and_leaves_while_the_gateway_has_it(app: App, worker: Attached) -> None:
    holds: list[Hold] = []

    @app.get("/held")
    def held(request: Request) -> Hold:
        holds.append(Hold("chat"))
        return holds[0]

    worker.gateway.frames(worker.mongrel2.request(5, b"/held"))
    worker.gateway.receive(attach.HOLD)
    joining = gevent.spawn(lambda: app.channel("more").join(holds[0]))
    feed = worker.gateway.receive(attach.FEED)
    assert payload(feed) == [1, 5, b"more", True]
    worker.gateway.say(attach.build_receipt(sequence(feed)))
    joining.get(timeout=5).leave()
    assert payload(worker.gateway.receive(attach.FEED)) == [1, 5, b"more", False]
    joining = gevent.spawn(lambda: app.channel("more").join(holds[0]))
    feed = worker.gateway.receive(attach.FEED)
    worker.gateway.say(attach.build_numbered(attach.REFUSAL, sequence(feed), b"gone"))
    with pytest.raises(ConnectionGone):
        joining.get(timeout=5)


def test_a_hold_waits_for_a_gateway(worker: Attached) -> None:
    (server,) = worker.link.servers
    worker.gateway.close()
    until(lambda: not worker.link.is_attached)
    server.frame_number = 1
    exchange = server.dispatch(worker.mongrel2.request(1, b"/poll"))
    assert exchange is not None
    worker.pool.run(exchange)
    gevent.sleep(0.05)
    worker.restart_gateway()
    assert [claim.conn_id for claim in worker.connect(2).claims] == [1]
    assert load_hold(worker.gateway.receive(attach.HOLD)[1:])[:2] == (2, 1)


def test_a_hold_without_a_gateway_fails_in_the_end(worker: Attached, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached_broadcast, "GATEWAY_WAIT_S", 0.1)
    (server,) = worker.link.servers
    worker.gateway.close()
    until(lambda: not worker.link.is_attached)
    exchange = server.dispatch(worker.mongrel2.request(1, b"/poll"))
    assert exchange is not None
    worker.pool.run(exchange)
    until(lambda: worker.mongrel2.taken(1))
    assert worker.mongrel2.taken(1).startswith(b"HTTP/1.1 500")
    worker.restart_gateway()
