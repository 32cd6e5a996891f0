"""The gateway, or Mongrel2, is killed under load: it is back at once, and nobody is left hanging."""

import http.client
import os
import signal
import time
from contextlib import suppress

import pytest

from tests.system.loaded import load
from tests.system.processes import ROOT
from tests.system.runs import get
from tests.system.support import M2GateRun, m2gate_run, wait_until
from tests.system.test_gateway_deaths import assert_counted, ready_pids, status

pytestmark = pytest.mark.alone

APP = ROOT / "tests/system/apps/mixed.py"
SLACK_S = 3.0  # the clients, too, share two cores with all of this; a probe that is lost takes one
BACK_S = 2.0 + SLACK_S
TOLD_S = 10.0  # within which each client is answered, closed or resumed
MIX = {"plain": 10, "slow": 10, "upload": 2, "download": 4, "ticks": 10, "events": 30, "sockets": 15, "rooms": 10}


def gateway(run: M2GateRun) -> int:
    return run.child("m2gate.gateway.process")


def is_back(run: M2GateRun) -> bool:
    with suppress(OSError, http.client.HTTPException, AssertionError):
        return get(run, "/ok/back", timeout_s=1) == "back"
    return False


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.full)])
def test_a_killed_gateway(rounds: int) -> None:
    with m2gate_run(APP, "--workers", "3") as run:
        for _ in range(rounds):
            with load(run.port, publish_ms=50, **MIX) as clients:
                workers = ready_pids(run)
                os.kill(gateway(run), signal.SIGKILL)
                at_s = time.monotonic()
                wait_until(lambda: is_back(run), "it serves again", 12)
                took_s = time.monotonic() - at_s
                time.sleep(TOLD_S - 2)  # of load
                stop_s = time.monotonic()
                report = clients.finish()
            assert took_s < BACK_S, took_s
            assert time.monotonic() - stop_s < TOLD_S, "somebody waits for what will never come"
            assert ready_pids(run) == workers
            for one in report.failures:
                # A WebSocket of which a message was on its way through the gateway is closed, and no other.
                allowed = ("close 1012",) if one.kind in ("sockets", "rooms") else ("closed", "502", "500")
                assert one.what in allowed, one
                assert report.delay_s(one, at_s) < TOLD_S + SLACK_S, (one, at_s)
            # What a worker owns goes on.
            assert not report.of("rooms", "ticks"), report.of("rooms", "ticks")
            for kind in MIX:
                assert report.good[kind], kind
        assert "workers of a former gateway expected count=3" in run.stderr
        assert "closed connections that were left behind" in run.stderr
        assert status(run)["counters"]["orphans_closed"] > 0
        assert_counted(run)


def test_a_killed_mongrel2() -> None:
    with m2gate_run(APP, "--workers", "3") as run:
        for _ in range(3):
            with load(run.port, publish_ms=50, **MIX) as clients:
                os.kill(run.child("mongrel2.sqlite"), signal.SIGKILL)
                at_s = time.monotonic()
                wait_until(lambda: is_back(run), "it serves again", 10)
                took_s = time.monotonic() - at_s
                time.sleep(1)  # of load
                report = clients.finish()
            assert took_s < BACK_S
            assert {one.what for one in report.failures} <= {"closed"}, report.failures
            assert max(report.delay_s(one, at_s) for one in report.failures) < 3
        assert_counted(run)
