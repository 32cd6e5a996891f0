"""Strict checks of a configuration: everything Mongrel2 or m2sh would swallow, refuse or misread."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Final

from m2gate.errors import ConfigError
from m2gate.site.records import Configuration, Directory, Handler, Server, Target
from m2gate.site.settings import check_settings
from m2gate.wire.mongrel2 import check_ident

IPC_PATH_MAX: Final = 107  # bytes; sun_path of a Unix socket, without its NUL

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\"]")


def check_configuration(configuration: Configuration) -> None:
    """Raise ConfigError for the first thing in the configuration that cannot work."""
    source = configuration.source
    check_settings(configuration.settings, source)
    for key, value in configuration.settings.items():
        if isinstance(value, str):
            _check_text(key, value, source)
    for server in configuration.servers:
        _check_server(server, configuration)
        for path, target in server.all_routes:
            _check_path(path, source)
            if isinstance(target, Handler):
                _check_handler(target, source)
            else:
                _check_directory(path, target, source)
        for routes in (server.routes, *(host.routes for host in server.hosts)):
            _check_prefixes(routes, source)
    _check_servers(configuration.servers, source)
    for extension in configuration.mimetypes:
        if not extension.startswith("."):
            raise ConfigError("mimetypes", extension, "an extension begins with a dot", f"write .{extension}", source)


def _texts(server: Server) -> list[tuple[str, str]]:
    texts = [(name, getattr(server, name)) for name in ("access_log", "error_log", "pid_file", "chroot")]
    texts += [("host", host.matching) for host in server.hosts]
    for path, target in server.all_routes:
        texts.append(("route", path))
        if isinstance(target, Handler):
            texts += [("send_spec", target.send_spec), ("recv_spec", target.recv_spec)]
        else:
            texts += [("base", target.base), ("index_file", target.index_file), ("default_ctype", target.default_ctype)]
    return texts


def _check_text(key: str, value: str, source: str) -> None:
    # m2sh knows no escapes: a quote ends the text, and what follows would be configuration.
    if _CONTROL.search(value):
        problem = "Mongrel2's configuration cannot hold double quotes or control characters"
        raise ConfigError(key, value, problem, "choose a text without them", source)
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise ConfigError(key, value, "this text is no UTF-8", "rename the file or folder", source)


def _check_server(server: Server, configuration: Configuration) -> None:
    source = configuration.source
    for key, value in _texts(server):
        _check_text(key, value, source)
    _check_ident("uuid", server.uuid, source)
    if not 1 <= server.port <= 65_535:
        raise ConfigError("port", server.port, "no such TCP port", "use a number from 1 to 65535", source)
    try:
        ipaddress.ip_address(server.bind_addr)
    except ValueError as error:
        remedy = "use an address of this machine, e.g. 127.0.0.1 or 0.0.0.0"
        raise ConfigError("bind_addr", server.bind_addr, "this is no IP address", remedy, source) from error
    if not server.routes:
        raise ConfigError("routes", {}, "a server without routes answers 404 to everything", "add one", source)
    if server.use_ssl and "certdir" not in configuration.settings:
        raise ConfigError("certdir", "", "a TLS server needs it", "set it to a folder with a / at its end", source)


def _check_ident(key: str, value: str, source: str) -> None:
    try:
        check_ident(value.encode())
    except ValueError as error:
        fixed = re.sub(r"[^A-Za-z0-9-]+", "-", value) or "server-1"
        problem = "only letters, digits and '-' are allowed here"
        raise ConfigError(key, value, problem, f"use e.g. {fixed!r}", source) from error


def _check_path(path: str, source: str) -> None:
    if not path.startswith(("/", "@", "<")):
        problem = "a route is a path, or the name of a JSON socket"
        raise ConfigError("route", path, problem, "let it start with / or @", source)
    if path == "@*":
        problem = "Mongrel2's own notices have this name"
        raise ConfigError("route", path, problem, "give the JSON socket another name", source)


def _check_handler(handler: Handler, source: str) -> None:
    _check_ident("send_ident", handler.send_ident, source)
    if handler.protocol not in ("tnetstring", "json"):
        raise ConfigError("protocol", handler.protocol, "no such protocol", "use tnetstring or json", source)
    _check_spec("send_spec", handler.send_spec, source)
    _check_spec("recv_spec", handler.recv_spec, source)
    if handler.send_spec == handler.recv_spec:
        problem = "requests and replies need a socket each"
        raise ConfigError("recv_spec", handler.recv_spec, problem, "use another path or port", source)


def _check_spec(key: str, spec: str, source: str) -> None:
    kind, separator, rest = spec.partition("://")
    if not separator or kind not in ("ipc", "tcp") or not rest:
        raise ConfigError(key, spec, "no ZeroMQ address", "use ipc:///path or tcp://127.0.0.1:port", source)
    if kind == "ipc" and len(rest.encode()) > IPC_PATH_MAX:
        problem = f"the path of a socket ends at {IPC_PATH_MAX} bytes, this one has {len(rest.encode())}"
        raise ConfigError(key, spec, problem, "use a shorter folder", source)


def _check_directory(path: str, directory: Directory, source: str) -> None:
    if not directory.base.endswith("/"):
        raise ConfigError("base", directory.base, "Mongrel2 wants a / at its end", f"use {directory.base}/", source)
    if not path.startswith("/") or not path.endswith("/"):
        problem = "the path of a folder starts and ends with /, or its neighbours are served from it too"
        raise ConfigError("route", path, problem, f"use {'/' + path.strip('/') + '/'}", source)
    if "(" in path:
        raise ConfigError("route", path, "a folder has no pattern", "use a path without (", source)
    if directory.cache_ttl_s < 0:
        raise ConfigError("cache_ttl", directory.cache_ttl_s, "a time is not negative", "use 0 or more", source)


def _check_prefixes(routes: Mapping[str, Target], source: str) -> None:
    # From the first "(" on a route is a pattern. Routes with the same text before it hide each
    # other, in an order that nobody can rely on.
    seen: dict[str, str] = {}
    for path in routes:
        other = seen.setdefault(path.partition("(")[0], path)
        if other != path:
            problem = f"it begins like the route {other!r}, and Mongrel2 tries only one of them"
            raise ConfigError("route", path, problem, "make the part before the ( different", source)


def _check_servers(servers: Sequence[Server], source: str) -> None:
    """Check what no two servers may have in common, nor two handlers of one."""
    # Mongrel2 merges two handlers with the same pair of sockets and lets the first one's protocol
    # win; with one socket in common the second one's bind fails while the server runs on.
    owners: dict[str, Handler | Server] = {}
    taken: dict[tuple[str, object], Server] = {}
    for server in servers:
        for key, value in (("uuid", server.uuid), ("port", (server.bind_addr, server.port))):
            if taken.setdefault((key, value), server) is not server:
                raise ConfigError(key, value, "another server has it", "give each its own", source)
        _check_spec("control_port", server.control_port, source)
        sockets: list[tuple[str, str, Handler | Server]] = [("control_port", server.control_port, server)]
        for handler in dict.fromkeys(target for _, target in server.all_routes if isinstance(target, Handler)):
            sockets += [("send_spec", handler.send_spec, handler), ("recv_spec", handler.recv_spec, handler)]
        for key, spec, owner in sockets:
            if owners.setdefault(spec, owner) is not owner:
                problem = "another socket has the same address"
                raise ConfigError(key, spec, problem, "give each its own", source)
