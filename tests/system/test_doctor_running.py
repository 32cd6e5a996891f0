"""The doctor beside a Mongrel2 that runs: what only then can be wrong."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from m2gate.cli.doctor import command
from tests.system.installed import Installed, installed
from tests.system.processes import accepts, make_pair, peer_certificate, wait_until

pytestmark = pytest.mark.full


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    """An installation whose plain server runs."""
    with installed() as one:
        monkeypatch.setenv("M2GATE_ROOT", str(one.places.root))
        one.start(one.plain)
        yield one


def findings() -> list[tuple[str, str]]:
    """Name and place of each finding."""
    done = CliRunner().invoke(command, ["--json"])
    found = json.loads(done.stdout)["findings"]
    assert done.exit_code == (1 if found else 0)
    return [(one["name"], one["where"]) for one in found]


def test_a_running_installation_is_healthy_and_stays_as_it_is(one: Installed) -> None:
    one.start(one.secure)
    assert findings() == []
    assert accepts(one.plain.port)
    assert accepts(one.secure.port)


@pytest.mark.parametrize("kind", ["req", "rep", "control"])
def test_a_socket_that_somebody_has_removed(one: Installed, kind: str) -> None:
    one.plain.socket(kind).unlink()
    assert findings() == [("socket-missing", str(one.plain.socket(kind)))]


def test_a_socket_for_everybody(one: Installed) -> None:
    one.plain.socket("rep").chmod(0o777)
    assert findings() == [("handler-sockets", str(one.plain.socket("rep")))]


def test_a_server_that_was_killed(one: Installed) -> None:
    assert one.plain.process is not None
    one.plain.process.kill()
    one.plain.process.wait(10)
    assert findings() == [("stale-pid", str(one.places.control / f"{one.plain.send_ident}.pid"))]


def test_a_server_that_may_open_few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    with installed() as one:
        monkeypatch.setenv("M2GATE_ROOT", str(one.places.root))
        one.start(one.plain, files=2_000)
        assert one.plain.process is not None
        assert findings() == [("file-limit", f"pid {one.plain.process.pid}")]


def test_a_server_that_was_not_told_of_a_new_certificate(one: Installed) -> None:
    one.start(one.secure)
    peer_certificate(one.secure.port, "shop.test")
    make_pair(one.places.certs, "shop.test", ["shop.test"])
    assert findings() == [("pair-stale", str(one.places.certs / "shop.test.crt"))]
    assert one.secure.process is not None
    one.secure.process.send_signal(signal.SIGHUP)
    wait_until(lambda: findings() == [], "the new certificate is shown")


def test_a_codec_that_is_not_compiled(one: Installed) -> None:
    """Another tnetstring stands before the real one, as a copy without its extension would."""
    package = one.places.root / "python/tnetstring"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("def dumps(value): ...\ndef loads(text): ...\ndef pop(text): ...\n")
    environ = {**os.environ, "PYTHONPATH": f"{package.parent}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        [sys.executable, "-m", "m2gate", "doctor"], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "codec not compiled\n" in done.stdout
    assert [line.partition(":")[0] for line in done.stdout.splitlines() if ": " in line] == ["codec"]
