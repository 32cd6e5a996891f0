"""``m2gate cert``: the certificates of an installation, and certbot's way to renew them."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from m2gate.errors import ConfigError, M2GateError

if TYPE_CHECKING:
    from m2gate.site.inventory import ListedPair, MissingPair

SOON_DAYS: Final = 21
COLUMNS: Final = 120


class CertError(M2GateError):
    """What was asked for cannot be done; nothing has been changed."""


@click.group()
def command() -> None:
    """List the certificates, and let certbot bring new ones."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="For scripts: an object with pairs and missing.")
def list_command(*, as_json: bool) -> None:
    """Show each pair in /etc/m2gate/certs, and the hosts of enabled TLS sites that have none.

    use is the sites that show the pair, or default: what clients get that send no name or an unknown one.
    """
    from m2gate.site.enabled import read_enabled
    from m2gate.site.inventory import list_missing, list_pairs
    from m2gate.site.places import Places

    places = Places.here()
    sites = read_enabled(places)
    pairs, missing = list_pairs(places.certs, sites), list_missing(places.certs, sites)
    if as_json:
        document = {"pairs": [_pair_document(one) for one in pairs], "missing": [_missing(one) for one in missing]}
        click.echo(json.dumps(document, indent=2))
        return
    for line in _lines(pairs):
        click.echo(line)
    for one in missing:
        click.echo(f"missing: {one.host} of site {one.site}: clients get the default pair, which no client accepts")


def _pair_document(pair: "ListedPair") -> dict[str, Any]:
    return {
        "name": pair.name,
        "certificate": str(pair.certificate),
        "key": str(pair.key),
        "expires": _expiry(pair, "%Y-%m-%dT%H:%M:%SZ"),
        "days_left": pair.days_left(),
        "chain": pair.chain or None,
        "key_mode": pair.key_mode or None,
        "problem": pair.problem or None,
        "default": pair.is_default,
        "sites": list(pair.sites),
    }


def _missing(one: "MissingPair") -> dict[str, str]:
    return {"host": one.host, "site": one.site}


def _expiry(pair: "ListedPair", form: str) -> str | None:
    return None if pair.leaf is None else datetime.fromtimestamp(pair.leaf.expires_s, UTC).strftime(form)


def _lines(pairs: list["ListedPair"]) -> list[str]:
    from m2gate.cli.status import has_colours
    from m2gate.cli.table import Cell, Column, build_table, printable

    if not pairs:
        return ["no certificates"]
    titles = ("NAME", "FILE", "EXPIRES", "DAYS", "CHAIN", "KEY", "USE")
    columns = [Column(title=title, is_name=title != "DAYS", priority=title == "KEY") for title in titles]
    rows = []
    for pair in pairs:
        days = pair.days_left()
        is_late = days is not None and days < SOON_DAYS
        state = Cell(pair.problem, "red") if pair.problem else Cell(pair.chain or "-")
        use = ", ".join(pair.sites) or ("default" if pair.is_default else "-")
        row = [
            Cell(printable(pair.name)),
            Cell(printable(pair.certificate.name)),
            Cell(_expiry(pair, "%Y-%m-%d") or "-"),
        ]
        row += [Cell("-" if days is None else str(days), "red" if is_late else ""), state, Cell(pair.key_mode or "-")]
        rows.append([*row, Cell(use)])
    width = shutil.get_terminal_size((COLUMNS, 24)).columns
    return build_table(columns, rows, width, colour=has_colours())


@command.command()
@click.argument("action", type=click.Choice(["enable", "disable", "print"]), required=False)
def hook(action: str | None) -> None:
    """Show, link, unlink or print the hook that certbot runs after each new certificate.

    It copies the new pair under each of its names, and lets Mongrel2 look again. Without an ACTION: whether it is
    linked.
    """
    from m2gate.site.places import Places

    script = find_hook()
    link = Places.here().root / "etc/letsencrypt/renewal-hooks/deploy/m2gate"
    if action == "print":
        click.echo(script.read_text(encoding="utf-8"), nl=False)
    elif action == "enable":
        _enable(script, link)
    elif action == "disable":
        _disable(link)
    else:
        click.echo(f"enabled: {link}" if link.is_symlink() or link.exists() else "disabled")


def find_hook() -> Path:
    """Return the path of the script: a checkout's, else this environment's, else the system's.

    Raises ConfigError if there is none, which means a broken installation.
    """
    import sys

    name = "certbot-deploy-hook"
    folders = [Path(sys.prefix) / "share/m2gate", Path("/usr/share/m2gate")]
    places = [Path(__file__).resolve().parents[2] / "share" / name, *(folder / name for folder in folders)]
    for place in places:
        if place.is_file():
            return place
    names = ", ".join(map(str, places))
    raise ConfigError("hook", names, "there is no such file", "install m2gate again", "installation")


def _enable(script: Path, link: Path) -> None:
    try:
        if link.is_symlink() and link.readlink() == script:
            click.echo(f"{link} is there already")
            return
        if link.exists() and not link.is_symlink():
            raise CertError(f"{link}: this file is not ours; move it away first")
        link.parent.mkdir(parents=True, exist_ok=True)
        new = link.with_name(".m2gate.new")
        new.unlink(missing_ok=True)
        new.symlink_to(script)
        new.replace(link)
    except OSError as error:
        raise CertError(f"{link}: {error.strerror}; run this as root") from error
    click.echo(f"{link} -> {script}")


def _disable(link: Path) -> None:
    try:
        if link.is_symlink():
            link.unlink()
        elif link.exists():
            raise CertError(f"{link}: this file is not ours; remove it by hand")
    except OSError as error:
        raise CertError(f"{link}: {error.strerror}; run this as root") from error
    click.echo("disabled")
