"""What the supervisor of ``m2gate run`` says about its processes."""

import json
from typing import Any

from tests.system.support import M2GateRun


def known(run: M2GateRun) -> dict[str, Any]:
    """Return what supervisor.json says."""
    path = run.runtime / "m2gate" / f"run-{run.port}" / "supervisor.json"
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def worker_pids(run: M2GateRun, state: str = "ready") -> list[int]:
    """Return the processes of the workers that are in this state."""
    return [worker["pid"] for worker in known(run)["workers"] if worker["state"] == state]
