"""scripts/run as somebody uses it who has just cloned the tree: nothing in the environment, nothing left behind."""

import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.support import ROOT, accepts, alive, children, free_port, short_directory, wait_until

START_S = 240.0  # packages may have to come from the network
QUICK_S = 10.0


class Script:
    """A running ``scripts/run``, with what it has printed so far."""

    def __init__(self, tree: Path, home: Path, port: int) -> None:
        self.port = port
        self.home = home
        environment = {"HOME": str(home), "TMPDIR": str(home), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        with (home / "out").open("wb") as out, (home / "err").open("wb") as err:
            command = [str(tree / "scripts/run"), "--bind", f"127.0.0.1:{port}"]
            self.process = subprocess.Popen(command, cwd="/", env=environment, stdout=out, stderr=err)

    @property
    def stdout(self) -> str:
        return (self.home / "out").read_text()

    @property
    def stderr(self) -> str:
        return (self.home / "err").read_text()

    def wait_listening(self) -> None:
        def is_listening() -> bool:
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.stderr}"
            return self.stdout == f"listening on http://127.0.0.1:{self.port}\n"

        wait_until(is_listening, "scripts/run listens", START_S)

    def descendants(self) -> list[int]:
        """All processes below it, and itself: exec leaves no shell in between."""
        found, todo = [], [self.process.pid]
        while todo:
            found.append(pid := todo.pop())
            todo += children(pid)
        return found


@contextmanager
def scripts_run(tree: Path, home: Path) -> Iterator[Script]:
    script = Script(tree, home, free_port())
    try:
        yield script
    finally:
        if script.process.poll() is None:
            script.process.kill()
            script.process.wait(10)


def serve_once(tree: Path, home: Path, number: signal.Signals) -> str:
    """Start, fetch the index page, stop with the signal, and look for leftovers; stderr."""
    with scripts_run(tree, home) as script:
        script.wait_listening()
        with urllib.request.urlopen(f"http://127.0.0.1:{script.port}/", timeout=10) as answer:
            assert answer.status == 200
            assert b"<a href=" in answer.read()
        pids = script.descendants()
        assert len(pids) >= 3  # m2gate run, Mongrel2, the worker
        script.process.send_signal(number)
        assert script.process.wait(20) == 0
        wait_until(lambda: not any(alive(pid) for pid in pids), "all processes are gone")
        assert not accepts(script.port)
        assert sorted(os.listdir(home)) == ["err", "out"]
        return script.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_scripts_run_serves_and_leaves_nothing(number: signal.Signals) -> None:
    with short_directory() as home:
        serve_once(ROOT, home, number)
        serve_once(ROOT, home, number)  # a second start works


@pytest.mark.full
def test_a_fresh_copy_sets_itself_up_and_is_quick_the_second_time() -> None:
    with short_directory() as folder:
        tree, home = folder / "copy", folder / "home"
        home.mkdir()
        ignored = shutil.ignore_patterns(".*", "node_modules", "__pycache__", "*.egg-info", "build", "tests")
        shutil.copytree(ROOT, tree, ignore=ignored)
        # The copy has a home of its own, where pip may keep what it likes.
        with scripts_run(tree, home) as first:
            first.wait_listening()
            assert "making .venv" in first.stderr
            first.process.terminate()
            assert first.process.wait(20) == 0
        shutil.rmtree(home)
        home.mkdir()
        start = time.monotonic()
        assert "making" not in serve_once(tree, home, signal.SIGTERM)
        assert time.monotonic() - start < QUICK_S
