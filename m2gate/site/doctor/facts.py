"""An installation as it is found: its sites, its database, what runs, and who Mongrel2 is."""

import os
import pwd
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from m2gate.errors import ConfigError
from m2gate.site.configure import configure
from m2gate.site.enabled import check_together, enabled_files
from m2gate.site.installation import Installation as Settings
from m2gate.site.installation import read_installation
from m2gate.site.model import Site
from m2gate.site.places import Places
from m2gate.site.records import HOST_NAME, Directory, Server
from m2gate.site.sites import read_site

MONGREL2_USER: Final = "m2gate-www"
HANDLER_GROUP: Final = "m2gate"
KEEPALIVE_S: Final = 45

_ROUTES: Final = (
    "select uuid, host.name, path, coalesce(base, '') from route"
    " join host on host.id = host_id join server on server.id = server_id"
    " left join directory on directory.id = target_id and target_type = 'dir'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A user, and what the modes of files mean for it."""

    name: str
    uid: int
    groups: frozenset[int]

    def may(self, status: os.stat_result, bits: int) -> bool:
        """Tell whether it has the rights ``bits`` (4 read, 2 write, 1 enter) on something."""
        if self.uid == 0:
            return True
        shift = 6 if status.st_uid == self.uid else 3 if status.st_gid in self.groups else 0
        return status.st_mode >> shift & bits == bits


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRow:
    """A server of the database.

    routes: host, path, and the folder that is served there or ``""``.
    """

    uuid: str
    bind_addr: str
    port: int
    use_ssl: bool
    control_port: str
    routes: frozenset[tuple[str, str, str]] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerRow:
    """A handler of the database."""

    send_spec: str
    send_ident: str
    recv_spec: str
    recv_ident: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """What Mongrel2 reads when it starts; ``settings`` are texts there."""

    servers: tuple[ServerRow, ...] = ()
    handlers: tuple[HandlerRow, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_tls(self) -> bool:
        """Whether a server has certificates."""
        return any(server.use_ssl for server in self.servers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the checks look at.

    sites:          the enabled ones; none if one of them cannot be read.
    site_error:     why they or m2gate.toml cannot be read.
    database:       None if there is none, or none that can be read.
    database_error: why it cannot be read.
    wanted:         the servers that they ask for.
    settings:       of Mongrel2, that m2gate.toml has.
    keepalive_s:    how often the gateway tells Mongrel2 that a stream is in use.
    mongrel2:       who runs Mongrel2; None where the package's user is missing.
    now_s:          Unix time.
    """

    places: Places
    sites: tuple[Site, ...] = ()
    wanted: tuple[ServerRow, ...] = ()
    settings: Mapping[str, int | str] = field(default_factory=dict)
    site_error: ConfigError | None = None
    database: Database | None = None
    database_error: str = ""
    keepalive_s: float = KEEPALIVE_S
    mongrel2: Identity | None = None
    now_s: float = 0.0

    @property
    def is_system(self) -> bool:
        """Whether this is the machine's own, with the package's users, and no private tree."""
        return self.places.root == Path("/")

    @property
    def has_systemd(self) -> bool:
        """Whether systemd manages services here."""
        return (self.places.root / "run/systemd/system").is_dir()

    @property
    def ports(self) -> frozenset[int]:
        """The ports on which Mongrel2 servers listen or are to listen."""
        of_database = [server.port for server in self.database.servers] if self.database else []
        return frozenset([*of_database, *(server.port for server in self.wanted)])

    def running(self) -> dict[str, int]:
        """Return the servers of the database that run, with their pids."""
        found = {}
        for server in self.database.servers if self.database else ():
            pid = read_pid(self.places.control / f"{server.uuid}.pid")
            if pid is not None and is_mongrel2(pid):
                found[server.uuid] = pid
        return found


def is_closed(folder: Path) -> bool:
    """Tell whether a folder is there and this user may not enter it."""
    return folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK, effective_ids=True)


def read_pid(file: Path) -> int | None:
    """Return the number in a pid file, None if there is none."""
    try:
        text = file.read_text(errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def is_mongrel2(pid: int) -> bool:
    """Tell whether a process is there and is Mongrel2; a pid of a former one may be anything."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "mongrel2"
    except OSError:
        return False


def read_facts(places: Places) -> Facts:
    """Look at everything. Raises nothing: what cannot be read is part of the answer."""
    sites: tuple[Site, ...] = ()
    site_error = None
    settings = Settings()
    wanted: tuple[ServerRow, ...] = ()
    try:
        # A link that leads nowhere is a finding of its own, and says nothing against the other sites.
        sites = tuple(read_site(file) for file in enabled_files(places) if file.exists())
        check_together(sites)
        settings = read_installation(places)
        wanted = tuple(map(_row, configure(sites, settings, places).servers))
    except ConfigError as error:
        site_error = error
    keepalive = settings.gateway.get("keepalive")
    database = None
    database_error = ""
    if places.database.exists():
        try:
            database = read_database(places.database)
        except (sqlite3.Error, ValueError) as error:
            database_error = str(error)
    return Facts(
        places=places,
        sites=sites,
        wanted=wanted,
        settings=settings.mongrel2,
        site_error=site_error,
        database=database,
        database_error=database_error,
        keepalive_s=keepalive if isinstance(keepalive, int | float) else KEEPALIVE_S,
        mongrel2=find_identity(places),
        now_s=time.time(),
    )


def read_database(file: Path) -> Database:
    """Return what a database says. Raises sqlite3.Error or ValueError if it is no configuration of Mongrel2."""
    # immutable: no journal is looked for, so nothing is written beside a file of root's.
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        routes: dict[str, set[tuple[str, str, str]]] = {}
        for uuid, *route in connection.execute(_ROUTES):
            routes.setdefault(uuid, set()).add((route[0], route[1], route[2]))
        of_server = connection.execute("select uuid, bind_addr, port, use_ssl, control_port from server").fetchall()
        of_handler = connection.execute("select send_spec, send_ident, recv_spec, recv_ident from handler").fetchall()
        settings = connection.execute("select key, value from setting").fetchall()
    return Database(
        servers=tuple(
            ServerRow(
                uuid=uuid,
                bind_addr=address,
                port=int(port),
                use_ssl=bool(ssl),
                control_port=control,
                routes=frozenset(routes.get(uuid, ())),
            )
            for uuid, address, port, ssl, control in of_server
        ),
        handlers=tuple(
            HandlerRow(send_spec=send, send_ident=ident, recv_spec=recv, recv_ident=recv_ident)
            for send, ident, recv, recv_ident in of_handler
        ),
        settings={key: str(value) for key, value in settings},
    )


def _row(server: Server) -> ServerRow:
    hosts = [(HOST_NAME, server.routes), *((host.matching, host.routes) for host in server.hosts)]
    routes = [(host, path, target) for host, some in hosts for path, target in some.items()]
    return ServerRow(
        uuid=server.uuid,
        bind_addr=server.bind_addr,
        port=server.port,
        use_ssl=server.use_ssl,
        control_port=server.control_port,
        routes=frozenset(
            (host, path, target.base if isinstance(target, Directory) else "") for host, path, target in routes
        ),
    )


def find_identity(places: Places) -> Identity | None:
    """Return who runs Mongrel2: the package's user, or this one where everything lies below M2GATE_ROOT."""
    if places.root != Path("/"):
        groups = frozenset([os.getegid(), *os.getgroups()])
        return Identity(name="this user", uid=os.geteuid(), groups=groups)
    try:
        user = pwd.getpwnam(MONGREL2_USER)
    except KeyError:
        return None
    groups = frozenset(os.getgrouplist(user.pw_name, user.pw_gid))
    return Identity(name=user.pw_name, uid=user.pw_uid, groups=groups)
