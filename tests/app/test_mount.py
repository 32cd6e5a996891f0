"""Apps mounted on Apps: whose bounds, hooks, error handlers and channels hold where."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from m2gate import App, Connection, ConnectionGone, HTTPError, Request, Response, TestClient, WebSocket

Setup = Callable[[App], None]


def size(request: Request) -> dict[str, int]:
    return {"size": len(request.body)}


def streamed(request: Request) -> dict[str, int]:
    return {"size": sum(len(piece) for piece in request.stream)}


def nested(*apps: App) -> App:
    """Mount each App at /in of the one before it; the innermost has /size and /streamed."""
    apps[-1].post("/size")(size)
    apps[-1].post("/streamed")(streamed)
    for outer, inner in pairwise(apps):
        outer.mount("/in", app=inner)
    return apps[0]


@pytest.mark.parametrize(
    ("settings", "path", "fits"),
    [
        pytest.param([{}, {"max_body": 10}], "/in/streamed", 10, id="own-max-body"),
        pytest.param([{"max_body": 10}, {}], "/in/streamed", 10, id="that-of-the-outer-app"),
        pytest.param([{"max_body": 5}, {"max_body": 10}], "/in/streamed", 10, id="own-above-the-outer"),
        pytest.param([{"max_body": 5}, {"max_body": 10}, {}], "/in/in/streamed", 10, id="that-of-the-middle"),
        pytest.param([{}, {"max_memory": 10}], "/in/size", 10, id="own-max-memory"),
        pytest.param([{"max_memory": 10}, {}], "/in/size", 10, id="max-memory-of-the-outer-app"),
    ],
)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_bounds(settings: list[dict[str, Any]], path: str, fits: int, *, is_chunked: bool) -> None:
    def body(length: int) -> Any:
        return [b"x"] * length if is_chunked else b"x" * length

    with TestClient(nested(*(App(**one) for one in settings))) as client:
        assert client.post(path, data=body(fits)).json == {"size": fits}
        refused = client.post(path, data=body(fits + 1))
        assert (refused.status, refused.text) == (413, f"the limit is {fits} bytes")


def test_a_route_s_own_bound_counts_most() -> None:
    inner = App(max_body=10)
    inner.route("/large", ["POST"], max_body=20)(size)
    app = App(max_body=5)
    app.mount("/in", app=inner)
    assert app.largest_body() == 20
    with TestClient(app) as client:
        assert client.post("/in/large", data=b"x" * 20).status == 200
        assert client.post("/in/large", data=b"x" * 21).status == 413


@pytest.mark.parametrize(
    ("outer", "inner", "fits"), [({}, {"max_message": 10}, 10), ({"max_message": 10}, {}, 10)], ids=["own", "outer"]
)
def test_max_message(outer: dict[str, Any], inner: dict[str, Any], fits: int) -> None:
    app, below = App(**outer), App(**inner)

    @below.websocket("/echo")
    def echo(ws: WebSocket) -> None:
        for message in ws:
            ws.send(message)

    app.mount("/in", app=below)
    with TestClient(app) as client, client.websocket("/in/echo") as ws:
        ws.send("x" * fits)
        assert ws.receive() == "x" * fits
        ws.send("x" * (fits + 1))
        with pytest.raises(ConnectionGone):
            ws.receive()
        assert ws.close_code == 1009


@pytest.mark.parametrize(
    ("outer", "inner", "route", "allowed"),
    [
        ([], None, None, False),
        (["https://a.example"], None, None, True),
        (["https://a.example"], [], None, False),
        ([], ["https://a.example"], None, True),
        (["https://a.example"], None, [], False),
        ([], None, ["https://a.example"], True),
    ],
)
def test_origins(outer: list[str], inner: list[str] | None, route: list[str] | None, *, allowed: bool) -> None:
    below = App(origins=inner)
    below.websocket("/", origins=route)(lambda ws: ws.send("hello"))
    app = App(origins=outer)
    app.mount("/in", app=below)
    with TestClient(app) as client:
        if allowed:
            assert client.websocket("/in/", headers={"Origin": "https://a.example"}).receive() == "hello"
            return
        with pytest.raises(HTTPError) as error:
            client.websocket("/in/", headers={"Origin": "https://a.example"})
        assert error.value.status == 403


def test_proxies_and_tokens_are_the_outermost_s() -> None:
    inner = App(trusted_proxies=["10.0.0.0/8"], secret="other")

    @inner.get("/client")
    def client_(request: Request) -> str:
        return request.client

    @inner.get("/detached")
    def detached(request: Request) -> None:
        token = request.detach().token
        Connection.from_token(token).send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    app = App(trusted_proxies=["127.0.0.1"], secret="key")
    app.mount("/in", app=inner)
    with TestClient(app) as client:
        assert client.get("/in/client", headers={"X-Forwarded-For": "192.0.2.7"}).text == "192.0.2.7"
        assert client.get("/in/detached").text == "hi"


def log_hooks(app: App, name: str, seen: list[str]) -> None:
    @app.before
    def before(request: Request) -> None:
        seen.append(f"{name} before")

    @app.after
    def after(request: Request, response: Response) -> Response:
        seen.append(f"{name} after {response.status}")
        return response


@pytest.mark.parametrize(
    ("path", "status"),
    [("/in/fine", 200), ("/in/unknown", 404), ("/in/refused", 403), ("/in/broken", 500), ("/in/size", 405)],
)
def test_hooks_of_the_outer_app_enclose_those_of_the_inner(path: str, status: int) -> None:
    seen: list[str] = []
    inner, app = App(), App()
    inner.get("/fine")(lambda request: "fine")
    inner.post("/size")(size)

    @inner.get("/refused")
    def refused(request: Request) -> None:
        raise HTTPError(403)

    @inner.get("/broken")
    def broken(request: Request) -> None:
        raise KeyError("x")

    log_hooks(app, "outer", seen)
    log_hooks(inner, "inner", seen)
    app.mount("/in", app=inner)
    with TestClient(app) as client:
        assert client.get(path).status == status
    assert seen == ["outer before", "inner before", f"inner after {status}", f"outer after {status}"]


def test_error_handlers_inner_before_outer() -> None:
    inner, app = App(), App()
    app.error(404)(lambda request, error: ("outer 404", 404))
    app.error(KeyError)(lambda request, error: ("outer KeyError", 503))
    app.error(RuntimeError)(lambda request, error: ("outer RuntimeError", 503))
    inner.error(KeyError)(lambda request, error: ("inner KeyError", 503))

    @inner.error(ValueError)
    def failing(request: Request, error: ValueError) -> None:
        raise RuntimeError("from the error handler")

    @inner.get("/raise/{name}")
    def fail(request: Request, name: str) -> None:
        raise {"key": KeyError, "value": ValueError, "runtime": RuntimeError}[name]("x")

    app.get("/key")(lambda request: request.app.error_handlers[0])
    app.mount("/in", app=inner)
    with TestClient(app) as client:
        answers = [client.get(f"/{one}").text for one in ("in/unknown", "in/raise/key", "in/raise/value", "key")]
        assert answers == ["outer 404", "inner KeyError", "outer RuntimeError", "outer KeyError"]
        assert client.get("/in/raise/runtime").text == "outer RuntimeError"


def test_the_nearest_kind_of_an_error_counts() -> None:
    class TeapotError(HTTPError):
        pass

    app = App()
    app.error(Exception)(lambda request, error: "Exception")
    app.error(HTTPError)(lambda request, error: "HTTPError")
    app.error(418)(lambda request, error: "418")
    app.error(LookupError)(lambda request, error: "LookupError")
    raised: list[Exception] = []

    @app.get("/")
    def fail(request: Request) -> None:
        raise raised[0]

    def answer(error: Exception) -> str:
        raised[:] = [error]
        with TestClient(app) as client:
            return client.get("/").text

    errors = [HTTPError(418), TeapotError(418), HTTPError(403), KeyError("x"), OSError("x")]
    assert [answer(error) for error in errors] == ["418", "418", "HTTPError", "LookupError", "Exception"]
    app.error(TeapotError)(lambda request, error: "teapot")
    assert answer(TeapotError(418)) == "teapot"


@pytest.mark.parametrize(("kind", "error"), [(99, ValueError), (600, ValueError), ("404", TypeError)])
def test_a_kind_of_error_that_is_none(kind: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        App().error(kind)


@pytest.mark.parametrize("inside_first", [False, True])
def test_start_stop_and_channels_reach_every_depth_once(*, inside_first: bool) -> None:
    seen: list[str] = []
    apps = {name: App() for name in ("outer", "middle", "inner")}
    for name, app in apps.items():
        app.on_start(partial(seen.append, f"start {name}"))
        app.on_stop(partial(seen.append, f"stop {name}"))
    mounts = [("outer", "middle"), ("middle", "inner")]
    for outer, inner in reversed(mounts) if inside_first else mounts:
        apps[outer].mount("/in", app=apps[inner])
    apps["outer"].mount("/again", app=apps["inner"])
    apps["inner"].json_socket("@late")(lambda request: request.json)

    @apps["inner"].websocket("/ws")
    def ws_(ws: WebSocket) -> None:
        with apps["inner"].channel("c").join(ws):
            ws.receive()

    with TestClient(apps["outer"]) as client:
        assert seen == ["start inner", "start middle", "start outer"]
        assert client.json_socket("@late", [1]) == [1]
        with client.websocket("/in/in/ws") as ws:
            assert apps["outer"].channel("c").publish("x") == 1
            assert ws.receive() == "x"
    assert seen[3:] == ["stop outer", "stop middle", "stop inner"]


def test_an_app_cannot_be_mounted_on_itself() -> None:
    outer, inner = App(), App()
    outer.mount("/in", app=inner)
    for app in (outer, inner):
        with pytest.raises(ValueError, match="itself"):
            app.mount("/again", app=outer)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_a_wsgi_mount_at_the_root_takes_what_no_route_takes(method: str) -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [("X-Seen", "{REQUEST_METHOD} [{SCRIPT_NAME}] {PATH_INFO}".format_map(environ))])
        return [b"wsgi"]

    app = App()
    app.get("/own")(lambda request: "own")
    app.mount("/", wsgi=application)
    with TestClient(app) as client:
        assert client.request(method, "/a/b%20c").headers["X-Seen"] == f"{method} [] /a/b c"
        assert client.request(method, "/").headers["X-Seen"] == f"{method} [] /"
        assert client.get("/own").text == "own"
        assert client.request("DELETE", "/own").status == 405
