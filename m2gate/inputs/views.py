"""What lets others see into a process: its status socket and its metrics, each if it is asked for."""

from collections.abc import Callable
from typing import Protocol

import zmq

from m2gate.inputs.document import StatusDocument
from m2gate.inputs.status import StatusServer


class View(Protocol):
    """One way to look at the process's document."""

    def start(self) -> None:
        """Serve from now on. Raises ConfigError."""

    def stop(self) -> None:
        """Serve no more. May block the greenlet. Idempotent."""


class Views:
    """The status socket at a path and metrics at an address, either of which may be None.

    Raises ConfigError for an address that is none.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        document: Callable[[], StatusDocument],
        *,
        status: str | None,
        metrics: str | None,
    ) -> None:
        self._status: View | None = None if status is None else StatusServer(context, status, document)
        self._metrics: View | None = None
        if metrics is not None:
            # Prometheus's library takes 60 ms that other processes need not pay.
            from m2gate.inputs.metrics import MetricsServer  # noqa: PLC0415

            self._metrics = MetricsServer(metrics, document)

    def start(self) -> None:
        """Serve from now on; blocks nothing. Raises ConfigError."""
        for view in (self._status, self._metrics):
            if view is not None:
                view.start()

    def give_way(self) -> None:
        """Leave the port to a successor, which takes the path of the status socket by itself."""
        if self._metrics is not None:
            self._metrics.stop()

    def stop(self) -> None:
        """Serve no more. Blocks the greenlet. Idempotent."""
        for view in (self._status, self._metrics):
            if view is not None:
                view.stop()
