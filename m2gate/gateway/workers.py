"""The workers that are attached to this gateway, each with what it was given and whether it lives."""

import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from gevent import get_hub

from m2gate.gateway.admission import WAITING_MAX, Admission
from m2gate.gateway.sessions import Session, unbind
from m2gate.inputs.document import WorkerState
from m2gate.link.marks import MarkTable
from m2gate.link.wait import READ
from m2gate.wire.attach import END, Attach, build_frames, build_release

logger = logging.getLogger(__name__)

HUNG_S: Final = 5.0  # without a beat of its heart: it is stopped, and will be killed
MOVE_IDLE_S: Final = 0.1  # nothing has been open on a session for so long: it may move for better balance
MOVE_GAIN: Final = 2  # open requests that the other worker must have less


class AttachedWorker:
    """One worker process on the gateway's socket; the owner of sessions.

    send_frame: takes one message for its socket; must not block.
    ``connected`` numbers of the servers that its answers reach.
    ``in_flight`` bytes of frames that it has not reported as seen.
    """

    def __init__(
        self,
        identity: bytes,
        attach: Attach,
        table: MarkTable,
        send_frame: Callable[[bytes, bytes], None],
        now_s: float,
    ) -> None:
        self.identity = identity
        self.name = attach.name
        self.handler = attach.handler
        self.pid = attach.pid
        self.generation = attach.generation
        self.capacity = attach.capacity
        self.table = table
        self.attached_s = now_s
        self.is_leaving = attach.is_leaving
        self.is_lost = False
        self.is_ended = False  # END was sent
        self.is_killed = False
        self.is_unreachable = False
        self.outstanding = 0
        self.served = 0
        self.failed = 0
        self.connected: set[int] = set()
        self.sessions: set[Session] = set()
        self.in_flight = 0
        self.on_batch: Callable[[AttachedWorker], None] | None = None
        self._send_frame = send_frame
        self._batch: list[bytes] = []
        self._number = attach.base
        self._unseen: deque[tuple[int, int]] = deque()

    def __repr__(self) -> str:
        return f"<AttachedWorker {self.name} pid={self.pid} outstanding={self.outstanding}>"

    @property
    def state(self) -> WorkerState:
        """What the status document calls it: starting, ready, leaving or lost."""
        if self.is_lost:
            return "lost"
        if self.is_leaving:
            return "leaving"
        return "ready" if self.connected else "starting"

    def forward(self, frame: bytes) -> int:
        """Let one frame leave at the end of this turn; return its number."""
        batch = self._batch
        if not batch and self.on_batch is not None:
            self.on_batch(self)
        batch.append(frame)
        self._number += 1
        return self._number

    def flush(self) -> None:
        """Send the frames of this turn in one message."""
        if self._batch and not self.is_lost:
            batch, self._batch = self._batch, []
            message = build_frames(batch)
            size = len(message)
            self.in_flight += size
            self._unseen.append((self._number, size))
            self._send_frame(self.identity, message)

    def send(self, message: bytes) -> None:
        """Send one message of another kind, behind the frames that wait."""
        self.flush()
        if not self.is_lost:
            self._send_frame(self.identity, message)

    def release(self, session: Session) -> None:
        """Let the worker forget a session that is no longer its own."""
        if not self.is_lost and not self.is_ended:
            self.send(build_release(session.server.number, (session.conn_id,)))

    def seen(self, number: int) -> None:
        """Hear that the worker has read all frames up to this number."""
        unseen = self._unseen
        while unseen and unseen[0][0] <= number:
            self.in_flight -= unseen.popleft()[1]

    def end(self) -> None:
        """Tell a leaving worker that nothing more will come. Idempotent."""
        if not self.is_ended:
            self.is_ended = True
            self.send(END)


class WorkerPool:
    """The workers of one handler; finds the one with the fewest open requests that can reach the server.

    A session stays with its worker; it moves when that leaves, or when another has MOVE_GAIN less to
    do and nothing has been open on the session for MOVE_IDLE_S.
    ``use_leaving``: where all are to stop, those that are stopping already still serve.
    """

    def __init__(self, waiting_max: int = WAITING_MAX) -> None:
        self.workers: dict[bytes, AttachedWorker] = {}
        self.queue = Admission(waiting_max)
        self.use_leaving = False

    def find(self, session: Session, now_s: float) -> AttachedWorker | None:
        """Return the worker that is to get the next request of session; None if nobody has room.

        The session is bound to it, and taken from the one that it was bound to.
        """
        owner = session.owner
        if isinstance(owner, AttachedWorker) and not owner.is_leaving and owner.outstanding < owner.capacity:
            if now_s - session.idle_since_s < MOVE_IDLE_S:
                return owner
            best = self._least(session.server.number)
            if best is None or best.outstanding + MOVE_GAIN > owner.outstanding:
                return owner
        else:
            best = self._least(session.server.number)
        if best is not None and best is not owner:
            if owner is not None:
                unbind(session, owner)
            session.owner = best
            best.sessions.add(session)
        return best

    def _least(self, server_number: int) -> AttachedWorker | None:
        best: AttachedWorker | None = None
        for worker in self.workers.values():
            if (
                (not worker.is_leaving or (self.use_leaving and not worker.is_ended))
                and server_number in worker.connected
                and worker.outstanding < worker.capacity
                and (best is None or _load(worker) < _load(best))
            ):
                best = worker
        return best

    def can_reach(self, server_number: int) -> bool:
        """Tell whether some worker would take requests of this server, had it room."""
        return any(
            server_number in worker.connected and (not worker.is_leaving or (self.use_leaving and not worker.is_ended))
            for worker in self.workers.values()
        )


class WorkerPools:
    """The pools by the name of their handler, "" for that of workers without one.

    Bound: a pool is made for a route or for a worker, of which there are only so many.
    """

    def __init__(self, waiting_max: int = WAITING_MAX) -> None:
        self.waiting_max = waiting_max
        self.use_leaving = False
        self._pools: dict[str, WorkerPool] = {}

    def get(self, handler: str) -> WorkerPool:
        """Return the pool of a handler; one without workers if none has attached yet."""
        pool = self._pools.get(handler)
        if pool is None:
            pool = self._pools[handler] = WorkerPool(self.waiting_max)
            pool.use_leaving = self.use_leaving
        return pool

    def __iter__(self) -> Iterator[WorkerPool]:
        return iter(list(self._pools.values()))

    def use_all(self) -> None:
        """Let those that are leaving still serve: all are to stop."""
        self.use_leaving = True
        for pool in self:
            pool.use_leaving = True

    def can_reach(self, server_number: int) -> bool:
        """Tell whether some worker would take requests of this server."""
        return any(pool.can_reach(server_number) for pool in self)


def _load(worker: AttachedWorker) -> tuple[int, int]:
    """Return how busy a worker is; where that is equal, idle clients count, as they will ask again."""
    return worker.outstanding, len(worker.sessions)


class Lifeline:
    """Watches one process, a child or not, and tells of its end once. Raises OSError if there is none."""

    def __init__(self, pid: int, on_end: Callable[[], None]) -> None:
        self._descriptor = os.pidfd_open(pid)
        self._on_end = on_end
        self._watcher = get_hub().loop.io(self._descriptor, READ)
        self._watcher.start(self._ended)

    def kill(self) -> bool:
        """Kill the process, unless it has ended; False if that is not allowed to us."""
        if self.is_ended:
            return True
        try:
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return True

    @property
    def is_ended(self) -> bool:
        """True once the end of the process was seen."""
        return self._descriptor < 0

    def _ended(self) -> None:
        self.close()
        self._on_end()

    def close(self) -> None:
        """Watch no more. Idempotent."""
        if self._descriptor >= 0:
            self._watcher.stop()
            self._watcher.close()
            os.close(self._descriptor)
            self._descriptor = -1
