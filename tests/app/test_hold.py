"""Hold through an App and TestClient: streams, response holds, their ends."""

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from m2gate import App, Hold, Request, Response, TestClient
from m2gate.errors import ConnectionGone
from m2gate.link.broadcast import Broadcast
from tests.app.test_events import FakeClock, pass_time


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


def route(app: App, make: Callable[[], Any]) -> None:
    @app.route("/", methods=["GET", "POST"])
    def handler(request: Request) -> Any:
        return make()


def poll(app: App, client: TestClient, method: str = "GET", **options: Any) -> "gevent.Greenlet[..., Any]":
    """Send a request that is held, and wait until it is."""
    before = len(app.broadcast._held)
    greenlet = gevent.spawn(client.request, method, "/", **options)
    with gevent.Timeout(5):
        while len(app.broadcast._held) == before and not greenlet.ready():
            gevent.sleep(0.001)
    return greenlet


def is_clean(app: App) -> bool:
    broadcast = app.broadcast
    return not broadcast._held and len(broadcast._holds) == 0 and not broadcast.hub.stats().channels


# -- streams -----------------------------------------------------------------------------------------------


def test_a_stream_begins_with_its_body_and_goes_on_with_items(app: App, client: TestClient) -> None:
    route(app, lambda: Hold(["a", app.channel("b")], body="begin;", headers={"X-A": "b"}, status=201))
    stream = client.stream("GET", "/")
    assert (stream.status, stream.headers["X-A"]) == (201, "b")
    assert stream.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert app.channel("a").publish("1;") == 1
    assert app.channel("b").publish("2;") == 1
    assert stream.read(10) == b"begin;1;2;"
    stream.disconnect()
    assert app.channel("a").publish("3;") == 0
    assert is_clean(app)


@pytest.mark.parametrize("mode", ["stream", "response"])
def test_status_and_headers_beside_a_hold(app: App, client: TestClient, clock: FakeClock, mode: Any) -> None:
    hold = Hold("a", mode=mode, headers={"X-A": "b"}, body="x")
    app.after(with_header)
    route(app, lambda: (hold, 203, {"X-B": "c"}))
    for _ in range(2):  # one Hold may answer many requests
        greenlet = poll(app, client)
        pass_time(app, clock, 55)
        app.begin_drain()
        response = greenlet.get(timeout=5)
        assert (response.status, response.body) == (203, b"x")
        assert [response.headers.getlist(name) for name in ("X-A", "X-B", "X-C")] == [["b"], ["c"], ["d"]]


def with_header(request: Request, response: Response) -> Response:
    response.set_header("X-C", "d")
    return response


CONTENT_TYPES: list[tuple[dict[str, Any], str]] = [
    ({}, "text/plain; charset=utf-8"),
    ({"body": b"x"}, "application/octet-stream"),
    ({"body": {"a": 1}}, "application/json"),
    ({"sse": True}, "text/event-stream"),
    ({"headers": [("content-type", "text/x")]}, "text/x"),
]


@pytest.mark.parametrize(("options", "content_type"), CONTENT_TYPES)
def test_the_content_type_of_a_stream(app: App, client: TestClient, options: dict[str, Any], content_type: str) -> None:
    route(app, lambda: Hold("a", **options))
    assert client.stream("GET", "/").headers.getlist("Content-Type") == [content_type]


def test_a_body_longer_than_the_credits_comes_before_the_items(app: App) -> None:
    route(app, lambda: Hold("a", body="x" * 50_000))
    with TestClient(app, credits=1_000) as client:
        stream = client.stream("GET", "/")
        assert app.channel("a").publish("item") == 1
        assert stream.read(50_004) == b"x" * 50_000 + b"item"


def test_sse_makes_events_of_items(app: App, client: TestClient) -> None:
    route(app, lambda: Hold("a", sse=True))
    stream = client.stream("GET", "/")
    app.channel("a").publish("x", id="1")
    assert stream.read(15) == b"id: 1\ndata: x\n\n"


KEEP_ALIVES: list[Any] = [
    pytest.param(({}, 1_000, b""), id="none"),
    pytest.param(({"keep_alive": "\n"}, 55, b"\n"), id="content"),
    pytest.param(({"keep_alive": (b".", 20)}, 20, b"."), id="content-and-seconds"),
    pytest.param(({"sse": True}, 15, b": \n\n"), id="sse"),
    pytest.param(({"sse": True, "keep_alive": ("event: ping\n\n", 20)}, 20, b"event: ping\n\n"), id="own"),
]


@pytest.mark.parametrize("case", KEEP_ALIVES)
def test_keep_alive(app: App, client: TestClient, clock: FakeClock, case: tuple[Any, float, bytes]) -> None:
    options, seconds, content = case
    route(app, lambda: Hold("a", **options))
    stream = client.stream("GET", "/")
    pass_time(app, clock, seconds - 1)
    pass_time(app, clock, 1)
    app.channel("a").publish("", formats={"http-stream": "end"})
    expected = content + b"end"
    assert stream.read(len(expected)) == expected


def test_an_http_10_client_gets_bare_bytes(app: App, client: TestClient) -> None:
    route(app, lambda: Hold("a", body="begin;"))
    stream = client.stream("GET", "/", version="1.0")
    app.channel("a").publish("item")
    assert stream.read(10) == b"begin;item"
    app.begin_drain()
    assert stream.read() == b""
    assert stream.is_complete


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204)])
def test_a_stream_without_a_body_is_not_held(app: App, client: TestClient, method: str, status: int) -> None:
    app.get("/none")(lambda request: Hold("a", body="x", status=status))
    response = client.request(method, "/none")
    assert (response.status, response.body) == (status, b"")
    assert is_clean(app)


@pytest.mark.parametrize("mode", ["stream", "response"])
@pytest.mark.parametrize("channels", [["a"], []])
def test_a_client_that_has_left_before_is_not_held(app: App, client: TestClient, mode: Any, channels: Any) -> None:
    @app.get("/")
    def handler(request: Request) -> Hold:
        client.disconnect()
        return Hold(channels, mode=mode)

    with pytest.raises(EOFError):
        client.get("/")
    assert is_clean(app)


def test_a_stream_without_channels_is_forgotten_with_its_client(app: App, client: TestClient) -> None:
    route(app, lambda: Hold([], keep_alive="."))
    client.stream("GET", "/").disconnect()
    assert is_clean(app)


def test_a_stop_ends_streams(app: App, client: TestClient) -> None:
    route(app, lambda: Hold("a"))
    stream = client.stream("GET", "/")
    app.channel("a").publish("last")
    app.begin_drain()
    assert stream.read() == b"last"
    assert is_clean(app)


def test_a_stream_never_expires(app: App, client: TestClient, clock: FakeClock) -> None:
    route(app, lambda: Hold("a", timeout=1))
    stream = client.stream("GET", "/")
    pass_time(app, clock, 100_000)
    app.channel("a").publish("x")
    assert stream.read(1) == b"x"


def test_an_app_that_was_stopped_may_start_again(app: App) -> None:
    route(app, lambda: Hold("a"))
    for _ in range(2):
        with TestClient(app) as client:
            stream = client.stream("GET", "/")
            assert app.channel("a").publish("x") == 1
            assert stream.read(1) == b"x"


def test_nothing_is_left_of_a_server_that_is_lost(app: App, client: TestClient) -> None:
    route(app, lambda: Hold(["a", "b"]))
    streams = [client.stream("GET", "/") for _ in range(10)]
    app.channel("a").publish("x")
    client.server.link.close()
    assert app.channel("b").publish("y") == 0
    assert is_clean(app)
    app.broadcast.flush()
    for stream in streams:
        stream.disconnect()


# -- response holds --------------------------------------------------------------------------------------------


def test_the_first_item_is_the_response(app: App, client: TestClient) -> None:
    route(app, lambda: Hold(["a", "b"], mode="response", headers={"X-A": "b", "X-B": "c"}))
    greenlets = [poll(app, client) for _ in range(3)]
    assert app.channel("a").publish("x", formats={"http-response": {"body": "y", "headers": {"x-a": "z"}}}) == 3
    assert app.channel("a").publish("late") == 0
    assert app.channel("b").publish("late") == 0
    for greenlet in greenlets:
        response = greenlet.get(timeout=5)
        assert (response.status, response.body) == (200, b"y")
        assert (response.headers.getlist("X-A"), response.headers["X-B"]) == (["z"], "c")
        assert response.headers["Content-Length"] == "1"
    assert is_clean(app)


def test_the_connection_goes_on_with_its_next_request(app: App, client: TestClient) -> None:
    route(app, lambda: Hold("a", mode="response"))
    for number in range(5):
        greenlet = poll(app, client)
        app.channel("a").publish(str(number))
        assert greenlet.get(timeout=5).text == str(number)
    assert client.server._last_id == 1


def test_after_its_timeout_it_answers_by_itself(app: App, client: TestClient, clock: FakeClock) -> None:
    route(app, lambda: Hold("a", mode="response", timeout=20, body={"n": 0}, status=202, headers={"X-A": "b"}))
    greenlet = poll(app, client)
    pass_time(app, clock, 19.9)
    assert not greenlet.ready()
    pass_time(app, clock, 0.1)
    response = greenlet.get(timeout=5)
    assert (response.status, response.json, response.headers["X-A"]) == (202, {"n": 0}, "b")
    assert response.headers["Content-Type"] == "application/json"
    assert app.channel("a").publish("late") == 0
    assert is_clean(app)


def test_an_item_in_the_same_turn_as_the_timeout_is_the_only_answer(
    app: App, client: TestClient, clock: FakeClock
) -> None:
    route(app, lambda: Hold("a", mode="response", body="timeout"))
    greenlet = poll(app, client)
    app.channel("a").publish("item")
    pass_time(app, clock, 55)
    assert greenlet.get(timeout=5).text == "item"
    greenlet = poll(app, client)
    app.channel("a").publish("item")
    app.begin_drain()
    assert greenlet.get(timeout=5).text == "item"


def test_55_seconds_are_the_default(app: App, client: TestClient, clock: FakeClock) -> None:
    route(app, lambda: Hold("a", mode="response"))
    greenlet = poll(app, client)
    pass_time(app, clock, 54)
    assert not greenlet.ready()
    pass_time(app, clock, 1)
    response = greenlet.get(timeout=5)
    assert (response.status, response.body) == (200, b"")


def test_an_item_without_a_response_format_does_not_answer(app: App, client: TestClient) -> None:
    route(app, lambda: Hold("a", mode="response"))
    greenlet = poll(app, client)
    assert app.channel("a").publish(formats={"http-stream": "x"}) == 0
    assert app.channel("a").publish("y") == 1
    assert greenlet.get(timeout=5).text == "y"


def test_a_head_request_may_be_held(app: App, client: TestClient) -> None:
    route(app, lambda: Hold("a", mode="response"))
    greenlet = poll(app, client, "HEAD")
    app.channel("a").publish("four")
    response = greenlet.get(timeout=5)
    assert (response.body, response.headers["Content-Length"]) == (b"", "4")


def test_an_http_10_client_is_closed_behind_its_response(app: App, client: TestClient) -> None:
    route(app, lambda: Hold("a", mode="response"))
    greenlet = poll(app, client, version="1.0")
    app.channel("a").publish("x")
    response = greenlet.get(timeout=5)
    assert (response.text, response.headers["Connection"]) == ("x", "close")
    assert not client.server.link.connections


def test_a_client_that_leaves_is_forgotten(app: App, client: TestClient) -> None:
    route(app, lambda: Hold("a", mode="response"))
    greenlet = poll(app, client)
    client.disconnect()
    assert app.channel("a").publish("x") == 0
    assert is_clean(app)
    with pytest.raises(EOFError):
        greenlet.get(timeout=5)


def test_a_client_that_leaves_between_item_and_flush(app: App, client: TestClient) -> None:
    route(app, lambda: Hold("a", mode="response"))
    greenlet = poll(app, client)
    assert app.channel("a").publish("x") == 1
    client.disconnect()
    app.broadcast.flush()
    assert is_clean(app)
    with pytest.raises(EOFError):
        greenlet.get(timeout=5)


def test_a_stop_answers_response_holds(app: App, client: TestClient) -> None:
    route(app, lambda: Hold("a", mode="response", body="later"))
    greenlet = poll(app, client)
    app.begin_drain()
    assert greenlet.get(timeout=5).text == "later"
    assert client.get("/").text == "later"
    assert is_clean(app)


def test_an_unread_upload_closes_the_connection(app: App, client: TestClient) -> None:
    route(app, lambda: Hold("a", mode="response"))
    greenlet = poll(app, client, "POST", data=iter([b"x" * 10] * 3))
    app.channel("a").publish("x")
    response = greenlet.get(timeout=5)
    assert (response.text, response.headers["Connection"]) == ("x", "close")


# -- mistakes -------------------------------------------------------------------------------------------------

MISTAKES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"mode": "forever"}, ValueError, "mode 'forever'"),
    ({"timeout": 0}, ValueError, "timeout 0"),
    ({"status": 700}, ValueError, "700"),
    ({"headers": {"X": "a\nb"}}, ValueError, "'X'"),
    ({"body": 3}, TypeError, "not int"),
    ({"keep_alive": (".", 0)}, ValueError, "keep_alive"),
]


@pytest.mark.parametrize(("options", "error", "text"), MISTAKES)
def test_mistakes(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Hold("a", **options)


def test_a_hold_that_was_answered_joins_nothing_more(app: App, client: TestClient) -> None:
    holds: list[Hold] = []

    def make() -> Hold:
        holds.append(Hold("a", mode="response"))
        return holds[0]

    route(app, make)
    answer = poll(app, client)
    assert app.channel("a").publish("whole") == 1
    assert answer.get(timeout=5).text == "whole"
    with pytest.raises(ConnectionGone):
        app.channel("b").join(holds[0])
    assert is_clean(app)
