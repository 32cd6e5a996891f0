"""``m2gate site``: which sites there are, what they say, and which of them are served."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from m2gate.errors import ConfigError

if TYPE_CHECKING:
    from m2gate.site.model import Site
    from m2gate.site.places import Places

APPLY = "m2gate config apply makes it count"


@click.group()
def command() -> None:
    """List, look at, enable and disable sites.

    A site is one file, /etc/m2gate/sites-available/NAME.toml; docs/reference/sites.md has its keys.
    """


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_sites(*, as_json: bool) -> None:
    """List all sites, those that are enabled marked with a star."""
    places = _places()
    rows = [_row(places, path) for path in _available(places)]
    if as_json:
        click.echo(json.dumps({"sites": rows}))
        return
    if not rows:
        click.echo(f"no site is in {places.available}", err=True)
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        what = row["error"] or f"{' '.join(row['hosts']) or 'any name'} at {', '.join(row['listen'])}"
        click.echo(f"{'*' if row['enabled'] else ' '} {row['name']:<{width}}  {what}")


@command.command()
@click.argument("site", metavar="NAME|FILE")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def show(*, site: str, as_json: bool) -> None:
    """Print what a site says, with all defaults."""
    places = _places()
    found = _read(places, site)
    document = _document(places, found)
    if as_json:
        click.echo(json.dumps(document))
        return
    click.echo(f"{found.name} ({found.path}), {'enabled' if document['enabled'] else 'not enabled'}")
    click.echo(f"names     {' '.join(found.hosts) or 'any'}")
    for one in document["listen"]:
        click.echo(f"listens   {one}")
    if found.redirect:
        click.echo("redirect  plain http to https")
    for route in found.routes:
        click.echo(f"route     {route.path} to {f'handler {route.handler}' if route.handler else route.dir}")
    for section in found.handlers:
        limit = f", {section.max_requests:,} requests each" if section.max_requests else ""
        drain = f"{section.drain_timeout_s:g} s to drain"
        click.echo(f"handler   {section.name}: {section.target}, {section.workers} workers, {drain}{limit}")


@command.command()
@click.argument("site", metavar="NAME|FILE")
def check(*, site: str) -> None:
    """Check one site, by itself and beside those that are enabled. Exits with 2 for what cannot work."""
    from m2gate.site.enabled import check_together, read_enabled

    places = _places()
    found = _read(places, site)
    check_together([one for one in read_enabled(places) if one.name != found.name] + [found])
    click.echo(f"{found.path}: good")


@command.command()
@click.argument("site", metavar="NAME")
def enable(*, site: str) -> None:
    """Let a site be served from the next m2gate config apply on. Idempotent."""
    from m2gate.site.enabled import check_together, read_enabled

    places = _places()
    path = _find(places, site)
    if path.parent != places.available:
        problem = f"only what is in {places.available} can be enabled"
        raise ConfigError("site", site, problem, "copy the file there, and name it without its suffix")
    found = _read(places, site)
    check_together([one for one in read_enabled(places) if one.name != found.name] + [found])
    link = places.enabled / path.name
    target = Path(os.path.relpath(path, places.enabled))
    if link.is_symlink() and link.readlink() == target:
        click.echo(f"{found.name} is enabled already")
        return
    try:
        places.enabled.mkdir(mode=0o755, parents=True, exist_ok=True)
        new = places.enabled / f".{path.name}.new"
        new.unlink(missing_ok=True)
        new.symlink_to(target)
        new.replace(link)
    except OSError as error:
        raise click.ClickException(f"{link}: cannot be made: {error.strerror}; run it as root") from error
    click.echo(f"{found.name} is enabled; {APPLY}")


@command.command()
@click.argument("site", metavar="NAME")
def disable(*, site: str) -> None:
    """Let a site be served no more, from the next m2gate config apply on; its file stays. Idempotent."""
    places = _places()
    name = site.removesuffix(".toml")
    link = places.enabled / f"{name}.toml"
    if not link.is_symlink() and not link.exists():
        _find(places, name)
        click.echo(f"{name} is not enabled")
        return
    if not link.is_symlink():
        raise click.ClickException(f"{link} is a file and no link; move it to {places.available}")
    try:
        link.unlink()
    except OSError as error:
        raise click.ClickException(f"{link}: cannot be removed: {error.strerror}; run it as root") from error
    click.echo(f"{name} is disabled; {APPLY}")


def _places() -> "Places":
    from m2gate.site.places import Places

    return Places.here()


def _available(places: "Places") -> list[Path]:
    return sorted(places.available.glob("[!.]*.toml"))


def _find(places: "Places", site: str) -> Path:
    """Return the file of a site. Raises click.ClickException if there is none."""
    if "/" in site:
        path = Path(os.path.abspath(site))
    else:
        path = places.available / f"{site.removesuffix('.toml')}.toml"
        if not path.is_file() and site.endswith(".toml"):
            path = Path(os.path.abspath(site))
    if path.is_file():
        return path
    known = ", ".join(one.stem for one in _available(places)) or "none"
    raise click.ClickException(f"{site}: no such site in {places.available}; there are: {known}")


def _read(places: "Places", site: str) -> "Site":
    from m2gate.site.sites import read_site

    return read_site(_find(places, site))


def _row(places: "Places", path: Path) -> dict[str, Any]:
    from m2gate.site.sites import read_site

    enabled = (places.enabled / path.name).exists()
    try:
        return {**_document(places, read_site(path)), "error": None}
    except ConfigError as error:
        return {"name": path.stem, "enabled": enabled, "hosts": [], "listen": [], "error": str(error)}


def _document(places: "Places", site: "Site") -> dict[str, Any]:
    return {
        "name": site.name,
        "file": str(site.path),
        "enabled": (places.enabled / f"{site.name}.toml").exists(),
        "hosts": list(site.hosts),
        "listen": [
            f"{f'[{one.address}]' if ':' in one.address else one.address}:{one.port}{' tls' if one.tls else ''}"
            for one in site.listen
        ],
        "redirect": "https" if site.redirect else None,
        "handlers": {
            one.name: {
                "target": one.target,
                "workers": one.workers,
                "drain_timeout": one.drain_timeout_s,
                "max_requests": one.max_requests,
            }
            for one in site.handlers
        },
        "routes": [{"path": one.path, "handler": one.handler, "dir": one.dir} for one in site.routes],
    }
