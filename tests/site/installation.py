"""A healthy installation below M2GATE_ROOT, for tests that then spoil it."""

import sqlite3
import tomllib
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

from m2gate.site.apply import install_pairs, prepared
from m2gate.site.places import Places
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


class Healthy:
    """An installation with one site, on plain HTTP and on TLS; nothing of it runs."""

    def __init__(self, root: Path, site: str = SITE) -> None:
        self.places = places = Places(root)
        for folder in (places.etc, places.fragments, places.available, places.enabled, places.certs, places.state):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755)
        for folder, mode in ((places.handlers, 0o2750), (places.control, 0o700), (places.logs, 0o2750)):
            folder.mkdir(parents=True)
            folder.chmod(mode)
        self.enable("shop", site)
        for host in tomllib.loads(site)["hosts"]:
            make_pair(places.certs, host.replace("*", "_"), [host])
        self.apply()

    def enable(self, name: str, text: str) -> None:
        """Write a site and link it."""
        file = self.places.available / f"{name}.toml"
        file.write_text(text)
        (self.places.enabled / file.name).symlink_to(Path("../sites-available") / file.name)

    def apply(self) -> None:
        """Do what `m2gate config apply` does with files."""
        with prepared(self.places) as preparation:
            plan = preparation.plan()
            install_pairs(self.places, plan.sites)
            preparation.install(plan)

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
