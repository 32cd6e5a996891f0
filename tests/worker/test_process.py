"""The main program of a worker, started in a way that cannot work: one line, and 2."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.support import environment

SETTINGS = [
    pytest.param(None, "No such file or directory", id="no-file"),
    pytest.param("{", "settings = ", id="no-json"),
    pytest.param("[]", "must be an object with a list of servers", id="no-object"),
    pytest.param('{"target": "x", "run_dir": "/tmp"}', "must be an object with a list of servers", id="no-servers"),
    pytest.param('{"target": "x", "servers": []}', "'run_dir'", id="no-run-dir"),
    pytest.param('{"target": "x", "servers": [], "run_dir": "/tmp", "wrong": 1}', "'wrong'", id="unknown"),
    pytest.param('{"target": "none.py", "servers": [], "run_dir": "/tmp"}', "TARGET = 'none.py'", id="bad-target"),
]


def start(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "m2gate.worker.process", *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(("text", "said"), SETTINGS)
def test_settings_that_cannot_work(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "settings.json"
    if text is not None:
        path.write_text(text)
    done = start(str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("m2gate: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_settings() -> None:
    done = start()
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "one argument" in done.stderr
