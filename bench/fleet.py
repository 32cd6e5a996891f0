"""A gateway with workers behind it, or one worker that is directly connected, started as ``m2gate run`` does."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.process import handler_program

GATEWAY = "m2gate.gateway.process"
WORKER = "m2gate.worker.process"


@dataclass(frozen=True, slots=True)
class Fleet:
    """The processes that run; ``gateway`` is None where the worker is directly connected."""

    gateway: int | None
    workers: list[int]

    @property
    def pids(self) -> list[int]:
        """All of them."""
        return self.workers if self.gateway is None else [self.gateway, *self.workers]


@contextmanager
def fleet(
    place: Path,
    servers: Sequence[Mapping[str, str]],
    target: str,
    *,
    workers: int,
    capacity: int = 2_000,
    publish_pull: str | None = None,
    meanwhile: Callable[[], object] = bool,
) -> Iterator[Fleet]:
    """Run an App until the block ends; provides it once requests would be answered.

    servers:   as a settings file names them.
    workers:   behind a gateway; 0 for one worker without.
    capacity:  exchanges that a worker takes at once.
    publish_pull: where the gateway takes items by ZeroMQ.
    meanwhile: see handler_program.
    """
    settings = {"target": target, "max_handlers": capacity}
    with ExitStack() as stack:

        def start(name: str, module: str, values: Mapping[str, object]) -> int:
            home = place / name
            home.mkdir()
            return stack.enter_context(handler_program(module, values, home, meanwhile))

        if workers == 0:
            own = {**settings, "servers": [*servers], "run_dir": str(place / "w0")}
            yield Fleet(None, [start("w0", WORKER, own)])
            return
        folder = str(place / "g")
        gateway = start("g", GATEWAY, {"folder": folder, "servers": [*servers], "publish_pull": publish_pull})
        pids = []
        for name in [f"w{number}" for number in range(1, workers + 1)]:
            run_dir = str(place / name)
            own = {**settings, "servers": [], "gateway": {"folder": folder}, "name": name, "run_dir": run_dir}
            pids.append(start(name, WORKER, own))
        yield Fleet(gateway, pids)
