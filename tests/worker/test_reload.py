"""Watching source files."""

import os
from pathlib import Path

from m2gate.worker.reload import SourceWatch


def test_changes_are_told_once(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    one, two = tmp_path / "one.py", tmp_path / "pack" / "two.py"
    one.write_text("1")
    watch = SourceWatch(tmp_path)
    assert watch.changed() == []
    one.write_text("one")
    two.write_text("2")
    assert watch.changed() == [str(one), str(two)]
    assert watch.changed() == []
    os.utime(one, ns=(1, 1))
    two.unlink()
    assert watch.changed() == [str(one), str(two)]


def test_only_sources_count(tmp_path: Path) -> None:
    for name in (".git", "__pycache__", "node_modules", "venv"):
        (tmp_path / name).mkdir()
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    watch = SourceWatch(tmp_path)
    for name in (".git/a.py", "__pycache__/a.py", "node_modules/a.py", "venv/a.py", "notes.txt"):
        (tmp_path / name).write_text("x")
    assert watch.changed() == []


def test_further_files_are_watched(tmp_path: Path) -> None:
    folder, other = tmp_path / "app", tmp_path / "lib.py"
    folder.mkdir()
    other.write_text("1")
    watch = SourceWatch(folder)
    watch.watch_also([str(other)])
    assert watch.changed() == []
    other.write_text("two")
    assert watch.changed() == [str(other)]
