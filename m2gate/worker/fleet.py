"""Generations of attached workers: loaded, replaced, handed over and stopped."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from m2gate.worker.child import WorkerChild, WorkerPlan, WorkerWatcher
from m2gate.worker.generation import Generation
from m2gate.worker.supervisor import LOOP_DEATHS, RESTART_MAX_S, Loop, Timer, describe_restart

GENERATIONS_MAX: Final = 3  # alive at once; a reload beyond that waits until one has ended
LOAD_PATIENCE_S: Final = 10.0  # a generation that loads for longer is given up when another one is asked for
WORKERS_MAX: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetHooks:
    """What a fleet tells.

    say:       one line for the operator.
    on_loaded: the first generation is loaded: call its go() when it may connect.
    on_ready:  a generation serves; it has replaced the one before.
    on_kept:   a reload has come to nothing, the old code goes on.
    on_failed: the first generation cannot start: this worker ended.
    on_death:  a worker ended by itself, in one line.
    on_gone:   after stop(): no worker is left.
    """

    say: Callable[[str], None]
    on_loaded: Callable[[Generation], None]
    on_ready: Callable[[Generation], None]
    on_kept: Callable[[], None]
    on_failed: Callable[[WorkerChild], None]
    on_death: Callable[[str], None]
    on_gone: Callable[[], None]


class Fleet:
    """Keeps ``count`` workers serving, across deaths and reloads.

    A new generation is loaded beside the old one, which leaves only when all of the new one are ready; if one
    of these does not get so far, the old one stays. At most GENERATIONS_MAX are alive: further reloads
    are remembered as one. A worker that dies is replaced, with back-off; in a crash loop that is said once,
    and what the attempts print is shown only where it is new.

    cut_after_s: None, or after which time in a hand-over what is open is cut.
    """

    def __init__(
        self, loop: Loop, plan: WorkerPlan, hooks: FleetHooks, *, count: int, cut_after_s: float | None = None
    ) -> None:
        self._loop = loop
        self._plan = plan
        self._hooks = hooks
        self._count = count
        self._cut_after_s = cut_after_s
        self._started = 0
        self._numbers = 0
        self._is_stopping = False
        self._is_loop_told = False
        self._is_wanted = False  # another reload, once there is room
        self._last_words = ""
        self._patience: Timer | None = None
        self._current: Generation | None = None
        self._next: Generation | None = None
        self._old: list[Generation] = []

    @property
    def generation(self) -> int:
        """The number of the one that serves; 0 before the first does."""
        return self._current.number if self._current is not None else 0

    @property
    def generations(self) -> list[Generation]:
        """Those that are alive, oldest first."""
        return [*self._old, *filter(None, (self._current, self._next))]

    @property
    def workers(self) -> list[WorkerChild]:
        """All processes, newest generation first."""
        return [worker for one in reversed(self.generations) for worker in one.workers]

    @property
    def is_looping(self) -> bool:
        """Whether a worker dies again and again."""
        return self._current is not None and self._current.is_looping

    def start(self) -> None:
        """Load the first generation."""
        self._load()

    def reload(self) -> None:
        """Load the code again in a new generation; if there is no room for one now, as soon as there is."""
        if self._is_stopping:
            return
        self._is_wanted = True
        self._load_if_wanted()

    def stop(self) -> None:
        """Let all workers end now, with what they have; on_gone is called when none is left."""
        self._is_stopping = True
        if self._next is not None:
            self._next.kill()
            self._next = None
        for one in self._old:
            one.hurry()
        if self._current is not None:
            self._current.hurry()
            self._current.retire(signal.SIGTERM)
        self._tell_if_gone()

    def describe_start(self) -> str:
        """Say what the generation that is being started waits for; "" if there is none."""
        generation = self._next
        if generation is None:
            return ""
        what = ("is_ready", "ready") if generation.is_going else ("is_loaded", "loaded")
        return f"{generation.count(what[0])} of {self._count} workers are {what[1]}"

    # -- generations ----------------------------------------------------------------------------

    def _load(self) -> None:
        self._is_wanted = False
        self._numbers += 1
        generation = Generation(
            self._loop, self, number=self._numbers, count=self._count, drain_timeout_s=self._plan.drain_timeout_s
        )
        self._next = generation
        generation.start()

    def _load_if_wanted(self) -> None:
        if not self._is_wanted or self._is_stopping:
            return
        if self._next is not None:
            left_s = self._next.started_s + LOAD_PATIENCE_S - time.monotonic()
            if self._current is None:
                return  # what is loaded first may take its time; the reload follows
            if left_s > 0:
                if self._patience is None:
                    self._patience = self._loop.call_later(left_s, self._lose_patience)
                return
            self._hooks.say(f"the new code has not come to anything in {LOAD_PATIENCE_S:g} s; loading it again")
            self._next.kill()
            self._next = None
        if len(self.generations) < GENERATIONS_MAX:
            self._load()

    def _lose_patience(self) -> None:
        self._patience = None
        self._load_if_wanted()

    def generation_loaded(self, generation: Generation) -> None:
        """See GenerationOwner."""
        if self._current is None:
            self._hooks.on_loaded(generation)
        else:
            generation.go()

    def generation_ready(self, generation: Generation) -> None:
        """See GenerationOwner."""
        if generation is not self._next:
            return
        before, self._current, self._next = self._current, generation, None
        self._is_loop_told = False
        self._last_words = ""
        if before is not None:
            self._old.append(before)
            before.retire(signal.SIGHUP)
            if self._cut_after_s is not None:
                self._loop.call_later(self._cut_after_s, before.hurry)
            self._forget_ended()
        self._hooks.on_ready(generation)
        self._load_if_wanted()

    def generation_failed(self, generation: Generation, worker: WorkerChild) -> None:
        """See GenerationOwner."""
        if generation is not self._next:
            return
        self._next = None
        if self._current is None:
            self._hooks.on_failed(worker)
            return
        self._hooks.say(f"the new code was not loaded ({worker.describe_end()}); the old code goes on")
        self._hooks.on_kept()
        self._load_if_wanted()

    # -- workers --------------------------------------------------------------------------------

    def start_worker(self, name: str, generation: int, watcher: WorkerWatcher) -> WorkerChild:
        """See GenerationOwner."""
        self._started += 1
        is_restart = self._current is not None and self._current.number == generation
        return WorkerChild(
            self._loop,
            self._plan,
            watcher,
            number=self._started,
            name=name,
            generation=generation,
            is_quiet=is_restart and self.is_looping,
        )

    def worker_died(self, worker: WorkerChild, deaths: int) -> None:
        """See GenerationOwner."""
        line = worker.describe_end()
        self._hooks.on_death(line)
        if worker.last_words and worker.last_words != self._last_words:
            self._last_words = worker.last_words
            self._hooks.say(f"the worker {worker.name} said: {worker.last_words}")
        if self._is_loop_told:
            return
        # With many places in a loop at once it is told for the first of them.
        self._is_loop_told = deaths >= LOOP_DEATHS
        self._hooks.say(describe_restart(line, min(deaths, LOOP_DEATHS)))

    def worker_not_started(self, name: str, error: OSError) -> None:
        """See GenerationOwner."""
        self._hooks.say(f"the worker {name} cannot be started: {error}; trying again in {RESTART_MAX_S:g} s")

    def worker_recovered(self) -> None:
        """See GenerationOwner."""
        if self._is_loop_told and not self.is_looping:
            self._is_loop_told = False
            self._hooks.say("all workers live again")

    def worker_gone(self, worker: WorkerChild) -> None:
        """See GenerationOwner."""
        if worker.is_going and worker.child.process.returncode != 0:
            self._hooks.say(f"{worker.describe_end()} (generation {worker.generation}, while it was leaving)")
        self._forget_ended()
        self._load_if_wanted()
        self._tell_if_gone()

    def _forget_ended(self) -> None:
        self._old = [one for one in self._old if one.workers]

    def _tell_if_gone(self) -> None:
        if self._is_stopping and not self.workers:
            self._hooks.on_gone()


def describe_workers(workers: list[WorkerChild]) -> list[dict[str, object]]:
    """Return the workers as the supervisor's document has them."""
    keys = ("name", "pid", "generation", "state")
    return [{key: getattr(worker, key) for key in keys} for worker in workers]
