"""What a gateway sends to its worker, as a source of the pool: many frames in one message, of all servers."""

import logging
from collections import deque
from collections.abc import Callable
from typing import Final

import zmq
from gevent import get_hub

from m2gate.errors import WireError
from m2gate.link.exchange import Exchange
from m2gate.link.outbox import Outbox
from m2gate.link.server import Server
from m2gate.link.wait import has_message
from m2gate.wire.attach import FRAMES, build_done, split_frames
from m2gate.worker.pool import Source

logger = logging.getLogger(__name__)

SEEN_FRAMES: Final = 1_000  # read without a report; then the gateway is told
SEEN_BYTES: Final = 1 << 20
_NOTHING: Final = zmq.Again()


class Gateway:
    """The gateway in the place of a server, as the pool sees it.

    The pool never stops receiving from it: the gateway itself gives a worker no more than it can
    take, and what handlers wait for comes the same way.
    """

    waiting = 1
    on_wait: Callable[[], None] | None = None
    send_ident = b"(gateway)"


class Outboxes:
    """The outboxes of all servers, whose answers of one turn leave together."""

    def __init__(self) -> None:
        self._outboxes: list[Outbox] = []

    def add(self, outbox: Outbox) -> None:
        """Let one take part, from the next turn on."""
        self._outboxes.append(outbox)

    def remove(self, outbox: Outbox) -> None:
        """Let one take part no more."""
        outbox.release()
        self._outboxes.remove(outbox)

    def hold(self) -> None:
        """Begin a turn."""
        for outbox in self._outboxes:
            outbox.hold()

    def release(self) -> None:
        """End a turn."""
        for outbox in self._outboxes:
            outbox.release()


class Frames:
    """The frames that this worker was forwarded, counted as the gateway counts them, and where they go.

    take: takes a message that is none with frames, in its place among them.
    say:  sends one message to the gateway.
    ``seen`` frames received, ``number`` of the last one that was filed.
    """

    def __init__(self, take: Callable[[bytes], None], say: Callable[[bytes], None]) -> None:
        self.seen = 0
        self.number = 0
        self.servers: dict[bytes, Server] = {}
        self._take = take
        self._say = say
        self._socket: zmq.Socket[bytes] | None = None
        self._waiting: deque[bytes] = deque()
        self._message: bytes | None = None
        self._records: list[bytes] = []
        self._is_scheduled = False
        self._told_seen = 0
        self._untold_bytes = 0

    def listen(self, socket: "zmq.Socket[bytes]") -> None:
        """Receive from this socket from now on."""
        self._socket = socket

    def receive(self, flags: int) -> bytes:
        """Return the next frame or message for dispatch(). Raises zmq.Again."""
        waiting = self._waiting
        while not waiting:
            socket = self._socket
            # Asked first, as pyzmq takes 4 us to make the exception that says the same.
            if socket is None or not has_message(socket):
                raise _NOTHING.with_traceback(None)
            message = socket.recv(flags)
            if message[:1] != FRAMES:
                self._message = message
                return message
            try:
                frames = split_frames(message)
            except WireError as error:
                logger.warning("gateway's message rejected kind=%r rule=%s", FRAMES, error.rule)
                continue
            waiting.extend(frames)
            self.seen += len(frames)
            self._untold_bytes += len(message)
            if self.seen - self._told_seen >= SEEN_FRAMES or self._untold_bytes >= SEEN_BYTES:
                self._schedule()
        return waiting.popleft()

    def dispatch(self, frame: bytes) -> Exchange | None:
        """File one frame with its server, or take a message; return the exchange that may run, if any."""
        if frame is self._message:
            self._message = None
            self._take(frame)
            return None
        self.number = number = self.number + 1
        server = self.servers.get(frame[: frame.find(b" ")])
        if server is None:
            return None  # its Mongrel2 is gone, and the gateway is about to say so
        server.frame_number = number
        exchange = server.dispatch(frame)
        if exchange is not None:
            exchange.number = number
        return exchange

    # -- reports --------------------------------------------------------------------------------

    def report(self, record: bytes) -> None:
        """Let a record be part of the next report, which leaves behind the answers of this turn."""
        self._records.append(record)
        if not self._is_scheduled:
            self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            get_hub().loop.run_callback(self.flush)

    def flush(self) -> None:
        """Send the report of what has ended since the last one."""
        self._is_scheduled = False
        records, self._records = self._records, []
        self._told_seen, self._untold_bytes = self.seen, 0
        self._say(build_done(self.seen, records))

    def forget(self) -> None:
        """Drop what would be reported: the gateway that it was meant for is gone."""
        self._records.clear()


def gateway_source(socket: "zmq.Socket[bytes]", frames: Frames, outboxes: Outboxes) -> Source:
    """Return the source for the pool of what comes from a gateway on socket."""
    return Source(socket, Gateway(), outboxes, receive=frames.receive, dispatch=frames.dispatch)
