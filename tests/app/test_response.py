"""What a handler may return, and the Response class."""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gevent
import pytest

from m2gate import App, HTTPError, Request, Response, TestClient
from m2gate.app.client_side import TestResponse


def answer(value: Any, method: str = "GET", **options: Any) -> TestResponse:
    """Return the response to a handler that returns value, or what value() returns."""
    app = App()
    app.route("/", methods=["GET", "POST"])(lambda request: value() if callable(value) else value)
    with TestClient(app) as client:
        return client.request(method, "/", **options)


TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
JSON = "application/json"
VALUES = [
    pytest.param("ä", 200, TEXT, "ä".encode(), id="str"),
    pytest.param("", 200, TEXT, b"", id="empty-str"),
    pytest.param(b"\x00\xff", 200, BYTES, b"\x00\xff", id="bytes"),
    pytest.param(bytearray(b"x"), 200, BYTES, b"x", id="bytearray"),
    pytest.param({"a": "ä", "b": [1.5, None]}, 200, JSON, '{"a":"ä","b":[1.5,null]}'.encode(), id="dict"),
    pytest.param([], 200, JSON, b"[]", id="list"),
    pytest.param(None, 204, None, b"", id="none"),
    pytest.param(("made", 201), 201, TEXT, b"made", id="status"),
    pytest.param(({"a": 1}, 202, {"X-A": "b"}), 202, JSON, b'{"a":1}', id="status-and-headers"),
    pytest.param((None, 204), 204, None, b"", id="none-and-status"),
    pytest.param(("<p>", 200, {"content-type": "text/html"}), 200, "text/html", b"<p>", id="own-type"),
    pytest.param(Response("x", 203), 203, TEXT, b"x", id="response"),
    pytest.param(Response({"a": 1}, content_type="application/x"), 200, "application/x", b'{"a":1}', id="content-type"),
    pytest.param((Response("x"), 404, {"X-A": "b"}), 404, TEXT, b"x", id="response-and-status"),
    pytest.param(lambda: iter(["a", b"b", "ä"]), 200, BYTES, "abä".encode(), id="iterator"),
    pytest.param(lambda: iter([]), 200, BYTES, b"", id="empty-iterator"),
    pytest.param(lambda: (iter(["a"]), 201), 201, BYTES, b"a", id="iterator-and-status"),
    pytest.param(lambda: Response((x for x in "abc"), content_type=TEXT), 200, TEXT, b"abc", id="generator"),
]


@pytest.mark.parametrize(("value", "status", "content_type", "body"), VALUES)
def test_value(value: Any, status: int, content_type: str | None, body: bytes) -> None:
    got = answer(value)
    assert (got.status, got.headers.get("Content-Type"), got.body) == (status, content_type, body)


@pytest.mark.checklist("mongrel2", 23)
def test_text_is_encoded_before_its_length_is_taken() -> None:
    assert answer("äöü€").headers["Content-Length"] == "9"
    assert answer({"ä": "€"}).headers["Content-Length"] == str(len('{"ä":"€"}'.encode()))


@pytest.mark.parametrize(
    "value",
    [3, object, ("x", 200, {}, 1), ("x",), ("x", "200"), ("x", 999), {"a": object}, {"a": float("nan")}, {1, 2}],
    ids=repr,
)
def test_a_value_that_is_none_of_these_is_500(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    got = answer(value)
    assert got.status == 500
    assert got.text.startswith("Internal Server Error\nrequest id: ")
    assert len([one for one in caplog.records if one.levelno == logging.ERROR]) == 1


BAD_HEADERS: list[Any] = [
    {"X-A": "a\r\nSet-Cookie: x=1"},
    {"X-A": "a\nb"},
    {"X-A": "a\rb"},
    {"X-A": "a\0b"},
    {"X-A\r\nX-B": "b"},
    {"X A": "b"},
    {"X:A": "b"},
    {"": "b"},
    {"X-A": "€"},
    [("X-A", "fine"), ("X-B", "\r\n")],
]


@pytest.mark.checklist("mongrel2", 27)
@pytest.mark.parametrize("headers", BAD_HEADERS, ids=repr)
def test_headers_that_must_not_be_sent_are_refused(headers: Any) -> None:
    with pytest.raises(ValueError, match="header"):
        Response("x", headers=headers)
    with pytest.raises(ValueError, match="header"):
        Response().add_header(*dict(headers).popitem())
    got = answer(lambda: ("x", 200, headers))
    assert (got.status, got.headers.get("Set-Cookie")) == (500, None)


@pytest.mark.parametrize("content_type", ["text/html\r\nX-A: b", "text/html\0"])
def test_a_content_type_that_must_not_be_sent_is_500(content_type: str) -> None:
    got = answer(lambda: Response("x", content_type=content_type))
    assert (got.status, got.headers.get("X-A")) == (500, None)


@pytest.mark.parametrize("status", [0, 99, 600, -200])
def test_a_status_that_is_none_is_refused(status: int) -> None:
    with pytest.raises(ValueError, match="status"):
        Response("x", status)
    with pytest.raises(ValueError, match="status"):
        HTTPError(status)


def test_headers_can_be_set_and_added() -> None:
    response = Response(headers=[("X-A", "1"), ("x-a", "2"), ("X-B", "3")])
    response.add_header("X-B", "4")
    response.set_header("x-A", "5")
    assert response.headers == (("X-B", "3"), ("X-B", "4"), ("x-A", "5"))


@pytest.mark.checklist("mongrel2", 26)
@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 404)])
@pytest.mark.parametrize("make", [lambda: "text", lambda: iter(["text"])], ids=["whole", "stream"])
def test_no_body_where_none_may_be(method: str, status: int, make: Callable[[], Any]) -> None:
    app = App()
    app.get("/")(lambda request: (make(), status))
    app.get("/next")(lambda request: "next")
    with TestClient(app) as client:
        assert client.request(method, "/").body == b""
        assert client.get("/next").text == "next"  # nothing of the body is left on the connection


def test_head_does_not_run_the_producer() -> None:
    steps: list[str] = []

    def produce() -> Iterator[str]:
        steps.append("ran")
        yield "x"

    assert answer(produce, "HEAD").status == 200
    assert steps == []
    assert answer(produce).text == "x"
    assert steps == ["ran"]


def test_a_producer_that_fails_before_its_first_piece_is_500() -> None:
    def produce() -> Iterator[str]:
        yield str(1 // len(()))

    assert answer(produce).status == 500


def test_a_producer_that_fails_later_cuts_the_connection() -> None:
    def produce() -> Iterator[str]:
        yield "x"
        raise RuntimeError("on purpose")

    with pytest.raises(EOFError):
        answer(produce)


def test_a_producer_that_yields_something_else_is_500() -> None:
    assert answer(lambda: iter([1])).status == 500


def test_the_length_of_a_stream_can_be_announced() -> None:
    got = answer(lambda: Response(iter(["ab", "c"]), headers={"Content-Length": "3"}))
    assert (got.body, got.headers["Content-Length"], got.headers.get("Transfer-Encoding")) == (b"abc", "3", None)


def test_a_stream_that_is_not_as_long_as_announced_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(EOFError):
        answer(lambda: Response(iter(["ab", "c"]), headers={"Content-Length": "4"}))
    assert "response cut short" in caplog.text
    got = answer(lambda: Response(iter(["ab", "c"]), headers={"Content-Length": "2"}))
    assert got.body == b"ab"  # and nothing that the next response would begin with
    assert "3 bytes written where Content-Length is 2" in caplog.text


@pytest.mark.parametrize("headers", [{"Content-Length": "1"}, {"Transfer-Encoding": "chunked"}], ids=str)
def test_the_framing_of_a_whole_body_is_ours(headers: Mapping[str, str]) -> None:
    got = answer(lambda: ("abc", 200, headers))
    assert (got.body, got.headers.getlist("Content-Length"), got.headers.get("Transfer-Encoding")) == (
        b"abc",
        ["3"],
        None,
    )


# -- cookies and redirects --------------------------------------------------------------------------------


def test_cookies() -> None:
    response = Response()
    response.set_cookie("a", "x y;ä", max_age=60, path="/p", domain="example.org", secure=True, httponly=True)
    response.set_cookie("b", "1", samesite="Strict", path=None)
    response.delete_cookie("c")
    lines = [value for _, value in response.headers]
    assert lines[0].startswith('a="x y\\073')
    assert lines[0].endswith("; Max-Age=60; Secure; HttpOnly; Path=/p")
    assert "; Domain=example.org; " in lines[0]
    assert lines[1] == "b=1; SameSite=Strict"
    assert lines[2] == "c=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/"


BAD_COOKIES: list[dict[str, Any]] = [
    {"key": "a;b"},
    {"key": "a=b"},
    {"key": ""},
    {"key": "a\r\nX-A: b"},
    {"key": "ä"},
    {"key": "a", "domain": "x.org; Secure"},
    {"key": "a", "expires": "never; Domain=evil"},
    {"key": "a", "path": "/; Domain=evil"},
    {"key": "a", "expires": "x\r\nX-A: b"},
    {"key": "a", "samesite": "Sometimes"},
]


@pytest.mark.checklist("mongrel2", 27)
@pytest.mark.parametrize("arguments", BAD_COOKIES, ids=repr)
def test_cookies_that_would_say_more_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"(?i)cookie|header|samesite"):
        Response().set_cookie(arguments.pop("key"), **arguments)


@pytest.mark.parametrize("value", ["a\r\nX-A: b", "a\nb", 'a"; Domain=evil', "a, b", "\0", "€"])
def test_any_value_of_a_cookie_comes_back(value: str) -> None:
    app = App()

    @app.get("/")
    def cookie(request: Request) -> Response:
        response = Response({"got": request.cookies.get("a")})
        response.set_cookie("a", value)
        return response

    with TestClient(app) as client:
        line = client.get("/").headers["Set-Cookie"]
        assert client.get("/", headers={"Cookie": line.partition(";")[0]}).json == {"got": value}


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("/a?b=c#d", "/a?b=c#d"),
        ("https://example.org/ä ö", "https://example.org/%C3%A4%20%C3%B6"),
        ("/a%20b", "/a%20b"),
        ("/a\r\nSet-Cookie: x=1", "/a%0D%0ASet-Cookie:%20x=1"),
    ],
)
def test_redirect(url: str, location: str) -> None:
    got = answer(lambda: Response.redirect(url))
    assert (got.status, got.headers["Location"], got.headers.get("Set-Cookie")) == (302, location, None)


def test_the_status_of_a_redirect() -> None:
    assert Response.redirect("/", 308).status == 308
    with pytest.raises(ValueError, match="a redirect is"):
        Response.redirect("/", 200)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"headers": {"X-Count": 5}}, "header 'X-Count': its value 5 must be str"),
        ({"status": "200"}, "status '200': an HTTP status is a number, as in 404"),
    ],
    ids=["header", "status"],
)
def test_a_mistake_of_type_is_named(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        Response("", **arguments)


@pytest.mark.parametrize("wait", [None, 60.0], ids=["at-yield", "while-it-waits"])
def test_a_producer_is_closed_by_generator_exit(wait: float | None) -> None:
    seen: list[str] = []
    app = App()

    @app.get("/")
    def endless(request: Request) -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 1_000
                gevent.sleep(wait or 0)
        except GeneratorExit:
            seen.append("GeneratorExit")
            raise
        finally:
            seen.append("finally")

    with TestClient(app, credits=10_000) as client:
        stream = client.stream("GET", "/")
        assert stream.read(1_000) == b"x" * 1_000
        stream.disconnect()
        with gevent.Timeout(10):
            while len(seen) < 2:
                gevent.sleep(0.01)
    assert seen == ["GeneratorExit", "finally"]
