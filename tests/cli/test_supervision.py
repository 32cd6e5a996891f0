"""Signals, progress, the state file and systemd, with nothing behind them."""

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from m2gate.cli import supervision as supervision_module
from m2gate.cli.supervision import Supervision, write_whole
from m2gate.worker.supervisor import Loop


class Nothing:
    """Supervised without children."""

    def __init__(self, supervision: Supervision) -> None:
        self.supervision = supervision
        self.calls: list[str] = []
        self.waits_for = ""
        self.value = 0

    def start(self) -> None:
        self.calls.append("start")

    def reload(self) -> None:
        self.calls.append("reload")

    def stop(self) -> None:
        self.calls.append("stop")

    def describe_start(self) -> str:
        return self.waits_for

    def document(self) -> dict[str, object]:
        return {"value": self.value, "workers": [{"name": "w1", "pid": 7}]}


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as one:
        yield one


def run(loop: Loop, steps: list[Callable[[], None]], supervision: Supervision, nothing: Nothing) -> int:
    """Run with one step after the other."""
    for number, step in enumerate(steps, 1):
        loop.call_later(0.05 * number, step)
    loop.call_later(5.0, lambda: supervision.fail("late", 99))
    return supervision.run(nothing)


def kill(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def test_stop_and_stop_again(loop: Loop) -> None:
    supervision = Supervision(loop)
    nothing = Nothing(supervision)
    assert run(loop, [kill(signal.SIGTERM), kill(signal.SIGINT)], supervision, nothing) == 0
    assert nothing.calls == ["start", "stop"]


def test_hangup_counts_once_it_is_ready(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    supervision = Supervision(loop)
    nothing = Nothing(supervision)
    steps = [kill(signal.SIGHUP), lambda: supervision.ready("here"), kill(signal.SIGHUP), supervision.finish]
    assert run(loop, steps, supervision, nothing) == 0
    assert nothing.calls == ["start", "reload"]
    assert capsys.readouterr().out == "here\n"


def test_failure(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    supervision = Supervision(loop)
    assert run(loop, [lambda: supervision.fail("no luck")], supervision, Nothing(supervision)) == 1
    assert capsys.readouterr().err == "m2gate: no luck\n"


def test_status_on_a_signal(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    supervision = Supervision(loop)
    run(loop, [kill(signal.SIGUSR1), supervision.finish], supervision, Nothing(supervision))
    assert capsys.readouterr().err == "m2gate: status\n  value: 0\n  name=w1  pid=7\n"


def test_state_file_follows_each_change(loop: Loop, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    supervision = Supervision(loop, state=path)
    nothing = Nothing(supervision)
    seen: list[int] = []

    def look() -> None:
        seen.append(json.loads(path.read_text())["value"])
        nothing.value += 1

    run(loop, [look, look, look, supervision.finish], supervision, nothing)
    assert seen == [0, 1, 2]
    assert os.listdir(tmp_path) == ["state.json"]


def test_a_full_disk_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_whole(tmp_path / "no" / "state.json", "{}")
    assert "cannot be written: No such file or directory; what it says is out of date" in capsys.readouterr().err


def test_what_takes_long_is_told(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(supervision_module, "PROGRESS_S", 0.1)
    supervision = Supervision(loop)
    nothing = Nothing(supervision)
    nothing.waits_for = "1 of 2 workers are loaded"
    loop.call_later(0.6, supervision.finish)
    run(loop, [], supervision, nothing)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["m2gate: 1 of 2 workers are loaded, 0 s so far"] * 3  # after 0.1, 0.2, 0.4 s


def test_systemd_hears_of_a_reload(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        supervision = Supervision(loop)
        steps = [
            lambda: supervision.ready("here"),
            kill(signal.SIGHUP),
            supervision.reloaded,
            supervision.reloaded,
            kill(signal.SIGTERM),
            supervision.finish,
        ]
        run(loop, steps, supervision, Nothing(supervision))
        notified.settimeout(5)
        heard = [notified.recv(200).decode().partition("\n")[0] for _ in range(4)]
        assert heard == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
        notified.setblocking(False)
        with pytest.raises(BlockingIOError):
            notified.recv(200)
