"""One worker that is connected to Mongrel2 directly: the whole of ``m2gate run`` without a gateway."""

import signal
from collections.abc import Callable
from functools import partial
from typing import Final

from m2gate.cli.mode import Host, Mode
from m2gate.cli.supervision import say
from m2gate.errors import M2GateError
from m2gate.worker.child import WorkerChild, WorkerPlan
from m2gate.worker.fleet import describe_workers
from m2gate.worker.generation import KILL_S
from m2gate.worker.supervisor import Child, Keeper

RELOAD_DRAIN_S: Final = 2.0  # with --reload, what is open is cut after this: a person waits


class DirectMode(Mode):
    """Runs one worker; at a reload its successor waits, loaded, until it has ended.

    cut_after_s: None, or after which time in a reload what is open is cut.
    """

    def __init__(self, host: Host, plan: WorkerPlan, *, cut_after_s: float | None) -> None:
        self._host = host
        self._plan = plan
        self._cut_after_s = cut_after_s
        count = partial(host.supervision.count_death, "worker")
        self._keeper = Keeper(host.supervision.loop, "the worker", self._spawn_kept, say, count)
        self._running: WorkerChild | None = None  # has the sockets, or is about to get them
        self._next: WorkerChild | None = None  # is being loaded, or waits for the sockets
        self._started = 0
        self._generation = 0
        self._last_words = ""

    def start(self) -> None:
        """See Mode."""
        self._generation += 1
        self._keeper.start()

    def reload(self) -> None:
        """Load the code in a new process, which takes over once that has worked."""
        self._drop_next()
        self._generation += 1
        self._next = self._spawn()

    def stop(self) -> None:
        """See Mode."""
        self._drop_next()
        if self._keeper.child is None or not self._host.supervision.is_ready:
            # Nothing is open yet: a worker that still loads code has nothing to drain.
            self._keeper.stop(signal.SIGKILL, KILL_S)
            self._host.mode_gone()
            return
        self._keeper.stop(signal.SIGTERM, self._plan.drain_timeout_s + KILL_S)

    def describe_start(self) -> str:
        """See Mode."""
        worker = self._next or self._running
        if worker is None or worker.is_ready:
            return ""
        if worker is self._next and worker.is_loaded:
            return "the new code waits until the worker of before has ended"
        return f"waiting for {self._plan.target} to be {'connected' if worker.is_going else 'loaded'}"

    def document(self) -> dict[str, object]:
        """See Mode."""
        known = [worker for worker in (self._next, self._running) if worker is not None and worker.child.is_alive]
        return {
            "mode": "direct",
            "generation": self._running.generation if self._running is not None else 0,
            "crash_loop": self._keeper.is_looping,
            "workers": describe_workers(known),
        }

    # -- what the worker says -------------------------------------------------------------------

    def loaded(self, worker: WorkerChild) -> None:
        """See WorkerWatcher."""
        if worker is self._next:
            self._retire(self._running)
        else:
            self._connect(worker)

    def ready(self, worker: WorkerChild) -> None:
        """See WorkerWatcher."""
        if worker is self._running:
            self._host.mode_ready()

    def spent(self, worker: WorkerChild) -> None:
        """Let a fresh process take over from one that has had --max-requests, unless one is on its way."""
        if worker is self._running and self._next is None and not self._host.supervision.is_stopping:
            self._next = self._spawn()

    def ended(self, worker: WorkerChild) -> None:
        """See WorkerWatcher."""
        self._note_end(worker)
        if not self._host.supervision.is_over:
            self._keeper.ended(worker.child)

    def _note_end(self, worker: WorkerChild) -> None:
        supervision = self._host.supervision
        if worker is self._next:
            self._next = None
            say(f"the new code was not loaded ({worker.child.describe_end()}); the old code goes on")
            supervision.reloaded()
        elif worker is not self._running:
            pass  # one that was loaded in vain, or that had handed over
        elif supervision.is_stopping:
            self._host.mode_gone()
        elif not supervision.is_ready:
            self._host.mode_failed(worker)
        elif self._next is not None and self._next.is_loaded:
            self._hand_over(self._next)
        elif worker.last_words and worker.last_words != self._last_words:
            self._last_words = worker.last_words
            say(f"the worker said: {worker.last_words}")

    # -- processes ------------------------------------------------------------------------------

    def _spawn_kept(self, _on_exit: Callable[[Child], None]) -> Child:
        self._running = self._spawn()
        return self._running.child

    def _spawn(self) -> WorkerChild:
        self._started += 1
        loop = self._host.supervision.loop
        is_quiet = self._keeper.is_looping
        return WorkerChild(loop, self._plan, self, number=self._started, generation=self._generation, is_quiet=is_quiet)

    def _retire(self, worker: WorkerChild | None) -> None:
        """End the old worker; when it has ended, the next one takes over."""
        if worker is None or self._keeper.child is None:
            if self._next is not None:
                self._hand_over(self._next)
            return
        worker.leave(signal.SIGHUP, self._plan.drain_timeout_s + KILL_S)
        if self._cut_after_s is not None:
            # The second one lets the worker cut what is open, which a kill would leave hanging.
            self._host.supervision.loop.call_later(self._cut_after_s, lambda: worker.child.signal(signal.SIGTERM))

    def _hand_over(self, worker: WorkerChild) -> None:
        self._running, self._next = worker, None
        self._keeper.adopt(worker.child)
        self._connect(worker)

    def _connect(self, worker: WorkerChild) -> None:
        """Give the worker the sockets, with a Mongrel2 that knows its JSON sockets."""
        self._host.supervision.watch_also(worker.files)
        try:
            self._host.serve(worker.json_sockets)
        except M2GateError as error:
            self._host.mode_cannot(error)
            return
        worker.go()

    def _drop_next(self) -> None:
        if self._next is not None:
            dropped, self._next = self._next, None
            dropped.child.process.kill()
