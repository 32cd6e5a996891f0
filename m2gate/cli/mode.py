"""What lies behind the Mongrel2 of ``m2gate run``: one direct worker, or a gateway and its workers."""

from typing import Protocol

from m2gate.cli.supervision import Supervision
from m2gate.errors import M2GateError
from m2gate.worker.child import WorkerChild


class Mode(Protocol):
    """The processes behind Mongrel2."""

    def start(self) -> None:
        """Load the code, let Mongrel2 start, connect; tells the host how far it is."""

    def reload(self) -> None:
        """Load the code again, beside what serves."""

    def stop(self) -> None:
        """Let everything end with what it has; the host's mode_gone() comes when it has."""

    def describe_start(self) -> str:
        """Say what a start or reload waits for; "" if for nothing."""

    def document(self) -> dict[str, object]:
        """Return mode, generation, crash_loop and workers as supervisor.json has them."""


class Host(Protocol):
    """The run that a mode is part of."""

    @property
    def supervision(self) -> Supervision:
        """Its loop and state."""

    def serve(self, json_sockets: tuple[str, ...]) -> None:
        """Let Mongrel2 run with these JSON sockets. Raises M2GateError."""

    def mode_ready(self) -> None:
        """It serves; comes again after each reload."""

    def mode_failed(self, worker: WorkerChild) -> None:
        """The run is over before anything served, as this worker ended."""

    def mode_cannot(self, error: M2GateError) -> None:
        """It cannot go on, for this reason."""

    def mode_gone(self) -> None:
        """All of its processes have ended after stop()."""
