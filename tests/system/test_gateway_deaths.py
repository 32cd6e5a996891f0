"""Workers that die or stop under load of all kinds: who had something open there sees it, nobody else does."""

import http.client
import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from m2gate.inputs.document import StatusDocument
from m2gate.inputs.status_client import StatusClient
from tests.system.loaded import Failure, Report, load
from tests.system.processes import ROOT
from tests.system.runs import get
from tests.system.support import M2GateRun, m2gate_run, wait_until

pytestmark = pytest.mark.alone

APP = ROOT / "tests/system/apps/mixed.py"
MIX = {"plain": 12, "slow": 10, "upload": 3, "download": 3, "ticks": 10, "events": 40, "sockets": 15, "rooms": 15}
SLACK_S = 2.0  # the clients, too, share two cores with all of this
SEEN_S = 2.0 + SLACK_S  # within which clients of a dead worker are told
HUNG_S = 5.0 + SEEN_S
DIED_ON_ITS_WAY = "its answer may have died with its worker"
WHAT = {
    "plain": {"502", "closed"},
    "slow": {"502", "closed"},
    "upload": {"502", "closed"},
    "download": {"502", "closed"},
    "events": {"502", "closed"},
    "ticks": {"502", "closed"},
    "sockets": {"502", "closed", "close 1012"},
    "rooms": {"502", "closed", "close 1012"},
}


def status(run: M2GateRun) -> StatusDocument:
    (folder,) = run.runtime.glob("m2gate/run-*")
    return StatusClient(folder / "status", timeout_s=10).ask()


def ready_pids(run: M2GateRun) -> set[int]:
    return {one["pid"] for one in status(run)["workers"] if one["state"] == "ready"}


def is_missing(run: M2GateRun, before: set[int]) -> bool:
    return not before <= ready_pids(run)


def victim(run: M2GateRun) -> int:
    """The worker with the most open requests: it has some of each kind."""
    return max(status(run)["workers"], key=lambda one: one["outstanding"])["pid"]


def assert_only_its_clients(report: Report, failures: list[Failure], pid: int, at_s: float, within_s: float) -> None:
    """Who failed had something open in the dead worker; what it saw is allowed, and came in time."""
    for one in failures:
        assert one.what in WHAT[one.kind], one
        assert report.delay_s(one, at_s) < within_s, (one, at_s)
        if one.kind in ("ticks", "sockets", "rooms"):
            assert one.worker in (0, pid), one


def died(run: M2GateRun) -> int:
    """Requests that have failed so far as their worker died."""
    return status(run)["counters"]["requests_failed"]["worker-died"]


def assert_counted(run: M2GateRun) -> None:
    """started = finished + failed, once nothing is open."""

    def is_even() -> bool:
        counters = status(run)["counters"]
        return counters["requests_started"] == counters["requests_finished"] + sum(counters["requests_failed"].values())

    wait_until(is_even, "the counts add up", 15)


def kill_under_load(run: M2GateRun, number: signal.Signals, within_s: float, rounds: int) -> None:
    for _ in range(rounds):
        wait_until(lambda: len(ready_pids(run)) == 3, "three workers are ready", 20)
        with load(run.port, publish_ms=20, **MIX) as clients:
            before, died_before = ready_pids(run), died(run)
            pid = victim(run)
            at_s = time.monotonic()
            os.kill(pid, number)
            wait_until(partial(is_missing, run, before), "the gateway has noticed", within_s)
            noticed_s = time.monotonic()
            wait_until(lambda: len(ready_pids(run)) == 3, "a new worker serves", 10)
            assert time.monotonic() - noticed_s < 2.0 + 1.0, "a new worker is there within two seconds"
            assert ready_pids(run) - before, "it is a new one"
            time.sleep(1.0)  # of load on it
            report = clients.finish()
            failures = [one for one in report.failures if one.kind != "publish"]
            assert_only_its_clients(report, failures, pid, at_s, within_s)
            # A request, of any connection, fails for its client where the gateway counts it, and nowhere else;
            # but for answers that were reported and died on their way, which the log has.
            assert 0 < len(failures) <= died(run) - died_before + run.stderr.count(DIED_ON_ITS_WAY)
            # A stream that has begun is the gateway's; one that is just being asked for is a request like others.
            assert not [one for one in report.of("events") if one.worker]
        assert_alive(report)
    assert_counted(run)


def assert_alive(report: Report) -> None:
    for kind in MIX:
        assert report.good[kind] > 0, (kind, report)


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    return int(request.param)


REPEATED = [pytest.param(2, id="2"), pytest.param(20, id="20", marks=pytest.mark.full)]


@pytest.mark.parametrize("rounds", REPEATED, indirect=True)
def test_a_killed_worker(rounds: int) -> None:
    with m2gate_run(APP, "--workers", "3") as run:
        kill_under_load(run, signal.SIGKILL, SEEN_S, rounds)


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.full)], indirect=True)
def test_a_stopped_worker(rounds: int) -> None:
    with m2gate_run(APP, "--workers", "3") as run:
        kill_under_load(run, signal.SIGSTOP, HUNG_S, rounds)


def test_a_handler_that_computes_for_long_is_not_taken_for_hung() -> None:
    with m2gate_run(APP, "--workers", "2") as run, load(run.port, plain=4) as clients:
        assert get(run, "/compute/10/token", timeout_s=30) == "token"
        report = clients.finish()
        assert not report.failures
        counters = status(run)["counters"]
        assert counters["worker_deaths"] == {"exit": 0, "hung": 0}


def test_a_502_is_worth_reading(tmp_path: Path) -> None:
    """It names itself and the request, and the access log has the same id."""
    log = tmp_path / "access.log"
    with m2gate_run(APP, "--workers", "1", "--gateway", f"--access-log={log}") as run:
        client = http.client.HTTPConnection("127.0.0.1", run.port, timeout=10)
        client.request("GET", "/sleep/20000/x")
        wait_until(lambda: status(run)["workers"][0]["outstanding"] == 1, "it is open")
        os.kill(status(run)["workers"][0]["pid"], signal.SIGKILL)
        answer = client.getresponse()
        text = answer.read().decode()
        assert answer.status == 502
        request_id = answer.headers["X-Request-Id"]
        assert text == f"502 Bad Gateway: the worker that had the request has died\nrequest id: {request_id}\n"
        # The connection goes on, with the next worker.
        client.request("GET", "/ok/again")
        assert client.getresponse().read() == b"again"
        client.close()
        lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(one["status"], one["worker"]) for one in lines if one["request_id"] == request_id] == [(502, "gateway")]
