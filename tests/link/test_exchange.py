"""One exchange: framing of its answer, and the ends of a connection."""

from collections.abc import Callable

import gevent
import gevent.event
import pytest

from m2gate.errors import ConnectionGone
from m2gate.link.exchange import Exchange
from tests.link.fakes import FakeMongrel2, finish, in_greenlet, settle


@pytest.fixture
def far() -> FakeMongrel2:
    return FakeMongrel2()


def whole(exchange: Exchange) -> None:
    exchange.respond(200, (("X-A", "b"),), b"body")


def with_length(exchange: Exchange) -> None:
    exchange.start(200, (("X-A", "b"),), 4)
    exchange.write(b"bo")
    exchange.write(b"dy")
    exchange.finish()


def streamed(exchange: Exchange) -> None:
    exchange.start(200, (("X-A", "b"),), None)
    exchange.write(b"bo")
    exchange.write(b"")
    exchange.write(b"dy")
    exchange.finish()


LENGTH = b"Content-Length: 4\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CLOSE = b"Connection: close\r\n"
ANSWERS = [
    pytest.param(whole, {}, LENGTH, b"body", id="whole"),
    pytest.param(whole, {"connection": b"close"}, LENGTH + CLOSE, b"body", id="whole-close"),
    pytest.param(whole, {"connection": b"Keep-Alive, Close"}, LENGTH + CLOSE, b"body", id="whole-close-in-list"),
    pytest.param(whole, {"VERSION": b"HTTP/1.0"}, LENGTH + CLOSE, b"body", id="whole-1.0"),
    pytest.param(
        whole, {"VERSION": b"HTTP/1.0", "connection": b"keep-alive"}, LENGTH + CLOSE, b"body", id="whole-1.0-keep-alive"
    ),
    pytest.param(with_length, {}, LENGTH, b"body", id="length"),
    pytest.param(with_length, {"VERSION": b"HTTP/1.0"}, LENGTH + CLOSE, b"body", id="length-1.0"),
    pytest.param(streamed, {}, CHUNKED, b"2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n", id="stream"),
    pytest.param(
        streamed, {"connection": b"close"}, CHUNKED + CLOSE, b"2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n", id="stream-close"
    ),
    pytest.param(streamed, {"VERSION": b"HTTP/1.0"}, CLOSE, b"body", id="stream-1.0"),
]


@pytest.mark.checklist("mongrel2", 24, 25)
@pytest.mark.parametrize(("answer", "headers", "framing", "body"), ANSWERS)
def test_framing(
    far: FakeMongrel2, answer: Callable[[Exchange], None], headers: dict[str, bytes], framing: bytes, body: bytes
) -> None:
    answer(far.opened(1, **headers))
    assert far.taken(1) == b"HTTP/1.1 200 OK\r\nX-A: b\r\nDate: now\r\n" + framing + b"\r\n" + body
    closes = CLOSE in framing
    assert far.closed(1) == closes
    assert (1 in far.server.connections) != closes


@pytest.mark.checklist("mongrel2", 26)
@pytest.mark.parametrize("answer", [whole, with_length, streamed])
def test_head_gets_the_head(far: FakeMongrel2, answer: Callable[[Exchange], None]) -> None:
    answer(far.opened(1, b"HEAD"))
    assert far.taken(1).endswith(b"\r\n\r\n")
    assert far.taken(1).count(b"\r\n\r\n") == 1
    assert (LENGTH in far.taken(1)) or (CHUNKED in far.taken(1))


@pytest.mark.checklist("mongrel2", 26)
@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(far: FakeMongrel2, status: int) -> None:
    far.opened(1).respond(status, (), b"forgotten")
    exchange = far.opened(1, credits=None)
    exchange.start(status, (), None)
    exchange.write(b"forgotten")
    exchange.finish()
    assert b"forgotten" not in far.taken(1)
    assert b"Content-Length" not in far.taken(1)
    assert b"Transfer-Encoding" not in far.taken(1)
    assert far.taken(1).count(b"\r\n\r\n") == 2


@pytest.mark.checklist("mongrel2", 27)
@pytest.mark.parametrize("field", [("X-A", "b\r\nX-C: d"), ("X-A\r\n", "b"), ("X-A", "b\n"), ("X-A", "\0")])
def test_a_header_that_would_break_out_is_refused(far: FakeMongrel2, field: tuple[str, str]) -> None:
    exchange = far.opened(1)
    with pytest.raises(ValueError, match=r"X-A|header"):
        exchange.respond(200, (field,), b"")
    with pytest.raises(ValueError, match=r"X-A|header"):
        exchange.start(200, (field,), None)
    assert far.frames == []
    exchange.respond(500, (), b"")
    assert far.taken(1).startswith(b"HTTP/1.1 500 ")


def test_more_than_announced_is_our_caller_s_mistake(far: FakeMongrel2) -> None:
    exchange = far.opened(1)
    exchange.start(200, (), 4)
    with pytest.raises(ValueError, match="5 bytes written where Content-Length is 4"):
        exchange.write(b"hello")


def test_less_than_announced_cuts_the_connection(far: FakeMongrel2, caplog: pytest.LogCaptureFixture) -> None:
    exchange = far.opened(1)
    exchange.start(200, (), 4)
    exchange.write(b"hel")
    exchange.finish()
    assert far.controls(b"cancel") == [([1], True)]
    assert "response cut short" in caplog.text


@pytest.mark.checklist("mongrel2", 39)
def test_heads_are_paid_for(far: FakeMongrel2) -> None:
    far.opened(1).respond(200, (), b"body")
    assert far.connection(1).outstanding == len(far.taken(1)) > len(b"body")


@pytest.mark.checklist("mongrel2", 38)
def test_a_producer_is_asked_only_with_credits(far: FakeMongrel2) -> None:
    exchange = far.opened(1)
    asked: list[bytes] = []

    def produce() -> bytes:
        asked.append(b"x" * 10_000)
        return asked[-1]

    def stream() -> None:
        exchange.start(200, (), 1_000_000)
        for _ in range(100):
            exchange.write(exchange.advance(produce))
        exchange.finish()

    writer = in_greenlet(stream)
    assert len(asked) <= 11  # ten pieces fill the window, one more waits for it
    while not writer.ready():
        before = len(asked)
        far.pay_next(1)
        settle()
        assert len(asked) <= before + 1
    finish(writer)
    assert len(asked) == 100


@pytest.mark.parametrize("wait", [lambda: gevent.sleep(600), lambda: gevent.event.Event().wait()])
def test_a_producer_ends_in_its_own_wait(far: FakeMongrel2, wait: Callable[[], object]) -> None:
    exchange = far.opened(1)
    closed: list[str] = []

    def produce() -> None:
        try:
            wait()
        finally:
            closed.append("finally")

    producer = in_greenlet(lambda: exchange.advance(produce))
    far.leave(1)
    with pytest.raises(ConnectionGone):
        finish(producer)
    assert closed == ["finally"]


def test_an_exchange_ends_once(far: FakeMongrel2) -> None:
    exchange = far.opened(1)
    ended: list[Exchange] = []
    exchange.on_end = ended.append
    exchange.call_at_end([lambda: ended.append(exchange)])
    exchange.respond(200, (), b"")
    exchange.finish()
    exchange.abort()
    assert len(ended) == 2
