"""Which workers a request is for: by its server, its exact host name, and the longest path.

Mongrel2 compares names by their end only, so "evilshop.example" would reach what answers for
"shop.example". Here names are compared as a whole.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from m2gate.gateway.refusals import Verdict, parse_head
from m2gate.gateway.sessions import Upstream
from m2gate.gateway.settings import SiteSettings
from m2gate.wire.http import parse_host

HTTPS_PORT: Final = 443
_ANY: Final = ""


class Upstreams(Protocol):
    """Where upstreams are found by the name of a handler."""

    def get(self, handler: str) -> Upstream:
        """Return the upstream of a handler; one that nobody serves yet has none to serve it."""


class Router:
    """Finds the upstream of a request, or the verdict on one that is for nobody.

    sites: none means that there is one upstream for everything, the one without a name.
    ``only`` that upstream, so that nothing has to be looked at; None with sites.
    """

    def __init__(self, sites: Sequence[SiteSettings], upstreams: Upstreams) -> None:
        self.only: Upstream | None = None if sites else upstreams.get(_ANY)
        self._upstreams = upstreams
        self._tables: dict[bytes, _Names] = {}
        for site in sites:
            for ident in site.servers:
                self._tables.setdefault(ident.encode(), _Names()).add(site)

    def find(self, send_ident: bytes, frame: bytes) -> Upstream | Verdict:
        """Return who is to answer the request in frame, which came from this server."""
        headers, path = parse_head(frame)
        names = self._tables.get(send_ident)
        name = parse_host(headers.get(b"host"))
        site = names.find(name) if names is not None and name is not None else None
        if site is None or name is None:
            return Verdict(421, "no site of this name is served here")
        port = site.redirects.get(send_ident)
        if port is not None and name:
            return _redirect(port, name, headers.get(b"URI"))
        handler = site.find(path.decode("latin-1"))
        return Verdict(404, "no route of this site has this path") if handler is None else self._upstreams.get(handler)


def _redirect(port: int, name: str, uri: object) -> Verdict:
    target = uri.decode("latin-1") if type(uri) is bytes and uri.startswith(b"/") else "/"
    place = name if port == HTTPS_PORT else f"{name}:{port}"
    return Verdict(308, "this site is served by https", f"https://{place}{target}")


class _Table:
    """One site at one server; routes from the longest path to the shortest."""

    __slots__ = ("redirects", "routes")

    def __init__(self, site: SiteSettings) -> None:
        self.routes = sorted(site.routes.items(), key=lambda one: -len(one[0]))
        self.redirects = {ident.encode(): port for ident, port in site.redirects.items()}

    def find(self, path: str) -> str | None:
        """Return the handler of the longest route that path lies in."""
        for prefix, handler in self.routes:
            if path.startswith(prefix) and (prefix.endswith("/") or path[len(prefix) : len(prefix) + 1] in ("", "/")):
                return handler
        return None


class _Names:
    """The sites of one server by name."""

    def __init__(self) -> None:
        self._exact: dict[str, _Table] = {}
        self._wildcards: dict[str, _Table] = {}
        self._any: _Table | None = None

    def add(self, site: SiteSettings) -> None:
        table = _Table(site)
        for host in site.hosts:
            if host.startswith("*."):
                self._wildcards[host[1:]] = table
            else:
                self._exact[host] = table
        if not site.hosts:
            self._any = table

    def find(self, name: str) -> _Table | None:
        """Return the site of a name: the exact one, a wildcard for one level, the one for any name."""
        found = self._exact.get(name)
        if found is None and "." in name:
            found = self._wildcards.get(name[name.index(".") :])
        return found or self._any
