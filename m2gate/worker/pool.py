"""The loop of a worker: one greenlet at a time receives, and runs what it received itself.

docs/explanation/worker.md has the figures behind this. The greenlet that receives is the leader; it
calls the handler inline, so a handler that does not block costs no greenlet switch. If the handler
blocks, control returns to gevent's hub, which is here suspended in ``_resume`` and so notices at
once: it makes an idle greenlet (or a new one) the leader. Invariants:

* at most one greenlet is the leader (``_is_led``): it waits for frames (``_waiting``), is inside a
  handler that has not blocked yet (``_handling``), receives, or is about to be resumed; there is
  none only at the start and while ``_is_full``;
* a leader is only ever resumed by ``_resume``, in gevent's hub;
* a source leaves ``_ready`` only after EAGAIN, as its FD tells of new commands, not of messages.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

import zmq
from gevent import GreenletExit, Timeout, get_hub, getcurrent
from greenlet import greenlet

from m2gate.link.exchange import Exchange
from m2gate.link.tally import QUEUE_FULL
from m2gate.link.wait import READ

if TYPE_CHECKING:
    from m2gate.link.server import Server

logger = logging.getLogger(__name__)

TURN_FRAMES: Final = 128  # received before other greenlets, timers and sockets get their turn
FRAME_SHIFT: Final = 13  # each 8 KiB of a frame counts as one more: a session reads 1 MiB before the next comes
TURN_PROMOTIONS: Final = 128
BACKLOG_MAX: Final = 1_000  # requests received while all greenlets are busy
WAITING_MAX: Final = 10_000  # the same, where handlers wait for what lies behind the requests

# Log lines for bugs of ours, after which the loop goes on for all others.
MISUNDERSTOOD: Final = "message not understood send_ident=%s"
FAILED: Final = "exchange failed request_id=%s"


class Origin(Protocol):
    """Who sends the frames of a source; link.server.Server is one."""

    waiting: int
    on_wait: Callable[[], None] | None

    @property
    def send_ident(self) -> bytes:
        """Its name in the log."""


class Turn(Protocol):
    """What answers leave through: those of one turn of the loop together; link.outbox.Outbox is one."""

    def hold(self) -> None:
        """Begin a turn."""

    def release(self) -> None:
        """End it."""


class Source:
    """One socket that frames come from, the server that files them, and what its answers leave through.

    receive:  by default the socket's recv: returns a frame, or raises zmq.Again.
    dispatch: by default the server's: files a frame, and returns the exchange that may run, if any.
    """

    __slots__ = ("dispatch", "is_ready", "outbox", "receive", "server", "watcher")

    def __init__(
        self,
        socket: "zmq.Socket[bytes]",
        server: Origin,
        outbox: Turn,
        *,
        receive: Callable[[int], bytes],
        dispatch: Callable[[bytes], Exchange | None],
    ) -> None:
        self.server = server
        self.outbox = outbox
        self.dispatch = dispatch
        self.receive = receive
        self.is_ready = False
        self.watcher = get_hub().loop.io(socket.fileno(), READ)

    @classmethod
    def of(cls, socket: "zmq.Socket[bytes]", server: "Server", outbox: Turn) -> "Source":
        """Return the source of a server's own socket, where a frame is a message."""
        return cls(socket, server, outbox, receive=socket.recv, dispatch=server.dispatch)


class Pool:
    """At most max_handlers greenlets that receive requests and run their handlers.

    At the bound up to BACKLOG_MAX requests are taken in, because credits and leaves are behind them
    in the same queue; then nothing is received until a handler ends, and ZeroMQ and Mongrel2 hold
    the rest. Only where handlers wait for those very messages, receiving goes on up to WAITING_MAX
    requests, and further ones get 503.
    """

    def __init__(self, handle: Callable[[Exchange], None], max_handlers: int) -> None:
        self._handle = handle
        self._max_handlers = max_handlers
        self._hub = get_hub()
        self._sources: list[Source] = []
        self._ready: deque[Source] = deque()
        self._backlog: deque[Exchange] = deque()
        self._idle: list[greenlet] = []
        self._size = 0
        self._budget = TURN_FRAMES
        self._is_led = False
        self._waiting: greenlet | None = None
        self._handling: greenlet | None = None
        self._is_full = False  # all greenlets are in handlers, so there is no leader
        self._is_stopped = False  # and the backlog is full, so nothing is received
        self.rejected = 0
        self.on_refused: Callable[[Exchange], None] | None = None  # before the answer, which no handler sees

    # -- what comes in --------------------------------------------------------------------------

    def attach(self, source: Source) -> None:
        """Receive from source from now on."""
        self._sources.append(source)
        source.server.on_wait = self._receive_again
        self._mark(source)
        source.watcher.start(self._on_frames, source)
        self._kick()

    def detach(self, source: Source) -> None:
        """Receive no more from source; its socket may be closed then."""
        source.watcher.stop()
        source.watcher.close()
        self._sources.remove(source)
        if source.is_ready:
            self._ready.remove(source)

    def look(self, source: Source) -> None:
        """Receive what may have come to source without an event, as after something was sent there."""
        if not source.is_ready:
            self._mark(source)
            self._hub.loop.run_callback(self._promote)
            if self._is_full:
                self._hub.loop.run_callback(self._receive_without_leader)

    def run(self, exchange: Exchange) -> None:
        """Run an exchange that did not come from a socket just now: the next one of a pipeline."""
        self._backlog.append(exchange)
        self._kick()

    @property
    def busy(self) -> int:
        """Exchanges that handlers are working on, or that wait for one."""
        resting = len(self._idle) + (self._waiting is not None)
        return self._size - resting + len(self._backlog)

    @property
    def waiting(self) -> tuple[int, int]:
        """Exchanges that wait for a greenlet, and the bytes of their bodies."""
        return len(self._backlog), sum(len(exchange.head.body) for exchange in self._backlog)

    def _mark(self, source: Source) -> None:
        if not source.is_ready:
            source.is_ready = True
            self._ready.append(source)

    def _on_frames(self, source: Source) -> None:
        if not source.is_ready:
            source.is_ready = True
            self._ready.append(source)
        if self._waiting is not None:
            self._resume(self._waiting)
        elif self._is_full:
            self._receive_without_leader()

    # -- the leader -----------------------------------------------------------------------------

    def _run(self) -> None:
        """Lead, handle, and follow when the handler has blocked: the life of a pool greenlet."""
        me = getcurrent()
        handle, ready, backlog = self._handle, self._ready, self._backlog
        rest, again, noblock = self._rest, zmq.Again, zmq.NOBLOCK
        while True:
            # Every message passes through here. With calls instead of inlined code and attributes
            # instead of locals a request takes 11.5 us from frame to answer, so 10.3.
            exchange = None
            while exchange is None:
                if backlog:
                    exchange = backlog.popleft()
                elif self._budget <= 0:
                    self._budget = TURN_FRAMES
                    self._hub.loop.run_callback(self._resume, me)
                    rest()
                elif ready:
                    source = ready[0]
                    try:
                        frame = source.receive(noblock)
                    except again:
                        ready.popleft()
                        source.is_ready = False
                        continue
                    self._budget -= 1 + (len(frame) >> FRAME_SHIFT)
                    try:
                        exchange = source.dispatch(frame)
                    except Exception:
                        logger.exception(MISUNDERSTOOD, source.server.send_ident.decode())
                else:
                    self._waiting = me
                    rest()
            self._handling = me
            try:
                handle(exchange)
            except (Exception, GreenletExit, Timeout):
                logger.exception(FAILED, exchange.request_id)
                exchange.abort()
            if self._handling is me:
                self._handling = None  # it did not block: still the leader
            else:
                self._follow(me)

    def _follow(self, me: greenlet) -> None:
        """Blocks the greenlet until it leads; at the bound it first runs what has waited."""
        backlog = self._backlog
        while self._is_full and backlog:
            exchange = backlog.popleft()
            # Before the handler: if all that is left blocks, this is the last time anybody looks.
            if self._is_stopped and len(backlog) < BACKLOG_MAX // 2:
                self._start_sources()
            try:
                self._handle(exchange)
            except (Exception, GreenletExit, Timeout):
                logger.exception(FAILED, exchange.request_id)
                exchange.abort()
        self._idle.append(me)
        if self._is_full:
            self._is_full = False
            self._kick()
        self._rest()

    def _rest(self) -> None:
        """Blocks the greenlet until _resume switches to it, and nothing else ends that."""
        while True:
            try:
                self._hub.switch()
            except (GreenletExit, Timeout) as error:
                # Not ours: a handler has started a Timeout, or a kill, and left it running.
                logger.warning("left behind by a handler that has ended: %r", error)
            else:
                return

    def _kick(self) -> None:
        """Let the loop make somebody the leader, if nobody is."""
        self._hub.loop.run_callback(self._promote)

    def _promote(self) -> None:
        if self._waiting is not None:
            self._resume(self._waiting)
        elif not self._is_led:
            follower = self._follower()
            if follower is not None:
                self._resume(follower)

    def _follower(self) -> greenlet | None:
        """Return the greenlet to lead from now on; None at the bound, where there is no leader."""
        if self._idle:
            self._is_led = True
            return self._idle.pop()
        if self._size < self._max_handlers:
            self._size += 1
            self._is_led = True
            return greenlet(self._run, self._hub)
        self._is_led = False
        self._is_full = True
        # What is left in the sources raises no further event.
        self._hub.loop.run_callback(self._receive_without_leader)
        return None

    def _resume(self, leader: greenlet) -> None:
        """Switch to the leader, in gevent's hub; as long as it blocks in a handler, promote the next."""
        self._waiting = None
        for source in self._sources:
            source.outbox.hold()
        leader.switch()
        promotions = 0
        while self._handling is not None:
            self._handling = None
            follower = self._follower()
            if follower is None:
                break
            promotions += 1
            if promotions > TURN_PROMOTIONS:
                self._hub.loop.run_callback(self._resume, follower)
                break
            follower.switch()
        for source in self._sources:
            source.outbox.release()

    # -- at the bound ---------------------------------------------------------------------------

    def _receive_without_leader(self) -> None:
        """File what comes while all greenlets are in handlers, in gevent's hub: nothing here blocks."""
        budget = TURN_FRAMES
        while self._ready and self._is_full and not self._is_stopped:
            if len(self._backlog) >= BACKLOG_MAX and not any(source.server.waiting for source in self._sources):
                self._stop_sources()
                return
            if budget <= 0:
                self._hub.loop.run_callback(self._receive_without_leader)
                return
            budget -= 1
            source = self._ready[0]
            try:
                frame = source.receive(zmq.NOBLOCK)
            except zmq.Again:
                self._ready.popleft()
                source.is_ready = False
                continue
            try:
                exchange = source.dispatch(frame)
            except Exception:
                logger.exception(MISUNDERSTOOD, source.server.send_ident.decode())
                continue
            if exchange is None:
                continue
            if len(self._backlog) < WAITING_MAX:
                self._backlog.append(exchange)
            else:
                self.rejected += 1
                exchange.refuse(503, "all handlers are busy", (("Retry-After", "1"),), reason=QUEUE_FULL)
                if self.on_refused is not None:
                    self.on_refused(exchange)
                exchange.answer_refusal()

    def _stop_sources(self) -> None:
        self._is_stopped = True
        for source in self._sources:
            source.watcher.stop()

    def _start_sources(self) -> None:
        self._is_stopped = False
        for source in self._sources:
            source.watcher.start(self._on_frames, source)
            self._mark(source)
        self._hub.loop.run_callback(self._receive_without_leader)

    def _receive_again(self) -> None:
        """Hear that a handler waits for a message, which lies behind those that were left."""
        if self._is_stopped:
            self._start_sources()
