"""A worker and a scripted gateway: attaching, frames, reports, servers that come and go, gateways that die."""

import logging
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent.event import Event

from m2gate import App, Request
from m2gate.errors import ConfigError
from m2gate.link.clock import Clock
from m2gate.link.marks import SENT, MarkTable
from m2gate.link.server import LinkSettings
from m2gate.link.tally import Tally
from m2gate.wire import attach
from m2gate.wire import mongrel2 as wire
from m2gate.wire.attach import CONNECTION_CLOSED, EXCHANGE_DETACHED, EXCHANGE_DONE, Claim
from m2gate.worker import attached_server
from m2gate.worker.attached import AttachedSettings, AttachLink
from m2gate.worker.heart import BEAT_S, Heart
from m2gate.worker.leaving import Departure
from m2gate.worker.pool import BACKLOG_MAX, Pool
from tests.wire.frames import build_message
from tests.worker.fake_gateway import Attached, FakeMongrel2, attached, block_thread, until


class Gate:
    """Handlers that wait until a test lets them go on."""

    def __init__(self) -> None:
        self.open = Event()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def app(gate: Gate) -> App:
    app = App()

    @app.get("/")
    def index(request: Request) -> str:
        return "hello"

    @app.get("/wait")
    def wait(request: Request) -> str:
        gate.open.wait()
        return "late"

    @app.get("/stream")
    def stream(request: Request) -> Iterator[bytes]:
        yield b"x" * 50_000
        gate.open.wait()
        yield b"#" * 100_000

    @app.websocket("/ws")
    def echo(ws: object) -> None:
        for message in ws:  # type: ignore[attr-defined]
            ws.send(message)  # type: ignore[attr-defined]

    return app


@pytest.fixture
def worker(app: App) -> Iterator[Attached]:
    with attached(app) as one:
        yield one


# -- attaching ---------------------------------------------------------------------------------------------


def test_a_worker_introduces_itself_and_connects(worker: Attached) -> None:
    found = worker.introduction()
    assert (found.name, found.generation, found.capacity, found.base) == ("w1", 2, 100, 0)
    assert (found.is_leaving, found.claims, found.members) == (False, [], [])
    table = MarkTable.open(worker.folder, found.table)
    assert table.pid == found.pid
    assert table.beat_age_s < 5
    table.close()
    assert not worker.link.ready.is_set()
    worker.gateway.say(attach.build_servers([worker.mongrel2.note(7)]))
    assert attach.parse_connected(worker.gateway.receive(attach.CONNECTED)) == 7
    until(worker.link.ready.is_set)


def test_nothing_is_connected_before_the_app_has_started(worker: Attached) -> None:
    worker.link.may_serve.clear()
    worker.introduction()
    worker.gateway.say(attach.build_servers([worker.mongrel2.note(1)]))
    assert worker.gateway.is_silent()
    worker.link.may_serve.set()
    worker.gateway.receive(attach.CONNECTED)


def test_the_table_is_gone_after_a_clean_end(app: App) -> None:
    with attached(app) as worker:
        worker.connect()
        assert len(list(worker.folder.glob("*.table"))) == 1
        worker.link.stop()
        assert list(worker.folder.glob("*.table")) == []
        worker.link.stop = lambda: None  # type: ignore[method-assign]


def test_a_name_that_is_taken_gets_a_suffix(app: App, worker: Attached) -> None:
    link = second(worker, worker.folder)
    names = {path.name for path in worker.folder.glob("*.table")}
    assert len(names) == 2
    assert min(names, key=len).removesuffix(".table") + ".1.table" in names
    link.stop()


def test_a_folder_that_is_not_there_is_a_configuration_error(worker: Attached) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.folder"):
        second(worker, worker.folder / "missing")


def second(worker: Attached, folder: Path) -> AttachLink:
    settings = AttachedSettings(folder=folder, name="w1", generation=2, capacity=1)
    pool = Pool(worker.app.handle, 1)
    return AttachLink(worker.context, settings, pool, LinkSettings(), clock=Clock(), tally=Tally())


# -- frames ------------------------------------------------------------------------------------------------


def test_requests_are_answered_and_reported(worker: Attached) -> None:
    worker.connect()
    m2 = worker.mongrel2
    worker.gateway.frames(m2.request(1), m2.request(2))
    seen, records = worker.gateway.done()
    assert worker.sent(1, b"hello").startswith(b"HTTP/1.1 200")
    size = len(m2.taken(1))
    assert (seen, records) == (2, [(1, EXCHANGE_DONE, 1, size), (1, EXCHANGE_DONE, 2, size)])


def test_marks_have_the_numbers_of_frames(worker: Attached) -> None:
    found = worker.connect()
    m2 = worker.mongrel2
    worker.gateway.frames(m2.leave(8), m2.leave(9), m2.request(1))
    worker.gateway.done()
    table = MarkTable.open(worker.folder, found.table)
    assert [table.look(number) for number in (1, 2, 3)] == ["unsent", "unsent", SENT]
    table.close()


def test_frames_of_a_server_that_is_not_connected_are_dropped_but_counted(worker: Attached) -> None:
    worker.connect()
    other = FakeMongrel2(worker.context, worker.folder, "other")
    worker.gateway.frames(other.request(1), worker.mongrel2.request(2))
    assert worker.gateway.done()[0] == 2
    other.close()


def test_what_was_seen_is_told_also_if_nothing_ends(worker: Attached) -> None:
    worker.connect()
    worker.gateway.frames(*[worker.mongrel2.leave(9)] * 999)
    assert worker.gateway.is_silent()
    worker.gateway.frames(worker.mongrel2.leave(9))
    assert worker.gateway.done() == (1_000, [])
    worker.gateway.frames(b"m2 9 @" + b"x" * (1 << 20))
    assert worker.gateway.done() == (1_001, [])


def test_messages_that_break_a_rule_are_logged_and_lost(worker: Attached, caplog: pytest.LogCaptureFixture) -> None:
    worker.connect()
    with caplog.at_level(logging.WARNING):
        worker.gateway.say(b"", b"?", b"S5:hello,", b"R", b"A1", b"Ijunk", b"F\xff\xff\xff\xff")
        worker.gateway.frames(worker.mongrel2.request(1))
        worker.sent(1, b"hello")
    assert caplog.text.count("rejected") == 7


def test_requests_are_received_also_while_all_handlers_are_busy(app: App, gate: Gate) -> None:
    with attached(app, max_handlers=1) as worker:
        worker.connect()
        count = BACKLOG_MAX + 200
        m2 = worker.mongrel2
        worker.gateway.frames(*[m2.request(conn_id, b"/wait") for conn_id in range(1, count + 1)])
        until(lambda: worker.pool.waiting[0] == count - 1)
        gate.open.set()
        until(lambda: worker.tally.finished + sum(one.requests for one in worker.link.servers) >= count)
        until(lambda: worker.pool.busy == 0)


def test_two_servers_behind_one_gateway(worker: Attached) -> None:
    worker.introduction()
    other = FakeMongrel2(worker.context, worker.folder, "other")
    m2 = worker.mongrel2
    worker.gateway.say(attach.build_servers([m2.note(1), other.note(2)]))
    numbers = {attach.parse_connected(worker.gateway.receive(attach.CONNECTED)) for _ in range(2)}
    assert numbers == {1, 2}
    worker.gateway.frames(m2.request(1), other.request(1))
    _, records = worker.gateway.done()
    assert [(number, conn_id) for number, _, conn_id, _ in records] == [(1, 1), (2, 1)]
    assert worker.sent(1, b"hello").count(b"hello") == 1
    until(lambda: other.taken(1).endswith(b"hello"))
    other.close()


# -- connections and servers that go -----------------------------------------------------------------------


def test_a_released_connection_is_forgotten(worker: Attached) -> None:
    worker.connect()
    worker.gateway.frames(worker.mongrel2.request(1))
    worker.gateway.done()
    (server,) = worker.link.servers
    assert list(server.connections) == [1]
    worker.gateway.say(attach.build_release(2, [1]), attach.build_release(1, [1, 5]))
    until(lambda: not server.connections)
    assert worker.gateway.is_silent()


def test_a_server_that_is_named_no_more_is_closed_and_its_successor_connected(worker: Attached, gate: Gate) -> None:
    worker.connect()
    m2 = worker.mongrel2
    worker.gateway.frames(m2.request(1, b"/wait"))
    (server,) = until(lambda: [one for one in worker.link.servers if one.connections])
    worker.gateway.say(attach.build_servers([m2.note(2)]))
    assert attach.parse_connected(worker.gateway.receive(attach.CONNECTED)) == 2
    assert server.is_closed
    gate.open.set()  # its answer reaches nobody
    worker.gateway.frames(m2.request(1))
    assert worker.gateway.done()[1][0][:3] == (2, EXCHANGE_DONE, 1)
    assert b"late" not in worker.sent(1, b"hello")


def test_a_mongrel2_that_goes_takes_its_connections_along(worker: Attached) -> None:
    worker.connect()
    m2 = worker.mongrel2
    worker.gateway.frames(m2.request(1))
    worker.gateway.done()
    m2.close()
    until(lambda: not worker.link.servers)
    worker.gateway.frames(m2.request(1))  # dropped
    assert worker.gateway.is_silent()
    worker.mongrel2 = FakeMongrel2(worker.context, worker.folder)
    worker.gateway.say(attach.build_servers([]), attach.build_servers([worker.mongrel2.note(2)]))
    assert attach.parse_connected(worker.gateway.next_of(attach.CONNECTED)) == 2


# -- gateways that die -------------------------------------------------------------------------------------


def test_what_is_open_is_claimed_by_its_number(worker: Attached, gate: Gate) -> None:
    worker.connect()
    m2 = worker.mongrel2
    worker.gateway.frames(m2.request(1), m2.request(2, b"/wait"), m2.handshake(3))
    worker.gateway.done()
    worker.sent(3, b"\r\n\r\n")
    worker.restart_gateway()
    found = worker.connect(9)
    assert found.base == 3
    assert found.claims == [
        Claim(b"m2", 2, 2, is_started=False, is_websocket=False),
        Claim(b"m2", 3, 3, is_started=True, is_websocket=True),
    ]
    gate.open.set()
    assert worker.gateway.done() == (3, [(9, EXCHANGE_DONE, 2, len(worker.sent(2, b"late")))])
    worker.gateway.frames(m2.request(1), m2.leave(3))
    seen, records = worker.gateway.done()
    assert (seen, records[-1]) == (5, (9, CONNECTION_CLOSED, 3, 1))


def test_what_ends_without_a_gateway_reaches_its_client_and_is_not_claimed(worker: Attached, gate: Gate) -> None:
    worker.connect()
    worker.gateway.frames(worker.mongrel2.request(1, b"/wait"))
    until(lambda: worker.link.open_count)
    worker.gateway.close()
    until(lambda: not worker.link.is_attached)
    gate.open.set()
    worker.sent(1, b"late")
    worker.restart_gateway()
    assert worker.connect(2).claims == []
    assert worker.gateway.is_silent()


def test_frames_that_a_dead_gateway_had_sent_are_answered(worker: Attached) -> None:
    worker.connect()
    for conn_id in range(1, 200):
        worker.gateway.frames(worker.mongrel2.request(conn_id))
    worker.restart_gateway(linger_ms=1_000)
    assert worker.connect(2).base == 199
    worker.sent(199, b"hello")


def test_a_detached_exchange_is_reported_to_the_next_gateway(worker: Attached) -> None:
    worker.connect()
    (server,) = worker.link.servers
    worker.gateway.frames(worker.mongrel2.request(1, b"/wait"))
    until(lambda: worker.link.open_count)
    current = server.connections[1].current
    assert current is not None
    current.detach()
    assert worker.gateway.done()[1] == [(1, EXCHANGE_DETACHED, 1, 0)]
    worker.restart_gateway()
    worker.connect(2)
    assert worker.gateway.done()[1] == [(2, EXCHANGE_DETACHED, 1, 0)]


def test_credits_that_went_down_with_the_gateway(worker: Attached, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached_server, "RESYNC_S", 0.3)
    worker.connect()
    worker.gateway.frames(worker.mongrel2.request(1, b"/stream"))
    until(lambda: worker.mongrel2.taken(1).count(b"x") >= 50_000)
    worker.restart_gateway()
    worker.connect(2)
    gate.open.set()
    assert worker.gateway.is_silent()
    assert b"#" not in worker.mongrel2.taken(1)  # 50,000 of 102,400 bytes may be unwritten, or more
    worker.sent(1, b"0\r\n\r\n")
    assert worker.mongrel2.taken(1).count(b"#") == 100_000


def test_pieces_that_went_down_with_the_gateway(
    worker: Attached, app: App, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attached_server, "SILENT_S", 0.2)
    asked = Event()

    @app.post("/up")
    def up(request: Request) -> str:
        gate.open.wait()
        asked.set()
        return str(sum(map(len, request.stream)))

    worker.connect()
    upload = worker.mongrel2.request(1, b"/up", b"POST", UPLOAD_STREAM=b"0", **{"transfer-encoding": b"chunked"})
    piece = build_message(wire.Request(b"m2", 1, b"/up", {b"UPLOAD_STREAM": b"0"}, b"x" * 1_000))
    worker.gateway.frames(upload, piece)
    until(lambda: worker.link.open_count)
    worker.restart_gateway()
    worker.connect(2)
    # All that was granted may have been spent on pieces that are lost, while some are still to be read.
    until(lambda: b"7:credits,6:" in b"".join(worker.mongrel2.sent))
    gevent.sleep(0.5)
    assert b"cancel" not in b"".join(worker.mongrel2.sent)  # its handler has not asked for more
    gate.open.set()
    asked.wait()
    until(lambda: b"cancel" in b"".join(worker.mongrel2.sent))


def test_messages_that_went_down_with_the_gateway(
    worker: Attached, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(attached_server, "READ_S", 0.1)
    worker.connect()
    for conn_id in (1, 2, 3):
        worker.gateway.frames(worker.mongrel2.handshake(conn_id))
        message = wire.Request(b"m2", conn_id, b"/ws", {b"METHOD": b"WEBSOCKET", b"FLAGS": b"0x81"}, b"x" * 126)
        worker.gateway.frames(build_message(message))
    until(lambda: b"".join(worker.mongrel2.sent).count(b"x" * 126) == 3)
    worker.restart_gateway()
    worker.connect(2)
    head = b"GET  HTTP/1.1\r\nhost: h\r\nsec-websocket-version: 13\r\n\r\n"
    arrived = len(head) + 2 + 2 + 4 + 126
    # Of the second, one more is under way; of the third, it was lost.
    worker.gateway.say(attach.build_read(2, {1: arrived, 2: arrived + 6, 3: arrived + 6, 4: 1}))
    message = wire.Request(b"m2", 2, b"/ws", {b"METHOD": b"WEBSOCKET", b"FLAGS": b"0x81"}, b"")
    worker.gateway.frames(build_message(message))
    until(lambda: b"\x03\xf4" in b"".join(worker.mongrel2.sent))  # 1012
    gevent.sleep(0.1)
    closed = [one for one in worker.mongrel2.sent if b"\x03\xf4" in one]
    assert len(closed) == 1
    assert b" 1:3, " in closed[0]
    assert "lost with the former gateway count=1" in caplog.text


def test_a_silent_gateway_is_logged_once(
    worker: Attached, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2gate.worker.attached.BEAT_LATE_S", 0.05)
    worker.connect()
    gevent.sleep(0.1)  # time itself is what is tested
    for _ in range(3):
        worker.link.tick()
    assert caplog.text.count("gateway silent") == 1
    worker.gateway.say(attach.BEAT)
    worker.gateway.frames(worker.mongrel2.request(1))
    worker.gateway.done()
    worker.link.tick()
    assert caplog.text.count("gateway silent") == 1


# -- leaving -----------------------------------------------------------------------------------------------


def departure(worker: Attached, timeout_s: float = 5.0) -> Departure:
    return Departure(worker.link, worker.app, worker.pool, timeout_s, Event())


def test_a_stop_waits_for_what_is_open_and_for_the_last_word(worker: Attached, gate: Gate) -> None:
    worker.connect()
    m2 = worker.mongrel2
    worker.gateway.frames(m2.request(1, b"/wait"), m2.handshake(2))
    worker.sent(2, b"\r\n\r\n")
    stopping = gevent.spawn(departure(worker).stop)
    worker.gateway.receive(attach.BYE)
    worker.sent(2, b"the service is stopping")  # 1001
    worker.gateway.frames(m2.leave(2))
    assert worker.gateway.done()[1] == [(1, CONNECTION_CLOSED, 2, 1)]
    gate.open.set()
    worker.gateway.done()
    assert b"close" not in worker.sent(1, b"late").lower()  # the connection goes on, with somebody else
    assert not stopping.ready()
    worker.gateway.say(attach.END)
    stopping.get(timeout=5)


def test_a_hand_over_leaves_a_websocket_alone_until_the_timeout(worker: Attached) -> None:
    worker.connect()
    m2 = worker.mongrel2
    worker.gateway.frames(m2.handshake(2))
    worker.sent(2, b"\r\n\r\n")
    leaving = gevent.spawn(departure(worker, 0.3).hand_over, lambda: False)
    worker.gateway.receive(attach.BYE)
    assert worker.gateway.is_silent()
    assert b"stopping" not in m2.taken(2)
    worker.sent(2, b"the service is stopping")
    worker.gateway.frames(m2.leave(2))
    worker.gateway.done()
    worker.gateway.say(attach.END)
    leaving.get(timeout=5)


def test_a_stop_cuts_a_hand_over_short(worker: Attached) -> None:
    worker.connect()
    worker.gateway.frames(worker.mongrel2.handshake(2))
    worker.sent(2, b"\r\n\r\n")
    stop: list[bool] = []
    leaving = gevent.spawn(departure(worker, 60.0).hand_over, lambda: bool(stop))
    worker.gateway.receive(attach.BYE)
    stop.append(True)
    worker.sent(2, b"the service is stopping")
    worker.gateway.frames(worker.mongrel2.leave(2))
    worker.gateway.say(attach.END)
    leaving.get(timeout=5)


def test_without_a_gateway_a_stop_waits_only_for_what_is_open(worker: Attached, gate: Gate) -> None:
    worker.connect()
    worker.gateway.frames(worker.mongrel2.request(1, b"/wait"))
    until(lambda: worker.link.open_count)
    worker.gateway.close()
    until(lambda: not worker.link.is_attached)
    stopping = gevent.spawn(departure(worker).stop)
    gevent.sleep(0.05)
    assert not stopping.ready()
    gate.open.set()
    stopping.get(timeout=5)


def test_a_leaving_worker_says_so_to_the_next_gateway(worker: Attached) -> None:
    worker.connect()
    worker.link.say_bye()
    worker.link.say_bye()
    worker.gateway.receive(attach.BYE)
    assert worker.gateway.is_silent()
    worker.restart_gateway()
    assert worker.introduction().is_leaving


# -- the heart ---------------------------------------------------------------------------------------------


def test_the_heart_beats_while_the_thread_computes(tmp_path: Path) -> None:
    table = MarkTable.create(tmp_path, "w")
    heart = Heart(table)
    block_thread(BEAT_S * 1.5)
    assert table.beat_age_s < BEAT_S
    heart.stop()
    block_thread(BEAT_S * 1.2)
    assert table.beat_age_s > BEAT_S
    table.close()
