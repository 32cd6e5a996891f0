"""One connection: pieces within its credits, order, close, cut and loss."""

import gevent
import pytest

from m2gate.errors import ConnectionGone
from m2gate.link.connection import PIPELINE_MAX
from m2gate.wire.flow import PIECE_BYTES
from tests.link.fakes import FakeMongrel2, finish, in_greenlet, settle

WINDOW = 102_400


@pytest.fixture
def far() -> FakeMongrel2:
    return FakeMongrel2()


@pytest.mark.checklist("mongrel2", 36)
@pytest.mark.parametrize("size", [1, PIECE_BYTES, PIECE_BYTES + 1, WINDOW, WINDOW + 1, 1_000_000])
def test_a_write_never_exceeds_the_balance(far: FakeMongrel2, size: int) -> None:
    far.opened(1)
    connection, data = far.connection(1), bytes(range(256)) * (size // 256 + 1)
    writer = in_greenlet(lambda: connection.write(data[:size]))
    assert writer.ready() == (size <= WINDOW)
    paid = 0
    while not writer.ready():
        assert 0 < len(far.taken(1)) - paid <= WINDOW
        paid += far.pay_next(1)
        settle()
    finish(writer)
    assert far.taken(1) == data[:size]
    assert all(len(one.body) <= PIECE_BYTES for one in far.sent)


@pytest.mark.checklist("mongrel2", 20)
def test_each_message_is_one_frame_of_bytes(far: FakeMongrel2) -> None:
    far.opened(1)
    far.connection(1).write(b"x" * 70_000)
    assert [type(frame) for frame in far.frames] == [bytes] * 3
    assert [len(one.body) for one in far.sent] == [32_768, 32_768, 4_464]


@pytest.mark.checklist("mongrel2", 35)
def test_the_first_request_sets_the_balance_and_later_ones_keep_it(far: FakeMongrel2) -> None:
    exchange = far.opened(1, credits=50_000)
    connection = far.connection(1)
    connection.write(b"x" * 30_000)
    connection.leave(exchange)
    again = far.opened(1, credits=None)
    assert again.connection is connection
    writer = in_greenlet(lambda: connection.write(b"y" * 30_000))
    assert len(far.taken(1)) == 50_000
    far.pay(1, 30_000)
    finish(writer)
    assert len(far.taken(1)) == 60_000


@pytest.mark.checklist("mongrel2", 38)
def test_wait_credits_waits_for_a_byte_of_credit(far: FakeMongrel2) -> None:
    far.opened(1)
    connection = far.connection(1)
    connection.wait_credits()
    connection.write(b"x" * WINDOW)
    waiter = in_greenlet(connection.wait_credits)
    assert not waiter.ready()
    far.pay(1, 1)
    finish(waiter)


def test_writers_and_posts_keep_their_order(far: FakeMongrel2) -> None:
    far.opened(1)
    connection = far.connection(1)
    first = in_greenlet(lambda: connection.write(b"a" * 150_000))
    connection.post(b"b" * 10)
    second = in_greenlet(lambda: connection.write(b"c" * 10))
    while not (first.ready() and second.ready()):
        far.pay(1, PIECE_BYTES)
        settle()
    finish(first, second)
    assert far.taken(1) == b"a" * 150_000 + b"b" * 10 + b"c" * 10


@pytest.mark.checklist("mongrel2", 41)
def test_a_close_waits_for_what_is_queued(far: FakeMongrel2) -> None:
    far.opened(1)
    connection = far.connection(1)
    connection.post(b"x" * 150_000)
    connection.close()
    assert far.closed(1) == 0
    with pytest.raises(ConnectionGone):
        connection.write(b"more")
    far.pay(1, PIECE_BYTES * 3)
    assert len(far.taken(1)) == 150_000
    assert far.closed(1) == 1
    assert far.sent[-1].body == b""
    assert connection.gone


@pytest.mark.checklist("mongrel2", 29, 41)
def test_a_cut_drops_what_is_queued(far: FakeMongrel2) -> None:
    far.opened(1)
    connection = far.connection(1)
    writer = in_greenlet(lambda: connection.write(b"x" * 150_000))
    connection.abort()
    with pytest.raises(ConnectionGone):
        finish(writer)
    assert far.controls(b"cancel") == [([1], True)]
    assert len(far.taken(1)) <= WINDOW
    far.frames.clear()
    connection.post(b"x")
    connection.close()
    connection.abort()
    far.pay(1, 10)
    assert far.frames == []


@pytest.mark.checklist("mongrel2", 15, 29)
def test_a_leave_ends_the_connection_once(far: FakeMongrel2) -> None:
    exchange = far.opened(1)
    connection = far.connection(1)
    told: list[str] = []
    connection.call_when_gone(lambda: told.append("gone"))
    writer = in_greenlet(lambda: connection.write(b"x" * 150_000))
    for _ in range(3):
        far.leave(1)
    with pytest.raises(ConnectionGone):
        finish(writer)
    settle()
    assert told == ["gone"]
    assert exchange.gone
    assert 1 not in far.server.connections
    far.frames.clear()
    exchange.respond(200, (), b"late")
    assert far.frames == []
    connection.call_when_gone(lambda: told.append("late"))
    settle()
    assert told == ["gone", "late"]


@pytest.mark.checklist("mongrel2", 28)
def test_a_pipeline_runs_in_order(far: FakeMongrel2) -> None:
    first = far.opened(1, path=b"/0")
    for number in range(1, 5):
        assert far.request(1, path=b"/%d" % number, credits=None) is None
    assert far.runnable == []
    current = first
    for number in range(1, 5):
        current.respond(200, (), b"%d" % (number - 1))
        assert [one.head.path for one in far.runnable] == [b"/%d" % number]
        current = far.runnable.pop()
    current.respond(200, (), b"4")
    bodies = [one.body.rpartition(b"\r\n\r\n")[2] for one in far.sent]
    assert bodies == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.checklist("mongrel2", 28)
def test_a_pipeline_is_bounded(far: FakeMongrel2) -> None:
    far.opened(1)
    for _ in range(PIPELINE_MAX):
        far.request(1, credits=None)
    assert far.controls(b"cancel") == []
    far.request(1, credits=None)
    assert far.controls(b"cancel") == [([1], True)]
    assert not far.server.connections


@pytest.mark.checklist("mongrel2", 29)
def test_what_follows_an_answer_that_closes_does_not_run(far: FakeMongrel2) -> None:
    exchange = far.opened(1, connection=b"close")
    far.request(1, credits=None)
    writer = in_greenlet(lambda: exchange.respond(200, (), b"x" * 150_000))
    far.request(1, credits=None)
    while not writer.ready():
        far.pay(1, PIECE_BYTES)
        settle()
    finish(writer)
    assert far.runnable == []
    assert far.closed(1) == 1
    assert far.request(1, credits=None) is None


@pytest.mark.checklist("mongrel2", 29)
def test_a_request_while_a_close_waits_for_credits_does_not_run(far: FakeMongrel2) -> None:
    exchange = far.opened(1)
    far.connection(1).post(b"x" * 150_000)
    exchange.complete(200, 0)
    far.connection(1).close()
    assert far.request(1, credits=None) is None
    assert far.request(1, b"POST", body=b"x", credits=None, content_length=b"1") is None
    far.pay(1, WINDOW)
    assert far.closed(1) == 1


@pytest.mark.checklist("mongrel2", 40)
def test_without_flow_control_one_message_a_turn(far: FakeMongrel2) -> None:
    far.opened(1, credits=None)
    connection = far.connection(1)
    for number in range(200):
        connection.post(b"%03d" % number)
    assert far.taken(1) == b"000"
    gevent.sleep(0.05)
    assert len(far.frames) == 2
    assert far.taken(1) == b"".join(b"%03d" % number for number in range(200))


@pytest.mark.checklist("mongrel2", 40)
def test_without_flow_control_a_large_body_is_paced(far: FakeMongrel2) -> None:
    far.opened(1, credits=None)
    connection = far.connection(1)
    writer = in_greenlet(lambda: connection.write(b"x" * 200_000))
    assert len(far.frames) == 1
    finish(writer)
    assert [len(one.body) for one in far.sent] == [65_536, 65_536, 65_536, 3_392]


@pytest.mark.checklist("mongrel2", 40, 41)
def test_without_flow_control_a_close_comes_last(far: FakeMongrel2) -> None:
    far.opened(1, credits=None)
    connection = far.connection(1)
    connection.post(b"x" * 100_000)
    connection.post(b"y")
    connection.close()
    gevent.sleep(0.1)
    assert far.taken(1) == b"x" * 100_000 + b"y"
    assert far.closed(1) == 1


def test_credits_reveal_flow_control(far: FakeMongrel2) -> None:
    """A worker that takes over a connection has not seen its first request."""
    far.opened(1, credits=None)
    connection = far.connection(1)
    connection.post(b"x" * 1_000)
    far.pay(1, 1_000)
    connection.post(b"y" * 1_000_000)
    assert connection.outstanding <= WINDOW
    gevent.sleep(0.05)
    assert connection.outstanding <= WINDOW
    far.opened(2, credits=None)
    assert far.connection(2).window == WINDOW
