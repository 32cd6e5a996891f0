"""Code that is loaded anew under load: nobody notices but those whose stream or WebSocket a worker owns."""

import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.system.loaded import load
from tests.system.processes import ROOT
from tests.system.runs import write_app
from tests.system.support import M2GateRun, m2gate_run, wait_until
from tests.system.test_gateway_deaths import assert_counted, status

pytestmark = pytest.mark.alone

APP = ROOT / "tests/system/apps/mixed.py"
DRAIN_S = 2.0


def newest(run: M2GateRun) -> int:
    """The generation of which all workers serve; 0 while one is on its way."""
    workers = status(run)["workers"]
    generation = max(one["generation"] for one in workers)
    ready = [one for one in workers if one["generation"] == generation and one["state"] == "ready"]
    return generation if len(ready) == 3 else 0


def swap(run: M2GateRun) -> None:
    before = newest(run)
    run.process.send_signal(signal.SIGHUP)
    wait_until(lambda: newest(run) > before, "a new generation serves", 40)


@pytest.mark.parametrize(
    ("swaps", "held"), [pytest.param(3, 150, id="3"), pytest.param(20, 500, id="20", marks=pytest.mark.full)]
)
def test_swaps_of_generations_under_load(swaps: int, held: int) -> None:
    with (
        m2gate_run(APP, "--workers", "3", "--drain-timeout", str(DRAIN_S)) as run,
        load(
            run.port,
            settle_s=5,
            plain=4,
            slow=4,
            ticks=10,
            events=held,
            sockets=held // 5,
            rooms=held // 5,
            publish_ms=50,
        ) as clients,
    ):
        url = f"http://127.0.0.1:{run.port}/ok/wrk"
        wrk = subprocess.Popen(["wrk", "-t1", "-c20", "-d3600", url], stdout=subprocess.PIPE, text=True)
        try:
            for _ in range(swaps):
                swap(run)
            time.sleep(DRAIN_S)
        finally:
            wrk.send_signal(signal.SIGINT)
            said, _ = wrk.communicate(timeout=30)
        report = clients.finish()
        assert re.search(r"\d+ requests in", said), said
        assert "Non-2xx" not in said, said
        assert "Socket errors" not in said, said
        assert not report.of("plain", "slow", "events", "publish")
        assert report.good["events"] > held
        # What a worker owns ends cleanly: a WebSocket by a close frame, a stream by its last chunk.
        assert {one.what for one in report.of("sockets", "rooms")} == {"close 1001"}
        assert {one.what for one in report.of("ticks")} == {"ended"}
        assert_counted(run)


def test_what_a_worker_owns_goes_on_until_the_drain_timeout() -> None:
    with (
        m2gate_run(APP, "--workers", "3", "--drain-timeout", "4") as run,
        load(run.port, ticks=5, sockets=5) as clients,
    ):
        swap(run)
        began_s = time.monotonic()
        wait_until(lambda: len(status(run)["workers"]) == 3, "the old workers are gone", 20)
        assert time.monotonic() - began_s > 2.5
        report = clients.finish()
        assert len(report.of("ticks")) == len(report.of("sockets")) == 5
        assert min(one.waited_s for one in report.failures) > 3.0


def test_code_that_does_not_load_changes_nothing(tmp_path: Path) -> None:
    app = write_app(tmp_path / "app.py", "one")
    with m2gate_run(app, "--workers", "3") as run, load(run.port, settle_s=0.1) as clients:
        write_broken(app)
        for _ in range(3):
            said = run.stderr.count("the old code goes on")
            run.process.send_signal(signal.SIGHUP)
            wait_until(lambda said=said: run.stderr.count("the old code goes on") > said, "it is said", 20)  # type: ignore[misc]
        assert "no_such_module" in run.stderr
        assert len(run.stderr) < 20_000
        assert {one["generation"] for one in status(run)["workers"]} == {1}
        assert not clients.finish().failures


def write_broken(path: Path) -> None:
    path.write_text("import no_such_module\n")
