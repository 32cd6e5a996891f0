"""The options that ``run`` and ``config`` share, and their checks, which need nothing to be running."""

import ipaddress
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from m2gate.errors import ConfigError
from m2gate.site.private import PrivateServer

DEFAULT_BIND: Final = "127.0.0.1:6767"
_URL: Final = re.compile(r"[A-Za-z0-9._~/-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What the command line says about the Mongrel2 that it wants.

    port:   0 for any free one. tls_certs: the user's folder, not looked at yet.
    static: ``/url/`` to an existing folder.
    """

    bind_addr: str = "127.0.0.1"
    port: int = 6767
    static: dict[str, Path] = field(default_factory=dict)
    tls_certs: Path | None = None

    def url(self, port: int) -> str:
        """Return the URL of the server once its port is known."""
        host = f"[{self.bind_addr}]" if ":" in self.bind_addr else self.bind_addr
        return f"{'https' if self.tls_certs else 'http'}://{host}:{port}"

    def private_server(self, folder: Path, port: int, routes: Sequence[str], certdir: Path | None) -> PrivateServer:
        """Return the server to configure, with its files in folder."""
        return PrivateServer(
            folder=folder,
            port=port,
            bind_addr=self.bind_addr,
            uuid=f"m2gate-{port}",
            routes=tuple(routes),
            static=self.static,
            certdir=certdir,
            # Otherwise answers on JSON sockets are base64 without an end, which no client can split.
            raw_payload=any(route.startswith("@") for route in routes),
            source="",
        )


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options about the server to a command."""
    for option in (
        click.option("--tls-certs", metavar="DIR", help="Serve https with DIR/NAME.crt and NAME.key, chosen by SNI."),
        click.option("--static", multiple=True, metavar="/URL=DIR", help="Let Mongrel2 serve a folder; repeatable."),
        click.option("--bind", default=DEFAULT_BIND, show_default=True, metavar="ADDR:PORT", help="Port 0: any."),
    ):
        command = option(command)
    return command


def worker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options about workers, direct or attached, to a command."""
    for option in (
        click.option(
            "--no-patch", is_flag=True, help="Leave the standard library alone: only gevent's own calls cooperate."
        ),
        click.option(
            "--max-requests",
            type=click.IntRange(1),
            metavar="N",
            help="Let a fresh process take over after N requests. Default: never.",
        ),
        click.option(
            "--drain-timeout",
            type=click.FloatRange(0, 86_400),
            default=30.0,
            show_default=True,
            metavar="S",
            help="Seconds for what is open at a stop.",
        ),
        click.option(
            "--access-log",
            is_flag=False,
            flag_value="-",
            metavar="[FILE]",
            help="One line a request, to FILE or without it to stderr. Default: only if stderr is a terminal.",
        ),
        click.option("--reload", is_flag=True, help="Load the code again when a source file changes."),
    ):
        command = option(command)
    return command


def parse_access_log(value: str | None) -> str | None:
    """Return "-" for stderr, an absolute path, or None. Raises ConfigError for what is no place for a log."""
    if value is None:
        return "-" if os.isatty(2) else None
    if value == "-":
        return value
    path = Path(os.path.abspath(value))
    if path.suffix == ".py" or path.is_dir() or (not path.parent.is_dir()):
        problem = "this is no place for a log"
        remedy = "write --access-log=FILE, or put TARGET before --access-log"
        raise ConfigError("--access-log", value, problem, remedy)
    return str(path)


def parse_server_options(bind: str, static: Sequence[str], tls_certs: str | None) -> ServerOptions:
    """Check the options about the server. Raises ConfigError naming the option."""
    address, port = parse_bind(bind)
    folder = Path(os.path.abspath(tls_certs)) if tls_certs is not None else None
    return ServerOptions(bind_addr=address, port=port, static=parse_static(static), tls_certs=folder)


def parse_bind(text: str) -> tuple[str, int]:
    """Parse ADDR:PORT, [ADDR]:PORT, :PORT or PORT. Raises ConfigError."""
    return parse_address("--bind", text, DEFAULT_BIND)


def parse_address(option: str, text: str, example: str = "127.0.0.1:5561") -> tuple[str, int]:
    """Parse ADDR:PORT, [ADDR]:PORT, :PORT or PORT. Raises ConfigError naming the option."""
    host, _, port_text = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    host = "127.0.0.1" if host == "localhost" else host
    if not port_text.isascii() or not port_text.isdigit() or int(port_text) > 65_535:
        raise ConfigError(option, text, "no port from 0 to 65535 in it", f"use e.g. {example}")
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        problem = f"{host!r} is no IP address"
        remedy = f"use an address of this machine, e.g. {example} or 0.0.0.0:{example.rpartition(':')[2]}"
        raise ConfigError(option, text, problem, remedy) from error
    return host, int(port_text)


def parse_static(texts: Sequence[str]) -> dict[str, Path]:
    """Parse a list of /URL=DIR. Raises ConfigError."""
    found: dict[str, Path] = {}
    for text in texts:
        url, separator, name = text.partition("=")
        if not separator or not url.startswith("/") or not name:
            raise ConfigError("--static", text, "not of the form /URL=DIR", "use e.g. /static=public")
        folder = Path(os.path.abspath(name))
        if not folder.is_dir():
            raise ConfigError("--static", text, f"there is no folder {folder}", "name an existing one")
        if not _URL.fullmatch(url):
            problem = "the path has characters that a browser would send encoded, or that mean something to Mongrel2"
            raise ConfigError("--static", text, problem, "use letters, digits and . _ ~ - only")
        url = f"/{url.strip('/')}/"
        if url == "//":
            problem = "it would hide all of the handlers"
            raise ConfigError("--static", text, problem, "use a path of its own, e.g. /static=public")
        if url in found:
            raise ConfigError("--static", text, f"{url} is given twice", "use another path")
        found[url] = folder
    return found


def find_target(target: str | None) -> str:
    """Return TARGET, or what the current folder offers: ``app.py``, else ``handlers/``.

    Raises click.UsageError if there is neither.
    """
    if target is not None:
        return target
    if Path("app.py").is_file():
        return "app.py"
    if Path("handlers").is_dir():
        return "handlers"
    raise click.UsageError(
        "Say what to run: there is neither app.py nor handlers/ here. TARGET is a file (m2gate run hello.py),"
        " a file and a name (hello.py:app), a module and a name (shop.web:app) or a folder of such files."
    )
