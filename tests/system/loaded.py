"""Load from a process of its own while a test breaks things; what its clients have seen."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.system.processes import ROOT, environment

REPORT_S = 60.0
DURABLE = ("events",)  # kinds that no worker owns


@dataclass
class Failure:
    """What one client has seen of one failure.

    at_s:     time.monotonic(), which is the same in all processes.
    worker:   pid of the worker that answered this client before; 0 if none had.
    waited_s: since the client began what failed.
    """

    kind: str
    at_s: float
    what: str
    worker: int
    waited_s: float


@dataclass
class Report:
    """What the clients have seen: ``good`` by kind, ``slowest_s`` likewise, and every failure.

    stalls: until when the machine did not run the clients at all, and for how many seconds; of no server's making.
    """

    good: dict[str, int] = field(default_factory=dict)
    slowest_s: dict[str, float] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    stalls: list[tuple[float, float]] = field(default_factory=list)

    def of(self, *kinds: str) -> list[Failure]:
        return [one for one in self.failures if one.kind in kinds]

    def delay_s(self, one: Failure, since_s: float) -> float:
        """Return how long after since_s a client saw a failure, stalls left out."""
        return one.at_s - since_s - sum(length_s for at_s, length_s in self.stalls if since_s < at_s <= one.at_s + 0.1)


class Load:
    """The running clients."""

    def __init__(self, port: int, spec: dict[str, int]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.load", str(port), json.dumps(spec)],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"running\n"

    def finish(self) -> Report:
        """Let the clients come to an end; return what they have seen."""
        out, _ = self._process.communicate(b"stop\n", REPORT_S)
        found: dict[str, Any] = json.loads(out)
        report = Report(stalls=[(at_s, length_s) for at_s, length_s in found["stalls"]])
        for kind, one in found["kinds"].items():
            report.good[kind] = one["good"]
            report.slowest_s[kind] = one["slowest_s"]
            report.failures += [Failure(kind, **failure) for failure in one["failures"]]
        return report

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


def settle(seconds: float) -> None:
    """Sleep; while the machine does not run anybody, no time passes."""
    while seconds > 0:
        began_s = time.monotonic()
        time.sleep(0.05)
        seconds -= min(time.monotonic() - began_s, 0.1)


@contextmanager
def load(port: int, settle_s: float = 1.5, **spec: int) -> Iterator[Load]:
    """Run clients of these kinds (see load.py) against a port of 127.0.0.1, and let them get going."""
    one = Load(port, spec)
    try:
        settle(settle_s)
        yield one
    finally:
        one.kill()
