"""What ``m2gate worker`` does: a fleet of workers that are attached to somebody else's gateway."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from m2gate.cli.direct_mode import RELOAD_DRAIN_S
from m2gate.cli.rundir import workers_directory
from m2gate.cli.supervision import Supervision, say
from m2gate.gateway.place import SOCKET
from m2gate.worker.child import WorkerChild, WorkerPlan
from m2gate.worker.fleet import Fleet, FleetHooks, describe_workers
from m2gate.worker.generation import Generation
from m2gate.worker.supervisor import Loop

FOLDER_POLL_S: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """The command line of ``m2gate worker``, checked.

    folder:     of the gateway.
    handler:    the section of a site, "" without one.
    access_log: None, "-" for stderr, or an absolute path.
    """

    target: str
    folder: str
    handler: str = ""
    count: int = 1
    reload: bool = False
    access_log: str | None = None
    drain_timeout_s: float = 30.0
    max_requests: int | None = None
    patch: bool = True


def supervise(options: WorkerOptions) -> int:
    """Run until a signal or a failure at the start; return the exit status. Raises RunError."""
    with workers_directory() as folder, Loop() as loop:
        supervision = Supervision(loop, target=options.target if options.reload else None)
        return supervision.run(AttachedWorkers(options, supervision, folder))


class AttachedWorkers:
    """A fleet as the one thing to supervise."""

    def __init__(self, options: WorkerOptions, supervision: Supervision, folder: Path) -> None:
        self._options = options
        self._supervision = supervision
        plan = WorkerPlan(
            target=options.target,
            folder=folder,
            links={"gateway": {"folder": options.folder, "handler": options.handler}},
            patch=options.patch,
            access_log=options.access_log,
            drain_timeout_s=options.drain_timeout_s,
            max_requests=options.max_requests,
        )
        hooks = FleetHooks(
            say=say,
            on_loaded=self._loaded,
            on_ready=self._ready,
            on_kept=supervision.reloaded,
            on_failed=self._failed,
            on_death=partial(supervision.count_death, "worker"),
            on_gone=supervision.finish,
        )
        cut_after_s = RELOAD_DRAIN_S if options.reload else None
        self._fleet = Fleet(supervision.loop, plan, hooks, count=options.count, cut_after_s=cut_after_s)

    def start(self) -> None:
        """See Supervised."""
        self._fleet.start()

    def reload(self) -> None:
        """See Supervised."""
        self._fleet.reload()

    def stop(self) -> None:
        """See Supervised."""
        self._fleet.stop()

    @property
    def _spec(self) -> str:
        return f"gateway:{self._options.folder}/{SOCKET}"

    def describe_start(self) -> str:
        """See Supervised."""
        line = self._fleet.describe_start()
        return f"{line}, {self._spec}" if line else ""

    def document(self) -> dict[str, object]:
        """See Supervised."""
        return {
            "pid": os.getpid(),
            "target": self._options.target,
            "mode": "attached",
            "attached_to": self._spec,
            "handler": self._options.handler,
            "generation": self._fleet.generation,
            "restarts": self._supervision.restarts,
            "last_end": self._supervision.last_end,
            "crash_loop": self._fleet.is_looping,
            "workers": describe_workers(self._fleet.workers),
        }

    def _loaded(self, generation: Generation) -> None:
        """Let the workers attach; without the folder, in which each makes a file, they would end."""
        if not Path(self._options.folder).is_dir():
            say(f"there is no {self._options.folder} yet; waiting for a gateway to make it")
        self._go_with_folder(generation)

    def _go_with_folder(self, generation: Generation) -> None:
        if Path(self._options.folder).is_dir():
            generation.go()
        else:
            self._supervision.loop.call_later(FOLDER_POLL_S, partial(self._go_with_folder, generation))

    def _ready(self, generation: Generation) -> None:
        self._supervision.watch_also(generation.files)
        if self._supervision.is_ready:
            self._supervision.reloaded()
            return
        count = self._options.count
        self._supervision.ready(f"{count} worker{'s' if count > 1 else ''} attached to {self._spec}")

    def _failed(self, worker: WorkerChild) -> None:
        self._supervision.fail_to_start("the worker", worker.child)
