"""What a site says: the names it answers to, where it listens, and what answers which path."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """One address; all sites that name it share the Mongrel2 that listens there.

    address: an IPv4 or IPv6 address without brackets, such as ``0.0.0.0`` or ``::``.
    """

    address: str
    port: int
    tls: bool = False

    @property
    def server_id(self) -> str:
        """Name of its Mongrel2: its uuid, its send_ident, and the instance of its unit."""
        known = {"0.0.0.0": "any", "::": "any6", "127.0.0.1": "local"}  # noqa: S104 - names, not a bind
        return f"{known.get(self.address) or re.sub('[^0-9a-z]+', '-', self.address.lower()).strip('-')}-{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerSection:
    """``[handler.NAME]``: an App and its workers, which ``m2gate worker NAME`` runs.

    target:          as ``m2gate run`` takes it; files are absolute.
    workers:         processes.
    drain_timeout_s: for what is open when a worker ends.
    max_requests:    after so many a fresh process takes over; None for never.
    """

    name: str
    target: str
    workers: int = 1
    drain_timeout_s: float = 30.0
    max_requests: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """``[[route]]``: a path, and the one thing that answers it.

    path:    a prefix that begins with ``/``; ends in ``/`` where it stands for a folder.
    handler: name of a handler section of this site.
    dir:     a folder that Mongrel2 serves by itself; absolute, ends in ``/``.
    """

    path: str
    handler: str | None = None
    dir: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One file.

    name:     the file's, without its suffix.
    hosts:    exact names, or ``*.example.test`` for all one level below; lower case. Empty: any name.
    redirect: plain http is redirected to https.
    lines:    of the file's keys.
    """

    name: str
    path: Path
    hosts: tuple[str, ...] = ()
    listen: tuple[Listen, ...]
    handlers: tuple[HandlerSection, ...] = ()
    routes: tuple[Route, ...]
    redirect: bool = False
    settings: dict[str, int | str] = field(default_factory=dict)
    lines: Mapping[tuple[str | int, ...], int] = field(default_factory=dict, compare=False, repr=False)

    def where(self, *key: str) -> str:
        """Return FILE:LINE of a key such as ``"handler", "shop"``; only FILE if that is not known."""
        line = self.lines.get(key)
        return f"{self.path}:{line}" if line else str(self.path)
