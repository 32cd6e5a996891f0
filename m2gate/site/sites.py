"""Read one site from its TOML file; everything that cannot work is refused with file, line, key and remedy."""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from m2gate.errors import ConfigError
from m2gate.site import schema
from m2gate.site.model import HandlerSection, Listen, Route, Site
from m2gate.site.schema import names
from m2gate.site.toml import Document, Place

HOSTS_MAX: Final = 1_000
WORKERS_MAX: Final = 256
DRAIN_MAX_S: Final = 86_400
REQUESTS_MAX: Final = 10**9
PORT_MAX: Final = 65_535

SITE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
HANDLER_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST: Final = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_LISTEN: Final = re.compile(r"(?:\[([^\]]*)\]|([^:\[\]\s]*)):([0-9]{1,5})(?:\s+(\S+))?")
# What a browser sends unencoded, without what Mongrel2 takes for a pattern.
_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&',;=:@%/-]*")


def read_site(path: Path) -> Site:
    """Return the site in a file. Raises ConfigError for the first thing in it that cannot work."""
    return _Reader(Document(path)).site()


class _Reader:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._fail = document.fail

    def site(self) -> Site:
        document, values = self._document, self._document.values
        name = document.path.stem
        if document.path.suffix != ".toml" or not SITE_NAME.fullmatch(name):
            problem = "a site is named by its file, with letters, digits, - and _"
            raise ConfigError("file", document.path.name, problem, "rename it, e.g. shop.toml", str(document.path))
        document.check_keys((), values, names(schema.SITE))
        handlers = self._handlers(values.get("handler", {}))
        listen = self._listen(values.get("listen"))
        return Site(
            name=name,
            path=document.path,
            hosts=self._hosts(values.get("hosts", [])),
            listen=listen,
            handlers=handlers,
            routes=self._routes(values.get("route"), {one.name for one in handlers}),
            redirect=self._redirect(values.get("redirect"), listen),
            lines=document.lines,
        )

    def _hosts(self, values: object) -> tuple[str, ...]:
        if not isinstance(values, list) or len(values) > HOSTS_MAX:
            raise self._fail(("hosts",), values, "no list of names", 'write hosts = ["shop.example"]')
        for value in values:
            if not isinstance(value, str) or not _HOST.fullmatch(value) or len(value) > 253:
                problem = "no host name in lower case"
                raise self._fail(
                    ("hosts",), value, problem, "write shop.example, or *.shop.example for one level below"
                )
        self._no_twice(("hosts",), values)
        return tuple(values)

    def _no_twice(self, place: Place, values: list[str]) -> None:
        for value in values:
            if values.count(value) > 1:
                raise self._fail(place, value, "it is given twice", "remove one of them")

    def _listen(self, values: object) -> tuple[Listen, ...]:
        if not isinstance(values, list) or not values:
            remedy = 'write listen = ["0.0.0.0:80", "0.0.0.0:443 tls"]'
            raise self._fail(("listen",), values, "no list of addresses", remedy)
        found = tuple(map(self._address, values))
        self._no_twice(("listen",), [f"{one.address}:{one.port}" for one in found])
        return found

    def _address(self, value: object) -> Listen:
        match = _LISTEN.fullmatch(value) if isinstance(value, str) else None
        remedy = "write ADDRESS:PORT, e.g. 0.0.0.0:80, [::]:80 or 0.0.0.0:443 tls"
        if match is None:
            raise self._fail(("listen",), value, "no address with a port", remedy)
        six, four, port, word = match.groups()
        try:
            address = ipaddress.IPv6Address(six) if six is not None else ipaddress.IPv4Address(four)
        except ValueError as error:
            raise self._fail(("listen",), value, f"no IP address: {error}", remedy) from error
        if not 0 < int(port) <= PORT_MAX:
            raise self._fail(("listen",), value, f"the port is from 1 to {PORT_MAX}", remedy)
        if word not in (None, "tls"):
            raise self._fail(
                ("listen",), value, f"{word!r} means nothing here", "write tls behind the address, or nothing"
            )
        return Listen(address=str(address), port=int(port), tls=word == "tls")

    def _redirect(self, value: object, listen: tuple[Listen, ...]) -> bool:
        if value is None:
            return False
        if value != "https":
            raise self._fail(("redirect",), value, "the only redirect is to https", 'write redirect = "https"')
        if not any(one.tls for one in listen):
            raise self._fail(("redirect",), value, "the site is not served by https", 'add "0.0.0.0:443 tls" to listen')
        return True

    # -- handlers -------------------------------------------------------------------------------------

    def _handlers(self, values: object) -> tuple[HandlerSection, ...]:
        if not isinstance(values, dict):
            raise self._fail(("handler",), values, "no table of handlers", "write [handler.NAME] and its target")
        return tuple(self._handler(name, value) for name, value in values.items())

    def _handler(self, name: str, values: object) -> HandlerSection:
        place = ("handler", name)
        if not HANDLER_NAME.fullmatch(name):
            problem = "a handler's name is up to 32 lower-case letters, digits, - and _"
            raise self._fail(place, name, problem, "rename it, e.g. [handler.shop]")
        if not isinstance(values, dict):
            raise self._fail(place, values, "a handler is a table", f"write [handler.{name}] and its target")
        self._document.check_keys(place, values, names(schema.HANDLER))
        maximum = values.get("max_requests")
        return HandlerSection(
            name=name,
            target=self._target((*place, "target"), values.get("target")),
            workers=int(self._number((*place, "workers"), values.get("workers", 1), 1, WORKERS_MAX)),
            drain_timeout_s=self._number((*place, "drain_timeout"), values.get("drain_timeout", 30), 0, DRAIN_MAX_S),
            max_requests=None
            if maximum is None
            else int(self._number((*place, "max_requests"), maximum, 1, REQUESTS_MAX)),
        )

    def _target(self, place: Place, value: object) -> str:
        remedy = 'write target = "/srv/shop/app.py", "/srv/shop/app.py:app" or "shop.web:app"'
        if not isinstance(value, str) or not value.strip():
            raise self._fail(place, value, "the handler has no target", remedy)
        if ("/" in value or value.endswith(".py")) and not value.startswith("/"):
            raise self._fail(
                place, value, "a file is named from the root, as nobody knows where a service starts", remedy
            )
        return value

    def _number(self, place: Place, value: object, least: float, most: float) -> float:
        whole = place[-1] != "drain_timeout"
        if (
            isinstance(value, bool)
            or not isinstance(value, int if whole else int | float)
            or not least <= value <= most
        ):
            kind = "a whole number" if whole else "a number of seconds"
            raise self._fail(place, value, f"it is {kind} from {least:g} to {most:,.0f}", "correct it")
        return value

    # -- routes -------------------------------------------------------------------------------------------

    def _routes(self, values: object, handlers: set[str]) -> tuple[Route, ...]:
        if not isinstance(values, list) or not values:
            remedy = 'write [[route]] with path = "/" and handler = "NAME"'
            raise self._fail(("route",), values, "the site has no routes", remedy)
        routes = []
        for index, value in enumerate(values):
            routes.append(self._route(("route", index), value, handlers))
            for other in routes[:-1]:
                if other.path.rstrip("/") == routes[-1].path.rstrip("/"):
                    raise self._fail(
                        ("route", index, "path"), routes[-1].path, "two routes have it", "remove one of them"
                    )
        return tuple(routes)

    def _route(self, place: Place, values: object, handlers: set[str]) -> Route:
        if not isinstance(values, dict):
            raise self._fail(place, values, "a route is a table", "write [[route]] and its keys below")
        self._document.check_keys(place, values, names(schema.ROUTE))
        path = values.get("path")
        if not isinstance(path, str) or not _PATH.fullmatch(path) or "//" in path or "/../" in f"{path}/":
            problem = "no path from the root, as a browser sends it"
            raise self._fail((*place, "path"), path, problem, 'write path = "/" or path = "/api/"')
        targets = [key for key in ("handler", "dir", "grip") if key in values]
        if len(targets) != 1:
            problem = f"it has {' and '.join(targets)}" if targets else "nothing answers this path"
            raise self._fail(place, path, problem, "name one of handler and dir")
        return self._target_of(place, path, values, handlers)

    def _target_of(self, place: Place, path: str, values: Mapping[str, Any], handlers: set[str]) -> Route:
        if "grip" in values:
            problem = "the GRIP proxy is not there yet in this version"
            raise self._fail((*place, "grip"), values["grip"], problem, "name a handler, or run Pushpin for this path")
        if "dir" in values:
            return Route(path=path, dir=self._dir(place, path, values["dir"]))
        handler = values["handler"]
        if handler not in handlers:
            known = ", ".join(sorted(handlers)) or "none"
            problem = "this site has no such handler"
            raise self._fail((*place, "handler"), handler, problem, f"add [handler.{handler}]; known are: {known}")
        return Route(path=path, handler=handler)

    def _dir(self, place: Place, path: str, value: object) -> str:
        here = (*place, "dir")
        if not isinstance(value, str) or not value.startswith("/") or '"' in value or not value.isprintable():
            raise self._fail(here, value, "no folder, named from the root", 'write dir = "/srv/shop/static/"')
        if not value.endswith("/"):
            raise self._fail(here, value, "Mongrel2 serves a folder only with / at its end", f'write dir = "{value}/"')
        if not path.endswith("/"):
            problem = "a folder's path ends in /, or Mongrel2 would serve it under every path that begins so"
            raise self._fail((*place, "path"), path, problem, f'write path = "{path}/"')
        if not Path(value).is_dir():
            raise self._fail(here, value, "there is no such folder", "make it, or name one that exists")
        return os.path.normpath(value) + "/"
