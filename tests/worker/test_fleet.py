"""A fleet with small programs in place of workers: generations, deaths, hand-overs."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from m2gate.worker import child as child_module
from m2gate.worker.child import WorkerChild, WorkerPlan
from m2gate.worker.fleet import GENERATIONS_MAX, Fleet, FleetHooks
from m2gate.worker.generation import Generation
from m2gate.worker.supervisor import Loop
from tests.system.support import alive, wait_until

pytestmark = pytest.mark.system

# What a worker does towards its supervisor; how it behaves stands in the file that TARGET names.
FAKE = """
import json, os, signal, sys, time
settings = json.load(open(sys.argv[1]))
how = json.load(open(settings["target"]))
def tell(line):
    os.write(settings["ready_fd"], line)
def end(*_):
    time.sleep(how.get("drain_s", 0))
    os._exit(0)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGHUP, end)
if how.get("broken") == settings["name"] or how.get("broken") == "all":
    sys.stderr.write("Traceback\\n" + 20 * "  line\\n" + "ModuleNotFoundError: no module named shop\\n")
    sys.exit(2)
open(settings["run_dir"] + "/loading", "w").close()
time.sleep(how.get("load_s", 0))
with open(settings["run_dir"] + "/app.json", "w") as file:
    json.dump({"json_sockets": how.get("json_sockets", []), "files": ["a.py"]}, file)
tell(b"loaded\\n")
sys.stdin.buffer.readline() or sys.exit(0)
if how.get("deaf"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
if how.get("output"):
    print("started", flush=True)
if "output_fd" in settings:
    os.dup2(settings["output_fd"], 1)
tell(b"ready\\n")
if "spent_s" in how:
    time.sleep(how["spent_s"])
    tell(b"spent\\n")
if how.get("dies"):
    time.sleep(0.05)
    sys.exit(3)
while True:
    signal.pause()
"""


class Run:
    """A fleet, and what it told."""

    def __init__(self, loop: Loop, folder: Path, *, count: int, drain_timeout_s: float = 10.0) -> None:
        self.loop = loop
        self.target = folder / "how.json"
        self.behave()
        self.said: list[str] = []
        self.told: list[str] = []
        plan = WorkerPlan(target=str(self.target), folder=folder, links={}, drain_timeout_s=drain_timeout_s)
        hooks = FleetHooks(
            say=self.said.append,
            on_loaded=self._loaded,
            on_ready=lambda one: self.told.append(f"ready {one.number}"),
            on_kept=lambda: self.told.append("kept"),
            on_failed=lambda worker: self.told.append(f"failed {worker.name} {worker.child.describe_end()}"),
            on_death=self.told.append,
            on_gone=lambda: self.told.append("gone"),
        )
        self.fleet = Fleet(loop, plan, hooks, count=count)

    def _loaded(self, generation: Generation) -> None:
        self.told.append(f"loaded {generation.number} {generation.json_sockets}")
        generation.go()

    def behave(self, **how: object) -> None:
        self.target.write_text(json.dumps(how))

    def until(self, is_done: Callable[[], bool], timeout_s: float = 20.0) -> None:
        late: list[bool] = []
        timer = self.loop.call_later(timeout_s, lambda: late.append(True))
        self.loop.run_until(lambda: bool(late) or is_done())
        timer.cancel()
        assert not late, (self.told, self.said, self.fleet.workers)

    def until_told(self, line: str) -> None:
        self.until(lambda: line in self.told)

    def start(self) -> None:
        self.fleet.start()
        self.until_told("ready 1")

    def states(self) -> list[str]:
        return [f"{one.name}.{one.generation} {one.state}" for one in self.fleet.workers]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Run]]:
    program = tmp_path / "fake.py"
    program.write_text(FAKE)
    monkeypatch.setattr(child_module, "PROGRAM", (str(program),))
    with Loop() as loop:
        yield lambda count=2, **options: Run(loop, tmp_path, count=count, **options)
        loop.kill_all()


def pids(run: Run) -> list[int]:
    return [worker.pid for worker in run.fleet.workers]


def test_all_workers_serve(run: Callable[..., Run]) -> None:
    one = run(count=3)
    one.behave(json_sockets=["@echo"])
    one.start()
    assert one.told == ["loaded 1 ('@echo',)", "ready 1"]
    assert one.states() == ["w1.1 ready", "w2.1 ready", "w3.1 ready"]
    assert one.fleet.generation == 1


def test_stop_lets_all_end(run: Callable[..., Run], tmp_path: Path) -> None:
    one = run()
    one.start()
    before = pids(one)
    one.fleet.stop()
    assert one.states() == ["w1.1 leaving", "w2.1 leaving"]
    one.until_told("gone")
    assert not any(alive(pid) for pid in before)
    assert list(tmp_path.glob("worker-*")) == []
    assert one.said == []


def test_stop_while_loading(run: Callable[..., Run]) -> None:
    one = run()
    one.behave(load_s=60)
    one.fleet.start()
    one.fleet.stop()
    assert one.told == ["gone"]


def test_a_broken_start_is_told_once(run: Callable[..., Run]) -> None:
    one = run(count=4)
    one.behave(broken="all")
    one.fleet.start()
    one.until(lambda: bool(one.told))
    assert one.told == ["failed w1 ended with status 2"]
    assert one.fleet.workers == []


def test_a_generation_takes_over_when_all_of_it_are_ready(run: Callable[..., Run]) -> None:
    one = run()
    one.behave(drain_s=0.3)
    one.start()
    before = pids(one)
    one.fleet.reload()
    one.until(lambda: "w1.2 ready" in one.states() or "w2.2 ready" in one.states())
    one.until_told("ready 2")
    assert one.states() == ["w1.2 ready", "w2.2 ready", "w1.1 leaving", "w2.1 leaving"]
    one.until(lambda: not any(alive(pid) for pid in before))
    one.until(lambda: len(one.fleet.workers) == 2)
    assert one.said == []


@pytest.mark.parametrize("broken", ["all", "w1", "w2"])
def test_the_old_code_goes_on_if_the_new_is_broken(run: Callable[..., Run], broken: str) -> None:
    one = run()
    one.start()
    before = pids(one)
    one.behave(broken=broken)
    one.fleet.reload()
    one.until_told("kept")
    place = "w2" if broken == "w2" else "w1"
    assert one.said == [f"the new code was not loaded (the worker {place} ended with status 2); the old code goes on"]
    assert pids(one) == before
    one.behave()
    one.fleet.reload()
    one.until_told("ready 3")


def test_at_most_three_generations_live_and_further_reloads_are_one(run: Callable[..., Run]) -> None:
    one = run(count=1)
    one.behave(drain_s=1.0)
    one.start()
    for number in (2, 3):
        one.fleet.reload()
        one.until_told(f"ready {number}")
    assert len(one.fleet.generations) == GENERATIONS_MAX
    for _ in range(5):
        one.fleet.reload()
    assert len(one.fleet.generations) == GENERATIONS_MAX
    one.until_told("ready 4")
    one.until(lambda: len(one.fleet.generations) == 1)
    assert one.fleet.generation == 4


def test_reloads_while_one_loads_are_one(run: Callable[..., Run]) -> None:
    one = run(count=1)
    one.start()
    one.behave(load_s=0.3)
    for _ in range(20):
        one.fleet.reload()
    one.until_told("ready 3")
    one.until(lambda: len(one.fleet.generations) == 1)
    assert one.fleet.generation == 3


def test_a_reload_that_hangs_gives_way(
    run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2gate.worker.fleet.LOAD_PATIENCE_S", 0.3)
    one = run(count=1)
    one.start()
    one.behave(load_s=60)
    one.fleet.reload()
    hung = one.fleet.workers[0].pid
    wait_until(lambda: list(tmp_path.glob("worker-2/loading")), "it is loading")
    one.behave()
    one.fleet.reload()
    one.until_told("ready 3")
    assert not alive(hung)
    assert one.said == ["the new code has not come to anything in 0.3 s; loading it again"]


def test_a_dead_worker_is_replaced_in_its_place(run: Callable[..., Run]) -> None:
    one = run()
    one.start()
    first, second = one.fleet.workers
    os.kill(second.pid, signal.SIGKILL)
    one.until(lambda: not second.child.is_alive)
    one.until(lambda: one.states() == ["w1.1 ready", "w2.1 ready"])
    assert one.fleet.workers[0] is first
    assert one.said == ["the worker w2 was ended by SIGKILL; starting it again"]
    assert one.told[-1] == "the worker w2 was ended by SIGKILL"


def test_a_crash_loop_is_told_once_and_its_output_once(
    run: Callable[..., Run], capfd: pytest.CaptureFixture[str]
) -> None:
    one = run()
    one.start()
    one.behave(broken="all")
    for worker in one.fleet.workers:
        os.kill(worker.pid, signal.SIGKILL)
    one.until(lambda: len(one.told) == 2 + 12)  # deaths
    assert one.fleet.is_looping
    assert sum("again and again" in line for line in one.said) == 1
    assert one.said.count("the worker w1 said: ModuleNotFoundError: no module named shop") <= 1
    assert len(one.said) <= 6
    assert capfd.readouterr().err.count("ModuleNotFoundError") <= 4
    assert len(one.fleet.workers) <= 2


def test_the_end_of_a_crash_loop_is_told(run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2gate.worker.generation.ALIVE_S", 0.1)
    one = run(count=1)
    one.start()
    one.behave(broken="all")
    os.kill(one.fleet.workers[0].pid, signal.SIGKILL)
    one.until(lambda: one.fleet.is_looping)
    one.behave(output=True)
    one.until(lambda: "all workers live again" in one.said)
    assert not one.fleet.is_looping


def test_a_generation_ends_the_crash_loop_of_the_one_before(run: Callable[..., Run]) -> None:
    one = run()
    one.behave(dies=True)
    one.start()
    one.until(lambda: one.fleet.is_looping)
    one.behave()
    one.fleet.reload()
    one.until_told("ready 2")
    one.until(lambda: one.states() == ["w1.2 ready", "w2.2 ready"])
    assert not one.fleet.is_looping


def test_a_spent_worker_is_replaced_before_it_leaves(run: Callable[..., Run]) -> None:
    one = run()
    one.behave(spent_s=0.4)
    one.start()
    one.behave()
    before = pids(one)
    one.until(lambda: not any(alive(pid) for pid in before))
    one.until(lambda: one.states() == ["w1.1 ready", "w2.1 ready"])
    assert one.said == []


def test_a_spent_worker_stays_if_its_successor_is_broken(run: Callable[..., Run]) -> None:
    one = run(count=1)
    one.behave(spent_s=0.4)
    one.start()
    one.behave(broken="all")
    before = pids(one)
    one.until(lambda: bool(one.said))
    assert pids(one) == before
    one.behave()
    one.until(lambda: pids(one) != before and one.states() == ["w1.1 ready"])


def test_a_worker_that_ignores_the_drain_is_killed(run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2gate.worker.generation.KILL_S", 0.1)
    one = run(count=1, drain_timeout_s=0.1)
    one.behave(deaf=True)
    one.start()
    one.fleet.stop()
    one.until_told("gone")
    assert one.said == ["the worker w1 was ended by SIGKILL (generation 1, while it was leaving)"]


def test_what_cannot_be_started_is_tried_again(run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2gate.worker.generation.RESTART_MAX_S", 0.1)
    one = run(count=1)
    one.start()
    monkeypatch.setattr(child_module, "INTERPRETER", "/nothing/python")
    os.kill(one.fleet.workers[0].pid, signal.SIGKILL)
    one.until(lambda: len(one.said) >= 2)
    assert "the worker w1 cannot be started: [Errno 2]" in one.said[1]
    monkeypatch.setattr(child_module, "INTERPRETER", sys.executable)
    one.until(lambda: one.states() == ["w1.1 ready"])


def test_records_name_the_worker(run: Callable[..., Run]) -> None:
    one = run(count=1)
    one.start()
    worker: WorkerChild = one.fleet.workers[0]
    assert repr(worker) == "<WorkerChild w1 generation=1 ready>"
