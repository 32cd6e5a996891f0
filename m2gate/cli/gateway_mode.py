"""A gateway and its workers behind the Mongrel2 of ``m2gate run``."""

import signal
from collections.abc import Mapping
from functools import partial

from m2gate.cli.gateway_child import GatewayKeeper
from m2gate.cli.mode import Host, Mode
from m2gate.cli.supervision import say
from m2gate.errors import M2GateError
from m2gate.worker.child import WorkerPlan
from m2gate.worker.fleet import Fleet, FleetHooks, describe_workers
from m2gate.worker.generation import KILL_S, Generation


class GatewayMode(Mode):
    """Runs a gateway and ``count`` workers, all of which outlive its restarts.

    The order: code loaded in all workers, Mongrel2, gateway, workers attached. At a stop gateway and workers
    are told together, as the gateway serves what comes meanwhile.
    gateway: the settings of the gateway. cut_after_s: see Fleet.
    """

    def __init__(
        self,
        host: Host,
        plan: WorkerPlan,
        gateway: Mapping[str, object],
        *,
        count: int,
        cut_after_s: float | None,
    ) -> None:
        self._host = host
        self._drain_timeout_s = plan.drain_timeout_s
        supervision = host.supervision
        hooks = FleetHooks(
            say=say,
            on_loaded=self._loaded,
            on_ready=self._ready,
            on_kept=supervision.reloaded,
            on_failed=host.mode_failed,
            on_death=partial(supervision.count_death, "worker"),
            on_gone=self._tell_if_gone,
        )
        self._fleet = Fleet(supervision.loop, plan, hooks, count=count, cut_after_s=cut_after_s)
        self._gateway = GatewayKeeper(
            supervision, gateway, plan.folder, on_ready=self._gateway_ready, on_gone=self._tell_if_gone
        )
        self._first: Generation | None = None  # loaded, and waits for the gateway

    def start(self) -> None:
        """See Mode."""
        self._fleet.start()

    def reload(self) -> None:
        """See Mode."""
        self._fleet.reload()

    def stop(self) -> None:
        """See Mode."""
        self._gateway.stop(signal.SIGTERM, self._drain_timeout_s + KILL_S)
        self._fleet.stop()

    def describe_start(self) -> str:
        """See Mode."""
        if self._first is not None:
            return "waiting for the gateway"
        return self._fleet.describe_start()

    def document(self) -> dict[str, object]:
        """See Mode."""
        return {
            "mode": "gateway",
            "gateway_pid": self._gateway.pid,
            "generation": self._fleet.generation,
            "crash_loop": self._fleet.is_looping or self._gateway.is_looping,
            "workers": describe_workers(self._fleet.workers),
        }

    # -- how far they are -----------------------------------------------------------------------

    def _loaded(self, generation: Generation) -> None:
        self._first = generation
        try:
            self._host.serve(generation.json_sockets)
            self._gateway.start()
        except M2GateError as error:
            self._host.mode_cannot(error)

    def _gateway_ready(self) -> None:
        if self._first is not None:
            self._first.go()
            self._first = None

    def _ready(self, generation: Generation) -> None:
        self._host.supervision.watch_also(generation.files)
        if self._host.supervision.is_ready:
            try:
                self._host.serve(generation.json_sockets)
            except M2GateError as error:
                say(f"{error}; mongrel2 goes on with the JSON sockets of before")
        self._host.mode_ready()

    def _tell_if_gone(self) -> None:
        if self._host.supervision.is_stopping and self._gateway.pid is None and not self._fleet.workers:
            self._host.mode_gone()
