"""Event and EventStream through an App and TestClient."""

from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from m2gate import App, Event, EventStream, Request, TestClient
from m2gate.link.broadcast import Broadcast


class FakeClock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def app(clock: FakeClock) -> App:
    app = App()
    app.broadcast = Broadcast(clock)
    return app


@pytest.fixture
def client(app: App) -> Iterator[TestClient]:
    with TestClient(app) as one:
        yield one


def pass_time(app: App, clock: FakeClock, seconds: float) -> None:
    clock.now_s += seconds
    app.broadcast.tick()


ENCODED = [
    (Event("x"), b"data: x\n\n"),
    (Event("x", event="tick", id="7", retry=100), b"event: tick\nid: 7\nretry: 100\ndata: x\n\n"),
    (Event("a\nb\r\nc"), b"data: a\ndata: b\ndata: c\n\n"),
    (Event(b"\xc3\xa9"), b"data: \xc3\xa9\n\n"),
    (Event({"a": [1, "é"]}), 'data: {"a":[1,"é"]}\n\n'.encode()),
    (Event(""), b"data: \n\n"),
]


@pytest.mark.parametrize(("event", "data"), ENCODED)
def test_encode(event: Event, data: bytes) -> None:
    assert event.encode() == data


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"data": "x", "event": "a\nb"}, ValueError),
        ({"data": "x", "id": "a\rb"}, ValueError),
        ({"data": "x", "retry": -1}, ValueError),
        ({"data": 3}, TypeError),
    ],
)
def test_a_bad_event_is_refused_where_it_is_made(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Event(**arguments)


@pytest.mark.parametrize("ping", [0, -1])
def test_a_ping_is_in_the_future(ping: float) -> None:
    with pytest.raises(ValueError, match="ping"):
        EventStream(["x"], ping=ping)


# -- from an iterable --------------------------------------------------------------------------------------


def test_events_and_text_are_sent_and_the_stream_ends(app: App, client: TestClient) -> None:
    @app.get("/")
    def events(request: Request) -> EventStream:
        return EventStream(["one", Event("two", id="2")])

    response = client.get("/")
    assert (response.status, response.body) == (200, b"data: one\n\nid: 2\ndata: two\n\n")
    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.headers["Cache-Control"] == "no-cache"


def test_the_head_leaves_before_the_first_event(app: App, client: TestClient) -> None:
    @app.get("/")
    def events(request: Request) -> EventStream:
        def never() -> Iterator[str]:
            gevent.sleep(3_600)
            yield "x"

        return EventStream(never())

    stream = client.stream("GET", "/")
    assert stream.status == 200
    stream.disconnect()


def test_status_and_headers_of_the_handler(app: App, client: TestClient) -> None:
    @app.get("/")
    def events(request: Request) -> tuple[EventStream, int, dict[str, str]]:
        return EventStream(["x"]), 203, {"Cache-Control": "no-store", "X-A": "b"}

    response = client.get("/")
    assert (response.status, response.headers.getlist("Cache-Control")) == (203, ["no-store"])
    assert response.headers["X-A"] == "b"


def test_an_http_10_client_gets_no_chunks(app: App, client: TestClient) -> None:
    @app.get("/")
    def events(request: Request) -> EventStream:
        return EventStream(["x"])

    response = client.get("/", version="1.0")
    assert response.body == b"data: x\n\n"
    assert "Transfer-Encoding" not in response.headers
    assert response.headers["Connection"] == "close"


def test_head_does_not_run_the_producer(app: App, client: TestClient) -> None:
    steps: list[str] = []

    @app.get("/")
    def events(request: Request) -> EventStream:
        def produce() -> Iterator[str]:
            steps.append("begun")
            yield "x"

        return EventStream(produce())

    response = client.head("/")
    assert (response.status, response.body, steps) == (200, b"", [])
    assert client.get("/").body == b"data: x\n\n"


def test_the_producer_is_closed_when_the_client_leaves(app: App, client: TestClient) -> None:
    steps: list[str] = []
    ended = gevent.event.Event()

    @app.get("/")
    def events(request: Request) -> EventStream:
        def produce() -> Iterator[str]:
            try:
                yield "x"
                gevent.sleep(3_600)
            finally:
                steps.append("finally")
                ended.set()

        return EventStream(produce())

    stream = client.stream("GET", "/")
    assert stream.read(9) == b"data: x\n\n"
    stream.disconnect()
    assert ended.wait(5)
    assert steps == ["finally"]


def test_the_producer_runs_only_while_the_client_has_credit(app: App) -> None:
    produced: list[int] = []

    @app.get("/")
    def events(request: Request) -> EventStream:
        def produce() -> Iterator[str]:
            for number in range(1_000):
                produced.append(number)
                yield "x" * 1_000

        return EventStream(produce())

    with TestClient(app, credits=5_000) as client:
        stream = client.stream("GET", "/")
        gevent.sleep(0.01)
        assert len(produced) < 10
        assert len(stream.read()) == 1_000 * 1_008


def test_a_wrong_event_cuts_the_stream(app: App, client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    @app.get("/")
    def events(request: Request) -> EventStream:
        wrong: list[Any] = ["x", 3]
        return EventStream(wrong)

    stream = client.stream("GET", "/")
    with pytest.raises(EOFError):
        stream.read()
    assert "yields Event or str, not int" in caplog.text


def test_silence_is_broken_by_comments(app: App, client: TestClient, clock: FakeClock) -> None:
    go_on = gevent.event.Event()

    @app.get("/")
    def events(request: Request) -> EventStream:
        def produce() -> Iterator[str]:
            yield "x"
            go_on.wait()
            yield "y"

        return EventStream(produce(), ping=15)

    stream = client.stream("GET", "/")
    assert stream.read(9) == b"data: x\n\n"
    for seconds in (10, 4, 2, 14, 1, 14):
        pass_time(app, clock, seconds)
    go_on.set()
    assert stream.read() == b": \n\n: \n\ndata: y\n\n"


def test_a_stop_ends_the_stream_whole(app: App, client: TestClient) -> None:
    @app.get("/")
    def events(request: Request) -> EventStream:
        def produce() -> Iterator[str]:
            yield "x"
            gevent.sleep(3_600)

        return EventStream(produce())

    stream = client.stream("GET", "/")
    assert stream.read(9) == b"data: x\n\n"
    app.begin_drain()
    client.server.link.begin_drain()
    assert stream.read() == b""
    assert stream.is_complete


# -- from a channel -------------------------------------------------------------------------------------------


def test_every_publish_is_an_event_and_no_handler_waits(app: App, client: TestClient) -> None:
    news = app.channel("news")

    @app.get("/")
    def events(request: Request) -> EventStream:
        return EventStream(news)

    stream = client.stream("GET", "/")
    gevent.sleep(0)
    assert not client._greenlets
    assert news.publish("x", event="tick", id="1") == 1
    expected = b"event: tick\nid: 1\ndata: x\n\n"
    assert stream.read(len(expected)) == expected


def test_a_quiet_channel_is_kept_alive_too(app: App, client: TestClient, clock: FakeClock) -> None:
    news = app.channel("news")

    @app.get("/")
    def events(request: Request) -> EventStream:
        return EventStream(news, ping=5)

    streams = [client.stream("GET", "/") for _ in range(3)]
    pass_time(app, clock, 4)
    news.publish("x")
    gevent.sleep(0)
    pass_time(app, clock, 4)  # 8 s after the begin, 4 s after the item
    pass_time(app, clock, 1)
    news.publish("y")
    for stream in streams:
        assert stream.read(22) == b"data: x\n\n: \n\ndata: y\n\n"


def test_those_that_have_left_are_not_kept_alive(app: App, client: TestClient, clock: FakeClock) -> None:
    @app.get("/")
    def events(request: Request) -> EventStream:
        return EventStream(app.channel("news"), ping=5)

    stream = client.stream("GET", "/")
    stream.disconnect()
    pass_time(app, clock, 60)
    assert app.broadcast.hub.stats().channels == {}
    assert not app.broadcast._held
    assert len(app.broadcast._holds) == 0


def test_an_iterable_may_join_a_channel(app: App, client: TestClient) -> None:
    news = app.channel("news")
    go_on = gevent.event.Event()

    @app.get("/")
    def events(request: Request) -> EventStream:
        def produce() -> Iterator[str]:
            yield "own"
            go_on.wait()

        stream = EventStream(produce())
        news.join(stream)
        return stream

    stream = client.stream("GET", "/")
    assert stream.read(11) == b"data: own\n\n"
    assert news.publish("item") == 1
    assert stream.read(12) == b"data: item\n\n"
    go_on.set()
    assert stream.read() == b""
    assert news.publish("late") == 0


def test_an_item_published_before_the_end_comes_before_it(app: App, client: TestClient) -> None:
    news = app.channel("news")

    @app.get("/")
    def events(request: Request) -> EventStream:
        def produce() -> Iterator[str]:
            yield "own"
            news.publish("item")

        stream = EventStream(produce())
        news.join(stream)
        return stream

    assert client.get("/").body == b"data: own\n\ndata: item\n\n"


def test_while_the_worker_stops_a_new_stream_ends_at_once(app: App, client: TestClient) -> None:
    @app.get("/")
    def events(request: Request) -> EventStream:
        return EventStream(app.channel("news"))

    app.begin_drain()
    assert client.get("/").body == b""
