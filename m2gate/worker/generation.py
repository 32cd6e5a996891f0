"""A generation of workers: as many as were asked for, all with the code as it was when it was loaded."""

import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, Protocol

from m2gate.worker.child import WorkerChild, WorkerWatcher
from m2gate.worker.supervisor import ALIVE_S, LOOP_DEATHS, RESTART_MAX_S, Backoff, Loop, Timer

KILL_S: Final = 5.0  # beyond its drain timeout a worker is killed


class GenerationOwner(Protocol):
    """Who runs generations."""

    def start_worker(self, name: str, generation: int, watcher: WorkerWatcher) -> WorkerChild:
        """Start a worker. Raises OSError."""

    def worker_not_started(self, name: str, error: OSError) -> None:
        """It is tried again in RESTART_MAX_S."""

    def generation_loaded(self, generation: "Generation") -> None:
        """All of its workers wait for go()."""

    def generation_ready(self, generation: "Generation") -> None:
        """All of its workers serve."""

    def generation_failed(self, generation: "Generation", worker: WorkerChild) -> None:
        """It was given up, as this worker ended before all were ready."""

    def worker_died(self, worker: WorkerChild, deaths: int) -> None:
        """It ended by itself, and is replaced. deaths: in a row in its place."""

    def worker_recovered(self) -> None:
        """A worker lives whose place had died again and again."""

    def worker_gone(self, worker: WorkerChild) -> None:
        """It was to end, and has ended."""


class Slot:
    """One place of a generation, which is kept filled.

    worker:  the one that serves; None while it waits to be started again.
    fresh:   one that is to take over from a spent worker.
    leaving: those that finish what they have.
    """

    def __init__(self, loop: Loop, name: str, generation: "Generation", owner: GenerationOwner) -> None:
        self._loop = loop
        self._generation = generation
        self._owner = owner
        self._backoff = Backoff()
        self._restart: Timer | None = None
        self.name = name
        self.worker: WorkerChild | None = None
        self.fresh: WorkerChild | None = None
        self.leaving: list[WorkerChild] = []

    @property
    def workers(self) -> Iterator[WorkerChild]:
        """All of its processes."""
        yield from filter(None, (self.worker, self.fresh))
        yield from self.leaving

    @property
    def is_empty(self) -> bool:
        """Whether nothing is there and nothing will be."""
        return self.worker is None and self._restart is None

    @property
    def is_looping(self) -> bool:
        """Whether what is started here dies again and again."""
        return self._backoff.deaths >= LOOP_DEATHS

    def fill(self) -> None:
        """Start the worker."""
        self._restart = None
        self.worker = self._start(self.fill)

    def _start(self, again: Callable[[], None]) -> WorkerChild | None:
        try:
            return self._owner.start_worker(self.name, self._generation.number, self)
        except OSError as error:  # no more processes or no space: both may pass
            self._owner.worker_not_started(self.name, error)
            self._restart = self._loop.call_later(RESTART_MAX_S, again)
            return None

    def loaded(self, worker: WorkerChild) -> None:
        """See WorkerWatcher."""
        if self._generation.is_going:
            worker.go()
        else:
            self._generation.slot_loaded()

    def ready(self, worker: WorkerChild) -> None:
        """See WorkerWatcher."""
        if worker is self.fresh:
            spent, self.worker, self.fresh = self.worker, worker, None
            if spent is not None:
                self._let_leave(spent, signal.SIGHUP)
        if self.is_looping:
            self._loop.call_later(ALIVE_S, partial(self._recover, worker))
        self._generation.slot_ready()

    def spent(self, worker: WorkerChild) -> None:
        """See WorkerWatcher."""
        if worker is self.worker and not self._generation.is_retired:
            self.renew(worker)

    def renew(self, spent: WorkerChild) -> None:
        """Let a fresh process take over, unless one is on its way."""
        if self.worker is spent and self.fresh is None and not self._generation.is_retired:
            self.fresh = self._start(partial(self.renew, spent))

    def _recover(self, worker: WorkerChild) -> None:
        if worker is self.worker and worker.child.is_alive:
            self._backoff.forget()
            self._owner.worker_recovered()

    def ended(self, worker: WorkerChild) -> None:
        """See WorkerWatcher."""
        if worker in self.leaving:
            self.leaving.remove(worker)
            self._owner.worker_gone(worker)
            return
        if worker not in (self.worker, self.fresh):
            return  # of a generation that was given up
        if not self._generation.is_ready:
            self._generation.fail(worker)
            return
        delay_s = self._backoff.next_delay_s(time.monotonic() - worker.child.started_s)
        self._owner.worker_died(worker, self._backoff.deaths)
        if worker is self.fresh:
            self.fresh = None
            if self.worker is not None:  # it still serves; whoever is to replace it gets another chance
                self._loop.call_later(max(delay_s, 1.0), partial(self.renew, self.worker))
                return
        elif self.fresh is not None:
            self.worker, self.fresh = self.fresh, None
            return
        self.worker = None
        self._restart = self._loop.call_later(delay_s, self.fill)

    def retire(self, number: int) -> None:
        """End what is here, with SIGHUP for a hand-over, SIGTERM to stop; nothing is started any more."""
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        for worker in filter(None, (self.worker, self.fresh)):
            # Before it is ready a worker may not yet know what SIGHUP means to it.
            self._let_leave(worker, number if worker.is_ready else signal.SIGTERM)
        self.worker = self.fresh = None

    def _let_leave(self, worker: WorkerChild, number: int) -> None:
        self.leaving.append(worker)
        worker.leave(number, self._generation.drain_timeout_s + KILL_S)

    def hurry(self) -> None:
        """Ask those that leave with SIGTERM, so that they end what would go on."""
        for worker in self.leaving:
            worker.child.signal(signal.SIGTERM)
            worker.leave(signal.SIGTERM, self._generation.drain_timeout_s + KILL_S)

    def kill(self) -> None:
        """Forget what is here at once."""
        if self._restart is not None:
            self._restart.cancel()
        for worker in self.workers:
            worker.child.process.kill()
        self.worker = self.fresh = None
        self.leaving.clear()


class Generation:
    """Workers with the same code, which take over together once all of them are ready.

    The first is loaded alone: if the code is broken, one process finds out, and says so once. Until all
    are ready the end of one is the end of all; after that each is replaced by itself.
    """

    def __init__(self, loop: Loop, owner: GenerationOwner, *, number: int, count: int, drain_timeout_s: float) -> None:
        self._owner = owner
        self.number = number
        self.drain_timeout_s = drain_timeout_s
        self.started_s = time.monotonic()
        self.is_going = False
        self.is_ready = False
        self.is_retired = False
        self.slots = [Slot(loop, f"w{place}", self, owner) for place in range(1, count + 1)]

    @property
    def workers(self) -> list[WorkerChild]:
        """All of its processes, in the order of their places."""
        return [worker for slot in self.slots for worker in slot.workers]

    @property
    def is_looping(self) -> bool:
        """Whether what is started in one of its places dies again and again."""
        return any(slot.is_looping for slot in self.slots)

    @property
    def json_sockets(self) -> tuple[str, ...]:
        """The JSON sockets of the App, once it is loaded."""
        worker = self.slots[0].worker
        return worker.json_sockets if worker is not None else ()

    @property
    def files(self) -> tuple[str, ...]:
        """The source files that were imported, once they are loaded."""
        worker = self.slots[0].worker
        return worker.files if worker is not None else ()

    def count(self, what: str) -> int:
        """Count the workers of which this attribute is true, e.g. ``is_loaded``."""
        return sum(slot.worker is not None and bool(getattr(slot.worker, what)) for slot in self.slots)

    def start(self) -> None:
        """Start the first worker."""
        self.slots[0].fill()

    def slot_loaded(self) -> None:
        """Start the others once the first is loaded; tell the owner once all are."""
        for slot in self.slots:
            if slot.is_empty:
                slot.fill()
        if self.count("is_loaded") == len(self.slots):
            self._owner.generation_loaded(self)

    def go(self) -> None:
        """Let the workers connect."""
        self.is_going = True
        for slot in self.slots:
            if slot.worker is not None:
                slot.worker.go()

    def slot_ready(self) -> None:
        """Tell the owner once all are ready, the first time."""
        if not self.is_ready and not self.is_retired and self.count("is_ready") == len(self.slots):
            self.is_ready = True
            self._owner.generation_ready(self)

    def fail(self, worker: WorkerChild) -> None:
        """Give up: one ended before all were ready."""
        self.kill()
        self._owner.generation_failed(self, worker)

    def retire(self, number: int) -> None:
        """End its workers, with SIGHUP for a hand-over, SIGTERM to stop."""
        self.is_retired = True
        for slot in self.slots:
            slot.retire(number)

    def hurry(self) -> None:
        """Let those that leave end at once what would go on."""
        for slot in self.slots:
            slot.hurry()

    def kill(self) -> None:
        """Forget all of its workers at once."""
        self.is_retired = True
        for slot in self.slots:
            slot.kill()
