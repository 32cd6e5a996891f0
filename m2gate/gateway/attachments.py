"""The socket that workers attach to: what they say, in its order, and whether they live."""

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from time import monotonic
from typing import Final, Protocol

import gevent
import zmq
from gevent import get_hub

from m2gate.errors import WireError
from m2gate.gateway.deaths import bury
from m2gate.gateway.dispatch import Dispatcher
from m2gate.gateway.linked import LinkedServer
from m2gate.gateway.sessions import Session, unbind
from m2gate.gateway.workers import HUNG_S, AttachedWorker, Lifeline, WorkerPools
from m2gate.hub.holding import HoldRequest, load_hold
from m2gate.link.marks import MarkTable
from m2gate.link.wait import READ, has_message
from m2gate.wire import attach as wire

logger = logging.getLogger(__name__)

WORKERS_MAX: Final = 256
MESSAGES_MAX: Final = 100_000  # unread by one worker; then it is taken for hung and killed
MESSAGE_BYTES_MAX: Final = 256 << 20
TURN_MESSAGES: Final = 256  # read before others get their turn
END_S: Final = 0.5  # between the end of a worker's socket and that of its process
LOG_EVERY_S: Final = 1.0
LAST_WORDS_S: Final = 0.02  # what a worker said before its end is read within this
_NOBLOCK: Final = int(zmq.NOBLOCK)
_FIRST: Final = int(zmq.SNDMORE | zmq.NOBLOCK)
_MORE: Final = int(zmq.RCVMORE)


class Hub(Protocol):
    """The gateway's channels and holds, as the workers' messages reach them."""

    def handle(self, worker: AttachedWorker, message: bytes) -> None:
        """Take a message about channels. Raises WireError."""

    def attached(self, worker: AttachedWorker, members: Iterable[tuple[str, str, int]]) -> None:
        """Take over the members that a worker already has."""

    def worker_gone(self, worker: AttachedWorker) -> None:
        """Forget the members of a worker."""

    def hold(self, session: Session, request: HoldRequest) -> None:
        """Take over the connection of a session."""


class Attachments:
    """The ROUTER socket ``workers`` in the gateway's folder, and the workers behind it.

    Bounds: WORKERS_MAX workers, more are turned away; MESSAGES_MAX messages that one has not read,
    then it is killed like one that is hung.
    ``on_connected`` hears of each server that a worker's answers reach from now on.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        folder: Path,
        dispatcher: Dispatcher,
        pools: WorkerPools,
        hub: Hub,
    ) -> None:
        self._folder = folder
        self._dispatcher = dispatcher
        self._pools = pools
        self._workers: dict[bytes, AttachedWorker] = {}
        self._hub = hub
        self.on_connected: Callable[[LinkedServer], None] | None = None
        self._lifelines: dict[AttachedWorker, Lifeline] = {}
        self._is_complete = True
        self._unclaimed: dict[AttachedWorker, list[wire.Claim]] = {}  # of workers that know no servers yet
        self._claims: dict[AttachedWorker, dict[int, list[wire.Claim]]] = {}  # by the server's number
        self._dirty: list[AttachedWorker] = []
        self._is_in_turn = False
        self._is_look_due = False
        self._rejection_logged_s = 0.0
        self._socket = context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.router_mandatory = True
        self._socket.sndhwm = MESSAGES_MAX
        self._socket.rcvhwm = MESSAGES_MAX
        self._socket.maxmsgsize = MESSAGE_BYTES_MAX
        # The sugar of pyzmq takes longer than what it does.
        self._send_part = super(zmq.Socket, self._socket).send
        self._receive_part = super(zmq.Socket, self._socket).recv
        self._option = super(zmq.Socket, self._socket).get
        self._watcher: object = None
        self._kinds: dict[bytes, Callable[[AttachedWorker, bytes], None]] = {
            wire.DONE: self._done,
            wire.CONNECTED: self._connected,
            wire.HOLD: self._hold,
            wire.BYE: self._bye,
            **dict.fromkeys((wire.JOIN, wire.LEAVE, wire.FEED, wire.PUBLISH, wire.POLICY, wire.CROWDED), hub.handle),
        }

    @property
    def workers(self) -> list[AttachedWorker]:
        """All that are attached."""
        return list(self._workers.values())

    def start(self) -> None:
        """Bind the socket and listen. Raises zmq.ZMQError."""
        path = self._folder / "workers"
        self._socket.bind(f"ipc://{path}")
        path.chmod(0o660)
        self._watcher = watcher = get_hub().loop.io(self._socket.fileno(), READ)
        watcher.start(self.drain)

    def close(self) -> None:
        """Close the socket; workers that are left find out by themselves."""
        if self._watcher is not None:
            self._watcher.stop()  # type: ignore[attr-defined]
            self._watcher.close()  # type: ignore[attr-defined]
            self._watcher = None
        for lifeline in self._lifelines.values():
            lifeline.close()
        self._socket.close(linger=0)
        (self._folder / "workers").unlink(missing_ok=True)

    # -- what is said to workers ---------------------------------------------------------------------

    def send(self, identity: bytes, message: bytes) -> None:
        """Send one message; a worker that does not read any more is killed.

        One whose socket is gone has ended, or will within END_S; else it is killed likewise.
        """
        try:
            self._send_part(identity, _FIRST)
            self._send_part(message, _NOBLOCK)
        except zmq.ZMQError as error:
            worker = self._workers.get(identity)
            # One that has had the last word closes its socket, and ends a moment later.
            if worker is None or worker.is_lost or worker.is_ended or worker.is_unreachable:
                return
            worker.is_unreachable = error.errno == zmq.EHOSTUNREACH
            if worker.is_unreachable:
                gevent.spawn_later(END_S, self._kill, worker)
            else:
                logger.warning("worker does not read name=%s pid=%d", worker.name, worker.pid)
                self._kill(worker)
        # The socket's FD tells of commands: after a send it may stay silent about what is there.
        if not self._is_look_due:
            self._is_look_due = True
            if not self._is_in_turn:
                get_hub().loop.run_callback(self._look)

    def _look(self) -> None:
        """Read what came without an event."""
        if self._is_look_due and not self._socket.closed:
            self._is_look_due = False
            if has_message(self._socket):
                self.drain()

    def _on_batch(self, worker: AttachedWorker) -> None:
        self._dirty.append(worker)

    def flush(self) -> None:
        """Send the frames that were forwarded in this turn."""
        if self._dirty and not self._is_in_turn:
            self._is_in_turn = True
            try:
                self._flush_dirty()
            finally:
                self._is_in_turn = False
            self._look()  # now, as another turn of the loop would cost 5 us

    def _flush_dirty(self) -> None:
        dirty, self._dirty = self._dirty, []
        for worker in dirty:
            worker.flush()

    def await_servers(self) -> None:
        """Tell no worker of servers before complete(): what the first list lacks, a worker takes for gone."""
        self._is_complete = False

    def complete(self) -> None:
        """Tell the workers what there is: all servers are linked, or nobody waits for them any more."""
        self._is_complete = True
        self.tell_servers()

    def tell_servers(self) -> None:
        """Tell all workers which servers there are now."""
        if not self._is_complete:
            return
        message = self._servers()
        for worker in self.workers:
            worker.connected &= self._dispatcher.servers.keys()
            self._tell(worker, message)
        self.flush()

    def _tell(self, worker: AttachedWorker, message: bytes) -> None:
        """Send the list of servers. With the first one its claims come to count: those of other servers are void."""
        unclaimed = self._unclaimed.pop(worker, None)
        if unclaimed is not None:
            self._claims[worker] = {
                server.number: [one for one in unclaimed if one.send_ident == server.send_ident]
                for server in self._dispatcher.servers.values()
            }
        worker.send(message)

    def _servers(self) -> bytes:
        return wire.build_servers([one.note() for one in self._dispatcher.servers.values()])

    def end_all(self) -> None:
        """Tell the workers that are leaving and have nothing open that nothing more will come."""
        for worker in self.workers:
            if worker.is_leaving:
                self._let_go(worker)

    # -- what workers say -----------------------------------------------------------------------------

    def drain(self) -> None:
        """Read what workers have said, and send what follows from it."""
        self._is_in_turn, self._is_look_due = True, False
        self._dispatcher.now_s = monotonic()
        try:
            self._read()
            self._dispatcher.serve_queue()
            self._flush_dirty()
        finally:
            self._is_in_turn = False
        if self._is_look_due:
            get_hub().loop.run_callback(self._look)

    def _read(self) -> None:
        for _ in range(TURN_MESSAGES):
            if not has_message(self._socket):
                return
            identity, message = self._receive_part(_NOBLOCK), self._receive_part(_NOBLOCK)
            if not self._option(_MORE):
                self._take(identity, message)
                continue
            while self._option(_MORE):
                self._receive_part(_NOBLOCK)
        get_hub().loop.run_callback(self.drain)

    def _take(self, identity: bytes, message: bytes) -> None:
        worker = self._workers.get(identity)
        kind = message[:1]
        try:
            if worker is None:
                if kind == wire.ATTACH:
                    self._attach(identity, wire.parse_attach(message))
                return
            handle = self._kinds.get(kind)
            if handle is None:
                raise WireError("a worker sends one of the messages of the protocol", 0, message)
            handle(worker, message)
        except WireError as error:
            self._reject(identity, kind, error)

    def _reject(self, identity: bytes, kind: bytes, error: WireError) -> None:
        """Count a message that breaks a rule, and log it, once a second at most."""
        dispatcher = self._dispatcher
        dispatcher.counters.rejected += 1
        if dispatcher.now_s - self._rejection_logged_s >= LOG_EVERY_S:
            self._rejection_logged_s = dispatcher.now_s
            count = dispatcher.counters.rejected
            line = "worker's message rejected identity=%r kind=%r rule=%s rejected=%d"
            logger.warning(line, identity, kind, error.rule, count)

    def _attach(self, identity: bytes, attach: wire.Attach) -> None:
        if len(identity) > wire.IDENTITY_MAX or len(self._workers) >= WORKERS_MAX:
            logger.warning("worker turned away pid=%d attached=%d", attach.pid, len(self._workers))
            return
        try:
            table = MarkTable.open(self._folder, attach.table)
        except (OSError, ValueError) as error:
            logger.warning("worker turned away pid=%d table=%r error=%s", attach.pid, attach.table, error)
            return
        worker = AttachedWorker(identity, attach, table, self.send, monotonic())
        worker.on_batch = self._on_batch
        try:
            lifeline = Lifeline(attach.pid, lambda: self._process_ended(worker))
        except OSError as error:
            logger.warning("worker turned away pid=%d error=%s", attach.pid, error)
            table.close()
            return
        self._workers[identity] = self._pools.get(worker.handler).workers[identity] = worker
        self._lifelines[worker] = lifeline
        self._unclaimed[worker] = attach.claims
        self._hub.attached(worker, attach.members)
        if self._is_complete:
            self._tell(worker, self._servers())
        logger.info("worker attached name=%s pid=%d generation=%d", worker.name, worker.pid, worker.generation)

    def _connected(self, worker: AttachedWorker, message: bytes) -> None:
        number = wire.parse_connected(message)
        server = self._dispatcher.servers.get(number)
        if server is None:
            return  # it is gone already, and the worker is being told
        worker.connected.add(number)
        for claim in self._claims.get(worker, {}).pop(number, ()):
            self._claim(worker, server, claim)
        if self.on_connected is not None:
            self.on_connected(server)
        if worker.is_leaving:
            self._let_go(worker)

    def _claim(self, worker: AttachedWorker, server: LinkedServer, claim: wire.Claim) -> None:
        if claim.conn_id in server.sessions:
            return
        session = server.sessions[claim.conn_id] = Session(server, claim.conn_id, self._dispatcher.now_s)
        session.is_websocket = claim.is_websocket
        session.owner = worker
        worker.sessions.add(session)
        session.open.append((claim.number, b"", self._dispatcher.now_s))
        worker.outstanding += 1
        self._dispatcher.counters.started += 1
        self._dispatcher.counters.claimed += 1

    def _done(self, worker: AttachedWorker, message: bytes) -> None:
        seen, records = wire.parse_done(message)
        worker.seen(seen)
        ended = self._dispatcher.ended
        for number, what, conn_id, sent in records:
            ended(worker, number, conn_id, what, sent)
        if worker.is_leaving:
            self._let_go(worker)

    def _hold(self, worker: AttachedWorker, message: bytes) -> None:
        number, conn_id, request = load_hold(message[1:])
        server = self._dispatcher.servers.get(number)
        session = server.sessions.get(conn_id) if server is not None else None
        if session is not None and session.owner is worker and session.open:
            self._dispatcher.hold(worker, session)
            self._hub.hold(session, request)
        if worker.is_leaving:
            self._let_go(worker)

    # -- workers that go --------------------------------------------------------------------------------

    def _bye(self, worker: AttachedWorker, _message: bytes) -> None:
        worker.is_leaving = True
        self._let_go(worker)

    def _let_go(self, worker: AttachedWorker) -> None:
        """Take from a leaving worker what is idle there; once nothing is open, it may end."""
        if self._pools.use_leaving and not self._dispatcher.is_refusing:
            return
        for session in [one for one in worker.sessions if not one.open]:
            unbind(session, worker)
        if not worker.sessions:
            worker.end()

    def _kill(self, worker: AttachedWorker) -> None:
        lifeline = self._lifelines.get(worker)
        if lifeline is None or lifeline.is_ended or worker.is_killed:
            return
        worker.is_killed = True
        self._dispatcher.counters.deaths["hung"] += 1
        if not lifeline.kill():
            logger.error("worker may not be killed name=%s pid=%d; its clients are closed", worker.name, worker.pid)
            self._remove(worker, is_certain=False)

    def _process_ended(self, worker: AttachedWorker) -> None:
        timer = get_hub().loop.timer(LAST_WORDS_S)
        timer.start(self._remove_after_last_words, worker, timer)

    def _remove_after_last_words(self, worker: AttachedWorker, timer: object) -> None:
        timer.close()  # type: ignore[attr-defined]
        self.drain()
        self._remove(worker, is_certain=True)

    def _remove(self, worker: AttachedWorker, *, is_certain: bool) -> None:
        if self._workers.pop(worker.identity, None) is None:
            return
        self._pools.get(worker.handler).workers.pop(worker.identity, None)
        self._dispatcher.now_s = monotonic()
        self._lifelines.pop(worker).close()
        self._unclaimed.pop(worker, None)
        self._claims.pop(worker, None)
        if worker.sessions or not worker.is_ended:
            bury(self._dispatcher, worker, is_certain=is_certain)
            if not worker.is_killed:
                self._dispatcher.counters.deaths["exit"] += 1
        worker.is_lost = True
        self._hub.worker_gone(worker)
        worker.table.close()
        worker.table.path.unlink(missing_ok=True)
        self._dispatcher.serve_queue()
        self.flush()

    def tick(self) -> None:
        """Look for workers whose heart has stopped; twice a second or so."""
        for worker in self.workers:
            if not worker.is_killed and worker.table.beat_age_s > HUNG_S:
                logger.warning("worker hung name=%s pid=%d; killing it", worker.name, worker.pid)
                self._kill(worker)

    def beat(self) -> None:
        """Tell all workers that the gateway lives; once a second."""
        for worker in self.workers:
            worker.send(wire.BEAT)
        self.flush()


def expected_pids(folder: Path) -> set[int]:
    """Return the living processes whose mark tables a former gateway has left, and remove those of dead ones."""
    found = set()
    for path in folder.glob("*.table"):
        try:
            table = MarkTable.open(folder, path.name)
        except (OSError, ValueError):
            continue
        pid = table.pid
        table.close()
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
        except PermissionError:
            found.add(pid)
        else:
            found.add(pid)
    return found
