"""Mixed load for a while, with workers killed at random: nothing grows, and every request is accounted for.

$M2GATE_SOAK_S says for how long; 60 s unless it is set.
"""

import os
import random
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from m2gate.gateway.counters import REASONS
from tests.system.load import HELD
from tests.system.loaded import Report, load
from tests.system.processes import ROOT
from tests.system.support import M2GateRun, m2gate_run, wait_until
from tests.system.test_gateway_deaths import DIED_ON_ITS_WAY, WHAT, assert_counted, ready_pids, status
from tests.system.transfers import rss_kib

pytestmark = pytest.mark.alone

APP = ROOT / "tests/system/apps/mixed.py"
SOAK_S: Final = float(os.environ.get("M2GATE_SOAK_S", "60"))
PART_S: Final = 20.0  # of load, then everything is looked at
BETWEEN_KILLS_S: Final = 11.0  # a worker that lives for 10 s is not in a crash loop
MIX: Final = {
    "plain": 8,
    "slow": 8,
    "upload": 2,
    "download": 2,
    "burst": 2,
    "ticks": 8,
    "events": 30,
    "sockets": 10,
    "rooms": 10,
}
TOLD_S: Final = 4.0  # two seconds, and two more for a client that is busy itself
GROWTH_KIB: Final = 8_192  # of a process, between the first third and the end


@dataclass
class Sizes:
    """What must not grow: descriptors of the processes that live on, and memory of those that are ours."""

    descriptors: dict[str, int]
    rss_kib: dict[str, int]

    @classmethod
    def of(cls, run: M2GateRun) -> "Sizes":
        ours = {"supervisor": run.pid, "gateway": run.child("m2gate.gateway.process")}
        all_pids = {**ours, "mongrel2": run.child("mongrel2.sqlite")}
        descriptors = {name: len(os.listdir(f"/proc/{pid}/fd")) for name, pid in all_pids.items()}
        return cls(descriptors, {name: rss_kib(pid) for name, pid in ours.items()})


def wait_empty(run: M2GateRun) -> None:
    """Nothing is left of the clients: no session, no hold, no subscriber, no open request."""

    def is_empty() -> bool:
        one = status(run)
        (server,) = one["servers"]
        left = [server["sessions"], server["held"], one["subscribers_total"], one["queue"]["waiting"]]
        return not any(left) and not any(worker["outstanding"] for worker in one["workers"])

    wait_until(is_empty, "no client is left anywhere", 20)


def part(run: M2GateRun, choice: random.Random) -> tuple[Report, list[float]]:
    """Load for PART_S; return what its clients have seen, and when workers were killed."""
    kills = []
    with load(run.port, publish_ms=30, **MIX) as clients:
        end_s = time.monotonic() + PART_S
        while time.monotonic() < end_s - 5:
            wait_until(lambda: len(ready_pids(run)) == 3, "three workers serve", 10)
            kills.append(time.monotonic())
            os.kill(choice.choice(sorted(ready_pids(run))), signal.SIGKILL)
            time.sleep(BETWEEN_KILLS_S)
        time.sleep(max(0.0, end_s - time.monotonic()))
        return clients.finish(), kills


def assert_blamed(report: Report, kills: list[float]) -> None:
    """Whatever failed for a client is allowed there, and a kill was just before."""
    for one in report.failures:
        assert one.what in WHAT.get(one.kind, {"502", "closed", "close 1012"}), one
        assert any(at_s <= one.at_s and report.delay_s(one, at_s) < TOLD_S for at_s in kills), (
            one,
            kills,
            report.stalls,
        )
    assert not [one for one in report.of("events") if one.worker == HELD]
    for kind in MIX:
        assert report.good[kind] > 0, (kind, report)


def test_soak() -> None:
    choice = random.Random(1)
    failed = 0
    with m2gate_run(APP, "--workers", "3") as run:
        sizes = []
        for _ in range(max(3, round(SOAK_S / PART_S))):
            report, kills = part(run, choice)
            assert_blamed(report, kills)
            failed += len(report.failures)
            wait_empty(run)
            sizes.append(Sizes.of(run))
        first, last = sizes[len(sizes) // 3 - 1], sizes[-1]
        for name, count in last.descriptors.items():
            assert count <= first.descriptors[name] + 3, (name, sizes)
        for name, kib in last.rss_kib.items():
            assert kib <= first.rss_kib[name] + GROWTH_KIB, (name, sizes)
        assert_counted(run)
        counters = status(run)["counters"]
        assert set(counters["requests_failed"]) <= set(REASONS)
        assert counters["requests_failed"]["worker-died"] + run.stderr.count(DIED_ON_ITS_WAY) >= failed
        assert counters["worker_deaths"]["hung"] == 0
        assert counters["frames_rejected"] == 0
        assert not re.search("Traceback|ERROR", run.stderr), run.stderr


def test_the_access_log_and_the_counts_agree(tmp_path: Path) -> None:
    """Each request that was started has one line, whoever answered it."""
    log = tmp_path / "access.log"
    with m2gate_run(APP, "--workers", "3", f"--access-log={log}") as run:
        with load(run.port, plain=8, slow=8, burst=2) as clients:
            os.kill(sorted(ready_pids(run))[0], signal.SIGKILL)
            wait_until(lambda: status(run)["counters"]["worker_deaths"]["exit"] == 1, "the gateway knows")
            wait_until(lambda: len(ready_pids(run)) == 3, "a new worker serves")
            clients.finish()
        wait_empty(run)
        assert_counted(run)
        counters = status(run)["counters"]
    lines = log.read_text().splitlines()
    unlogged = counters["requests_failed"]["worker-died"] + counters["requests_failed"]["client-left"]
    assert counters["requests_started"] - unlogged <= len(lines) <= counters["requests_started"]
