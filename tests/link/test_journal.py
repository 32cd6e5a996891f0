"""What an attached worker notes for its gateway: marks before the first byte, reports at each end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest

from m2gate.errors import ConnectionGone
from m2gate.link.exchange import Exchange
from m2gate.link.journal import Journal
from m2gate.link.journaled import JournaledConnection
from m2gate.link.mailbox import deliver
from m2gate.link.marks import CUT, SENT, SENT_CUT, SLOTS, UNKNOWN, UNSENT, MarkTable
from m2gate.link.websocket import WebSocketExchange
from m2gate.wire.attach import CONNECTION_CLOSED, EXCHANGE_DETACHED, EXCHANGE_DONE, RECORD
from tests.link.fakes import FakeMongrel2, finish, in_greenlet, settle

TEXT = (("Content-Type", "text/plain"),)
WINDOW = 102_400


class Attached(FakeMongrel2):
    """A server with a journal: each message has the next number, reports are a list."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(**settings)
        self.table = MarkTable.create(folder, "w1")
        self.records: list[tuple[int, int, int, int]] = []
        self.journal = Journal(self.table.slots, lambda record: self.records.append(RECORD.unpack(record)))
        self.journal.announce(3)
        self.server.journal = self.journal
        self.number = 0

    def message(self, *arguments: Any, **options: Any) -> Any:
        self.number += 1
        self.server.frame_number = self.number
        return super().message(*arguments, **options)

    def opened(self, conn_id: int, method: bytes = b"GET", **options: Any) -> Exchange:
        exchange = super().opened(conn_id, method, **options)
        exchange.number = self.number  # as the source of frames does
        return exchange

    def look(self) -> str:
        return self.table.look(self.number)


@pytest.fixture
def far(tmp_path: Path) -> Attached:
    return Attached(tmp_path)


def websocket(far: Attached) -> WebSocketExchange:
    exchange = far.opened(1, b"WEBSOCKET_HANDSHAKE", body=b"accept")
    assert isinstance(exchange, WebSocketExchange)
    return exchange


# -- marks -------------------------------------------------------------------------------------------------


def begin_by_respond(exchange: Exchange) -> None:
    exchange.respond(200, TEXT, b"hi")


def begin_by_slow_respond(exchange: Exchange) -> None:
    exchange.respond(404, TEXT, b"hi")


def begin_by_write(exchange: Exchange) -> None:
    exchange.start(200, TEXT, None)
    assert exchange.connection.server.journal is not None
    exchange.write(b"x")


def begin_by_flush(exchange: Exchange) -> None:
    exchange.start(200, TEXT, None)
    exchange.flush()


def begin_by_finish(exchange: Exchange) -> None:
    exchange.start(204, (), None)
    exchange.finish()


def begin_by_refusal(exchange: Exchange) -> None:
    exchange.refuse(400, "no")
    exchange.answer_refusal()


def begin_by_token(exchange: Exchange) -> None:
    exchange.take_over()
    exchange.connection.post(b"HTTP/1.1 200 OK\r\n\r\n")


WAYS = [
    begin_by_respond,
    begin_by_slow_respond,
    begin_by_write,
    begin_by_flush,
    begin_by_finish,
    begin_by_refusal,
    begin_by_token,
]


@pytest.mark.parametrize("begin", WAYS)
def test_a_mark_comes_before_the_first_byte(far: Attached, begin: Callable[[Exchange], None]) -> None:
    exchange = far.opened(1)
    seen: list[str] = []
    send = far.server.send

    def look_and_send(frame: bytes) -> None:
        seen.append(far.look())
        send(frame)

    far.server.send = far.server.send_soon = look_and_send
    assert far.look() == UNSENT
    begin(exchange)
    assert seen
    assert set(seen) == {SENT}


def test_a_head_that_waits_for_the_body_is_not_marked(far: Attached) -> None:
    far.opened(1).start(200, TEXT, None)
    assert far.look() == UNSENT


def test_a_websocket_is_marked_with_its_101(far: Attached) -> None:
    exchange = websocket(far)
    assert far.look() == UNSENT
    exchange.accept()
    assert far.look() == SENT


def test_a_newer_exchange_keeps_its_slot(far: Attached) -> None:
    old = far.opened(1)
    far.table.slots[old.number] = old.number + SLOTS
    old.respond(200, TEXT, b"late")
    assert far.table.slots[old.number] == old.number + SLOTS
    assert far.table.look(old.number) == UNKNOWN


def test_a_unit_that_is_sent_in_part_is_marked_until_the_client_has_all(far: Attached) -> None:
    exchange = websocket(far)
    exchange.accept()
    far.pay_next(1)
    sending = in_greenlet(lambda: exchange.send(b"x" * (WINDOW + 50_000)))
    assert far.look() == SENT_CUT
    while not sending.ready():
        assert far.look() == SENT_CUT
        far.pay_next(1)
        settle()
    assert far.look() == SENT_CUT  # sent, but what ZeroMQ has queued dies with the process
    while far.connection(1).outstanding:
        far.pay_next(1)
    assert far.look() == SENT
    assert far.table.slots[exchange.number] & CUT == 0
    finish(sending)


# -- reports -----------------------------------------------------------------------------------------------


def test_each_exchange_reports_what_it_sent(far: Attached) -> None:
    for _ in range(2):
        far.opened(1).respond(200, TEXT, b"hi")
    sizes = [len(one.body) for one in far.sent]
    assert far.records == [(3, EXCHANGE_DONE, 1, size) for size in sizes]


def test_credits_that_came_meanwhile_are_part_of_it(far: Attached) -> None:
    exchange = far.opened(1)
    exchange.start(200, TEXT, None)
    exchange.write(b"x" * 1_000)
    far.pay_next(1)
    exchange.write(b"y" * 500)
    exchange.finish()
    assert far.records == [(3, EXCHANGE_DONE, 1, len(far.taken(1)))]
    assert far.connection(1).outstanding == 0


def test_credits_of_a_reported_exchange_change_nothing(far: Attached) -> None:
    far.opened(1).respond(200, TEXT, b"x" * 1_000)
    far.pay_next(1)  # was on its way
    far.opened(1).respond(200, TEXT, b"y")
    assert sum(sent for _, _, _, sent in far.records) == len(far.taken(1))


def test_the_end_of_a_connection_is_reported_once(far: Attached) -> None:
    exchange = far.opened(1, connection=b"close")
    exchange.respond(200, TEXT, b"hi")
    assert far.closed(1) == 1
    assert far.records == [(3, CONNECTION_CLOSED, 1, 1)]


def test_a_client_that_leaves_is_reported(far: Attached) -> None:
    exchange = far.opened(1)
    far.leave(1)
    exchange.respond(200, TEXT, b"hi")
    assert far.records == [(3, CONNECTION_CLOSED, 1, 0)]


def test_what_is_queued_at_the_end_is_reported_when_it_has_gone(far: Attached) -> None:
    exchange = far.opened(1)
    exchange.take_over()
    exchange.connection.post(b"x" * (WINDOW + 10_000))
    exchange.detached = False
    exchange.complete(200, 0)
    assert far.records == [(3, EXCHANGE_DETACHED, 1, 0)]
    while far.connection(1).units:
        far.pay_next(1)
    assert far.records[1:] == [(3, EXCHANGE_DONE, 1, len(far.taken(1)))]


def test_an_answer_by_token_ends_with_the_next_request(far: Attached) -> None:
    exchange = far.opened(1)
    exchange.detach()
    exchange.detach()
    assert far.records == [(3, EXCHANGE_DETACHED, 1, 0)]
    exchange.take_over()
    exchange.state = 1
    exchange.connection.post(b"answer")
    second = far.opened(1)
    assert far.records[1:] == [(3, EXCHANGE_DONE, 1, 6)]
    assert far.connection(1).outstanding == 6  # the next one does not wait for its credits
    second.respond(200, TEXT, b"hi")
    assert sum(sent for _, _, _, sent in far.records) == len(far.taken(1))


def test_what_ends_before_the_number_is_known_is_reported_then(far: Attached) -> None:
    far.journal.begin()
    far.opened(1).respond(200, TEXT, b"hi")
    assert far.records == []
    far.journal.announce(9)
    assert far.records == [(9, EXCHANGE_DONE, 1, len(far.taken(1)))]


def test_a_new_gateway_hears_nothing_of_what_ended_before(far: Attached) -> None:
    far.journal.begin()
    far.opened(1).respond(200, TEXT, b"hi")
    far.journal.begin()
    far.journal.announce(9)
    assert far.records == []


# -- connections that change hands -------------------------------------------------------------------------


def test_an_idle_connection_that_is_released_is_forgotten_but_not_closed(far: Attached) -> None:
    far.opened(1).respond(200, TEXT, b"hi")
    connection = far.connection(1)
    gone: list[bool] = []
    connection.call_when_gone(lambda: gone.append(True))
    far.records.clear()
    far.server.release([1, 99])
    settle()
    assert (connection.gone, gone, far.closed(1), far.records) == (True, [True], 0, [])
    far.opened(1, credits=None).respond(200, TEXT, b"again")  # it may come back
    assert far.taken(1).endswith(b"again")


def test_a_busy_connection_that_is_released_is_lost(far: Attached) -> None:
    exchange = far.opened(1, b"POST", UPLOAD_STREAM=b"0", content_length=b"10")
    reading = in_greenlet(exchange.read)
    far.server.release([1])
    with pytest.raises(ConnectionGone):
        finish(reading)
    assert far.closed(1) == 0


def test_an_exchange_that_is_handed_over_reports_nothing(far: Attached) -> None:
    ended: list[object] = []
    exchange = far.opened(1)
    exchange.on_end = ended.append
    exchange.call_at_end([lambda: ended.append("callback")])
    exchange.hand_over()
    assert (exchange.ended, exchange.connection.gone, far.records, far.sent) == (True, True, [], [])
    assert ended == ["callback"]  # the line of the access log is the gateway's
    assert far.server.tally.finished == 1


def test_connections_that_are_idle_for_long_are_forgotten_without_a_word(far: Attached) -> None:
    far.opened(1).respond(200, TEXT, b"hi")
    far.records.clear()
    far.clock.move(1_000)
    far.server.tick()
    assert far.server.connections == {}
    assert far.records == []


def test_draining_closes_no_connection_that_goes_on(far: Attached) -> None:
    exchange = far.opened(1)
    far.server.begin_drain()
    exchange.respond(200, TEXT, b"hi")
    far.opened(1).respond(200, TEXT, b"hi")
    assert far.closed(1) == 0
    assert b"close" not in far.taken(1)


def test_a_server_that_is_lost_reports_nothing(far: Attached) -> None:
    exchange = far.opened(1)
    far.server.close()
    exchange.respond(200, TEXT, b"hi")
    assert far.records == []


def test_without_a_gateway_connections_keep_no_journal() -> None:
    far = FakeMongrel2()
    assert not isinstance(far.opened(1).connection, JournaledConnection)
    with gevent.Timeout(5):
        far.server.release([1])


def test_a_token_reaches_its_connection_only_while_an_exchange_is_open(far: Attached) -> None:
    exchange = far.opened(1)
    connection = exchange.connection
    assert deliver(connection, b"HTTP/1.1 200 OK\r\n\r\n") == b"ok"
    exchange.complete(200, 0)
    assert deliver(connection, b"more") == b"gone"  # it may be somebody else's by now
    assert b"more" not in far.taken(1)
