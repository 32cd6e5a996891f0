"""Which handler answers a path: static paths by one lookup, the rest by one pattern each."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

from m2gate.app.response import Response
from m2gate.errors import HTTPError

WEBSOCKET: Final = "WEBSOCKET"
_PARAMETER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([a-z]+))?\}")
_KINDS: Final = {"str": "([^/]+)", "int": "([0-9]{1,18})", "path": "(.*)"}
# RFC 3986: unreserved characters mean the same escaped or not; the reserved ones, "/" foremost, do not.
_NEVER_ESCAPED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_LITERAL: Final = "/!$&'()*+,;=:@~"
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_METHOD: Final = re.compile(r"[A-Z]{1,20}")

Params = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One handler on one path.

    max_body:     bytes, instead of the App's.
    subprotocols, origins: of a WebSocket; None has the App's origins.
    """

    path: str
    handler: Callable[..., Any]
    max_body: int | None = None
    subprotocols: tuple[str, ...] = ()
    origins: tuple[str, ...] | None = None


class _Path:
    """All routes of one path; ``names`` and ``converters`` of its parameters in their order.

    only: the name of its one parameter, if that is a text, which most paths have; else "".
    """

    __slots__ = ("converters", "fullmatch", "names", "only", "pattern", "routes")

    def __init__(
        self, pattern: re.Pattern[str], names: tuple[str, ...], converters: tuple[Callable[[str], Any], ...]
    ) -> None:
        self.pattern = pattern.pattern
        self.fullmatch = pattern.fullmatch
        self.names = names
        self.converters = converters
        self.only = names[0] if converters == (_unquote,) else ""
        self.routes: dict[str, Route] = {}


@dataclass(frozen=True, slots=True)
class Mount:
    """Something that takes all below a prefix: an App or a WSGI application."""

    prefix: str
    target: Any


class Router:
    """Routes by path and method, and mounts by prefix.

    Static paths win over patterns, patterns with a literal first segment over others, then the one
    registered first; mounts come last, the longest prefix first. Literal text is written decoded.
    """

    def __init__(self) -> None:
        self._static: dict[str, _Path] = {}
        self._dynamic: list[_Path] = []
        # By the literal text before the first parameter's slash, most patterns are found at once.
        self._by_first: dict[str, list[_Path]] = {}
        self._open: list[_Path] = []
        # Of these the first pattern to try is LITERAL/{name}: one lookup instead of a match.
        self._by_literal: dict[str, _Path] = {}
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

    def body_limits(self) -> list[int]:
        """Return the max_body of each route that has one of its own."""
        routes = [route for entry in (*self._static.values(), *self._dynamic) for route in entry.routes.values()]
        return [route.max_body for route in routes if route.max_body is not None]

    def _entry(self, path: str) -> _Path:
        if not path.startswith("/"):
            raise ValueError(f"route {path!r}: a path starts with '/'")
        pattern, names, converters = _compile(path)
        if not names:
            key = _quote(path)
            return self._static.setdefault(key, _Path(pattern, (), ()))
        for known in self._dynamic:
            if known.pattern == pattern.pattern and known.names == names:
                return known
        entry = _Path(pattern, names, converters)
        self._dynamic.append(entry)
        first = path[1:].split("/", 1)[0]
        if "{" in first:
            self._open.append(entry)
        else:
            bucket = self._by_first.setdefault(_quote(first), [])
            bucket.append(entry)
            literal, _, last = path.rpartition("/")
            if bucket[0] is entry and entry.only and "{" not in literal and last == f"{{{entry.only}}}":
                self._by_literal[_quote(literal)] = entry
        return entry

    def find(self, method: str, path: str) -> tuple[Route, Params] | None:
        """Return the route for a raw path and its parameters; None if no route has the path.

        HEAD falls back to GET, OPTIONS is answered by what the path has. Raises HTTPError: 405 with
        Allow for another method, 426 where only WebSockets are spoken, 400 for a parameter that is
        no UTF-8 or has a NUL.
        """
        is_escaped = "%" in path
        if is_escaped:
            path = _normalise(path)
        entry = self._static.get(path)
        if entry is not None:
            route = entry.routes.get(method)
            if route is not None:
                return route, {}
            if method == "HEAD" and "GET" in entry.routes:
                return entry.routes["GET"], {}
            return _other(method, entry.routes), {}
        if not is_escaped:
            literal, _, last = path.rpartition("/")
            entry = self._by_literal.get(literal)
            if entry is not None and last:
                route = entry.routes.get(method)
                if route is not None:
                    return route, {entry.only: last}
        return self._find_pattern(method, path, is_escaped)

    def _find_pattern(self, method: str, path: str, is_escaped: bool) -> tuple[Route, Params] | None:  # noqa: FBT001
        end = path.find("/", 1)
        candidates = self._by_first.get(path[1:end] if end > 0 else path[1:], self._open)
        allowed: list[_Path] = []
        while True:
            for entry in candidates:
                match = entry.fullmatch(path)
                if match is None:
                    continue
                route = entry.routes.get(method) or (entry.routes.get("GET") if method == "HEAD" else None)
                if route is None:
                    allowed.append(entry)
                elif entry.only and not is_escaped:
                    return route, {entry.only: match[1]}
                else:
                    return route, _parameters(entry, match)
            if candidates is self._open:
                break
            candidates = self._open
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
    literals: list[str] = []
    pattern = ""
    end = 0
    for match in _PARAMETER.finditer(path):
        name, kind = match[1], match[2] or "str"
        if kind not in _KINDS:
            raise ValueError(f"route {path!r}: {{{name}:{kind}}}: known kinds are {', '.join(_KINDS)}")
        if name in names:
            raise ValueError(f"route {path!r}: parameter {name!r} occurs twice")
        literals.append(path[end : match.start()])
        pattern += re.escape(_quote(literals[-1])) + _KINDS[kind]
        names.append(name)
        converters.append(int if kind == "int" else _unquote)
        end = match.end()
    literals.append(path[end:])
    if any("{" in one or "}" in one for one in literals):
        raise ValueError(f"route {path!r}: a parameter is written {{name}}, {{name:int}} or {{name:path}}")
    return re.compile(pattern + re.escape(_quote(literals[-1])), re.DOTALL), tuple(names), tuple(converters)


def _parameters(entry: _Path, match: re.Match[str]) -> Params:
    texts = match.groups()
    return {name: entry.converters[i](texts[i]) for i, name in enumerate(entry.names)}


def _quote(text: str) -> str:
    """Write the literal part of a route as a path that was sent has it after _normalise."""
    return quote(text, safe=_LITERAL)


def _normalise(path: str) -> str:
    """Decode what needs no percent sign, so that one resource has one spelling; "/" stays escaped."""
    return _ESCAPE.sub(_unescape, path)


def _unescape(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if character in _NEVER_ESCAPED else match[0].upper()


def _unquote(text: str) -> str:
    # After splitting, so that an escaped slash stays within its segment.
    if "%" not in text:
        return text
    return decode_path(text)


def decode_path(text: str) -> str:
    """Decode percent-encoded UTF-8. Raises HTTPError 400 for what is none, and for NUL."""
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise HTTPError(400, "the path is no UTF-8") from None
    if "\0" in decoded:
        raise HTTPError(400, "the path has a NUL")
    return decoded
