"""Watching source files for --reload, by looking at them: no service, no limit on watches to run into."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

POLL_S: Final = 0.5
FILES_MAX: Final = 10_000  # in a folder with more, files beyond it are not watched
_SKIPPED: Final = frozenset(("__pycache__", "node_modules", "site-packages"))

Stamp = tuple[int, int]


class SourceWatch:
    """Tells which Python files changed since it was asked last.

    folder: all ``*.py`` in it and below, hidden folders and installed packages left out.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._extra: frozenset[str] = frozenset()
        self._stamps = self._look()

    def watch_also(self, files: Iterable[str]) -> None:
        """Watch these files too, instead of those named before: the modules that the App imported."""
        self._extra = frozenset(files)
        self._stamps |= {name: stamp for name, stamp in self._look().items() if name not in self._stamps}

    def changed(self) -> list[str]:
        """Return the files that are new, gone or different, in order."""
        before, self._stamps = self._stamps, self._look()
        return sorted(
            name for name in before.keys() | self._stamps.keys() if before.get(name) != self._stamps.get(name)
        )

    def _look(self) -> dict[str, Stamp]:
        stamps: dict[str, Stamp] = {}
        for name in (*_python_files(self._folder), *self._extra):
            try:
                status = os.stat(name)
            except OSError:  # gone, or out of our reach: that is a change too if it was there before
                continue
            stamps[name] = (status.st_mtime_ns, status.st_size)
        return stamps


def _python_files(folder: Path) -> list[str]:
    found: list[str] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and name not in _SKIPPED and not _is_environment(Path(place, name))
        ]
        found += [os.path.join(place, name) for name in names if name.endswith(".py")]
        if len(found) >= FILES_MAX:
            break
    return found[:FILES_MAX]


def _is_environment(folder: Path) -> bool:
    return (folder / "pyvenv.cfg").exists()
