"""The socket of the workers, with real ZeroMQ and real processes: who is taken, heard, and noticed when it ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic

import gevent
import pytest
import zmq

from m2gate.gateway import attachments
from m2gate.gateway.attachments import Attachments, expected_pids
from m2gate.gateway.sessions import Session
from m2gate.gateway.workers import AttachedWorker
from m2gate.hub.form import StreamForm
from m2gate.hub.holding import HoldLog, HoldRequest, dump_hold
from m2gate.link.marks import SLOT_MASK, MarkTable
from m2gate.wire import attach as wire
from tests.gateway.fakes import Gate, first, reply, request


class Hub:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.members: list[tuple[str, str, int]] = []
        self.gone: list[str] = []
        self.held: list[tuple[int, HoldRequest]] = []

    def handle(self, worker: AttachedWorker, message: bytes) -> None:
        self.messages.append(message)
        worker.send(wire.build_receipt(wire.parse_numbered(message)[0]))

    def attached(self, worker: AttachedWorker, members: Iterable[tuple[str, str, int]]) -> None:
        self.members += members

    def worker_gone(self, worker: AttachedWorker) -> None:
        self.gone.append(worker.name)

    def hold(self, session: Session, request: HoldRequest) -> None:
        self.held.append((session.conn_id, request))


class Site:
    """Attachments on a real socket, and processes that play workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.gate = Gate(folder, workers=0)
        self.hub = Hub()
        self.attachments = Attachments(self.context, folder, self.gate.dispatcher, self.gate.pools, self.hub)
        self.attachments.start()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.tables: list[MarkTable] = []
        self.sockets: list[zmq.Socket[bytes]] = []

    def process(self) -> int:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self.processes.append(child)
        return child.pid

    def dealer(self, identity: bytes = b"") -> "zmq.Socket[bytes]":
        socket = self.context.socket(zmq.DEALER)
        self.sockets.append(socket)
        if identity:
            socket.routing_id = identity
        socket.connect(f"ipc://{self.folder}/workers")
        return socket

    def worker(self, name: str = "w1", pid: int = 0, **fields: object) -> "zmq.Socket[bytes]":
        table = MarkTable.create(self.folder, f"{name}.1")
        self.tables.append(table)
        socket = self.dealer(name.encode())
        values = {"capacity": 10, "base": 0, "is_leaving": False, "claims": [], "members": [], **fields}
        attach = wire.Attach(name=name, pid=pid or self.process(), generation=1, table=table.path.name, **values)  # type: ignore[arg-type]
        socket.send(wire.build_attach(attach))
        return socket

    def take(self, *frames: bytes) -> None:
        for one in frames:
            self.gate.dispatcher.take(self.gate.server, one)
        self.attachments.flush()

    def close(self) -> None:
        self.attachments.close()
        for socket in self.sockets:
            socket.close(linger=0)
        for child in self.processes:
            child.kill()
            child.communicate()
        self.context.destroy(linger=0)


@pytest.fixture
def site() -> Iterator[Site]:
    folder = Path(f"/tmp/m2t-{os.getpid()}")
    folder.mkdir()
    one = Site(folder)
    yield one
    one.close()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def until(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    deadline_s = monotonic() + timeout_s
    while not condition():
        assert monotonic() < deadline_s
        gevent.sleep(0.005)


def receive(socket: "zmq.Socket[bytes]") -> bytes:
    got: list[bytes] = []

    def arrived() -> bool:
        try:
            got.append(socket.recv(zmq.NOBLOCK))
        except zmq.Again:
            return False
        return True

    until(arrived)
    return got[0]


def ready(site: Site, socket: "zmq.Socket[bytes]") -> AttachedWorker:
    assert wire.parse_servers(receive(socket)) == [site.gate.server.note()]
    socket.send(wire.build_connected(1))
    until(lambda: all(one.connected for one in site.attachments.workers))
    return site.attachments.workers[-1]


def test_a_worker_attaches_gets_requests_and_reports_them(site: Site) -> None:
    socket = site.worker()
    worker = ready(site, socket)
    site.take(first(1), first(2))
    assert wire.split_frames(receive(socket)) == [first(1), first(2)]
    records = [wire.RECORD.pack(1, wire.EXCHANGE_DONE, conn_id, 0) for conn_id in (1, 2)]
    socket.send(wire.build_done(2, records))
    until(lambda: worker.served == 2)
    assert (worker.outstanding, worker.in_flight) == (0, 0)


def test_its_end_is_noticed_at_once(site: Site) -> None:
    socket = site.worker()
    worker = ready(site, socket)
    site.take(first(1), first(2))
    site.tables[0].slots[1 & SLOT_MASK] = 1
    site.processes[0].kill()
    until(lambda: not site.attachments.workers, 1)
    closed, refused = sorted(site.gate.sent)
    assert closed == reply(1, b"")
    assert refused.startswith(b"m2 1:2, HTTP/1.1 502 ")
    assert site.hub.gone == ["w1"]
    assert worker.state == "lost"
    assert site.gate.dispatcher.counters.deaths == {"exit": 1}
    assert not list(site.folder.glob("*.table"))


def test_a_worker_whose_heart_stops_is_killed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    socket = site.worker()
    ready(site, socket)
    site.take(first(1))
    site.attachments.tick()
    assert site.attachments.workers
    monkeypatch.setattr(attachments, "HUNG_S", -1.0)
    site.attachments.tick()
    until(lambda: not site.attachments.workers)
    assert site.processes[0].wait(5) == -signal.SIGKILL
    assert site.gate.sent[0].startswith(b"m2 1:1, HTTP/1.1 502 ")
    assert site.gate.dispatcher.counters.deaths == {"hung": 1}


def test_a_worker_that_reads_nothing_is_killed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.attachments.close()
    monkeypatch.setattr(attachments, "MESSAGES_MAX", 1)
    site.attachments = Attachments(site.context, site.folder, site.gate.dispatcher, site.gate.pools, site.hub)
    site.attachments.start()
    socket = site.worker()
    worker = ready(site, socket)
    deadline_s = monotonic() + 10
    while site.attachments.workers and monotonic() < deadline_s:
        worker.send(b"?" * 100_000)
        gevent.sleep(0)
    until(lambda: not site.attachments.workers)
    assert site.processes[0].wait(5) == -signal.SIGKILL


def test_who_says_bye_keeps_what_is_open_and_may_then_end(site: Site) -> None:
    old, new = site.worker("w1"), site.worker("w2")
    until(lambda: len(site.attachments.workers) == 2)
    for socket in (old, new):
        assert receive(socket)[:1] == wire.SERVERS
        socket.send(wire.build_connected(1))
    until(lambda: all(one.connected for one in site.attachments.workers))
    site.take(first(1))
    name = site.gate.owner(1).name
    leaving, staying = (old, new) if name == "w1" else (new, old)
    assert wire.split_frames(receive(leaving)) == [first(1)]
    leaving.send(wire.BYE)
    until(lambda: any(one.is_leaving for one in site.attachments.workers))
    site.take(first(2))
    assert wire.split_frames(receive(staying)) == [first(2)]
    leaving.send(wire.build_done(1, [wire.RECORD.pack(1, wire.EXCHANGE_DONE, 1, 0)]))
    assert wire.parse_release(receive(leaving)) == (1, [1])
    assert receive(leaving) == wire.END
    site.take(request(1, b"/again"))
    assert wire.split_frames(receive(staying)) == [request(1, b"/again")]


def test_a_clean_end_is_no_death(site: Site) -> None:
    socket = site.worker()
    ready(site, socket)
    socket.send(wire.BYE)
    assert receive(socket) == wire.END
    site.processes[0].kill()
    until(lambda: not site.attachments.workers)
    assert not site.gate.dispatcher.counters.deaths


def test_what_a_worker_had_open_before_is_claimed(site: Site) -> None:
    claims = [wire.Claim(b"m2", 7, 5, True, True), wire.Claim(b"other", 8, 6, False, False)]
    socket = site.worker(base=9, claims=claims)
    worker = ready(site, socket)
    assert site.gate.owner(7) is worker
    assert worker.outstanding == 1
    assert site.gate.dispatcher.counters.claimed == 1
    assert worker.forward(b"x") == 10
    site.gate.assert_counted()


def test_workers_hear_of_servers_when_all_are_linked(site: Site) -> None:
    site.attachments.await_servers()
    del site.gate.dispatcher.servers[1]
    socket = site.worker(base=9, claims=[wire.Claim(b"m2", 7, 5, True, True)])
    until(lambda: site.attachments.workers)
    site.attachments.tell_servers()
    gevent.sleep(0.05)
    assert socket.poll(0) == 0
    site.gate.dispatcher.add(site.gate.server)
    site.attachments.complete()
    worker = ready(site, socket)
    assert site.gate.owner(7) is worker


def test_claims_at_a_server_that_comes_later_are_void(site: Site) -> None:
    del site.gate.dispatcher.servers[1]
    socket = site.worker(claims=[wire.Claim(b"m2", 7, 5, True, True)])
    assert wire.parse_servers(receive(socket)) == []
    site.gate.dispatcher.add(site.gate.server)
    site.attachments.tell_servers()
    ready(site, socket)
    assert site.gate.server.sessions == {}


def test_a_hold_takes_the_session_from_the_worker(site: Site) -> None:
    socket = site.worker()
    worker = ready(site, socket)
    site.take(first(1))
    log = HoldLog(request_id="r", method="GET", path="/", client="-", started_us=0)
    hold = HoldRequest(channels=("c",), form=StreamForm(chunked=True, events=False), status=200, begin=b"x", log=log)
    socket.send(wire.HOLD + dump_hold(1, 1, hold))
    until(lambda: site.hub.held)
    assert site.hub.held == [(1, hold)]
    assert (worker.outstanding, worker.served) == (0, 1)
    assert site.gate.session(1).owner is None


def test_messages_about_channels_go_to_the_hub(site: Site) -> None:
    socket = site.worker(members=[("c", "websocket", 2)])
    ready(site, socket)
    socket.send(wire.build_numbered(wire.JOIN, 5, b"x"))
    assert wire.parse_receipt(receive(socket)) == (5, (0, 0, 0, 0, 0))
    assert site.hub.members == [("c", "websocket", 2)]


def test_junk_is_counted_and_costs_nothing_else(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    socket = site.worker()
    worker = ready(site, socket)
    junk = [b"", b"?", wire.DONE, wire.DONE + b"12345678x", wire.HOLD + b"1:x,", wire.CONNECTED + b"abc", wire.JOIN]
    for one in junk:
        socket.send(one)
    stranger = site.dealer()
    for one in (b"", wire.BYE, wire.ATTACH + b"junk"):
        stranger.send(one)
    until(lambda: site.gate.dispatcher.counters.rejected == len(junk) + 1)
    assert site.attachments.workers == [worker]
    assert sum("message rejected" in one for one in caplog.messages) == 1  # and not a line for each


@pytest.mark.parametrize("table", ["../w1.table", "nothing.table", "w1", ""])
def test_a_worker_without_a_table_is_turned_away(site: Site, table: str) -> None:
    socket = site.dealer()
    attach = wire.Attach("w1", os.getpid(), 1, table, 10, 0, False, [], [])
    socket.send(wire.build_attach(attach))
    good = site.worker("w2")
    ready(site, good)
    assert [one.name for one in site.attachments.workers] == ["w2"]


def test_at_the_bound_workers_are_turned_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachments, "WORKERS_MAX", 1)
    ready(site, site.worker("w1"))
    site.worker("w2")
    gevent.sleep(0.1)
    assert [one.name for one in site.attachments.workers] == ["w1"]


def test_tables_tell_a_new_gateway_whom_to_expect(site: Site) -> None:
    site.tables.append(MarkTable.create(site.folder, "me"))
    dead = site.process()
    site.processes[-1].kill()
    site.processes[-1].wait()
    table = MarkTable.create(site.folder, "dead")
    table._memory[:8] = dead.to_bytes(8, "little")
    assert expected_pids(site.folder) == {os.getpid()}
    assert [path.name for path in site.folder.glob("*.table")] == ["me.table"]


def test_what_came_before_a_send_is_read(site: Site) -> None:
    """A send takes the event of the socket's FD with it, whoever sends: a beat, or a receipt that had to wait."""
    socket = site.worker()
    worker = ready(site, socket)
    for number in range(1, 4):
        message = wire.build_numbered(wire.PUBLISH, number, b"")
        socket.send(message)
        time.sleep(0.05)  # the loop must not see it, and nothing tells when ZeroMQ's thread has brought it
        worker.send(wire.BEAT)
        until(partial(site.hub.messages.count, message))
