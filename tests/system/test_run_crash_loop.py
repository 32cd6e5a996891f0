"""Code that breaks while it serves: what the operator reads, how much of it, and how it ends."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.system.runs import answers, write_app
from tests.system.supervised import all_ready
from tests.system.support import M2GateRun, alive, m2gate_run, wait_until

SHAPES = [
    pytest.param((), 1, id="direct"),
    pytest.param(("--workers", "2"), 2, id="gateway"),
]


def break_and_kill(run: M2GateRun, app: Path, count: int) -> None:
    """Let all workers die, with code on the disk that cannot be loaded."""
    good = app.read_text()
    pids = all_ready(run, count)
    app.write_text("import nothing_of_this_name\n" + good)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in pids), "they are dead")


@pytest.mark.parametrize(("options", "count"), SHAPES)
def test_a_crash_loop_is_told_and_ends(app: Path, options: tuple[str, ...], count: int) -> None:
    with m2gate_run(app, *options) as run:
        break_and_kill(run, app, count)
        wait_until(lambda: "again and again" in run.stderr, "the loop is told", 30)
        time.sleep(1)
        before = len(run.stderr)
        cpu_before = cpu_s(run.pid)
        time.sleep(10)
        assert len(run.stderr) - before < 1_000, run.stderr[before:]
        assert cpu_s(run.pid) - cpu_before < 0.5
        assert "nothing_of_this_name" in run.stderr
        assert run.stderr.count("again and again") == 1
        write_app(app, "mended")
        wait_until(lambda: answers(run, "mended"), "the mended code serves", timeout_s=15)
        assert run.stop() == 0


@pytest.mark.parametrize(("options", "count"), SHAPES)
def test_a_reload_does_not_wait_for_the_next_attempt(app: Path, options: tuple[str, ...], count: int) -> None:
    with m2gate_run(app, *options) as run:
        break_and_kill(run, app, count)
        wait_until(lambda: "again and again" in run.stderr, "the loop is told", 30)
        write_app(app, "mended")
        run.process.send_signal(signal.SIGHUP)
        wait_until(lambda: answers(run, "mended"), "the mended code serves")
        assert run.stop() == 0


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used by itself."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
