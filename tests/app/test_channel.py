"""Channels through an App and TestClient: who gets what, in which form, and who waits for whom."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from m2gate import App, Channel, EventStream, Hold, HTTPError, Request, TestClient, WebSocket
from m2gate.app.channel import Membership
from m2gate.errors import ConnectionGone
from m2gate.hub.group import MERGE_BYTES
from m2gate.wire.mongrel2 import CREDITS_INITIAL


@pytest.fixture
def app() -> App:
    app = App()

    @app.get("/stream/{name}")
    def stream(request: Request, name: str) -> Hold:
        return Hold(name)

    @app.get("/events/{name}")
    def events(request: Request, name: str) -> EventStream:
        return EventStream(app.channel(name))

    @app.get("/poll/{name}")
    def poll(request: Request, name: str) -> Hold:
        return Hold(name, mode="response")

    @app.websocket("/ws/{name}")
    def talk(ws: WebSocket, name: str) -> None:
        with app.channel(name).join(ws):
            for message in ws:
                app.channel(name).publish(message)

    return app


@pytest.fixture
def client(app: App) -> Iterator[TestClient]:
    with TestClient(app) as one:
        yield one


def subscribers(app: App, name: str) -> int:
    channel = app.broadcast.hub.stats().channels.get(name)
    return channel.subscribers if channel else 0


def wait(condition: Callable[[], object], what: str) -> None:
    with gevent.Timeout(10, AssertionError(f"not within 10 s: {what}")):
        while not condition():
            gevent.sleep(0.001)


# -- what each kind gets ------------------------------------------------------------------------------

# What is published; what a stream, an EventStream and a WebSocket get; the type of a response.
KINDS: list[Any] = [
    ("hé\nho", "hé\nho".encode(), "data: hé\ndata: ho\n\n".encode(), "hé\nho", "text/plain; charset=utf-8"),
    (b"h\xc3\xa9", b"h\xc3\xa9", b"data: h\xc3\xa9\n\n", b"h\xc3\xa9", "application/octet-stream"),
    ({"a": "é"}, '{"a":"é"}'.encode(), 'data: {"a":"é"}\n\n'.encode(), '{"a":"é"}', "application/json"),
    ([1, None], b"[1,null]", b"data: [1,null]\n\n", "[1,null]", "application/json"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_subscriber_gets_its_form(app: App, client: TestClient, kind: tuple[Any, ...]) -> None:
    data, stream_bytes, event_bytes, message, content_type = kind
    stream, events = client.stream("GET", "/stream/c"), client.stream("GET", "/events/c")
    socket = client.websocket("/ws/c")
    poll = gevent.spawn(client.get, "/poll/c")
    wait(lambda: subscribers(app, "c") == 4, "four subscribers")
    assert app.channel("c").publish(data) == 4
    assert stream.read(len(stream_bytes)) == stream_bytes
    assert events.read(len(event_bytes)) == event_bytes
    assert socket.receive() == message
    response = poll.get(timeout=10)
    assert (response.status, response.body) == (200, stream_bytes)
    assert response.headers["Content-Type"] == content_type
    assert app.channel("c").publish(data) == 3


def test_an_event_has_its_type_and_id(app: App, client: TestClient) -> None:
    events, stream = client.stream("GET", "/events/c"), client.stream("GET", "/stream/c")
    app.channel("c").publish("x", event="tick", id="7", prev_id="6")
    expected = b"event: tick\nid: 7\ndata: x\n\n"
    assert events.read(len(expected)) == expected
    assert stream.read(1) == b"x"


FORMATS: list[Any] = [
    pytest.param({"http-stream": "S", "ws-message": "M", "http-response": "R"}, "M", id="text"),
    pytest.param({"http-stream": b"S", "ws-message": b"M", "http-response": b"R"}, b"M", id="bytes"),
    pytest.param(
        {
            "http-stream": {"content": "S", "action": "send"},
            "ws-message": {"content-bin": "TQ=="},
            "http-response": {"body-bin": "Ug==", "code": 200},
        },
        b"M",
        id="in-grip-s-words",
    ),
]


@pytest.mark.parametrize(("formats", "message"), FORMATS)
def test_formats_say_it_per_kind(app: App, client: TestClient, formats: dict[str, Any], message: str | bytes) -> None:
    stream, events = client.stream("GET", "/stream/c"), client.stream("GET", "/events/c")
    socket = client.websocket("/ws/c")
    poll = gevent.spawn(client.get, "/poll/c")
    wait(lambda: subscribers(app, "c") == 4, "four subscribers")
    assert app.channel("c").publish(formats=formats) == 4
    assert stream.read(1) == b"S"
    assert events.read(1) == b"S"
    assert socket.receive() == message
    assert poll.get(timeout=10).body == b"R"


def test_formats_replace_what_data_would_give_and_leave_the_rest(app: App, client: TestClient) -> None:
    stream, socket = client.stream("GET", "/stream/c"), client.websocket("/ws/c")
    assert app.channel("c").publish("data", formats={"ws-message": "message"}) == 2
    assert stream.read(4) == b"data"
    assert socket.receive() == "message"


def test_kinds_that_formats_leave_out_are_not_matched(app: App, client: TestClient) -> None:
    client.stream("GET", "/stream/c")
    socket = client.websocket("/ws/c")
    assert app.channel("c").publish(formats={"ws-message": ""}) == 1
    assert socket.receive() == ""


def test_a_response_with_status_and_headers(app: App, client: TestClient) -> None:
    poll = gevent.spawn(client.get, "/poll/c")
    wait(lambda: subscribers(app, "c"), "a subscriber")
    app.channel("c").publish(
        formats={"http-response": {"code": 404, "headers": {"X-A": "b", "Content-Length": "999"}, "body": "no"}}
    )
    response = poll.get(timeout=10)
    assert (response.status, response.body, response.headers["X-A"]) == (404, b"no", "b")
    assert response.headers["Content-Length"] == "2"
    assert response.headers["Date"].endswith(" GMT")


MISTAKES: list[Any] = [
    pytest.param({}, TypeError, "data or formats", id="nothing"),
    pytest.param({"data": 1}, TypeError, "not int", id="number"),
    pytest.param({"data": {"a": object()}}, TypeError, "JSON", id="no-json"),
    pytest.param({"data": "x", "event": "a\nb"}, ValueError, "event", id="event"),
    pytest.param({"data": "x", "id": "a\0"}, ValueError, "id", id="id"),
    pytest.param({"data": "x", "prev_id": 3}, TypeError, "prev_id", id="prev-id"),
    pytest.param({"formats": {"sse": "x"}}, ValueError, "unknown key 'sse'", id="format"),
    pytest.param({"formats": {"http-stream": 3}}, TypeError, "http-stream", id="format-type"),
    pytest.param({"formats": {"http-stream": {"text": "x"}}}, ValueError, "unknown key 'text'", id="format-key"),
    pytest.param({"formats": {"http-stream": {"action": "hint"}}}, ValueError, "'hint'", id="action"),
    pytest.param({"formats": {"http-response": {"code": 99}}}, ValueError, "99", id="status"),
    pytest.param({"formats": {"http-response": {"headers": {"X": "a\r\nb"}}}}, ValueError, "'X'", id="header"),
]


@pytest.mark.parametrize(("arguments", "error", "text"), MISTAKES)
def test_a_mistake_is_raised_whoever_listens(
    app: App, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        app.channel("c").publish(**arguments)


def test_nobody_listens(app: App, client: TestClient) -> None:
    assert app.channel("c").publish("x") == 0


# -- join -----------------------------------------------------------------------------------------------


def test_leaving_the_with_block_ends_it(app: App, client: TestClient) -> None:
    @app.websocket("/once")
    def once(ws: WebSocket) -> None:
        with app.channel("c").join(ws):
            ws.receive()
        ws.receive()

    with client.websocket("/once") as socket:
        assert app.channel("c").publish("1") == 1
        assert socket.receive() == "1"
        socket.send("go on")
        wait(lambda: not subscribers(app, "c"), "nobody is subscribed")
        assert app.channel("c").publish("2") == 0
        socket.send("end")


def test_what_was_published_before_leaving_arrives(app: App, client: TestClient) -> None:
    @app.websocket("/bye")
    def bye(ws: WebSocket) -> None:
        with app.channel("c").join(ws):
            app.channel("c").publish("bye")

    socket = client.websocket("/bye")
    assert list(socket) == ["bye"]
    assert socket.close_code == 1000


def test_what_a_handler_sends_after_leaving_comes_behind_the_items(app: App, client: TestClient) -> None:
    @app.websocket("/after")
    def after(ws: WebSocket) -> None:
        with app.channel("c").join(ws):
            app.channel("c").publish("item")
        ws.send("after")

    assert list(client.websocket("/after")) == ["item", "after"]


def test_as_a_plain_call_it_lasts_as_long_as_the_connection(app: App, client: TestClient) -> None:
    @app.websocket("/plain")
    def plain(ws: WebSocket) -> None:
        app.channel("c").join(ws)
        for _ in ws:
            pass

    socket = client.websocket("/plain")
    assert app.channel("c").publish("x") == 1
    assert socket.receive() == "x"
    socket.disconnect()
    wait(lambda: not subscribers(app, "c"), "the hub forgets it")


def test_leave_is_idempotent_and_joining_twice_is_one_subscription(app: App, client: TestClient) -> None:
    memberships: list[Membership] = []

    @app.websocket("/twice")
    def twice(ws: WebSocket) -> None:
        memberships.extend(app.channel("c").join(ws) for _ in range(2))
        for _ in ws:
            pass

    with client.websocket("/twice"):
        assert app.channel("c").publish("x") == 1
        for membership in [*memberships, *memberships]:
            membership.leave()
        assert app.channel("c").publish("x") == 0


def test_join_completes_the_handshake(app: App, client: TestClient) -> None:
    @app.websocket("/late")
    def late(ws: WebSocket) -> None:
        app.channel("c").join(ws)
        gevent.sleep(3600)

    socket = client.websocket("/late")
    app.channel("c").publish("x")
    assert socket.receive() == "x"


def test_a_client_that_has_left_cannot_join(app: App, client: TestClient) -> None:
    errors: list[BaseException] = []

    @app.websocket("/gone")
    def gone(ws: WebSocket) -> None:
        for _ in ws:
            pass
        try:
            app.channel("c").join(ws)
        except ConnectionGone as error:
            errors.append(error)

    client.websocket("/gone").disconnect()
    wait(lambda: errors, "join raises")
    assert subscribers(app, "c") == 0


@pytest.mark.parametrize("subscriber", [None, "x", object()])
def test_others_cannot_join(app: App, subscriber: Any) -> None:
    with pytest.raises(TypeError, match="cannot join"):
        app.channel("c").join(subscriber)


def test_a_stream_joins_before_it_begins_and_while_it_runs(app: App, client: TestClient) -> None:
    streams: list[EventStream] = []

    @app.get("/both")
    def both(request: Request) -> EventStream:
        stream = EventStream(app.channel("a"))
        app.channel("b").join(stream)
        left = app.channel("c").join(stream)
        left.leave()
        streams.append(stream)
        return stream

    stream = client.stream("GET", "/both")
    assert [app.channel(name).publish(name) for name in "abcd"] == [1, 1, 0, 0]
    membership = app.channel("d").join(streams[0])
    assert app.channel("d").publish("d") == 1
    assert set(app.broadcast.hub.stats().channels) == {"a", "b", "d"}
    membership.leave()
    assert set(app.broadcast.hub.stats().channels) == {"a", "b"}
    assert app.channel("d").publish("d") == 0
    expected = b"data: a\n\ndata: b\n\ndata: d\n\n"
    assert sorted(stream.read(len(expected)).split(b"\n\n")) == sorted(expected.split(b"\n\n"))


def test_a_stream_leaves_one_of_its_channels(app: App, client: TestClient) -> None:
    memberships: list[Membership] = []

    @app.get("/two")
    def two(request: Request) -> Hold:
        hold = Hold("a")
        memberships.append(app.channel("b").join(hold))
        return hold

    stream = client.stream("GET", "/two")
    assert [app.channel(name).publish("1") for name in "ab"] == [1, 1]
    memberships[0].leave()
    assert [app.channel(name).publish("2") for name in "ab"] == [1, 0]
    assert sorted(stream.read(3)) == sorted(b"112")


def test_nothing_follows_a_close_frame(app: App, client: TestClient) -> None:
    @app.websocket("/closes")
    def closes(ws: WebSocket) -> None:
        app.channel("c").join(ws)
        app.channel("c").publish("before")
        ws.close(4000, "enough")
        app.channel("c").publish("after")

    socket = client.websocket("/closes")
    assert list(socket) == ["before"]
    assert socket.close_code == 4000


def test_a_peer_s_close_ends_its_subscription(app: App, client: TestClient) -> None:
    socket = client.websocket("/ws/c")
    assert subscribers(app, "c") == 1
    socket.close()
    assert subscribers(app, "c") == 0


def test_a_mounted_app_shares_the_channels(app: App) -> None:
    inner = App()
    news = inner.channel("c")

    @inner.get("/stream")
    def stream(request: Request) -> Hold:
        return Hold(news)

    app.mount("/inner", app=inner)
    with TestClient(app) as client:
        stream_ = client.stream("GET", "/inner/stream")
        assert app.channel("c").publish("1") == 1
        assert news.publish("2") == 1
        assert stream_.read(2) == b"12"


def test_repr_names_the_channel(app: App) -> None:
    assert repr(app.channel("news")) == "Channel('news')"


# -- order and pace -------------------------------------------------------------------------------------


def test_order_is_that_of_the_publishes(app: App, client: TestClient) -> None:
    sockets = [client.websocket("/ws/c") for _ in range(20)]
    for number in range(100):
        app.channel("c").publish(f"a{number}")
        sockets[number % 20].send(f"b{number}")
    received = [[socket.receive() for _ in range(200)] for socket in sockets]
    assert all(one == received[0] for one in received)
    assert [one for one in received[0] if str(one)[0] == "a"] == [f"a{number}" for number in range(100)]
    assert len(set(received[0])) == 200


def read_slowly(stream: Any, size: int, pause_s: float) -> bytes:
    data = b""
    while len(data) < size:
        data += stream.read(1_000)
        gevent.sleep(pause_s)
    return data


def test_a_publisher_waits_for_those_that_read(app: App) -> None:
    with TestClient(app, credits=2_000) as client:
        stream = client.stream("GET", "/stream/c")
        reader = gevent.spawn(read_slowly, stream, 1_000_000, 0.0001)
        # It goes on as soon as there is room: by its own clock alone it would take a quarter of a second each time.
        with gevent.Timeout(10):
            for _ in range(10_000):
                app.channel("c").publish("x" * 100)
                # What is published within one turn of the loop, and no more.
                assert app.broadcast.hub.stats().channels["c"].queued_bytes <= MERGE_BYTES + 200
            assert reader.get() == b"x" * 1_000_000


def test_a_publisher_does_not_wait_for_those_that_do_not_read(app: App) -> None:
    with TestClient(app, credits=2_000) as client:
        client.stream("GET", "/stream/c")
        begin_s = time.monotonic()
        for _ in range(100):
            app.channel("c").publish("x" * 1_000)
        # Once, for as long as the client might still be alive.
        assert 0.9 < time.monotonic() - begin_s < 5
        assert app.broadcast.hub.stats().channels["c"].queued_bytes > 50_000


def test_a_stalled_client_among_others_costs_them_no_time(app: App) -> None:
    with TestClient(app, credits=2_000) as client:
        streams = [client.stream("GET", "/stream/c") for _ in range(5)]
        readers = [gevent.spawn(stream.read, 20_000) for stream in streams[1:]]
        begin_s = time.monotonic()
        for _ in range(200):
            app.channel("c").publish("x" * 100)
        assert all(reader.get(timeout=10) == b"x" * 20_000 for reader in readers)
        assert time.monotonic() - begin_s < 0.9
        assert subscribers(app, "c") == 5


def test_over_the_limit_a_client_is_cut(app: App, caplog: pytest.LogCaptureFixture) -> None:
    channel = app.channel("c", policy="block", limit=1_000)
    with TestClient(app, credits=2_000) as client:
        stream = client.stream("GET", "/stream/c")
        other = client.stream("GET", "/stream/c")
        reader = gevent.spawn(other.read, 10_000)
        for _ in range(100):
            channel.publish("x" * 100)
            gevent.sleep(0)
        assert reader.get(timeout=10) == b"x" * 10_000
        with pytest.raises(EOFError):
            stream.read()
        assert subscribers(app, "c") == 1
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("subscriber dropped send_ident=test-client conn_id=1 channel=c queued_bytes=")


@pytest.mark.parametrize(("policy", "kept"), [("latest", 1), ("drop-oldest", 9)])
def test_channels_that_drop_keep_their_publisher_going(app: App, policy: Any, kept: int) -> None:
    channel = app.channel("c", policy=policy, limit=1_000)
    with TestClient(app, credits=2_000) as client:
        stream = client.stream("GET", "/stream/c")
        begin_s = time.monotonic()
        for number in range(1_000):
            channel.publish(f"{number:04d}".ljust(94, ".") + "\n")
        assert time.monotonic() - begin_s < 0.9
        assert subscribers(app, "c") == 1
        first = stream.read(95)
        lines = [first]
        while not lines[-1].startswith(b"0999"):
            lines.append(stream.read(95))
        numbers = [int(line[:4]) for line in lines]
        assert numbers == sorted(set(numbers))
        assert numbers[-kept:] == list(range(1_000 - kept, 1_000))
        assert 1_000 - len(numbers) == sum(app.broadcast.hub.stats().drops.values())


def test_a_publisher_that_drops_lets_others_read_meanwhile(app: App, client: TestClient) -> None:
    channel = app.channel("c", policy="latest")
    stream = client.stream("GET", "/stream/c")
    reader = gevent.spawn(stream.read)
    for _ in range(5_000):
        channel.publish("x" * 500)
    received = 5_000 - app.broadcast.hub.stats().drops.get("latest", 0)
    assert received * 500 > 3 * CREDITS_INITIAL
    app.begin_drain()
    assert reader.get(timeout=10) == b"x" * 500 * received


def test_a_callback_of_the_loop_may_publish_without_waiting(app: App) -> None:
    with TestClient(app, credits=500) as client:
        client.stream("GET", "/stream/c")
        done: list[int] = []

        def publish() -> None:
            done.extend(app.channel("c").publish("x" * 100) for _ in range(50))

        gevent.get_hub().loop.run_callback(publish)
        wait(lambda: done, "the callback is through")
        assert done == [1] * 50


@pytest.mark.parametrize(("policy", "limit"), [("never", None), ("block", 0), (None, -1)])
def test_a_policy_that_cannot_work(app: App, policy: Any, limit: int | None) -> None:
    with pytest.raises(ValueError, match=r"policy|limit"):
        Channel(app, "c", policy, limit)


def test_a_refused_handshake_joins_nothing(app: App, client: TestClient) -> None:
    @app.websocket("/refused")
    def refused(ws: WebSocket) -> None:
        raise HTTPError(403)

    with pytest.raises(HTTPError):
        client.websocket("/refused")
    assert subscribers(app, "c") == 0


def test_a_socket_that_is_closing_joins_no_channel(app: App, client: TestClient) -> None:
    outcomes: list[object] = []

    @app.websocket("/closed")
    def closed(ws: WebSocket) -> None:
        ws.close()
        try:
            app.channel("late").join(ws)
        except ConnectionGone as error:
            outcomes.append(error)

    with client.websocket("/closed") as ws, pytest.raises(ConnectionGone):
        ws.receive()
    wait(lambda: outcomes, "the handler's end")
    assert subscribers(app, "late") == 0
