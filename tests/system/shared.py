"""What the handlers of an application note and wait for, whichever of its workers they run in.

Everything lies in the folder $M2GATE_TEST_SHARED, which `running` makes and names.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import gevent

POLL_S = 0.01


def folder(kind: str) -> Path:
    path = Path(os.environ["M2GATE_TEST_SHARED"]) / kind
    path.mkdir(exist_ok=True)
    return path


class Note(dict[str, Any]):
    """One note; every assignment to it is seen by all workers within POLL_S."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        super().__init__(values)
        self._path = path
        self._is_scheduled = False
        self.save()

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        if not self._is_scheduled:  # a handler may count thousands of pieces
            self._is_scheduled = True
            gevent.spawn_later(POLL_S, self.save)

    def save(self) -> None:
        self._is_scheduled = False
        new = self._path.with_suffix(f".{os.getpid()}.new")
        new.write_text(json.dumps(self))
        new.replace(self._path)


class Notes:
    """Notes by name: values or dictionaries of them."""

    def __init__(self, kind: str = "notes") -> None:
        self._kind = kind
        self._own: dict[str, Any] = {}

    def _path(self, name: str) -> Path:
        return folder(self._kind) / f"{quote(name, safe='')}.json"

    def __setitem__(self, name: str, value: Any) -> None:
        if isinstance(value, dict):
            self._own[name] = Note(self._path(name), value)
        else:
            self._own[name] = value
            new = self._path(name).with_suffix(f".{os.getpid()}.new")
            new.write_text(json.dumps(value))
            new.replace(self._path(name))

    def __getitem__(self, name: str) -> Any:
        """What this worker has noted under the name, else what another has."""
        if name in self._own:
            return self._own[name]
        return json.loads(self._path(name).read_text())

    def read(self) -> dict[str, Any]:
        """All notes of all workers."""
        return {unquote(path.stem): json.loads(path.read_text()) for path in sorted(folder(self._kind).glob("*.json"))}


class Ledger:
    """Lines in the order in which any worker has written them."""

    def __init__(self, kind: str = "ledger") -> None:
        self._kind = kind

    def append(self, entry: Any) -> None:
        with (folder(self._kind) / "lines").open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def read(self) -> list[Any]:
        path = folder(self._kind) / "lines"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Gate:
    """Closed until some worker has opened it."""

    def __init__(self, name: str) -> None:
        self._path = folder("gates") / quote(name, safe="")

    def set(self) -> None:
        self._path.touch()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is open; False if that was not so within timeout seconds."""
        return any(self._path.exists() for _ in self._looks(timeout))

    def _looks(self, timeout: float | None) -> Iterator[None]:
        left = timeout
        while left is None or left > 0:
            yield
            gevent.sleep(POLL_S)
            left = left if left is None else left - POLL_S
        yield
