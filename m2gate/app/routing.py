"""Which handler answers a path: static paths by one lookup, the rest by one pattern each."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from m2gate.app.response import Response
from m2gate.errors import HTTPError

WEBSOCKET: Final = "WEBSOCKET"
_PARAMETER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([a-z]+))?\}")
_KINDS: Final = {"str": "([^/]+)", "int": "([0-9]{1,18})", "path": "(.*)"}
_METHOD: Final = re.compile(r"[A-Z]{1,20}")

Params = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One handler on one path.

    max_body:     bytes, instead of the App's.
    subprotocols, origins: of a WebSocket.
    """

    path: str
    handler: Callable[..., Any]
    max_body: int | None = None
    subprotocols: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


@dataclass(slots=True)
class _Path:
    """All routes of one path; ``names`` and ``converters`` of its parameters in their order."""

    pattern: re.Pattern[str]
    names: tuple[str, ...]
    converters: tuple[Callable[[str], Any], ...]
    routes: dict[str, Route] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mount:
    """Something that takes all below a prefix: an App or a WSGI application."""

    prefix: str
    target: Any


class Router:
    """Routes by path and method, and mounts by prefix.

    Static paths win over patterns, patterns are tried in the order of their registration, mounts
    come last, the longest prefix first.
    """

    def __init__(self) -> None:
        self._static: dict[str, _Path] = {}
        self._dynamic: list[_Path] = []
        # By the literal text before the first parameter's slash, most patterns are found at once.
        self._by_first: dict[str, list[_Path]] = {}
        self._open: list[_Path] = []
        self._mounts: list[Mount] = []

    def add(self, path: str, methods: Iterable[str], handler: Callable[..., Any], **options: Any) -> None:
        """Register handler for path and methods; options are Route's.

        Raises ValueError for a bad path or method and for a path and method registered before.
        """
        entry = self._entry(path)
        for method in methods:
            if not _METHOD.fullmatch(method):
                raise ValueError(f"route {path!r}: method {method!r}: use capital letters, as in GET")
            if method in entry.routes:
                raise ValueError(f"route {path!r}: {method} is registered twice")
            entry.routes[method] = Route(path=path, handler=handler, **options)

    def mount(self, prefix: str, target: Any) -> None:
        """Let target take whatever lies below prefix and no route takes. Raises ValueError."""
        if not prefix.startswith("/"):
            raise ValueError(f"mount {prefix!r}: a prefix starts with '/'")
        prefix = prefix.rstrip("/")
        if any(mount.prefix == prefix for mount in self._mounts):
            raise ValueError(f"mount {prefix or '/'!r} is registered twice")
        self._mounts.append(Mount(prefix, target))
        self._mounts.sort(key=lambda mount: -len(mount.prefix))

    def _entry(self, path: str) -> _Path:
        if not path.startswith("/"):
            raise ValueError(f"route {path!r}: a path starts with '/'")
        if path in self._static:
            return self._static[path]
        pattern, names, converters = _compile(path)
        if not names:
            self._static[path] = entry = _Path(pattern, (), ())
            return entry
        for known in self._dynamic:
            if known.pattern.pattern == pattern.pattern and known.names == names:
                return known
        entry = _Path(pattern, names, converters)
        self._dynamic.append(entry)
        first = path[1:].split("/", 1)[0]
        if "{" in first:
            self._open.append(entry)
        else:
            self._by_first.setdefault(first, []).append(entry)
        return entry

    def find(self, method: str, path: str) -> tuple[Route, Params] | None:
        """Return the route for a raw path and its parameters; None if no route has the path.

        HEAD falls back to GET. Raises HTTPError: 405 with Allow for another method, 400 for a
        parameter that is no UTF-8.
        """
        entry = self._static.get(path)
        if entry is None and "%" in path:
            entry = self._static.get(_unquote(path))
        if entry is not None:
            route = entry.routes.get(method)
            if route is None:
                route = (
                    entry.routes["GET"] if method == "HEAD" and "GET" in entry.routes else _other(method, entry.routes)
                )
            return route, {}
        allowed: list[_Path] = []
        for candidates in (self._by_first.get(path[1:].split("/", 1)[0], ()), self._open):
            for entry in candidates:
                match = entry.pattern.fullmatch(path)
                if match is None:
                    continue
                route = entry.routes.get(method) or (entry.routes.get("GET") if method == "HEAD" else None)
                if route is not None:
                    return route, _parameters(entry, match)
                allowed.append(entry)
        if allowed:
            return _other(method, {one for entry in allowed for one in entry.routes}), {}
        return None

    def find_mount(self, path: str) -> Mount | None:
        """Return the mount that takes a path which no route takes."""
        for mount in self._mounts:
            if path.startswith(mount.prefix) and path[len(mount.prefix) : len(mount.prefix) + 1] in ("", "/"):
                return mount
        return None


def _other(method: str, methods: Iterable[str]) -> Route:
    """Answer a method that a path has no route for: OPTIONS by what it has, others by an HTTPError.

    Raises HTTPError: 405 with Allow, 426 where only WebSockets are spoken.
    """
    allowed = {one for one in methods if one != WEBSOCKET}
    if not allowed and method != "OPTIONS":
        raise HTTPError(426, "this path speaks WebSocket only", {"Upgrade": "websocket"})
    if "GET" in allowed:
        allowed.add("HEAD")
    allow = ", ".join(sorted(allowed | {"OPTIONS"}))
    if method != "OPTIONS":
        raise HTTPError(405, "", {"Allow": allow})
    return Route(path="", handler=lambda _request: Response(b"", 204, {"Allow": allow}))


def _compile(path: str) -> tuple[re.Pattern[str], tuple[str, ...], tuple[Callable[[str], Any], ...]]:
    names: list[str] = []
    converters: list[Callable[[str], Any]] = []
    pattern = ""
    end = 0
    for match in _PARAMETER.finditer(path):
        name, kind = match[1], match[2] or "str"
        if kind not in _KINDS:
            raise ValueError(f"route {path!r}: {{{name}:{kind}}}: known kinds are {', '.join(_KINDS)}")
        if name in names:
            raise ValueError(f"route {path!r}: parameter {name!r} occurs twice")
        pattern += re.escape(path[end : match.start()]) + _KINDS[kind]
        names.append(name)
        converters.append(int if kind == "int" else _unquote)
        end = match.end()
    rest = path[end:]
    if "{" in rest or "}" in rest or "{" in pattern.replace("{1,18}", ""):
        raise ValueError(f"route {path!r}: a parameter is written {{name}}, {{name:int}} or {{name:path}}")
    return re.compile(pattern + re.escape(rest), re.DOTALL), tuple(names), tuple(converters)


def _parameters(entry: _Path, match: re.Match[str]) -> Params:
    if len(entry.names) == 1:
        return {entry.names[0]: entry.converters[0](match[1])}
    texts = match.groups()
    return {name: entry.converters[i](texts[i]) for i, name in enumerate(entry.names)}


def _unquote(text: str) -> str:
    # After splitting, so that an escaped slash stays within its segment.
    if "%" not in text:
        return text
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise HTTPError(400, "the path is no UTF-8") from None
