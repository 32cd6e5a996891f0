"""What servers and workers need after a change: found by comparing two databases and two sets of sections."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from m2gate.site.load import LoadError
from m2gate.site.places import Places

PROGRAM: Final = "mongrel2"

Action = Literal["start", "restart", "reload", "stop", "keep"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one server or the workers of one handler need.

    unit: its systemd unit. why: in a few words.
    """

    name: str
    unit: str
    action: Action
    why: str
    is_server: bool
    is_running: bool = False

    @property
    def refuses(self) -> bool:
        """True if clients are cut and refused for a moment."""
        return self.is_server and self.action in ("restart", "stop") and self.is_running


_QUERIES: Final = (
    "select uuid, access_log, error_log, pid_file, chroot, control_port, bind_addr, port, use_ssl, default_host"
    " from server",
    "select uuid, host.name, matching from host join server on server.id = server_id",
    "select uuid, host.name, path, send_spec, send_ident, recv_spec, recv_ident, raw_payload, protocol from route"
    " join host on host.id = host_id join server on server.id = server_id"
    " join handler on handler.id = target_id where target_type = 'handler'",
    "select uuid, host.name, path, base, index_file, default_ctype, cache_ttl from route"
    " join host on host.id = host_id join server on server.id = server_id"
    " join directory on directory.id = target_id where target_type = 'dir'",
)
_GLOBALS: Final = ("select key, value from setting", "select extension, mimetype from mimetype")


def describe(database: Path) -> dict[str, frozenset[tuple[object, ...]]]:
    """Return the rows of each server by its uuid, and under "" what counts for all; nothing without a database.

    Raises LoadError for a file that is no database of Mongrel2.
    """
    if not database.exists():
        return {}
    found: dict[str, set[tuple[object, ...]]] = {"": set()}
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            for query in _GLOBALS:
                found[""] |= {(query, *row) for row in connection.execute(query)}
            for query in _QUERIES:
                for uuid, *row in connection.execute(query):
                    found.setdefault(uuid, set()).add((query, *row))
    except sqlite3.Error as error:
        raise LoadError(f"{database}: cannot be read: {error}; remove it and apply again") from error
    return {uuid: frozenset(rows) for uuid, rows in found.items()}


Described = Mapping[str, frozenset[tuple[object, ...]]]


def server_change(places: Places, uuid: str, old: Described, new: Described, *, certificates: bool) -> Change:
    """Return what a server needs. certificates: some have changed."""
    is_running = is_alive(places.control / f"{uuid}.pid")
    action: Action = "keep"
    why = "nothing has changed"
    if uuid not in old:
        action, why = "start", "it is new"
    elif uuid not in new:
        action, why = "stop", "no enabled site listens there"
    elif old[uuid] != new[uuid]:
        action, why = "restart", "its routes or its files have changed"
    elif old[""] != new[""]:
        action, why = "restart", "Mongrel2's settings have changed"
    elif certificates and _has_tls(new[uuid]):
        action, why = "reload", "certificates have changed"
    unit = f"m2gate-mongrel2@{uuid}.service"
    return Change(name=uuid, unit=unit, action=action, why=why, is_server=True, is_running=is_running)


def _has_tls(rows: frozenset[tuple[object, ...]]) -> bool:
    return any(row[0] == _QUERIES[0] and row[8] == 1 for row in rows)


def handler_changes(before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[Change]:
    """Yield what the workers of each handler need; sections by their names."""
    for name in sorted({*before, *after}):
        action: Action = "keep"
        why = "nothing has changed"
        if name not in before:
            action, why = "start", "it is new"
        elif name not in after:
            action, why = "stop", "no enabled site has it"
        elif before[name] != after[name]:
            action, why = "restart", "its section has changed"
        yield Change(name=name, unit=f"m2gate-worker@{name}.service", action=action, why=why, is_server=False)


def is_alive(pid_file: Path) -> bool:
    """Tell whether the process that a pid file names is there, and a Mongrel2."""
    try:
        pid = int(pid_file.read_text())
        return Path(f"/proc/{pid}/comm").read_text().strip() == PROGRAM
    except (OSError, ValueError):
        return False
