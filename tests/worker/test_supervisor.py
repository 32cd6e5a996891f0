"""The supervisor with small programs as its children."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from m2gate.worker.supervisor import ALIVE_S, RESTART_MAX_S, Backoff, Child, Keeper, Loop
from tests.system.support import alive, wait_until

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as one:
        yield one
        one.kill_all()


def run_until(loop: Loop, is_done: Callable[[], bool], timeout_s: float = 10.0) -> None:
    late: list[bool] = []
    timer = loop.call_later(timeout_s, lambda: late.append(True))
    loop.run_until(lambda: bool(late) or is_done())
    timer.cancel()
    assert not late, "not in time"


def test_backoff_doubles_to_its_bound_and_forgets() -> None:
    backoff = Backoff()
    delays = [backoff.next_delay_s(0.5) for _ in range(9)]
    assert delays == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, RESTART_MAX_S, RESTART_MAX_S]
    assert backoff.next_delay_s(ALIVE_S) == 0.0
    assert backoff.next_delay_s(0.5) == 0.1
    for _ in range(2000):
        backoff.next_delay_s(0.1)
    assert backoff.next_delay_s(0.1) == RESTART_MAX_S


def test_timers_come_in_order_and_can_be_cancelled(loop: Loop) -> None:
    calls: list[str] = []
    loop.call_later(0.05, lambda: calls.append("second"))
    loop.call_later(0.01, lambda: calls.append("first"))
    loop.call_later(0.02, lambda: calls.append("never")).cancel()
    run_until(loop, lambda: len(calls) == 2)
    assert calls == ["first", "second"]


def test_signals_are_handled_in_the_loop_and_given_back() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with Loop() as loop:
        calls: list[int] = []
        loop.on_signal(signal.SIGUSR1, lambda: calls.append(1))
        os.kill(os.getpid(), signal.SIGUSR1)
        assert not calls
        run_until(loop, lambda: bool(calls))
    assert signal.getsignal(signal.SIGUSR1) is before


def test_a_childs_end_is_told(loop: Loop) -> None:
    ended: list[Child] = []
    loop.spawn("one", [sys.executable, "-c", "raise SystemExit(3)"], ended.append)
    run_until(loop, lambda: bool(ended))
    assert ended[0].describe_end() == "ended with status 3"
    assert not ended[0].is_alive


def test_a_child_that_ignores_the_signal_is_killed(loop: Loop) -> None:
    ended: list[Child] = []
    deaf = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as output:
        child = loop.spawn("deaf", [sys.executable, "-c", deaf], ended.append, output=output)
    assert os.read(reader, 1) == b"\n"
    os.close(reader)
    child.stop(signal.SIGTERM, 0.1)
    run_until(loop, lambda: bool(ended))
    assert child.describe_end() == "was ended by SIGKILL"


def test_ctrl_c_does_not_reach_children(loop: Loop) -> None:
    child = loop.spawn("one", SLEEP, lambda _: None)
    assert os.getpgid(child.process.pid) == child.process.pid


def test_keeper_starts_again_and_says_a_loop_once(loop: Loop) -> None:
    said: list[str] = []
    starts: list[float] = []

    def spawn(on_exit: Callable[[Child], None]) -> Child:
        starts.append(time.monotonic())
        return loop.spawn("one", [sys.executable, "-c", "raise SystemExit(1)"], on_exit)

    Keeper(loop, "the thing", spawn, said.append).start()
    run_until(loop, lambda: len(starts) == 5)
    assert said[:2] == ["the thing ended with status 1; starting it again"] * 2
    assert len(said) == 3
    assert "again and again" in said[2]
    assert starts[4] - starts[3] >= 0.4


def test_keeper_stop_is_for_good(loop: Loop) -> None:
    said: list[str] = []
    starts: list[Child] = []
    ended: list[Child] = []

    def spawn(on_exit: Callable[[Child], None]) -> Child:
        def both(child: Child) -> None:
            on_exit(child)
            ended.append(child)

        starts.append(loop.spawn("one", SLEEP, both))
        return starts[-1]

    keeper = Keeper(loop, "the thing", spawn, said.append)
    keeper.start()
    keeper.start()
    assert len(starts) == 1
    starts[0].process.kill()
    run_until(loop, lambda: len(starts) == 2)
    keeper.stop(signal.SIGTERM, 5)
    run_until(loop, lambda: len(ended) == 2)
    assert len(starts) == 2
    assert len(said) == 1


def test_keeper_adopts(loop: Loop) -> None:
    said: list[str] = []
    ended: list[Child] = []

    def spawn(on_exit: Callable[[Child], None]) -> Child:
        def both(child: Child) -> None:
            on_exit(child)
            ended.append(child)

        return loop.spawn("one", SLEEP, both)

    keeper = Keeper(loop, "the thing", spawn, said.append)
    keeper.start()
    first, second = keeper.child, spawn(keeper.ended)
    assert first is not None
    keeper.adopt(second)
    first.process.kill()
    run_until(loop, lambda: bool(ended))
    assert keeper.child is second
    assert not said
    second.process.kill()
    run_until(loop, lambda: keeper.child not in (second, None))
    assert len(said) == 1


PARENT = """
import sys, time
from m2gate.worker.supervisor import Loop
with Loop() as loop:
    child = loop.spawn("one", [sys.executable, "-c", "import time; time.sleep(60)"], lambda child: None)
    print(child.process.pid, flush=True)
    time.sleep(60)
"""


def test_nothing_outlives_a_killed_parent() -> None:
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, cwd=root) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    wait_until(lambda: not alive(pid), "the child is gone too")
