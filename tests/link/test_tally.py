"""How requests are counted: started = finished + failed + open, whatever becomes of them."""

from typing import Any

import pytest

from m2gate.errors import ConnectionGone
from m2gate.hub.form import StreamForm
from m2gate.hub.item import Item
from m2gate.hub.policy import Policy
from m2gate.link.broadcast import Broadcast
from m2gate.link.exchange import Exchange
from m2gate.link.outbox import Outbox
from m2gate.link.tally import CLIENT_LEFT, CUT, QUEUE_FULL, REASONS, REFUSED, STOPPING, SUBSCRIBER_SLOW
from tests.link.fakes import FakeMongrel2


class Counted(FakeMongrel2):
    """A Mongrel2 whose whole answers leave through an outbox, as a worker's do."""

    def __init__(self) -> None:
        super().__init__()
        self.late: list[Any] = []
        self.outbox = Outbox(self.frames.append, self.late.append)
        self.server.send = self.outbox.send
        self.server.send_soon = self.outbox.send_soon

    def counts(self) -> tuple[int, int, dict[str, int], int]:
        """Return started, finished, failed and open."""
        tally = self.server.tally
        started, finished = self.server.requests, tally.finished + self.outbox.answers
        return started, finished, dict(tally.failed), started - finished - sum(tally.failed.values())


@pytest.fixture
def far() -> Counted:
    return Counted()


def test_whole_answers(far: Counted) -> None:
    for _ in range(3):
        exchange = far.opened(1)
        assert far.counts()[3] == 1
        exchange.respond(200, (), b"x")
        assert far.counts()[3] == 0
    assert far.counts() == (3, 3, {}, 0)
    far.outbox.release()
    assert far.counts() == (3, 3, {}, 0)
    far.opened(1).respond(404, (), b"x")
    far.opened(1, b"POST", body=b"a", content_length=b"1").respond(200, (), b"x")
    assert far.counts() == (5, 5, {}, 0)


def test_an_answer_that_is_late_in_its_turn(far: Counted) -> None:
    far.outbox.hold()
    far.outbox._until_s = 0.0
    far.opened(1).respond(200, (), b"x")
    assert far.counts() == (1, 1, {}, 0)


def test_a_pipeline(far: Counted) -> None:
    first = far.opened(1)
    assert [far.request(1), far.request(1)] == [None, None]
    assert far.counts() == (3, 0, {}, 3)
    first.respond(200, (), b"x")
    assert far.counts() == (3, 1, {}, 2)
    far.leave(1)
    assert far.counts() == (3, 1, {CLIENT_LEFT: 1}, 1)
    far.runnable[0].respond(200, (), b"x")
    assert far.counts() == (3, 1, {CLIENT_LEFT: 2}, 0)


def test_more_than_a_pipeline_holds(far: Counted) -> None:
    first = far.opened(1)
    for _ in range(65):
        assert far.request(1) is None
    assert far.counts() == (65, 0, {CLIENT_LEFT: 64}, 1)
    first.respond(200, (), b"x")
    assert far.counts()[3] == 0


def test_streams(far: Counted) -> None:
    whole, left, short, failed = (far.opened(conn_id) for conn_id in range(4))
    for exchange in (whole, left, short, failed):
        exchange.start(200, (), 9)
        exchange.write(b"a part")
    whole.write(b"123")
    whole.finish()
    far.leave(1)
    with pytest.raises(ConnectionGone):
        left.write(b"now")
    left.abort()
    short.finish()
    failed.abort()
    assert far.counts() == (4, 1, {CLIENT_LEFT: 1, CUT: 2}, 0)


def test_an_endless_stream_ends_by_being_left(far: Counted) -> None:
    handled, held, unanswered = (far.opened(conn_id) for conn_id in range(3))
    handled.is_endless = True
    held.is_held = unanswered.is_held = True
    for exchange in (handled, held):
        exchange.start(200, (), None)
    for conn_id in range(3):
        far.leave(conn_id)
    handled.abort()
    assert far.counts() == (3, 2, {CLIENT_LEFT: 1}, 0)


def test_refusals(far: Counted) -> None:
    far.opened(1, b"POST", body=b"abc", content_length=b"1").answer_refusal()
    full = far.opened(2)
    full.refuse(503, "all handlers are busy", reason=QUEUE_FULL)
    full.answer_refusal()
    far.server.is_draining = far.server.is_refusing = True
    far.opened(3).answer_refusal()
    assert far.counts() == (3, 0, {REFUSED: 1, QUEUE_FULL: 1, STOPPING: 1}, 0)


def test_websockets(far: Counted) -> None:
    for conn_id in (1, 2):
        exchange: Any = far.opened(conn_id, b"WEBSOCKET_HANDSHAKE", body=b"accept")
        assert far.counts()[3] == 1
        exchange.accept()
        if conn_id == 1:
            far.leave(conn_id)
        exchange.close(1000)
        exchange.end()
        exchange.end()
    assert far.counts() == (2, 2, {}, 0)


def test_subscribers_that_their_channel_gives_up(far: Counted) -> None:
    broadcast = Broadcast()
    broadcast.hub.configure("c", Policy("block", 100))
    ws: Any = far.opened(1, b"WEBSOCKET_HANDSHAKE", body=b"accept")
    ws.accept()
    stream = far.opened(2)
    stream.is_endless = True
    stream.start(200, (), None)
    stream.flush()
    for exchange in (ws, stream):
        broadcast.join("c", exchange.connection, StreamForm(chunked=False, events=False))
    for _ in range(3):
        broadcast.publish(Item(channel="c", content=b"x" * 102_000))
        broadcast.flush()
    assert ws.gone
    assert stream.gone
    ws.end()
    stream.abort()
    assert far.counts() == (2, 0, {SUBSCRIBER_SLOW: 2}, 0)


def test_what_is_no_request_counts_for_nothing(far: Counted) -> None:
    far.piece(1, 0, b"of nothing")
    far.pay(1, 10)
    far.leave(1)
    far.server.dispatch(b"nonsense")
    assert far.counts() == (0, 0, {}, 0)
    assert far.server.rejected == 1


def test_a_lost_server(far: Counted) -> None:
    exchanges = [far.opened(conn_id) for conn_id in range(3)]
    assert all(isinstance(one, Exchange) for one in exchanges)
    far.server.close()
    for one in exchanges:
        one.respond(200, (), b"x")
    assert far.counts() == (3, 0, {CLIENT_LEFT: 3}, 0)


def test_reasons_have_one_form() -> None:
    assert all(reason == reason.lower() and " " not in reason for reason in REASONS)
