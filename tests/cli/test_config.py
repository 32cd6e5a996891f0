"""``m2gate config render`` and ``check``."""

import os
from pathlib import Path

import pytest

from tests.cli.test_main import m2gate
from tests.system.support import make_pair


def test_render_prints_what_m2sh_takes(tmp_path: Path) -> None:
    (tmp_path / "public").mkdir()
    done = m2gate("config", "render", "--bind", "0.0.0.0:8080", "--static", "/s=public", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "    port=8080\n" in done.stdout
    assert '    bind_addr="0.0.0.0"\n' in done.stdout
    assert f'    base="{tmp_path}/public/"\n' in done.stdout
    assert done.stdout.endswith("servers = [server_1]\n")


def test_check_says_that_it_is_good(tmp_path: Path) -> None:
    certs = tmp_path / "certs"
    certs.mkdir()
    make_pair(certs, "a.test", ["a.test"])
    done = m2gate("config", "check", "--tls-certs", "certs", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "configuration is good\n", "")


def test_check_finds_a_key_that_does_not_fit(tmp_path: Path) -> None:
    make_pair(tmp_path, "a.test", ["a.test"])
    make_pair(tmp_path, "b.test", ["b.test"])
    (tmp_path / "a.test.key").replace(tmp_path / "b.test.key")
    done = m2gate("config", "check", "--tls-certs", str(tmp_path))
    assert done.returncode == 2
    assert "its .key is missing" in done.stderr


def test_check_without_mongrel2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = m2gate("config", "check")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("m2gate: m2sh: no such program in PATH; install Mongrel2")


def test_check_leaves_nothing_behind(tmp_path: Path) -> None:
    before = {name for name in os.listdir("/tmp") if name.startswith("m2gate-")}
    assert m2gate("config", "check").returncode == 0
    assert {name for name in os.listdir("/tmp") if name.startswith("m2gate-")} <= before
