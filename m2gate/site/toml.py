"""TOML that people write: what is wrong in it is said with file, line and key, and with what to do."""

import difflib
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from m2gate.errors import ConfigError

FILE_MAX: Final = 1 << 20  # bytes

_HEADER: Final = re.compile(r"\s*\[(\[)?\s*(.+?)\s*\]?\]\s*(#.*)?")
_KEY: Final = re.compile(
    r"\s*([A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')((?:\s*\.\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'))*)\s*="
)
_PART: Final = re.compile(r"[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'")
_AT_LINE: Final = re.compile(r"\(at line (\d+), column \d+\)")

Place = tuple[str | int, ...]  # such as ("route", 2, "path"): a key of the third [[route]]


class Document:
    """One file: its ``values``, and in ``lines`` where each of them stands.

    Raises ConfigError for a file that cannot be read, is larger than FILE_MAX, or is no TOML.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if path.stat().st_size > FILE_MAX:
                raise ConfigError("file", str(path), f"it has more than {FILE_MAX} bytes", "name a site's file")
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
            raise ConfigError("file", str(path), problem, "name a file that exists and may be read") from error
        except UnicodeDecodeError as error:
            raise ConfigError("file", str(path), "it is no UTF-8", "save it as UTF-8") from error
        try:
            self.values: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            found = _AT_LINE.search(str(error))
            source = f"{path}:{found[1]}" if found else str(path)
            problem = _AT_LINE.sub("", str(error)).strip().lower()
            raise ConfigError("file", path.name, f"no TOML: {problem}", "correct this line", source) from error
        self.lines = _locate(text)

    def fail(self, place: Place, value: object, problem: str, remedy: str) -> ConfigError:
        """Return the error for what stands at place."""
        near: Place = place
        while near and near not in self.lines:
            near = near[:-1]
        source = f"{self.path}:{self.lines[near]}" if near else str(self.path)
        return ConfigError(_named(place), value, problem, remedy, source)

    def check_keys(self, place: Place, values: Mapping[str, Any], known: Collection[str]) -> None:
        """Raise ConfigError for the first key that is not known; it names the nearest one that is."""
        for key, value in values.items():
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
                raise self.fail((*place, key), value, "no such key", remedy)


def _named(place: Place) -> str:
    """Return a place as people write it: route 3 path, handler.shop.workers."""
    words = ""
    for part in place:
        words += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if words else part
    return words


def _locate(text: str) -> dict[Place, int]:
    """Return the line of each table and key that begins one; a key within an inline table has that of the table."""
    found: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    table: Place = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.fullmatch(line)
        if header is not None:
            table = tuple(map(_bare, _PART.findall(header[2])))
            if header[1]:
                index = counts[table] = counts.get(table, -1) + 1
                table = (*table, index)
            for length in range(1, len(table) + 1):
                found.setdefault(table[:length], number)
            continue
        key = _KEY.match(line)
        if key is not None:
            found.setdefault((*table, *map(_bare, _PART.findall(key[0]))), number)
    return found


def _bare(text: str) -> str:
    return text[1:-1] if text[:1] in "\"'" else text
