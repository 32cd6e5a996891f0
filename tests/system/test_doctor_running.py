"""The doctor beside a Mongrel2 that runs: what only then can be wrong."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from m2gate.cli.doctor import command
from m2gate.site.load import find_program
from tests.site.installation import SITE, Healthy
from tests.system.processes import START_S, accepts, free_port, short_directory, stop_process, wait_until


class Running(Healthy):
    """A healthy installation whose plain server runs."""

    server_id = ""
    process: subprocess.Popen[bytes]

    def start(self, port: int, files: int | None = None) -> None:
        self.server_id = f"local-{port}"
        limit = [] if files is None else ["prlimit", f"--nofile={files}:{files}"]
        with (self.places.root / "output.log").open("wb") as output:
            self.process = subprocess.Popen(
                [*limit, find_program("mongrel2"), str(self.places.database), self.server_id],
                cwd=self.places.root,
                umask=0o007,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        sockets = [self.socket("req"), self.socket("rep"), self.places.control / f"{self.server_id}.control"]
        wait_until(lambda: accepts(port) and all(one.exists() for one in sockets), "mongrel2 runs", START_S)

    def socket(self, kind: str) -> Path:
        return self.places.handlers / f"{self.server_id}.{kind}"


@contextmanager
def started(files: int | None = None) -> Iterator[Running]:
    with short_directory() as folder:
        port, secure = free_port(), free_port()
        one = Running(folder, SITE.replace("8080", str(port)).replace("8443", str(secure)))
        one.start(port, files)
        try:
            yield one
        finally:
            one.process.send_signal(signal.SIGINT)
            stop_process(one.process)


@pytest.fixture
def running_one(monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    with started() as one:
        monkeypatch.setenv("M2GATE_ROOT", str(one.places.root))
        yield one


def findings() -> list[tuple[str, str]]:
    """Name and place of each finding."""
    done = CliRunner().invoke(command, ["--json"])
    found = json.loads(done.stdout)["findings"]
    assert done.exit_code == (1 if found else 0)
    return [(one["name"], one["where"]) for one in found]


def test_a_running_installation_is_healthy_and_stays_as_it_is(running_one: Running) -> None:
    assert findings() == []
    assert running_one.process.poll() is None
    assert accepts(int(running_one.server_id.rpartition("-")[2]))


@pytest.mark.parametrize("kind", ["req", "rep", "control"])
def test_a_socket_that_somebody_has_removed(running_one: Running, kind: str) -> None:
    socket = running_one.places.control / f"{running_one.server_id}.control" if kind == "control" else None
    socket = socket or running_one.socket(kind)
    socket.unlink()
    assert findings() == [("socket-missing", str(socket))]


def test_a_socket_for_everybody(running_one: Running) -> None:
    running_one.socket("rep").chmod(0o777)
    assert findings() == [("handler-sockets", str(running_one.socket("rep")))]


def test_a_server_that_was_killed(running_one: Running) -> None:
    running_one.process.kill()
    running_one.process.wait(10)
    assert findings() == [("stale-pid", str(running_one.places.control / f"{running_one.server_id}.pid"))]


def test_a_server_that_may_open_few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    with started(files=2_000) as one:
        monkeypatch.setenv("M2GATE_ROOT", str(one.places.root))
        assert findings() == [("file-limit", f"pid {one.process.pid}")]


def test_a_codec_that_is_not_compiled(running_one: Running) -> None:
    """Another tnetstring stands before the real one, as a copy without its extension would."""
    package = running_one.places.root / "python/tnetstring"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("def dumps(value): ...\ndef loads(text): ...\ndef pop(text): ...\n")
    environ = {**os.environ, "PYTHONPATH": f"{package.parent}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        [sys.executable, "-m", "m2gate", "doctor"], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "codec not compiled\n" in done.stdout
    assert [line for line in done.stdout.splitlines() if line.startswith("codec: ")] != []
    assert done.stdout.count("\n    ") == 1
