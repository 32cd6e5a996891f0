"""A healthy installation below M2GATE_ROOT, for tests that then spoil it."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

from m2gate.site.certificates import make_default_pairs
from m2gate.site.enabled import read_enabled, servers
from m2gate.site.model import Listen
from m2gate.site.places import Places
from m2gate.site.settings import DEFAULTS, tls_settings
from tests.system.processes import make_pair

SITE: Final = """\
hosts  = ["shop.test"]
listen = ["127.0.0.1:8080", "127.0.0.1:8443 tls"]

[handler.shop]
target = "/srv/shop/app.py"

[[route]]
path = "/"
handler = "shop"
"""

# The tables that Mongrel2 reads, as m2sh makes them, with the columns that the doctor looks at.
SCHEMA: Final = """
create table server (id integer primary key, uuid text, default_host text, bind_addr text, port integer, chroot text,
    access_log text, error_log text, pid_file text, use_ssl integer, control_port text);
create table handler (id integer primary key, send_spec text, send_ident text, recv_spec text, recv_ident text,
    raw_payload integer, protocol text);
create table setting (id integer primary key, key text, value text);
"""


class Healthy:
    """An installation with one site, on plain HTTP and on TLS; nothing of it runs."""

    def __init__(self, root: Path) -> None:
        self.places = places = Places(root)
        for folder in (places.etc, places.fragments, places.available, places.enabled, places.certs, places.state):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755)
        for folder, mode in ((places.handlers, 0o2750), (places.control, 0o700), (places.logs, 0o2750)):
            folder.mkdir(parents=True)
            folder.chmod(mode)
        self.enable("shop", SITE)
        make_pair(places.certs, "shop.test", ["shop.test"])
        self.apply()

    def enable(self, name: str, text: str) -> None:
        """Write a site and link it."""
        file = self.places.available / f"{name}.toml"
        file.write_text(text)
        (self.places.enabled / file.name).symlink_to(Path("../sites-available") / file.name)

    def apply(self) -> None:
        """Write the database for what is enabled."""
        listens = servers(read_enabled(self.places))
        make_default_pairs(self.places.certs, [one.server_id for one in listens if one.tls], "test")
        self.places.database.unlink(missing_ok=True)
        settings = {**DEFAULTS, **tls_settings(f"{self.places.certs}/")}
        with closing(sqlite3.connect(self.places.database)) as connection, connection:
            connection.executescript(SCHEMA)
            self._insert(connection, "setting", [{"key": key, "value": str(value)} for key, value in settings.items()])
            self._insert(connection, "server", [self._server(one) for one in listens])
            self._insert(connection, "handler", [self._handler(one.server_id) for one in listens])
        self.places.database.chmod(0o644)

    def _server(self, listen: Listen) -> dict[str, object]:
        control = self.places.control / listen.server_id
        return {
            "uuid": listen.server_id,
            "bind_addr": listen.address,
            "port": listen.port,
            "use_ssl": int(listen.tls),
            "control_port": f"ipc://{control}.control",
            "pid_file": f"{control}.pid",
        }

    def _handler(self, server_id: str) -> dict[str, object]:
        sockets = self.places.handlers / server_id
        return {
            "send_spec": f"ipc://{sockets}.req",
            "send_ident": server_id,
            "recv_spec": f"ipc://{sockets}.rep",
            "recv_ident": f"{server_id} ",
        }

    @staticmethod
    def _insert(connection: sqlite3.Connection, table: str, rows: list[dict[str, object]]) -> None:
        for row in rows:
            marks = ", ".join("?" * len(row))
            connection.execute(f"insert into {table} ({', '.join(row)}) values ({marks})", list(row.values()))  # noqa: S608

    def sql(self, statement: str, *values: object) -> None:
        """Change the database, as somebody with sqlite3 would."""
        with closing(sqlite3.connect(self.places.database)) as connection, connection:
            connection.execute(statement, values)

    def setting(self, key: str, value: str) -> None:
        """Give a setting of Mongrel2 another value."""
        self.sql("delete from setting where key = ?", key)
        self.sql("insert into setting (key, value) values (?, ?)", key, value)

    def write(self, name: str, text: str) -> Path:
        """Write another program's file, below the root."""
        file = self.places.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def snapshot(self) -> Mapping[str, object]:
        """Return all that is below the root, to be compared: nothing may change."""
        found: dict[str, object] = {}
        for path in sorted(self.places.root.rglob("*")):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[str(path)] = (status.st_mode, status.st_mtime_ns, content)
        return found
