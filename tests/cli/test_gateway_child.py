"""The gateway process, played by a small program: kept, watched, stopped."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from m2gate.cli import gateway_child as gateway_child_module
from m2gate.cli.gateway_child import HUNG_S, LATE_S, BeatWatch, GatewayKeeper
from m2gate.cli.supervision import Supervision
from m2gate.worker.supervisor import Loop

FAKE = """
import json, os, signal, struct, sys, time
settings = json.load(open(sys.argv[1]))
how = json.load(open(settings["folder"] + "/how.json"))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if how.get("status"):
    sys.exit(how["status"])
def beat():
    open(settings["folder"] + "/gateway.beat", "wb").write(struct.pack("<Q", time.monotonic_ns()))
beat()
os.write(settings["ready_fd"], b"ready\\n")
while True:
    time.sleep(0.02)
    if not how.get("hangs"):
        beat()
"""


class Run:
    """A keeper with a fake gateway."""

    def __init__(self, loop: Loop, folder: Path) -> None:
        self.loop = loop
        self.folder = folder
        self.behave()
        self.supervision = Supervision(loop)
        self.told: list[str] = []
        self.keeper = GatewayKeeper(
            self.supervision,
            {"folder": str(folder), "servers": []},
            folder,
            on_ready=lambda: self.told.append("ready"),
            on_gone=lambda: self.told.append("gone"),
        )

    def behave(self, **how: object) -> None:
        (self.folder / "how.json").write_text(json.dumps(how))

    def until(self, is_done: Callable[[], bool], timeout_s: float = 10.0) -> None:
        late: list[bool] = []
        timer = self.loop.call_later(timeout_s, lambda: late.append(True))
        self.loop.run_until(lambda: bool(late) or is_done())
        timer.cancel()
        assert not late, self.told


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(gateway_child_module, "PROGRAM", (str(tmp_path / "fake.py"),))
    with Loop() as loop:
        yield Run(loop, tmp_path)
        loop.kill_all()


def test_a_dead_gateway_is_started_again(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.keeper.start()
    run.until(lambda: run.told == ["ready"])
    run.supervision.is_ready = True
    first = run.keeper.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    run.until(lambda: run.told == ["ready", "ready"])
    assert run.keeper.pid != first
    assert run.supervision.restarts["gateway"] == 1
    assert run.supervision.last_end == "the gateway was ended by SIGKILL"
    assert "m2gate: the gateway was ended by SIGKILL; starting it again\n" in capsys.readouterr().err


def test_a_hung_gateway_is_killed(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gateway_child_module, "HUNG_S", 0.2)
    monkeypatch.setattr(gateway_child_module, "POLL_S", 0.05)
    run.behave(hangs=True)
    run.keeper.start()
    run.until(lambda: run.told == ["ready"])
    run.supervision.is_ready = True
    run.behave()
    run.until(lambda: run.told == ["ready", "ready"])
    assert capsys.readouterr().err.splitlines() == [
        "m2gate: the gateway has not moved for 0.2 s; killing it",
        "m2gate: the gateway was ended by SIGKILL; starting it again",
    ]


def test_stop(run: Run) -> None:
    run.keeper.start()
    run.until(lambda: run.told == ["ready"])
    run.supervision.is_stopping = True
    run.keeper.stop(signal.SIGTERM, 5.0)
    run.until(lambda: run.told == ["ready", "gone"])
    assert run.keeper.pid is None


@pytest.mark.parametrize(
    ("status", "exit_status", "said"),
    [(2, 2, ""), (3, 1, "m2gate: the gateway ended with status 3 before it was ready\n")],
)
def test_a_gateway_that_does_not_start_ends_the_run(
    run: Run, capsys: pytest.CaptureFixture[str], status: int, exit_status: int, said: str
) -> None:
    run.behave(status=status)
    run.keeper.start()
    run.until(lambda: run.supervision.is_over)
    assert run.supervision.exit_status == exit_status
    assert capsys.readouterr().err == said


def test_beats(tmp_path: Path) -> None:
    path = tmp_path / "beat"
    watch = BeatWatch(path)
    looks = iter(range(1000))

    def is_hung(count: int) -> bool:
        """Look so often, twice a second; tell what the last look says."""
        return [watch.is_hung(next(looks) / 2) for _ in range(count)][-1]

    assert not is_hung(100)  # none was seen yet
    path.write_bytes(b"1")
    assert not is_hung(int(2 * HUNG_S) + 1)
    assert is_hung(1)
    path.write_bytes(b"2")
    assert not is_hung(1)
    path.write_bytes(b"")  # about to be written
    assert not is_hung(5)
    path.write_bytes(b"3")
    assert not is_hung(int(2 * HUNG_S) + 1)
    watch.begin()
    assert not path.exists()
    assert not is_hung(100)


def test_a_late_look_is_no_proof(tmp_path: Path) -> None:
    path = tmp_path / "beat"
    path.write_bytes(b"1")
    watch = BeatWatch(path)
    assert not watch.is_hung(100.0)
    assert not watch.is_hung(100.0 + HUNG_S + LATE_S)
    assert not watch.is_hung(102.0 + HUNG_S + LATE_S)
