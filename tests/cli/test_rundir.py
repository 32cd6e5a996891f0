"""The run directory: where it is, whose it is, and that it goes."""

import fcntl
import os
from pathlib import Path

import pytest

from m2gate.cli.rundir import RunError, base_directory, run_directory
from tests.system.support import short_directory


def test_it_is_ours_alone_and_goes_with_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    with short_directory() as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        with run_directory(6767) as folder:
            assert folder == runtime / "m2gate" / "run-6767"
            assert folder.stat().st_mode & 0o777 == 0o700
            assert folder.parent.stat().st_mode & 0o777 == 0o700
            (folder / "socket").touch()
        assert os.listdir(runtime) == []


def test_two_runs_share_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    with short_directory() as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        with run_directory(1):
            with (
                run_directory(2) as second,
                pytest.raises(RunError, match="another m2gate run holds it"),
                run_directory(2),
            ):
                assert second.exists()
            assert os.listdir(runtime / "m2gate") == ["run-1"]
        assert os.listdir(runtime) == []


def test_what_a_dead_process_left_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    with short_directory() as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        stale = runtime / "m2gate" / "run-7"
        stale.mkdir(parents=True)
        (stale / "mongrel2.pid").touch()
        held = runtime / "m2gate" / "run-8"
        held.mkdir()
        lock = os.open(held, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with run_directory(9):
            assert sorted(os.listdir(runtime / "m2gate")) == ["run-8", "run-9"]
        with run_directory(7) as folder:
            assert list(folder.iterdir()) == []
        os.close(lock)


def test_its_own_stale_directory_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with short_directory() as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        (runtime / "m2gate" / "run-7" / "worker-1").mkdir(parents=True)
        with run_directory(7) as folder:
            assert list(folder.iterdir()) == []


@pytest.mark.parametrize("runtime", ["", "relative", "/nonexistent", "/" + "x" * 80])
def test_without_a_usable_runtime_directory_it_is_in_tmp(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    assert base_directory() == Path(f"/tmp/m2gate-{os.getuid()}")


def test_a_long_runtime_directory_leaves_no_room_for_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    assert base_directory() == Path(f"/tmp/m2gate-{os.getuid()}")


def test_a_directory_of_somebody_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with short_directory() as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        (runtime / "elsewhere").mkdir()
        (runtime / "m2gate").symlink_to(runtime / "elsewhere")
        with pytest.raises(RunError, match="belongs to somebody else"), run_directory(1):
            pass
        assert os.listdir(runtime / "elsewhere") == []


def test_an_error_inside_removes_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with short_directory() as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        with pytest.raises(ValueError, match="inside"), run_directory(1):
            raise ValueError("inside")
        assert os.listdir(runtime) == []
