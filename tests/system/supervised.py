"""What the supervisor of ``m2gate run`` says about its processes."""

import json
from typing import Any

from tests.system.support import M2GateRun, wait_until


def known(run: M2GateRun) -> dict[str, Any]:
    """Return what supervisor.json says."""
    path = run.runtime / "m2gate" / f"run-{run.port}" / "supervisor.json"
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def worker_pids(run: M2GateRun, state: str = "ready") -> list[int]:
    """Return the processes of the workers that are in this state."""
    return [worker["pid"] for worker in known(run)["workers"] if worker["state"] == state]


def all_ready(run: M2GateRun, count: int) -> list[int]:
    """Wait until this many workers serve, as ``listening on`` tells of the first one; return their processes."""
    wait_until(lambda: len(worker_pids(run)) == count, "all workers are ready")
    return worker_pids(run)
