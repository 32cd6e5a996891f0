"""What a WSGI application reads and answers (PEP 3333): input, start_response, write, close."""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import gevent
import pytest
from gevent.event import Event

from m2gate import TestClient
from tests.app.wsgi import PLAIN, Application, Environ, StartResponse, answer, mounted

# -- under the validator ----------------------------------------------------------------------------------


def echo(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [*PLAIN, ("Content-Length", str(len(body)))])
    return [body]


def read_lines(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    stream = environ["wsgi.input"]
    first, part, some = stream.readline(), stream.readline(2), stream.readlines(3)
    rest = list(stream)
    start_response("200 OK", PLAIN)
    return [repr([first, part, some, rest]).encode()]


def produce(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    start_response("200 OK", PLAIN)
    yield b""
    yield b"one "
    yield b""
    yield b"two"


def write(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    send = start_response("201 Created", PLAIN)
    send(b"written, ")
    send(b"")
    return [b"returned"]


def nothing(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("204 No Content", [])
    return []


VALID = [
    pytest.param(echo, "POST", b"x" * 300_000, 200, b"x" * 300_000, id="sized-upload"),
    pytest.param(echo, "POST", b"", 200, b"", id="empty-upload"),
    pytest.param(
        read_lines,
        "POST",
        b"a\nbcd\ne\nf\ng",
        200,
        b"[b'a\\n', b'bc', [b'd\\n', b'e\\n'], [b'f\\n', b'g']]",
        id="lines",
    ),
    pytest.param(produce, "GET", None, 200, b"one two", id="stream"),
    pytest.param(write, "GET", None, 201, b"written, returned", id="write"),
    pytest.param(nothing, "GET", None, 204, b"", id="nothing"),
]


@pytest.mark.parametrize(("application", "method", "data", "status", "body"), VALID)
def test_valid(application: Application, method: str, data: bytes | None, status: int, body: bytes) -> None:
    got = answer(validator(application), method, data=data)
    assert (got.status, got.body) == (status, body)


@pytest.mark.checklist("mongrel2", 26)
@pytest.mark.parametrize("application", [echo, produce, write], ids=["whole", "stream", "write"])
def test_head_has_no_body(application: Application) -> None:
    app = mounted(application)
    with TestClient(app) as client:
        assert client.head("/").body == b""
        assert client.request("POST", "/", data=b"next").status in (200, 201)


def test_chunked_upload_ends_by_itself() -> None:
    def size(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        assert environ["wsgi.input_terminated"]
        assert "CONTENT_LENGTH" not in environ
        body = environ["wsgi.input"].read()
        start_response("200 OK", PLAIN)
        return [str(len(body)).encode()]

    assert answer(size, "POST", data=[b"x" * 50_000] * 5).text == "250000"


def test_body_and_answer_stream_at_the_same_time() -> None:
    heard: list[bytes] = []

    def talk(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        while line := environ["wsgi.input"].readline():
            heard.append(line)
            yield line.upper()

    def lines() -> Iterator[bytes]:
        for i in range(300):
            yield b"line %d %s\n" % (i, b"x" * 1_000)

    got = answer(talk, "POST", data=lines())
    assert got.body == b"".join(heard).upper()
    assert len(heard) == 300


def test_what_is_not_read_is_not_let_through() -> None:
    sent: list[int] = []

    def pieces() -> Iterator[bytes]:
        for i in range(1_000):
            sent.append(i)
            yield b"x" * 10_000

    got = answer(nothing, "POST", data=pieces())
    assert (got.status, got.headers["Connection"]) == (204, "close")
    assert len(sent) < 100


def test_max_body() -> None:
    with TestClient(mounted(echo, max_body=1_000)) as client:
        assert client.post("/", data=b"x" * 1_000).status == 200
        assert client.post("/", data=b"x" * 1_001).status == 413

    def read(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.input"].read()
        return nothing(environ, start_response)

    with TestClient(mounted(read, max_body=1_000)) as client:
        assert client.post("/", data=[b"x" * 600] * 2).status == 413


@pytest.mark.checklist("mongrel2", 51)
@pytest.mark.parametrize("kind", ["raises", "catches", "generator"])
def test_max_body_is_413_whatever_the_application_makes_of_it(kind: str) -> None:
    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            environ["wsgi.input"].read()
        except OSError:
            if kind != "catches":
                raise
        start_response("500 Sorry", PLAIN)
        return [b"sorry"]

    def generator(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        yield from application(environ, start_response)

    with TestClient(mounted(generator if kind == "generator" else application, max_body=1_000)) as client:
        got = client.post("/", data=[b"x" * 600] * 2)
        assert (got.status, got.text) == (413, "the limit is 1000 bytes")


def test_a_client_that_leaves_during_the_upload_is_an_os_error() -> None:
    raised: list[BaseException] = []

    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            raised.append(error)
        start_response("200 OK", PLAIN)
        return [b"nobody reads this"]

    with TestClient(mounted(application)) as browser:

        def pieces() -> Iterator[bytes]:
            yield b"x"
            browser.disconnect()

        with pytest.raises(EOFError):
            browser.post("/", data=pieces())
        gevent.sleep(0.01)
    assert [type(one) for one in raised] == [ConnectionResetError]


# -- the length of the answer -----------------------------------------------------------------------------


def sized(length: str, *pieces: bytes) -> Application:
    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [*PLAIN, ("Content-Length", length)])
        return iter(pieces)

    return application


def test_announced_length_is_kept() -> None:
    got = answer(sized("5", b"ab", b"cde"))
    assert (got.body, got.headers["Content-Length"], got.headers.get("Transfer-Encoding")) == (b"abcde", "5", None)
    assert answer(sized("5"), "HEAD").headers["Content-Length"] == "5"


@pytest.mark.checklist("mongrel2", 25)
def test_unknown_length_is_chunked_or_closed() -> None:
    got = answer(produce)
    assert (got.headers["Transfer-Encoding"], got.headers.get("Content-Length")) == ("chunked", None)
    old = answer(produce, version="1.0")
    assert (old.body, old.headers["Connection"], old.headers.get("Transfer-Encoding")) == (b"one two", "close", None)


def test_the_length_of_a_single_piece_is_known() -> None:
    assert answer(echo, "POST", data=b"abc").headers["Content-Length"] == "3"


def test_a_short_body_cuts_the_connection() -> None:
    with pytest.raises(EOFError):
        answer(sized("5", b"abc"))


def test_a_long_body_is_cut_off() -> None:
    assert answer(sized("2", b"ab", b"cde")).body == b"ab"


# -- start_response ---------------------------------------------------------------------------------------


def broken_after(*pieces: bytes, with_info: bool = True) -> Application:
    """Return an application that fails after the pieces, and then answers with 503."""

    def application(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        try:
            yield from pieces
            raise RuntimeError("on purpose")
        except RuntimeError:
            start_response("503 Sorry", PLAIN, *([sys.exc_info()] if with_info else []))
            yield b"sorry"

    return application


def test_an_answer_may_be_replaced_before_its_first_byte() -> None:
    got = answer(broken_after(b""))
    assert (got.status, got.body) == (503, b"sorry")


def test_an_answer_that_has_begun_cannot_be_replaced(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(EOFError):
        answer(broken_after(b"begun"))
    assert "on purpose" in caplog.text


def test_start_response_twice_without_a_reason_is_500() -> None:
    assert answer(broken_after(b"", with_info=False)).status == 500


def bad_start(status: str, headers: list[tuple[str, str]]) -> Application:
    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, headers)
        return [b"x"]

    return application


def silent(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    return [b"x"]


def text(environ: Environ, start_response: StartResponse) -> Any:
    start_response("200 OK", PLAIN)
    return ["text"]


def fails(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    raise RuntimeError("on purpose")


WRONG = [
    pytest.param(silent, id="no-start_response"),
    pytest.param(text, id="str"),
    pytest.param(fails, id="exception"),
    pytest.param(bad_start("abc", []), id="status"),
    pytest.param(bad_start("999 No", []), id="status-number"),
    pytest.param(bad_start("200 OK", [("X-A", "a\r\nX-B: b")]), id="header-value"),
    pytest.param(bad_start("200 OK", [("X-A\r\nX-B", "b")]), id="header-name"),
    pytest.param(bad_start("200 OK", [("Content-Length", "x")]), id="length"),
]


@pytest.mark.checklist("mongrel2", 27)
@pytest.mark.parametrize("application", WRONG)
def test_what_breaks_the_rules_is_500(application: Application) -> None:
    got = answer(application)
    assert (got.status, got.headers.get("X-B")) == (500, None)


# -- close() ----------------------------------------------------------------------------------------------


class Closing:
    """An iterable that notes how often it was closed."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        self.closed += 1


def failing() -> Iterator[bytes]:
    yield b"x"
    yield str(1 // len(())).encode()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("pieces", [list, failing, lambda: [b"x" * 500_000]], ids=["empty", "failing", "large"])
def test_close_is_called_once(method: str, pieces: Callable[[], Iterable[bytes]]) -> None:
    result = Closing(pieces())

    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return result

    try:
        answer(application, method)
    except EOFError:
        assert pieces is failing
    assert result.closed == 1


def test_close_is_called_when_the_client_leaves() -> None:
    closed = Event()

    class Endless(Closing):
        def close(self) -> None:
            super().close()
            closed.set()

    def tick() -> Iterator[bytes]:
        while True:
            yield b"tick"
            gevent.sleep(30)

    result = Endless(tick())

    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return result

    with TestClient(mounted(application)) as client:
        with client.stream("GET", "/") as stream:
            assert stream.read(4) == b"tick"
        assert closed.wait(5)
    assert result.closed == 1


def test_a_slow_client_holds_the_application_up() -> None:
    made: list[int] = []

    def application(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        for i in range(100):
            made.append(i)
            yield b"x" * 1_000

    with TestClient(mounted(application), credits=5_000) as client, client.stream("GET", "/") as stream:
        gevent.sleep(0.01)
        assert 3 <= len(made) <= 6
        assert len(stream.read()) == 100_000


def test_every_method_reaches_the_application() -> None:
    def method(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return [environ["REQUEST_METHOD"].encode()]

    app = mounted(method)
    app.get("/own")(lambda request: "own")
    with TestClient(app) as client:
        for one in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"):
            assert client.request(one, "/").text == one
        assert client.get("/own").text == "own"
        assert client.post("/own").status == 405
