"""Bodies that come in pieces: order, credits, ends of all kinds."""

from typing import Any

import pytest

from m2gate.errors import ConnectionGone
from m2gate.link.exchange import Exchange
from m2gate.link.server import LINGER_S
from m2gate.link.upload import WINDOW_BYTES
from m2gate.wire.mongrel2 import CREDITS_INITIAL
from tests.link.fakes import FakeMongrel2, finish, in_greenlet, settle


@pytest.fixture
def far() -> FakeMongrel2:
    return FakeMongrel2()


def begin(far: FakeMongrel2, length: int, first: bytes = b"", **headers: Any) -> Exchange:
    """Open an upload with Content-Length; first came with the head."""
    return far.opened(1, b"POST", body=first, content_length=b"%d" % length, UPLOAD_STREAM=b"0", **headers)


def begin_chunked(far: FakeMongrel2, **headers: Any) -> Exchange:
    return far.opened(1, b"POST", transfer_encoding=b"chunked", UPLOAD_STREAM=b"0", **headers)


def granted(far: FakeMongrel2) -> int:
    return sum(amount for _, amount in far.controls(b"credits"))


def read_all(exchange: Exchange) -> bytes:
    return b"".join(iter(exchange.read, b""))


@pytest.mark.checklist("mongrel2", 11, 43)
def test_pieces_make_the_body(far: FakeMongrel2) -> None:
    exchange = begin(far, 10, b"ab")
    reader = in_greenlet(lambda: read_all(exchange))
    far.piece(1, 2, b"cdef")
    far.piece(1, 6, b"ghij", is_last=True)
    assert finish(reader) == [b"abcdefghij"]


@pytest.mark.checklist("mongrel2", 43)
def test_pieces_find_their_connection(far: FakeMongrel2) -> None:
    other = FakeMongrel2(b"m2-other")
    exchanges = [begin(far, 4), begin(other, 4)]
    readers = [in_greenlet(lambda one=one: read_all(one)) for one in exchanges]  # type: ignore[misc]
    far.piece(1, 0, b"here", is_last=True)
    other.piece(1, 0, b"else", is_last=True)
    assert finish(*readers) == [b"here", b"else"]


@pytest.mark.checklist("mongrel2", 44)
@pytest.mark.parametrize("offset", [0, 3, 5, 10**9])
def test_a_wrong_offset_cuts_the_connection(far: FakeMongrel2, offset: int, caplog: pytest.LogCaptureFixture) -> None:
    exchange = begin(far, 100, b"abcd")
    reader = in_greenlet(lambda: read_all(exchange))
    far.piece(1, offset, b"efgh")
    with pytest.raises(ConnectionGone):
        finish(reader)
    assert far.controls(b"cancel") == [([1], True)]
    assert f"piece at offset {offset} where 4 was due" in caplog.text
    far.frames.clear()
    far.piece(1, 8, b"ijkl")
    assert far.frames == []


@pytest.mark.checklist("mongrel2", 44, 51)
@pytest.mark.parametrize(("data", "is_last"), [(b"too long", False), (b"sh", True)])
def test_another_length_than_declared_cuts_the_connection(far: FakeMongrel2, data: bytes, is_last: bool) -> None:
    exchange = begin(far, 6)
    reader = in_greenlet(lambda: read_all(exchange))
    far.piece(1, 0, data, is_last=is_last)
    with pytest.raises(ConnectionGone):
        finish(reader)
    assert far.controls(b"cancel") == [([1], True)]


@pytest.mark.checklist("mongrel2", 45)
def test_a_first_message_that_is_the_last_needs_no_credits(far: FakeMongrel2) -> None:
    exchange = begin(far, 5, b"whole", UPLOAD_STREAM_DONE=b"1")
    assert read_all(exchange) == b"whole"
    exchange.respond(200, (), b"")
    assert far.controls(b"credits") == []
    assert far.closed(1) == 0


@pytest.mark.checklist("mongrel2", 46)
def test_an_empty_first_message_and_offset_0_twice(far: FakeMongrel2) -> None:
    exchange = begin_chunked(far)
    reader = in_greenlet(lambda: read_all(exchange))
    far.piece(1, 0, b"one")
    far.piece(1, 3, b"two")
    far.piece(1, 6, b"", is_last=True)
    assert finish(reader) == [b"onetwo"]


@pytest.mark.checklist("mongrel2", 47)
def test_nothing_is_granted_before_it_is_read(far: FakeMongrel2) -> None:
    exchange = begin(far, 10 * WINDOW_BYTES)
    settle()
    assert granted(far) == 0
    in_greenlet(exchange.read)
    assert granted(far) == WINDOW_BYTES
    sent = 0
    for _ in range(WINDOW_BYTES // 65_536):
        far.piece(1, sent, b"x" * 65_536)
        sent += 65_536
    settle()
    assert granted(far) <= WINDOW_BYTES + 65_536  # one was read
    for _ in range(3):
        assert len(exchange.read()) == 65_536
    assert granted(far) == 2 * WINDOW_BYTES


@pytest.mark.checklist("mongrel2", 47)
def test_what_waits_here_is_bounded_whatever_the_pieces(far: FakeMongrel2) -> None:
    exchange = begin(far, WINDOW_BYTES)
    in_greenlet(exchange.read)
    sent = 0
    while sent < granted(far):
        far.piece(1, sent, b"x" * 100)
        sent += 100
    pieces = getattr(exchange.upload, "_pieces")  # noqa: B009 - what mypy must not see
    assert len(pieces) <= far.server.inbox_messages


@pytest.mark.checklist("mongrel2", 48)
def test_grants_lift_a_balance_below_zero(far: FakeMongrel2) -> None:
    """A chunk of 102,400 bytes is let through by one byte of credit, and takes the balance below zero."""
    chunk, count, balance, offset = b"x" * CREDITS_INITIAL, 40, 0, 0
    exchange = begin_chunked(far)
    reader = in_greenlet(lambda: len(read_all(exchange)))
    seen = 0
    while count:
        total = granted(far)
        balance, seen = balance + total - seen, total
        assert balance > 0, "stuck"
        far.piece(1, offset, chunk)
        offset += len(chunk)
        balance -= len(chunk)
        count -= 1
        settle()
    assert balance + granted(far) - seen > 0  # the end needs credit as well
    far.piece(1, offset, b"", is_last=True)
    assert finish(reader) == [offset]


@pytest.mark.checklist("mongrel2", 34, 48)
def test_grants_are_integers_and_more_than_a_chunk(far: FakeMongrel2) -> None:
    in_greenlet(begin_chunked(far).read)
    assert far.controls(b"credits") == [([1], WINDOW_BYTES)]
    assert far.frames[-1].endswith(b"7:credits,6:262144#}]")
    assert WINDOW_BYTES > CREDITS_INITIAL + 1


@pytest.mark.checklist("mongrel2", 49)
def test_an_answer_before_the_end_drains_then_closes(far: FakeMongrel2) -> None:
    exchange = begin(far, 1_000_000, b"abc")
    exchange.respond(413, (), b"too much")
    assert b"Connection: close" in far.taken(1)
    assert far.closed(1) == 0
    assert granted(far) == WINDOW_BYTES + 3
    sent = 3
    while sent < 1_000_000:
        size = min(65_536, 1_000_000 - sent)
        far.piece(1, sent, b"x" * size, is_last=sent + size == 1_000_000)
        sent += size
    assert far.closed(1) == 1
    assert granted(far) >= 1_000_000 - 65_536
    assert far.request(1, credits=None) is None


@pytest.mark.checklist("mongrel2", 49)
def test_a_client_that_never_ends_is_closed_in_time(far: FakeMongrel2) -> None:
    exchange = begin(far, 1_000_000)
    exchange.respond(413, (), b"too much")
    far.piece(1, 0, b"x" * 1000)
    assert far.closed(1) == 0
    far.clock.move(LINGER_S)
    far.server.tick()
    assert far.closed(1) == 1
    far.frames.clear()
    far.piece(1, 1000, b"x" * 1000)
    assert far.frames == []


@pytest.mark.checklist("mongrel2", 49)
def test_an_answer_in_the_queue_is_sent_before_the_close(far: FakeMongrel2) -> None:
    exchange = begin_chunked(far, content_length=b"9")
    far.connection(1).post(b"x" * CREDITS_INITIAL)
    exchange.answer_refusal()
    far.clock.move(LINGER_S)
    far.server.tick()
    assert b"400 Bad Request" not in far.taken(1)
    assert far.closed(1) == 0
    far.pay_next(1)
    assert b"400 Bad Request" in far.taken(1)
    assert far.closed(1) == 1


@pytest.mark.checklist("mongrel2", 49)
def test_what_was_left_unread_does_not_reach_the_next_request(far: FakeMongrel2) -> None:
    exchange = begin(far, 6, b"abc")
    far.piece(1, 3, b"def", is_last=True)
    exchange.respond(200, (), b"")
    assert far.closed(1) == 0
    again = far.opened(1, b"POST", body=b"new", content_length=b"3", credits=None)
    assert read_all(again) == b"new"


@pytest.mark.checklist("mongrel2", 50)
def test_a_client_that_vanishes_raises_in_the_reader(far: FakeMongrel2) -> None:
    exchange = begin(far, 1_000_000)
    reader = in_greenlet(lambda: read_all(exchange))
    far.leave(1)
    with pytest.raises(ConnectionGone):
        finish(reader)


@pytest.mark.checklist("mongrel2", 50)
def test_whoever_reads_again_gives_all_credits(far: FakeMongrel2) -> None:
    """Without credits Mongrel2 does not look whether the client is still there."""
    exchange = begin(far, 1_000_000)
    in_greenlet(exchange.read)
    far.piece(1, 0, b"x" * 10)
    settle()
    in_greenlet(exchange.read)
    assert granted(far) == WINDOW_BYTES + 10


@pytest.mark.checklist("mongrel2", 50)
def test_a_client_that_sends_nothing_is_cut(far: FakeMongrel2) -> None:
    exchange = begin(far, 1_000_000)
    reader = in_greenlet(lambda: read_all(exchange))
    settings = far.server.settings
    far.clock.move(settings.keepalive_s)
    far.server.tick()
    assert far.controls(b"cancel") == []
    far.clock.move(settings.body_timeout_s)
    far.server.tick()
    assert far.controls(b"cancel") == [([1], True)]
    with pytest.raises(ConnectionGone):
        finish(reader)


def test_a_handler_that_does_not_read_costs_no_client(far: FakeMongrel2) -> None:
    begin(far, 1_000_000, b"abc")
    far.clock.move(far.server.settings.body_timeout_s * 3)
    far.server.tick()
    assert far.controls(b"cancel") == []


def test_read_with_a_timeout(far: FakeMongrel2) -> None:
    exchange = begin(far, 1_000_000)
    with pytest.raises(TimeoutError):
        exchange.read(0.01)
    far.piece(1, 0, b"late")
    assert exchange.read(0.01) == b"late"


def test_an_upload_behind_a_slow_request_is_filed(far: FakeMongrel2) -> None:
    first = far.opened(1)
    assert far.request(1, b"POST", content_length=b"4", UPLOAD_STREAM=b"0", credits=None) is None
    first.respond(200, (), b"")
    [upload] = far.runnable
    reader = in_greenlet(lambda: read_all(upload))
    far.piece(1, 0, b"body", is_last=True)
    assert finish(reader) == [b"body"]


def test_a_piece_of_nothing_is_refused(far: FakeMongrel2, caplog: pytest.LogCaptureFixture) -> None:
    far.opened(1)
    far.piece(1, 0, b"x")
    assert "not begun" in caplog.text
    assert far.server.rejected == 1
    assert far.frames == []


def test_a_piece_of_a_connection_that_some_former_worker_had_is_cut(far: FakeMongrel2) -> None:
    far.piece(9, 65_536, b"x")
    far.piece(9, 65_537, b"x")
    assert far.controls(b"cancel") == [([9], True)]
