"""Which route a path finds, with which parameters; what is refused at registration."""

from typing import Any

import pytest

from m2gate import App, HTTPError, Request, TestClient
from m2gate.app.routing import Router

ROUTES = [
    "/",
    "/static",
    "/a/b",
    "/größe",
    "/hello/{name}",
    "/hello/{name}/again",
    "/n/{n:int}",
    "/n/{n}",
    "/tree/{rest:path}",
    "/x-{left}-{right}.txt",
    "/{first}/end",
]


@pytest.fixture
def router() -> Router:
    router = Router()
    for path in ROUTES:
        router.add(path, ["GET"], lambda: None)
    return router


FOUND = [
    ("/", "/", {}),
    ("/static", "/static", {}),
    ("/st%61tic", "/static", {}),
    ("/gr%C3%B6%c3%9fe", "/größe", {}),
    ("/hello/World", "/hello/{name}", {"name": "World"}),
    ("/hello/a%20b", "/hello/{name}", {"name": "a b"}),
    ("/hello/a%2Fb", "/hello/{name}", {"name": "a/b"}),
    ("/hell%6F/x", "/hello/{name}", {"name": "x"}),
    ("/hello/%25", "/hello/{name}", {"name": "%"}),
    ("/hello/%2541", "/hello/{name}", {"name": "%41"}),
    ("/hello/a+b", "/hello/{name}", {"name": "a+b"}),
    ("/hello/x/again", "/hello/{name}/again", {"name": "x"}),
    ("/n/12", "/n/{n:int}", {"n": 12}),
    ("/n/007", "/n/{n:int}", {"n": 7}),
    ("/n/-1", "/n/{n}", {"n": "-1"}),
    ("/n/1234567890123456789", "/n/{n}", {"n": "1234567890123456789"}),
    ("/tree/", "/tree/{rest:path}", {"rest": ""}),
    ("/tree/a//b/%C3%A4", "/tree/{rest:path}", {"rest": "a//b/ä"}),
    ("/x-1-2.txt", "/x-{left}-{right}.txt", {"left": "1", "right": "2"}),
    ("/hello/end", "/hello/{name}", {"name": "end"}),
    ("/other/end", "/{first}/end", {"first": "other"}),
]


@pytest.mark.checklist("mongrel2", 8)
@pytest.mark.parametrize(("path", "route", "parameters"), FOUND, ids=[path for path, _, _ in FOUND])
def test_found(router: Router, path: str, route: str, parameters: dict[str, Any]) -> None:
    found = router.find("GET", path)
    assert found is not None
    assert (found[0].path, found[1]) == (route, parameters)


@pytest.mark.parametrize(
    "path", ["/nothing", "/a%2Fb", "/static/", "/hello", "/hello/", "/hello/a/b", "/N/1", "//", ""]
)
def test_not_found(router: Router, path: str) -> None:
    assert router.find("GET", path) is None


@pytest.mark.parametrize("path", ["/hello/%ff", "/hello/%C3", "/hello/a%00b", "/tree/x/%ed%a0%80"])
def test_bad_parameter_is_400(router: Router, path: str) -> None:
    with pytest.raises(HTTPError) as error:
        router.find("GET", path)
    assert error.value.status == 400


BAD_ROUTES = [
    ("no-slash", "a path starts with '/'"),
    ("/{x:float}", "known kinds are str, int, path"),
    ("/{x}/{x}", "occurs twice"),
    ("/{}", "a parameter is written"),
    ("/{x", "a parameter is written"),
    ("/x}", "a parameter is written"),
    ("/{a b}", "a parameter is written"),
]


@pytest.mark.parametrize(("path", "message"), BAD_ROUTES, ids=[path for path, _ in BAD_ROUTES])
def test_bad_route_is_refused(path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Router().add(path, ["GET"], lambda: None)


@pytest.mark.parametrize("path", ["/", "/hello/{name}", "/n/{n:int}"])
def test_a_route_twice_is_refused(router: Router, path: str) -> None:
    with pytest.raises(ValueError, match="GET is registered twice"):
        router.add(path, ["POST", "GET"], lambda: None)


@pytest.mark.parametrize("method", ["get", "", "G ET", "GET\r\n", "X" * 21])
def test_bad_method_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match="use capital letters"):
        Router().add("/", [method], lambda: None)


def test_methods_of_a_path() -> None:
    app = App()

    @app.get("/thing/{n:int}")
    def read(request: Request, n: int) -> str:
        return f"{request.method} {n}"

    @app.route("/thing/{n:int}", methods=["PUT", "DELETE"])
    def write(request: Request, n: int) -> str:
        return f"{request.method} {n}"

    @app.post("/only")
    def only(request: Request) -> str:
        return "posted"

    with TestClient(app) as client:
        assert [client.request(one, "/thing/1").text for one in ("GET", "PUT", "DELETE")] == [
            "GET 1",
            "PUT 1",
            "DELETE 1",
        ]
        assert client.head("/thing/1").headers["Content-Length"] == "6"
        refused = client.post("/thing/1")
        assert (refused.status, refused.headers["Allow"]) == (405, "DELETE, GET, HEAD, OPTIONS, PUT")
        allowed = client.options("/only")
        assert (allowed.status, allowed.headers["Allow"]) == (204, "OPTIONS, POST")
        assert client.head("/only").status == 405
        assert client.options("/unknown").status == 404


def test_head_and_options_of_their_own() -> None:
    app = App()
    app.get("/")(lambda request: "whole")
    app.head("/")(lambda request: ("", 200, {"X-Own": "head"}))
    app.options("/")(lambda request: ("", 200, {"X-Own": "options"}))
    with TestClient(app) as client:
        assert client.head("/").headers["X-Own"] == "head"
        assert client.options("/").headers["X-Own"] == "options"


def test_mounts() -> None:
    outer, inner, innermost = App(), App(), App()
    inner.get("/")(lambda request: f"inner root {request.path}")
    inner.get("/page/{n:int}")(lambda request, n: f"inner {n} {request.raw_path}")
    innermost.get("/x")(lambda request: "innermost")
    inner.mount("/deep", app=innermost)
    outer.get("/in/special")(lambda request: "outer first")
    outer.mount("/in", app=inner)
    with TestClient(outer) as client:
        assert client.get("/in/").text == "inner root /in/"
        assert client.get("/in/page/3").text == "inner 3 /in/page/3"
        assert client.get("/in/special").text == "outer first"
        assert client.get("/in/deep/x").text == "innermost"
        assert client.get("/inn").status == 404
        moved = client.get("/in?a=1")
        assert (moved.status, moved.headers["Location"]) == (308, "/in/?a=1")
        assert client.post("/in/page/3").headers["Allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize(
    ("prefix", "message"), [("x", "starts with '/'"), ("/in", "registered twice"), ("/in/", "registered twice")]
)
def test_bad_mounts_are_refused(prefix: str, message: str) -> None:
    app = App()
    app.mount("/in", app=App())
    with pytest.raises(ValueError, match=message):
        app.mount(prefix, app=App())


def test_a_mount_is_one_of_two_kinds() -> None:
    with pytest.raises(ValueError, match="give either wsgi= or app="):
        App().mount("/")
    with pytest.raises(ValueError, match="give either wsgi= or app="):
        App().mount("/", wsgi=lambda environ, start: [], app=App())
