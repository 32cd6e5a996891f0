"""Load a rendered configuration with m2sh into SQLite, and make sure that it says what was meant.

m2sh exits with 0 whatever happens, so its exit status proves nothing: the tables are read back.
"""

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Final

from m2gate.errors import M2GateError
from m2gate.site.records import HOST_NAME, Configuration, Directory, Handler, Server, Target
from m2gate.site.render import render
from m2gate.site.static import check_neighbours

LOAD_TIMEOUT_S: Final = 30.0

Row = tuple[object, ...]

# What is the same in the queries for handlers and for folders.
_OF_ROUTES: Final = (
    "select uuid, host.name, path, target_type, {} from route join host on host.id = host_id"
    " join server on server.id = server_id join {} as target on target.id = target_id where target_type = '{}'"
)


class LoadError(M2GateError):
    """m2sh is missing, failed, or wrote something else than was meant."""


def find_program(name: str) -> str:
    """Return the path of a program of the mongrel2 package.

    Raises LoadError if it is not installed.
    """
    path = shutil.which(name, path=os.environ.get("PATH", os.defpath))
    if path is None:
        raise LoadError(f"{name}: no such program in PATH; install Mongrel2, on Debian with: apt install mongrel2-core")
    return path


def write_configuration(configuration: Configuration, folder: Path) -> Path:
    """Render and load a configuration as ``mongrel2.conf`` and ``mongrel2.sqlite`` in folder.

    Returns the path of the database. Raises ConfigError for a configuration that cannot work and
    LoadError if the database does not hold what was meant.
    """
    text, database = folder / "mongrel2.conf", folder / "mongrel2.sqlite"
    write_database(configuration, text, database)
    return database


def write_database(configuration: Configuration, text: Path, database: Path) -> Configuration:
    """Render a configuration into the file text, and load that into a database.

    Returns what is in it, which is the configuration with whatever fragments of the administrator have changed.
    Raises as write_configuration().
    """
    for server in configuration.servers:
        for _, target in server.all_routes:
            if isinstance(target, Directory):
                check_neighbours(Path(target.base), configuration.source)
    rendered = render(configuration)
    text.write_text(rendered.text, encoding="utf-8")
    load(text, database)
    _insert_mimetypes(configuration, database)
    compare(rendered.configuration, database)
    return rendered.configuration


def load(text: Path, database: Path) -> None:
    """Run ``m2sh load``. Raises LoadError with what m2sh says if it is missing or reports an error."""
    command = [find_program("m2sh"), "load", "-config", str(text), "-db", str(database)]
    environment = {**os.environ, "LOGNAME": os.environ.get("LOGNAME", "m2gate")}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LOAD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"{text}: m2sh did not finish within {LOAD_TIMEOUT_S:g} s") from error
    output = done.stdout.decode(errors="replace").strip()
    if done.returncode != 0 or "SYNTAX ERROR" in output or not database.exists():
        raise LoadError(f"{text}: m2sh cannot load it: {output}")


def compare(configuration: Configuration, database: Path) -> None:
    """Raise LoadError naming the first table that differs from what was meant."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            for table, (query, meant) in _expectations(configuration).items():
                found = sorted(connection.execute(query).fetchall(), key=repr)
                if found != sorted(meant, key=repr):
                    raise LoadError(f"{database}: table {table} has {found}, but {meant} was meant; report this")
            _compare_mimetypes(configuration, connection)
    except sqlite3.Error as error:
        raise LoadError(f"{database}: cannot be read back: {error}") from error


def _expectations(configuration: Configuration) -> dict[str, tuple[str, list[Row]]]:
    servers = configuration.servers
    routes = [
        (server.uuid, host, path, target)
        for server in servers
        for host, some in ((HOST_NAME, server.routes), *((one.matching, one.routes) for one in server.hosts))
        for path, target in some.items()
    ]
    return {
        "server": (
            "select uuid, access_log, error_log, pid_file, chroot, control_port, bind_addr, port, use_ssl, default_host"
            " from server",
            [_server_row(server) for server in servers],
        ),
        "host": (
            "select uuid, host.name, matching from host left join server on server.id = server_id",
            [
                (server.uuid, name, name)
                for server in servers
                for name in (HOST_NAME, *(host.matching for host in server.hosts))
            ],
        ),
        "handler route": (
            _OF_ROUTES.format(
                "send_spec, send_ident, recv_spec, recv_ident, raw_payload, protocol", "handler", "handler"
            ),
            [_route_row(*route) for route in routes if isinstance(route[-1], Handler)],
        ),
        "dir route": (
            _OF_ROUTES.format("base, index_file, default_ctype, cache_ttl", "directory", "dir"),
            [_route_row(*route) for route in routes if not isinstance(route[-1], Handler)],
        ),
        "route": ("select path from route", [(path,) for _, _, path, _ in routes]),
        "setting": (
            "select key, value from setting",
            [(key, str(value)) for key, value in configuration.settings.items()],
        ),
    }


def _server_row(server: Server) -> Row:
    files = (server.access_log, server.error_log, server.pid_file, server.chroot)
    address = (server.control_port, server.bind_addr, server.port, int(server.use_ssl))
    return (server.uuid, *files, *address, HOST_NAME)


def _route_row(uuid: str, host: str, path: str, target: Target) -> Row:
    if isinstance(target, Handler):
        sockets = (target.send_spec, target.send_ident, target.recv_spec, target.recv_ident)
        return (uuid, host, path, "handler", *sockets, int(target.raw_payload), target.protocol)
    return (uuid, host, path, "dir", target.base, target.index_file, target.default_ctype, target.cache_ttl_s)


def _insert_mimetypes(configuration: Configuration, database: Path) -> None:
    if not configuration.mimetypes:
        return
    rows = configuration.mimetypes.items()
    try:
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.executemany("delete from mimetype where extension = ?", [(extension,) for extension, _ in rows])
            connection.executemany("insert into mimetype (extension, mimetype) values (?, ?)", list(rows))
    except sqlite3.Error as error:
        raise LoadError(f"{database}: content types cannot be stored: {error}") from error


def _compare_mimetypes(configuration: Configuration, connection: sqlite3.Connection) -> None:
    found = dict(connection.execute("select extension, mimetype from mimetype").fetchall())
    if not found:
        raise LoadError("table mimetype is empty, but m2sh fills it; m2sh did not finish")
    for extension, content_type in configuration.mimetypes.items():
        if found.get(extension) != content_type:
            raise LoadError(f"table mimetype has {found.get(extension)} for {extension}, but {content_type} was meant")
