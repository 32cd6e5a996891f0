"""What a gateway process is told to do, as it is written in its settings file: JSON, or TOML by people."""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from m2gate.errors import ConfigError
from m2gate.gateway.place import FOLDER_MAX, default_folder
from m2gate.inputs.listener import parse_address
from m2gate.link.sockets import DirectServer

SERVERS_MAX: Final = 64  # of one gateway
SITES_MAX: Final = 1_000
PORT_MAX: Final = 65_535
DRAIN_MAX_S: Final = 86_400.0
_SPEC: Final = re.compile(r"(tcp://[^/\s]+:\d{1,5}|ipc:///\S{1,106})")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSettings:
    """Which requests go to which workers.

    hosts:     names in lower case, ``*.example.test`` for all one level below; none for any name.
    servers:   send_idents of the servers where the site is served.
    routes:    path to the name of a handler section; the longest path counts. One that ends in ``/``
               stands for all below it, another one for itself and all below.
    redirects: send_ident of a server to the port of https where its clients are sent instead.
    """

    servers: tuple[str, ...]
    routes: Mapping[str, str]
    hosts: tuple[str, ...] = ()
    redirects: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """One gateway process.

    folder:          its sockets and the workers' mark tables lie there; absolute, FOLDER_MAX bytes at most.
    servers:         the Mongrel2 servers that it links, SERVERS_MAX at most; nobody else may pull from them.
    sites:           SITES_MAX at most; without any, all requests go to the workers that name no handler.
    publish_http, publish_pull, publish_sub: where items are published to; None for not at all.
    metrics:         ADDR:PORT for Prometheus; None for none.
    access_log:      None, "-" for stderr, or an absolute path.
    drain_timeout_s: after SIGTERM, workers that are there by then are left to themselves; 0 to DRAIN_MAX_S.
    queue_max:       requests that wait for a worker; further ones get 503.
    keepalive_s:     interval of Mongrel2's keep-alives for connections that are held; see LinkSettings.
    ready_fd:        where ``ready`` is written, for whoever started the process.
    """

    folder: str
    servers: tuple[DirectServer, ...]
    sites: tuple[SiteSettings, ...] = ()
    publish_http: str | None = None
    publish_pull: str | None = None
    publish_sub: str | None = None
    metrics: str | None = None
    access_log: str | None = None
    drain_timeout_s: float = 30.0
    queue_max: int = 10_000
    keepalive_s: float = 45.0
    ready_fd: int | None = None

    @classmethod
    def read_json(cls, path: Path) -> "GatewaySettings":
        """Read a settings file as m2gate writes it. Raises ConfigError naming the file and key."""
        try:
            text = path.read_text()
            values = json.loads(text)
        except (OSError, ValueError) as error:
            raise ConfigError("settings", str(path), f"cannot be read: {error}", "write it as JSON") from error
        return _Reader(path, text).settings(values)

    @classmethod
    def read_toml(cls, path: Path) -> "GatewaySettings":
        """Read a settings file that a person wrote; folder may be left out.

        Raises ConfigError naming the file, the line where it has one, and the key.
        """
        try:
            text = path.read_text()
            values = tomllib.loads(text)
        except OSError as error:
            remedy = "name a file that exists and may be read"
            raise ConfigError("-c", str(path), f"cannot be read: {error.strerror}", remedy) from error
        except ValueError as error:  # UnicodeDecodeError is one, too
            raise ConfigError("-c", str(path), f"is no TOML: {error}", "correct it") from error
        return _Reader(path, text).settings({"folder": default_folder(), **values})

    @classmethod
    def of(cls, values: Mapping[str, object], path: Path) -> "GatewaySettings":
        """Return the settings in values. path: the file that is named where one of them cannot work.

        Raises ConfigError naming the key.
        """
        return _Reader(path, "").settings(values)


class _Reader:
    """Checks one document and names the place of what is wrong in it."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()

    def settings(self, values: object) -> GatewaySettings:
        if not isinstance(values, Mapping):
            raise ConfigError("settings", str(self._path), "must be an object", "write keys and values in it")
        self._check_keys(values, [field.name for field in fields(GatewaySettings)])
        self._check_values(values)
        servers = self._servers(values.get("servers"))
        sites = self._sites(values.get("sites", []), [one.send_ident for one in servers])
        return GatewaySettings(**{**values, "servers": servers, "sites": sites})

    def _fail(self, key: str, value: object, problem: str, remedy: str) -> ConfigError:
        named = [number for number, line in enumerate(self._lines, 1) if re.match(rf"\s*\W*{re.escape(key)}\W", line)]
        # A key of a server may stand in several of them: then the file has to do.
        source = f"{self._path}:{named[0]}" if len(named) == 1 else str(self._path)
        return ConfigError(key, value, problem, remedy, source)

    def _check_keys(self, values: Mapping[str, Any], known: list[str]) -> None:
        for key, value in values.items():
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
                raise self._fail(key, value, "no such key", remedy)

    def _check_values(self, values: Mapping[str, Any]) -> None:
        folder = values.get("folder")
        if not isinstance(folder, str) or not folder.startswith("/") or len(os.fsencode(folder)) > FOLDER_MAX:
            problem = f"the folder is an absolute path of at most {FOLDER_MAX} bytes"
            raise self._fail("folder", folder, problem, "e.g. /run/m2gate/gateway")
        for key in ("publish_http", "metrics"):
            self._check_address(key, values.get(key))
        for key in ("publish_pull", "publish_sub"):
            spec = values.get(key)
            if spec is not None and not (isinstance(spec, str) and _SPEC.fullmatch(spec)):
                raise self._fail(key, spec, "no ZeroMQ address", "write tcp://127.0.0.1:5560 or ipc:///PATH")
        self._check_log(values.get("access_log"))
        self._check_number("drain_timeout_s", values.get("drain_timeout_s", 0), DRAIN_MAX_S, kinds=(int, float))
        self._check_number("queue_max", values.get("queue_max", 0), 10_000_000)
        self._check_number("keepalive_s", values.get("keepalive_s", 0), 3_600, kinds=(int, float))
        if values.get("ready_fd") is not None:
            self._check_number("ready_fd", values["ready_fd"], 2**31)

    def _check_address(self, key: str, value: object) -> None:
        if value is None:
            return
        if not isinstance(value, str):
            raise self._fail(key, value, "no address", "write ADDR:PORT, e.g. 127.0.0.1:9090")
        try:
            parse_address(key, value)
        except ConfigError as error:
            raise self._fail(key, value, error.problem, error.remedy) from error

    def _check_log(self, value: object) -> None:
        if value not in (None, "-") and not (isinstance(value, str) and value.startswith("/")):
            raise self._fail("access_log", value, "neither - nor an absolute path", "write - for stderr, or /PATH")

    def _check_number(self, key: str, value: object, high: float, kinds: tuple[type, ...] = (int,)) -> None:
        if type(value) not in kinds or not 0 <= value <= high:  # type: ignore[operator]  # its type was looked at
            raise self._fail(key, value, "out of bounds, or no number", f"write a number from 0 to {high:,.0f}")

    def _servers(self, values: object) -> tuple[DirectServer, ...]:
        if not isinstance(values, list) or not 0 < len(values) <= SERVERS_MAX:
            problem = f"a gateway has 1 to {SERVERS_MAX} servers"
            remedy = "add [[servers]] with send_spec, recv_spec, send_ident and control_spec"
            raise self._fail("servers", values, problem, remedy)
        servers = tuple(map(self._server, values))
        idents = [server.send_ident for server in servers]
        for ident in idents:
            if idents.count(ident) > 1:
                raise self._fail("send_ident", ident, "two servers have this name", "give each its own")
        return servers

    def _server(self, values: object) -> DirectServer:
        if not isinstance(values, dict):
            raise self._fail("servers", values, "a server is a table", "write [[servers]] and its keys below")
        self._check_keys(values, [field.name for field in fields(DirectServer)])
        for key in ("send_spec", "recv_spec", "send_ident"):
            if key not in values:
                raise self._fail("servers", values, f"{key} is missing", f"say the {key} of this server")
        for key, value in values.items():
            is_spec = key.endswith("_spec") and value is not None
            if not isinstance(value, str | None) or (is_spec and not _SPEC.fullmatch(value or "")):
                raise self._fail(key, value, "no ZeroMQ address", "write ipc:///PATH or tcp://ADDR:PORT")
        try:
            return DirectServer(**values)
        except (ValueError, AttributeError) as error:
            raise self._fail("send_ident", values["send_ident"], str(error), "use letters, digits and -") from error

    def _sites(self, values: object, idents: list[str]) -> tuple[SiteSettings, ...]:
        if not isinstance(values, list) or len(values) > SITES_MAX:
            raise self._fail("sites", values, f"sites are a list of at most {SITES_MAX}", "write [[sites]] for each")
        return tuple(self._site(one, idents) for one in values)

    def _site(self, values: object, idents: list[str]) -> SiteSettings:
        if not isinstance(values, dict):
            raise self._fail("sites", values, "a site is a table", "write [[sites]] and its keys below")
        self._check_keys(values, [one.name for one in fields(SiteSettings)])
        hosts = self._names("hosts", values.get("hosts", []))
        servers = self._names("servers", values.get("servers"))
        routes, redirects = values.get("routes"), values.get("redirects", {})
        if not isinstance(routes, dict) or not all(
            path.startswith("/") and isinstance(handler, str) for path, handler in routes.items()
        ):
            remedy = 'write routes = {"/" = "HANDLER"}'
            raise self._fail("routes", routes, "routes name a handler for each path", remedy)
        if not isinstance(redirects, dict) or not all(
            type(port) is int and 0 < port <= PORT_MAX for port in redirects.values()
        ):
            remedy = "write redirects = {any-80 = 443}"
            raise self._fail("redirects", redirects, "redirects name a port for a server", remedy)
        for ident in (*servers, *redirects):
            if ident not in idents:
                raise self._fail("servers", ident, "no server has this send_ident", f"known are {', '.join(idents)}")
        return SiteSettings(hosts=hosts, servers=servers, routes=routes, redirects=redirects)

    def _names(self, key: str, value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self._fail(key, value, "no list of names", f'write {key} = ["NAME"]')
        return tuple(value)
