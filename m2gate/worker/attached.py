"""A worker's link to its gateway, renewed for as long as the worker lives.

The gateway may die and come back: meanwhile the worker goes on with what it has, as its answers
reach Mongrel2 by sockets of its own. Source: docs/reference/attach-protocol.md.
"""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import gevent
import zmq
from gevent.event import Event

from m2gate.errors import ConfigError, WireError
from m2gate.hub.item import load_item
from m2gate.link.attached_broadcast import AttachedBroadcast
from m2gate.link.clock import Clock
from m2gate.link.dialogue import Dialogue
from m2gate.link.journal import Journal
from m2gate.link.marks import MarkTable
from m2gate.link.monitor import CONNECTED, LOST, Monitor
from m2gate.link.server import LinkSettings, Server
from m2gate.link.sockets import RETRY_S
from m2gate.link.tally import Tally
from m2gate.link.wait import has_message
from m2gate.wire import attach as wire
from m2gate.worker.attached_server import AttachedServer, Shared
from m2gate.worker.gateway_source import Frames, Outboxes, gateway_source
from m2gate.worker.heart import Heart
from m2gate.worker.pool import Pool, Source

logger = logging.getLogger(__name__)

# A socket serves one gateway. Not -1: then libzmq would drop what was received and not read yet.
NEVER_MS: Final = 86_400_000
HANDSHAKE_S: Final = 1.0
DRAIN_S: Final = 2.0  # for what a lost gateway had sent before
BEAT_LATE_S: Final = 5.0
LAST_WORDS_MS: Final = 1_000
TABLES_MAX: Final = 100  # names that are tried for the mark table


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedSettings:
    """How a worker introduces itself.

    folder:   the gateway's.
    name:     its stable label, such as ``w1``.
    capacity: exchanges that it takes at once.
    handler:  the handler section whose requests it serves, "" for a gateway without sites.
    """

    folder: Path
    name: str
    generation: int
    capacity: int
    handler: str = ""


class AttachLink:
    """Keeps a worker attached to whatever gateway is at home in a folder.

    ``ready``     set once the answers reach all servers that the gateway has named.
    ``may_serve`` to be set once the App has started; frames come only after that.
    ``ended``     set when the gateway has said that nothing more will come.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        settings: AttachedSettings,
        pool: Pool,
        link: LinkSettings,
        *,
        clock: Clock,
        tally: Tally,
    ) -> None:
        self.ready = Event()
        self.may_serve = Event()
        self.ended = False
        self.is_leaving = False
        self.broadcast: AttachedBroadcast
        self._context = context
        self._settings = settings
        self._pool = pool
        self._clock = clock
        self._dialogue = Dialogue()
        self.broadcast = AttachedBroadcast(self._dialogue)
        self._frames = Frames(self._take, self._dialogue.say)
        self._outboxes = Outboxes()
        self._shared = Shared(
            context=context, run=pool.run, settings=link, clock=clock, tally=tally, may_serve=self.may_serve
        )
        self._servers: list[AttachedServer] = []
        self._source: Source | None = None
        self._send: Callable[[bytes], None] | None = None
        self._lives = 0
        self._beat_s = 0.0
        self._is_late = False
        self._stopping = Event()
        self._lost = Event()
        self._connected = Event()
        self._table, self._identity = _make_table(settings)
        self._heart = Heart(self._table)
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self._kinds: dict[bytes, Callable[[bytes], None]] = {
            wire.SERVERS: self._take_servers,
            wire.RELEASE: self._release,
            wire.READ: self._read,
            wire.RECEIPT: self._dialogue.answered,
            wire.REFUSAL: self._dialogue.answered,
            wire.ITEM: self._item,
            wire.BEAT: self._beat,
            wire.END: self._end,
        }

    @property
    def servers(self) -> list[Server]:
        """Those that answers reach now."""
        return [one.server for one in self._servers if one.server is not None]

    @property
    def is_attached(self) -> bool:
        """True while there is a gateway."""
        return self._dialogue.is_open

    @property
    def open_count(self) -> int:
        """Connections on which an exchange is open."""
        return sum(one.current is not None for server in self.servers for one in server.connections.values())

    def start(self) -> None:
        """Attach, and attach again whenever a gateway comes back."""
        self._greenlet = gevent.spawn(self._run)

    # -- one gateway after the other ------------------------------------------------------------------

    def _run(self) -> None:
        is_said = False
        while not self._stopping.is_set():
            socket = self._context.socket(zmq.DEALER)
            monitor = self._open(socket)
            if self._connected.wait(HANDSHAKE_S) and not self._lost.is_set():
                is_said = False
                self._attach(socket)
            elif not is_said and not self._stopping.is_set():
                is_said = True
                logger.warning("gateway not there folder=%s", self._settings.folder)
            monitor.close()
            socket.close(linger=LAST_WORDS_MS if self._stopping.is_set() else 0)
            if not self._stopping.is_set():
                gevent.sleep(RETRY_S)

    def _open(self, socket: "zmq.Socket[bytes]") -> Monitor:
        self._lost.clear()
        self._connected.clear()
        socket.identity = self._identity.encode()
        socket.reconnect_ivl = NEVER_MS
        socket.sndhwm = socket.rcvhwm = 0  # the gateway has a bound, and kills a worker that does not read
        monitor = Monitor(socket, self._happened)
        socket.connect(f"ipc://{self._settings.folder}/workers")
        return monitor

    def _happened(self, event: int) -> None:
        if event & LOST:
            self._lost.set()
            self._connected.set()
        elif event & CONNECTED:
            self._connected.set()

    def _attach(self, socket: "zmq.Socket[bytes]") -> None:
        """Serve one gateway until it is lost. Blocks the greenlet."""
        source = self._source = gateway_source(socket, self._frames, self._outboxes)
        self._frames.listen(socket)
        send = super(zmq.Socket, socket).send
        self._send = lambda message: self._send_by(send, socket, source, message)
        self._beat_s, self._is_late = time.monotonic(), False
        self._lives += 1
        for server in self._servers:
            server.journal.begin()
        self._frames.forget()
        self._send(wire.build_attach(self._introduction()))
        self._pool.attach(source)
        self._lost.wait()
        self._detach(source)

    def _send_by(
        self, send: Callable[..., object], socket: "zmq.Socket[bytes]", source: Source, message: bytes
    ) -> None:
        try:
            send(message, zmq.NOBLOCK)
        except zmq.Again:
            return  # the gateway is gone, and the monitor is about to say so
        # The FD tells of commands: after a send it may stay silent about what is there.
        if has_message(socket):
            self._pool.look(source)

    def _introduction(self) -> wire.Attach:
        settings = self._settings
        return wire.Attach(
            name=settings.name,
            pid=os.getpid(),
            generation=settings.generation,
            table=self._table.path.name,
            capacity=settings.capacity,
            base=self._frames.seen,
            is_leaving=self.is_leaving,
            claims=[claim for server in self._servers for claim in server.claims()],
            members=self.broadcast.members(),
            handler=settings.handler,
        )

    def _detach(self, source: Source) -> None:
        deadline_s = time.monotonic() + DRAIN_S
        if not self._stopping.is_set():
            # What the gateway has sent to us before its end is ours alone.
            while time.monotonic() < deadline_s:
                self._pool.look(source)
                gevent.sleep(0)
                if not source.is_ready:
                    break
            logger.warning("gateway lost open=%d", self.open_count)
        self._send = None
        self._dialogue.close()
        for server in self._servers:
            server.journal.begin()
        self._pool.detach(source)
        self._source = None

    # -- what the gateway says --------------------------------------------------------------------------

    def _take(self, message: bytes) -> None:
        handle = self._kinds.get(message[:1])
        if handle is None:
            logger.warning("gateway's message rejected kind=%r", message[:1])
            return
        try:
            handle(message)
        except WireError as error:
            logger.warning("gateway's message rejected kind=%r rule=%s", message[:1], error.rule)

    def _take_servers(self, message: bytes) -> None:
        notes = {note.number: note for note in wire.parse_servers(message)}
        is_new = not self._dialogue.is_open
        if is_new:
            self._know_again(notes)
        for one in [one for one in self._servers if one.note.number not in notes]:
            self._servers.remove(one)
            one.stop()
        known = {one.note.number for one in self._servers}
        for number, note in notes.items():
            if number not in known:
                journal = Journal(self._table.slots, self._frames.report)
                self._servers.append(AttachedServer(note, journal, self._shared, self._changed))
        if is_new and self._send is not None:
            self._dialogue.open(self._send)
            self.broadcast.attached()
            for one in self._servers:
                self._announce(one)
                one.resync()
        self._look_ready()

    def _know_again(self, notes: dict[int, wire.ServerNote]) -> None:
        """Give the servers that we are connected to the numbers of a new gateway."""
        for one in list(self._servers):
            found = next((note for note in notes.values() if one.is_same(note)), None)
            if found is not None:
                one.note = found
            else:
                self._servers.remove(one)
                one.stop()

    def _changed(self, one: AttachedServer) -> None:
        """Hear that answers reach a server, or do not any more."""
        servers = self._frames.servers
        if one.server is not None and one.outbox is not None:
            servers[one.note.send_ident] = one.server
            self._outboxes.add(one.outbox)
            self._announce(one)
            self._look_ready()
        else:
            found = servers.get(one.note.send_ident)
            if found is not None and found.is_closed:
                del servers[one.note.send_ident]
            if one.outbox is not None:
                self._outboxes.remove(one.outbox)
                one.outbox = None

    def _announce(self, one: AttachedServer) -> None:
        if self._dialogue.is_open and one.server is not None and one in self._servers:
            self._dialogue.say(wire.build_connected(one.note.number))
            one.announce(one.note.number)

    def _look_ready(self) -> None:
        if self._servers and all(one.server is not None for one in self._servers):
            self.ready.set()

    def _release(self, message: bytes) -> None:
        number, conn_ids = wire.parse_release(message)
        for one in self._servers:
            if one.note.number == number and one.server is not None:
                one.server.release(conn_ids)

    def _read(self, message: bytes) -> None:
        number, bytes_read = wire.parse_read(message)
        for one in self._servers:
            if one.note.number == number:
                one.compare_read(bytes_read)

    def _item(self, message: bytes) -> None:
        self.broadcast.deliver(load_item(message[1:]))

    def _beat(self, _message: bytes) -> None:
        self._beat_s, self._is_late = time.monotonic(), False

    def _end(self, _message: bytes) -> None:
        self.ended = True

    # -- time, and the end ----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Do what is due, once a second."""
        for server in self.servers:
            server.tick()
        if self._dialogue.is_open and not self._is_late and time.monotonic() - self._beat_s > BEAT_LATE_S:
            self._is_late = True
            logger.warning("gateway silent seconds=%.0f", time.monotonic() - self._beat_s)

    def say_bye(self) -> None:
        """Tell the gateway that no further request is wanted. Idempotent."""
        if not self.is_leaving:
            self.is_leaving = True
            self._dialogue.say(wire.BYE)

    def stop(self) -> None:
        """Close everything; what was sent and reported is delivered. Blocks the greenlet."""
        self._stopping.set()
        for one in self._servers:
            one.stop()
        for one in self._servers:
            one.join()
        if self._dialogue.is_open:
            self._frames.flush()
        self._lost.set()
        self._connected.set()
        if self._greenlet is not None:
            self._greenlet.join()
        self._heart.stop()
        self._table.path.unlink(missing_ok=True)
        self._table.close()


def _make_table(settings: AttachedSettings) -> tuple[MarkTable, str]:
    """Make the mark table of this process; its name is that on the socket. Raises ConfigError."""
    base = f"{settings.name}.{settings.generation}.{os.getpid()}"
    for attempt in range(TABLES_MAX):
        identity = f"{base}.{attempt}" if attempt else base
        try:
            return MarkTable.create(settings.folder, identity), identity
        except FileExistsError:
            continue  # of a process that had our pid
        except OSError as error:
            problem = f"no file can be made there: {error.strerror}"
            raise ConfigError(
                "gateway.folder", str(settings.folder), problem, "name the gateway's folder", "settings"
            ) from error
    remedy = "remove the files *.table of processes that are gone"
    raise ConfigError("gateway.folder", str(settings.folder), "the names of mark tables are taken", remedy, "settings")
