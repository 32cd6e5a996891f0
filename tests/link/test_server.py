"""Where each message of one Mongrel2 belongs, and what it is told as time goes by."""

import pytest

from m2gate.link.server import CLOSED_REMEMBERED_S, IDLE_FORGET_S
from tests.link.fakes import FakeMongrel2, in_greenlet, settle

TARGETS_MAX = 127  # of a control message


@pytest.fixture
def far() -> FakeMongrel2:
    return FakeMongrel2(keepalive_s=45.0)


@pytest.mark.checklist("mongrel2", 17)
def test_notices_for_unknown_connections_are_passed_over(far: FakeMongrel2, caplog: pytest.LogCaptureFixture) -> None:
    far.leave(7)
    far.pay(7, 100)
    assert far.frames == []
    assert far.server.rejected == 0
    assert caplog.records == []
    assert far.opened(7).connection.outstanding == 0


@pytest.mark.checklist("mongrel2", 16)
def test_credits_open_no_exchange(far: FakeMongrel2) -> None:
    exchange = far.opened(1)
    far.pay(1, 100)
    assert far.connection(1).current is exchange
    assert far.connection(1).pipeline is None


@pytest.mark.checklist("mongrel2", 18)
def test_a_json_socket_called_star_is_no_notice(far: FakeMongrel2) -> None:
    body = b'{"type":"disconnect"}'
    exchange = far.message(1, {b"METHOD": b"JSON", b"PATTERN": b"@*"}, body, b"@*")
    assert exchange.is_json_socket
    assert exchange.read() == body
    assert not far.connection(1).gone


@pytest.mark.checklist("mongrel2", 31)
def test_equal_ids_of_two_servers_are_two_connections() -> None:
    here, there = FakeMongrel2(b"m2-a"), FakeMongrel2(b"m2-b")
    ours, theirs = here.opened(1), there.opened(1)
    here.leave(1)
    assert (ours.gone, theirs.gone) == (True, False)
    theirs.respond(200, (), b"to b")
    assert here.frames == []
    assert there.sent[0].ident == b"m2-b"


@pytest.mark.checklist("mongrel2", 31)
def test_a_message_of_another_server_is_refused(far: FakeMongrel2, caplog: pytest.LogCaptureFixture) -> None:
    far.ident = b"m2-other"
    assert far.request(1) is None
    assert "from another server" in caplog.text
    assert far.server.connections == {}


@pytest.mark.checklist("mongrel2", 32)
def test_a_lost_server_takes_all_its_connections_along(far: FakeMongrel2) -> None:
    exchanges = [far.opened(conn_id) for conn_id in range(5)]
    upload = far.opened(5, b"POST", content_length=b"99", UPLOAD_STREAM=b"0")
    reader = in_greenlet(upload.read)
    far.frames.clear()
    far.server.close()
    settle()
    assert all(exchange.gone for exchange in exchanges)
    assert reader.ready()
    assert far.server.connections == {}
    for exchange in exchanges:
        exchange.respond(200, (), b"to whoever has the id now")
    assert far.frames == []


@pytest.mark.checklist("mongrel2", 29)
def test_what_was_on_its_way_when_we_closed_does_not_run(far: FakeMongrel2) -> None:
    far.opened(1).abort()
    assert far.request(1, credits=None) is None
    assert far.request(1, b"POST", body=b"x", credits=None, content_length=b"1") is None
    far.message(1, {b"METHOD": b"WEBSOCKET", b"FLAGS": b"0x81", b"PATTERN": b"/"}, b"late")
    far.clock.move(CLOSED_REMEMBERED_S + 1)
    far.server.tick()
    assert [bool(one.control) for one in far.sent] == [True]  # the cancel, and nothing after it


@pytest.mark.checklist("mongrel2", 33, 59)
@pytest.mark.parametrize("count", [1, TARGETS_MAX, TARGETS_MAX + 1, 1000])
def test_keep_alives_for_all_that_is_in_use(far: FakeMongrel2, count: int) -> None:
    for conn_id in range(count):
        far.opened(conn_id)
    far.opened(count).respond(200, (), b"")  # idle from now on
    far.frames.clear()
    far.clock.move(44)
    far.server.tick()
    assert far.frames == []
    far.clock.move(1)
    far.server.tick()
    targets = [conn_ids for conn_ids, value in far.controls(b"keep-alive") if value is True]
    assert [conn_id for conn_ids in targets for conn_id in conn_ids] == list(range(count))
    assert max(map(len, targets)) <= TARGETS_MAX
    far.frames.clear()
    far.clock.move(45)
    far.server.tick()
    assert len(far.controls(b"keep-alive")) == len(targets)


def test_an_idle_connection_is_forgotten(far: FakeMongrel2) -> None:
    far.opened(1).respond(200, (), b"")
    far.clock.move(IDLE_FORGET_S)
    far.server.tick()
    assert 1 in far.server.connections
    far.clock.move(45)
    far.server.tick()
    assert far.server.connections == {}
    assert far.opened(1, credits=None).connection.window == 102_400  # should it have lived after all


@pytest.mark.checklist("mongrel2", 13, 14)
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"content_length": b"3", "transfer_encoding": b"chunked"}, id="both"),
        pytest.param({"transfer_encoding": b"Chunked"}, id="capital"),
        pytest.param({"transfer_encoding": b"gzip, chunked"}, id="list"),
        pytest.param({"transfer_encoding": [b"chunked", b"chunked"]}, id="twice"),
        pytest.param({"content_length": b"-3"}, id="negative"),
        pytest.param({"content_length": b"3x"}, id="no-number"),
        pytest.param({"content_length": b"+3"}, id="plus"),
        pytest.param({"content_length": b""}, id="empty"),
        pytest.param({"content_length": [b"3", b"3"]}, id="repeated"),
        pytest.param({"content_length": [b"3", b"5"]}, id="repeated-other"),
        pytest.param({"content_length": b"4"}, id="longer"),
        pytest.param({"content_length": b"2"}, id="shorter"),
        pytest.param({"content_length": b"9999999999"}, id="too-large"),
        pytest.param({}, id="none"),
    ],
)
@pytest.mark.parametrize("method", [b"POST", b"GET", b"HEAD"])
def test_a_body_with_bad_framing_is_refused_and_closed(
    far: FakeMongrel2, method: bytes, headers: dict[str, bytes | list[bytes]]
) -> None:
    exchange = far.opened(1, method, body=b"abc", **headers)
    assert exchange.refusal is not None
    exchange.answer_refusal()
    assert far.taken(1).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"Connection: close\r\n" in far.taken(1)
    assert far.closed(1) == 1


def test_draining_makes_each_answer_the_last(far: FakeMongrel2) -> None:
    busy, idle = far.opened(1), far.opened(2)
    idle.respond(200, (), b"")
    far.server.begin_drain()
    assert far.closed(2) == 0  # its next request may be on its way
    busy.respond(200, (), b"")
    far.opened(2, credits=None).respond(200, (), b"")
    for conn_id in (1, 2):
        assert b"Connection: close" in far.taken(conn_id)
        assert far.closed(conn_id) == 1


def test_the_end_of_a_drain_cuts_whoever_is_too_slow(far: FakeMongrel2) -> None:
    for conn_id in (1, 2):
        far.opened(conn_id)
    far.connection(1).post(b"x" * 150_000)
    assert far.server.end_sessions() == 2
    assert (far.closed(1), far.closed(2)) == (0, 1)
    assert far.server.cut_sessions() == 1
    assert far.controls(b"cancel") == [([1], True)]
    assert not far.server.connections


def test_the_end_of_a_drain_may_leave_alone_what_nobody_uses() -> None:
    far = FakeMongrel2()
    far.opened(1).respond(200, (), b"")
    far.opened(2)
    assert far.server.end_sessions(and_idle=False) == 1
    assert (far.closed(1), far.closed(2)) == (0, 1)
    far.server.end_sessions()
    assert (far.closed(1), far.closed(2)) == (1, 1)
