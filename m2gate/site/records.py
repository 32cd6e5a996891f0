"""What a Mongrel2 configuration says, before it is text: hosts, routes, targets and settings.

The names are Mongrel2's own, so that a record can be compared with the database m2sh writes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

SettingValue = int | str
Protocol = Literal["tnetstring", "json"]

HOST_NAME: Final = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """A pair of sockets that Mongrel2 binds and a worker connects to.

    send_spec:   where Mongrel2 pushes requests, ``ipc:///path`` or ``tcp://127.0.0.1:port``.
    recv_spec:   where Mongrel2 subscribes to replies; never reachable from other machines, because
                 every invalid message there stalls the server for half a second.
    send_ident:  first token of every message, letters, digits and ``-``; one per server.
    raw_payload: replies to JSON sockets go out as they are instead of in base64.
    """

    send_spec: str
    recv_spec: str
    send_ident: str
    protocol: Protocol = "tnetstring"
    raw_payload: bool = False

    @property
    def recv_ident(self) -> str:
        """The subscription for replies: with the blank behind it only this very ident matches."""
        return self.send_ident + " "


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """Files that Mongrel2 serves by itself.

    base:        path of the folder, ends in ``/``.
    cache_ttl_s: seconds for which Mongrel2 remembers what it found; 0 looks each time.
    """

    base: str
    index_file: str = "index.html"
    default_ctype: str = "application/octet-stream"
    cache_ttl_s: int = 0


Target = Handler | Directory


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Routes for names that end in ``matching``; Mongrel2 compares no more than that.

    Only folders need it: whose handler a request is for is decided by whoever receives it.
    """

    matching: str
    routes: Mapping[str, Target]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One Mongrel2 process: one address, its routes, its files.

    uuid:   name of the process and of its default TLS pair; letters, digits and ``-``.
    routes: path prefix, or ``@name`` for a JSON socket, to what answers it where no host says otherwise.
    hosts:  routes of some names.
    chroot: ``""`` for none.
    """

    uuid: str
    port: int
    routes: Mapping[str, Target]
    access_log: str
    error_log: str
    pid_file: str
    control_port: str
    bind_addr: str = "127.0.0.1"
    chroot: str = ""
    use_ssl: bool = False
    hosts: tuple[Host, ...] = ()

    @property
    def all_routes(self) -> list[tuple[str, Target]]:
        """The routes of all hosts, the default one first."""
        return [*self.routes.items(), *(route for host in self.hosts for route in host.routes.items())]


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All that one configuration database holds: settings count for all servers in it.

    mimetypes: ``.ext`` to content type, for directories, beyond the 850 that m2sh knows.
    source:    where the values come from, for error messages.
    """

    servers: tuple[Server, ...]
    settings: Mapping[str, SettingValue]
    mimetypes: Mapping[str, str] = field(default_factory=dict)
    source: str = "configuration"
