"""What a handler reads of its request, and what bad input gets."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from m2gate import App, HTTPError, Request, TestClient

MIB = 1 << 20


def ask(handler: Callable[[Request], Any], method: str = "GET", path: str = "/", **options: Any) -> Any:
    """Return what handler returns for one request; it goes through JSON."""
    app = options.pop("app", None) or App(**options.pop("settings", {}))
    app.route("/{rest:path}", methods=["GET", "POST", "PUT"])(lambda request, rest: {"value": handler(request)})
    with TestClient(app, **options.pop("client", {})) as client:
        response = client.request(method, path, **options)
    if response.status != 200:
        raise HTTPError(response.status, response.text)
    return response.json["value"]


def refused(handler: Callable[[Request], Any], **options: Any) -> tuple[int, str]:
    """Return status and text of the answer to a request that is refused."""
    with pytest.raises(HTTPError) as error:
        ask(handler, **options)
    return error.value.status, error.value.detail


# -- request line and address -------------------------------------------------------------------------


def test_request_line() -> None:
    def view(request: Request) -> list[Any]:
        return [request.method, request.path, request.raw_path, request.http_version, request.host, request.scheme]

    assert ask(view, path="/a%20b/%C3%A4?x=1") == ["GET", "/a b/ä", "/a%20b/%C3%A4", "1.1", "testserver", "http"]
    assert ask(view, version="1.0", client={"scheme": "https", "host": "x:81"})[3:] == ["1.0", "x:81", "https"]


def test_identity() -> None:
    server, conn_id, connected, ids = ask(lambda r: [r.server, r.conn_id, r.connected, [r.id, r.id]])
    assert (server, conn_id, connected) == ("test-client", 1, True)
    assert ids[0] == ids[1] != ""


@pytest.mark.parametrize(
    ("path", "url"),
    [("/", "http://testserver/"), ("/a%2Fb?c=%20", "http://testserver/a%2Fb?c=%20")],
)
def test_url(path: str, url: str) -> None:
    assert ask(lambda r: r.url, path=path) == url


@pytest.mark.checklist("mongrel2", 7)
@pytest.mark.parametrize(("path", "raw"), [("/", ""), ("/?", ""), ("/?a=1", "a=1")])
def test_query_string(path: str, raw: str) -> None:
    assert ask(lambda r: r.query_string.decode(), path=path) == raw


def test_the_difference_between_no_query_and_an_empty_one_can_be_seen() -> None:
    def has_mark(request: Request) -> bool:
        return b"QUERY" in request.exchange.head.headers

    assert (ask(has_mark, path="/"), ask(has_mark, path="/?")) == (False, True)


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("a=1&a=2&b", {"a": ["1", "2"], "b": [""]}),
        ("a=x+y%26z", {"a": ["x y&z"]}),
        ("a=%C3%A4&%C3%A4=1", {"a": ["ä"], "ä": ["1"]}),
        ("a=%FF", {"a": ["\ufffd"]}),
        ("a=b=c&&=", {"a": ["b=c"], "": [""]}),
        ("a=1;b=2", {"a": ["1;b=2"]}),
    ],
    ids=["repeated", "plus", "utf8", "bad-utf8", "odd", "semicolon"],
)
def test_query(query: str, fields: dict[str, list[str]]) -> None:
    assert ask(lambda r: {key: r.query.getlist(key) for key in r.query}, path=f"/?{query}") == fields


def test_bad_path_is_400() -> None:
    assert refused(lambda r: r.path, path="/%FF")[0] == 400
    assert refused(lambda r: r.path, path="/x%00")[0] == 400


def through(forwarded: list[str], client: str = "10.0.0.1", proxies: tuple[str, ...] = ("10.0.0.0/8",)) -> Any:
    headers = [("X-Forwarded-For", one) for one in forwarded]
    return ask(lambda r: r.client, settings={"trusted_proxies": proxies}, client={"client": client}, headers=headers)


CLIENTS = [
    pytest.param(["1.2.3.4"], {}, "1.2.3.4", id="one-proxy"),
    pytest.param(["6.6.6.6, 1.2.3.4"], {}, "1.2.3.4", id="forged-in-front"),
    pytest.param(["1.2.3.4, 10.0.0.2"], {}, "1.2.3.4", id="two-proxies"),
    pytest.param(["6.6.6.6", "1.2.3.4, 10.0.0.2"], {}, "1.2.3.4", id="several-lines"),
    pytest.param(["10.0.0.3, 10.0.0.2"], {}, "10.0.0.3", id="only-proxies"),
    pytest.param(["rubbish"], {}, "10.0.0.1", id="rubbish"),
    pytest.param(["1.2.3.4, rubbish, 10.0.0.2"], {}, "10.0.0.2", id="rubbish-in-the-middle"),
    pytest.param([], {}, "10.0.0.1", id="no-header"),
    pytest.param(["1.2.3.4"], {"client": "9.9.9.9"}, "9.9.9.9", id="untrusted-peer"),
    pytest.param(["1.2.3.4"], {"proxies": ()}, "10.0.0.1", id="nobody-is-trusted"),
    pytest.param(["1.2.3.4"], {"client": "::ffff:10.0.0.1"}, "1.2.3.4", id="mapped-address"),
    pytest.param(["2001:db8::1"], {"client": "fd00::1", "proxies": ("fd00::/8",)}, "2001:db8::1", id="ipv6"),
]


@pytest.mark.parametrize(("forwarded", "options", "client"), CLIENTS)
def test_client(forwarded: list[str], options: dict[str, Any], client: str) -> None:
    assert through(forwarded, **options) == client


def test_x_forwarded_for_is_shown_only_from_trusted_proxies() -> None:
    headers = {"X-Forwarded-For": "1.2.3.4"}
    assert ask(lambda r: r.headers.get("X-Forwarded-For"), headers=headers) is None
    settings = {"trusted_proxies": ["127.0.0.0/8"]}
    assert ask(lambda r: r.headers.get("X-Forwarded-For"), headers=headers, settings=settings) == "1.2.3.4"


def test_forwarded_scheme_counts_from_trusted_proxies_only() -> None:
    headers = {"X-Forwarded-Proto": "https"}
    assert ask(lambda r: r.scheme, headers=headers) == "http"
    assert ask(lambda r: r.scheme, headers=headers, settings={"trusted_proxies": ["127.0.0.1"]}) == "https"


# -- header fields --------------------------------------------------------------------------------------


@pytest.mark.checklist("mongrel2", 5)
def test_headers_are_case_insensitive_and_repeated_ones_are_lists() -> None:
    headers = [("X-One", "a"), ("x-one", "b"), ("X-Two", "c")]
    got = ask(lambda r: [r.headers["x-ONE"], r.headers.getlist("X-One"), r.headers.get("x-two")], headers=headers)
    assert got == ["a", ["a", "b"], "c"]


@pytest.mark.checklist("mongrel2", 6, 52)
def test_headers_of_the_server_are_not_among_them() -> None:
    forged = {"X-Mongrel2-Upload-Done": "/etc/passwd", "x-mongrel2-upload-start": "/etc/shadow", "1-2": "kept"}
    names = ask(lambda r: [name.lower() for name, _ in r.headers], "POST", headers=forged, data=b"x")
    assert sorted(names) == ["1-2", "content-length", "host"]


def test_header_bytes_are_latin1() -> None:
    assert ask(lambda r: r.headers["x-one"], headers={"X-One": "\xff\xfe ä"}) == "\xff\xfe ä"


@pytest.mark.parametrize(
    ("lines", "cookies"),
    [
        (["a=1; b=2"], {"a": ["1"], "b": ["2"]}),
        (["a=1", "b=2; a=3"], {"a": ["1", "3"], "b": ["2"]}),
        (['a="x y\\073z"'], {"a": ["x y;z"]}),
        (["a=\xc3\xa4"], {"a": ["ä"]}),
        (["a=\xff"], {"a": ["\ufffd"]}),
        (["rubbish; =x; a=1;;"], {"a": ["1"]}),
        ([], {}),
    ],
    ids=["two", "two-lines", "quoted", "utf8", "bad-utf8", "rubbish", "none"],
)
def test_cookies(lines: list[str], cookies: dict[str, list[str]]) -> None:
    headers = [("Cookie", line) for line in lines]
    got = ask(
        lambda r: {key: r.cookies.getlist(key) for key in r.cookies if key not in ("", "rubbish")}, headers=headers
    )
    assert got == cookies


# -- body -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"small \x00\xff", b"x" * 200_000, [b"a" * 70_000, b"b"]], ids=len)
def test_body(data: bytes | list[bytes]) -> None:
    whole = data if isinstance(data, bytes) else b"".join(data)
    assert ask(lambda r: [len(r.body), r.body == whole], "POST", data=data) == [len(whole), True]


def test_stream_pieces_and_read() -> None:
    def view(request: Request) -> list[Any]:
        stream = request.stream
        return [stream.read(3).decode(), len(next(iter(stream))), len(stream.read()), stream.read(5).decode()]

    first, piece, rest, end = ask(view, "POST", data=[b"abcdef", b"x" * 10_000, b"y" * 10_000])
    assert (first, piece, rest, end) == ("abc", 3, 20_000, "")


def test_stream_is_a_file() -> None:
    def view(request: Request) -> list[str]:
        return [line.decode() for line in io.BufferedReader(request.stream)]

    assert ask(view, "POST", data=[b"one\ntw", b"o\nthree"]) == ["one\n", "two\n", "three"]


def test_readline() -> None:
    def view(request: Request) -> list[str]:
        read = request.stream.readline
        return [read().decode(), read(2).decode(), read().decode(), read(0).decode(), read().decode(), read().decode()]

    assert ask(view, "POST", data=[b"o", b"ne\nlong", b" line\nend"]) == ["one\n", "lo", "ng line\n", "", "end", ""]


@pytest.mark.parametrize(
    ("content_type", "data", "text"),
    [
        ("text/plain", "ä".encode(), "ä"),
        ("text/plain; charset=latin-1", b"\xe4", "ä"),
        ("", b"plain", "plain"),
    ],
)
def test_text(content_type: str, data: bytes, text: str) -> None:
    assert ask(lambda r: r.text, "POST", headers={"Content-Type": content_type}, data=data) == text


@pytest.mark.parametrize(
    ("content_type", "status"),
    [("text/plain", 400), ("text/plain; charset=nonsense", 415), ("text/plain; charset=hex", 415)],
)
def test_text_that_is_none(content_type: str, status: int) -> None:
    assert refused(lambda r: r.text, method="POST", headers={"Content-Type": content_type}, data=b"\xff")[0] == status


@pytest.mark.parametrize("value", [None, True, 1.5, "ä", [1, [2]], {"a": {"b": []}}], ids=repr)
def test_json(value: Any) -> None:
    data = json.dumps(value).encode()
    for kind in ("application/json", "application/json; charset=utf-8", "application/vnd.api+json", "Application/JSON"):
        assert ask(lambda r: r.json, "POST", headers={"Content-Type": kind}, data=data) == value


BAD_JSON = {
    "empty": b"",
    "cut": b'{"a":',
    "utf8": b'"\xff"',
    "deep-lists": b"[" * 100_000,
    "deep-objects": b'{"a":' * 100_000,
    "huge-number": b"9" * 10_000,
    "two": b"1 2",
}


@pytest.mark.parametrize("data", BAD_JSON.values(), ids=BAD_JSON)
def test_bad_json_is_400(data: bytes) -> None:
    got = refused(lambda r: r.json, method="POST", headers={"Content-Type": "application/json"}, data=data)
    assert got == (400, "the body is no JSON")


@pytest.mark.parametrize("kind", ["text/plain", "", "application/x-www-form-urlencoded", "application/jsonp"])
def test_json_of_another_type_is_415(kind: str) -> None:
    assert refused(lambda r: r.json, method="POST", headers={"Content-Type": kind}, data=b"{}")[0] == 415


# -- forms ----------------------------------------------------------------------------------------------


def form(request: Request) -> dict[str, Any]:
    files = {
        name: [[one.filename, one.content_type, one.read().decode("latin-1")] for one in request.files.getlist(name)]
        for name in request.files
    }
    return {"form": {name: request.form.getlist(name) for name in request.form}, "files": files}


def test_urlencoded_form() -> None:
    got = ask(form, "POST", data={"a": ["1", "2"], "ä": "ö &="})
    assert got == {"form": {"a": ["1", "2"], "ä": ["ö &="]}, "files": {}}


def test_multipart_form() -> None:
    files = {"doc": ("ä.txt", b"content\xff", "text/x"), "big": ("b", b"x" * MIB)}
    got = ask(form, "POST", data={"note": "hi"}, files=files)
    assert got["form"] == {"note": ["hi"]}
    assert got["files"]["doc"] == [["ä.txt", "text/x", "content\xff"]]
    assert got["files"]["big"] == [["b", "application/octet-stream", "x" * MIB]]


def test_files_are_closed_when_the_request_ends() -> None:
    kept: list[Any] = []
    ask(lambda r: kept.append(r.files["doc"]), "POST", files={"doc": ("a", b"x" * MIB)})
    assert kept[0].stream.closed


BOUNDARY = "multipart/form-data; boundary=XX"
PART = b'--XX\r\nContent-Disposition: form-data; name="%d"\r\n\r\n%s\r\n'

BAD_FORMS = [
    pytest.param("text/plain", b"a=1", 415, id="other-type"),
    pytest.param("", b"a=1", 415, id="no-type"),
    pytest.param("multipart/form-data", b"--XX--", 400, id="no-boundary"),
    pytest.param(BOUNDARY, b"", 400, id="empty"),
    pytest.param(BOUNDARY, (PART % (1, b"cut"))[:-10], 400, id="cut"),
    pytest.param(BOUNDARY, b"".join(PART % (i, b"") for i in range(1_001)) + b"--XX--\r\n", 413, id="parts"),
    pytest.param(BOUNDARY, PART % (1, b"x" * 60_000) + b"--XX--\r\n", 413, id="one-large-field"),
    pytest.param(BOUNDARY, b"".join(PART % (i, b"x" * 5_000) for i in range(20)) + b"--XX--\r\n", 413, id="fields"),
    pytest.param("application/x-www-form-urlencoded", b"a=" + b"x" * 60_000, 413, id="urlencoded"),
    pytest.param("application/x-www-form-urlencoded", b"&".join([b"a=1"] * 1_001), 413, id="urlencoded-fields"),
]


@pytest.mark.parametrize("is_chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize(("content_type", "data", "status"), BAD_FORMS)
def test_bad_form(content_type: str, data: bytes, status: int, *, is_chunked: bool) -> None:
    body = [data[start : start + 30_000] for start in range(0, len(data), 30_000)] if is_chunked else data
    headers = {"Content-Type": content_type}
    got = refused(form, method="POST", headers=headers, data=body, settings={"max_memory": 50_000})
    assert got[0] == status


# -- bounds ---------------------------------------------------------------------------------------------

READERS: dict[str, Callable[[Request], Any]] = {
    "body": lambda r: len(r.body),
    "stream": lambda r: sum(len(piece) for piece in r.stream),
    "read": lambda r: len(r.stream.read()),
    "text": lambda r: len(r.text),
    "nothing": lambda r: 1_000,
}


@pytest.mark.checklist("mongrel2", 51)
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_max_body_is_enforced_at_once_by_the_declared_length(reader: Callable[[Request], Any]) -> None:
    assert ask(reader, "POST", data=b"x" * 1_000, settings={"max_body": 1_000}) == 1_000
    got = refused(reader, method="POST", data=b"x" * 1_001, settings={"max_body": 1_000})
    assert got == (413, "the limit is 1000 bytes")


@pytest.mark.checklist("mongrel2", 51)
@pytest.mark.parametrize("name", ["body", "stream", "read", "text"])
def test_max_body_is_counted_where_the_body_is_chunked(name: str) -> None:
    sent: list[int] = []

    def pieces(count: int) -> Iterator[bytes]:
        for i in range(count):
            sent.append(i)
            yield b"x" * 10_000

    settings = {"max_body": 100_000}
    assert ask(READERS[name], "POST", data=pieces(10), settings=settings) == 100_000
    sent.clear()
    assert refused(READERS[name], method="POST", data=pieces(1_000), settings=settings)[0] == 413
    assert len(sent) < 100  # what was let through before, not all of it


@pytest.mark.parametrize("name", ["body", "text"])
@pytest.mark.parametrize("data", [b"x" * 50_001, [b"x" * 25_000, b"x" * 25_001]], ids=["sized", "chunked"])
def test_max_memory(name: str, data: bytes | list[bytes]) -> None:
    assert refused(READERS[name], method="POST", data=data, settings={"max_memory": 50_000})[0] == 413
    whole = sum(map(len, data)) if isinstance(data, list) else len(data)
    assert ask(READERS["stream"], "POST", data=data, settings={"max_memory": 50_000}) == whole


def test_a_route_has_its_own_max_body() -> None:
    app = App(max_body=10)
    app.route("/large", methods=["POST"], max_body=20)(lambda r: str(len(r.body)))
    with TestClient(app) as client:
        assert client.post("/large", data=b"x" * 20).text == "20"
        assert client.post("/large", data=b"x" * 21).status == 413


def test_an_answer_before_the_end_of_the_upload_closes() -> None:
    app = App()
    app.post("/")(lambda request: "enough")
    with TestClient(app) as client:
        response = client.post("/", data=b"x" * 10 * MIB)
        assert (response.text, response.headers["Connection"]) == ("enough", "close")
        assert client.post("/", data=b"").text == "enough"


def test_state_is_shared_by_hooks_and_handler() -> None:
    app = App()

    @app.before
    def note(request: Request) -> None:
        request.state.user = "anna"

    assert ask(lambda r: r.state.user, app=app) == "anna"
