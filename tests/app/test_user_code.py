"""The file of the user is loaded as it is now."""

import os
from pathlib import Path

import pytest

from m2gate.app.user_code import import_file
from m2gate.errors import ConfigError


def test_a_change_within_the_same_second_counts(tmp_path: Path) -> None:
    file = tmp_path / "quickly_changed.py"
    file.write_text("WORD = 'one'\n")
    os.utime(file, (1_000_000_000, 1_000_000_000))
    assert import_file(file, "target").WORD == "one"
    file.write_text("WORD = 'two'\n")
    os.utime(file, (1_000_000_000, 1_000_000_000))
    assert import_file(file, "target").WORD == "two"


def test_the_module_knows_its_absolute_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "placed.py").write_text("def where():\n    return where.__code__.co_filename\n")
    monkeypatch.chdir(tmp_path)
    module = import_file(Path("placed.py"), "target")
    assert (module.__file__, module.where()) == (str(tmp_path / "placed.py"),) * 2


def test_what_is_no_python_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x = 1\n")
    with pytest.raises(ConfigError, match="is no Python file"):
        import_file(tmp_path / "notes.txt", "target")
