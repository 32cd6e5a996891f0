"""``m2gate config apply``: what would happen, and then that, with the old database in its place until all is well.

Mongrel2 reads its database when it starts and never again, so a change restarts its server; certificates
it reads again at a SIGHUP. Which of the two, or nothing, is found by comparing the database that is
there with the one that would take its place.
"""

import hashlib
import json
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from m2gate.errors import ConfigError
from m2gate.site.certificates import make_default_pairs, read_pair
from m2gate.site.changes import Change, describe, handler_changes, server_change
from m2gate.site.configure import ACME_PATH, configure
from m2gate.site.enabled import read_enabled, servers
from m2gate.site.installation import read_installation
from m2gate.site.inventory import find_stems, list_missing
from m2gate.site.load import write_database
from m2gate.site.model import Site
from m2gate.site.places import Places

SOURCE: Final = "config apply"
ACME_MODE: Final = 0o755


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done, and the state that it leads to."""

    changes: Sequence[Change]
    needs_database: bool
    needs_gateway: bool
    sites: Sequence[Site]
    state: Mapping[str, Any] = field(default_factory=dict)

    @property
    def refusing(self) -> list[Change]:
        """The changes that refuse connections."""
        return [one for one in self.changes if one.refuses]

    @property
    def is_nothing(self) -> bool:
        """True if all is as it should be."""
        return not self.needs_database and not self.needs_gateway and all(one.action == "keep" for one in self.changes)


class Preparation:
    """A checked database beside the one that is there; close to it in place, so that a rename puts it there."""

    def __init__(self, places: Places, text: Path, database: Path, sites: Sequence[Site]) -> None:
        self._places = places
        self._text = text
        self._database = database
        self.sites = sites

    def plan(self) -> Plan:
        """Compare what is there with what would be."""
        places, sites = self._places, self.sites
        old, new = describe(places.database), describe(self._database)
        before = _read_state(places.applied)
        fingerprint = _fingerprint(places.certs, [one.server_id for one in servers(sites)])
        handlers, routes = _handlers(sites), _routes(sites)
        certificates = before.get("certificates") != fingerprint
        uuids = sorted({*old, *new} - {""})
        changes = [server_change(places, uuid, old, new, certificates=certificates) for uuid in uuids]
        changes += handler_changes(before.get("handlers", {}), handlers)
        return Plan(
            changes=changes,
            needs_database=old != new,
            needs_gateway=before.get("routes") != routes or set(old) != set(new),
            sites=sites,
            state={"certificates": fingerprint, "handlers": handlers, "routes": routes},
        )

    def install(self, plan: Plan) -> None:
        """Put the new database and its text in their places. Raises ConfigError if that is not allowed."""
        places = self._places
        try:
            if plan.needs_database:
                for file, place in ((self._text, places.state / "mongrel2.conf"), (self._database, places.database)):
                    file.chmod(0o644)
                    file.replace(place)
            new = places.state / ".applied.new"
            new.write_text(json.dumps(plan.state, indent=1, sort_keys=True) + "\n")
            new.replace(places.applied)
        except OSError as error:
            raise _not_allowed(places.state, error) from error


@contextmanager
def prepared(places: Places) -> Iterator[Preparation]:
    """Read the enabled sites and make a database of them, checked and read back.

    Raises ConfigError for what cannot work, LoadError if m2sh fails; nothing has changed then.
    """
    sites = read_enabled(places)
    configuration = configure(sites, read_installation(places), places)
    check_certificates(places, sites)
    try:
        places.state.mkdir(mode=0o755, parents=True, exist_ok=True)
        (places.acme / ACME_PATH.strip("/")).mkdir(mode=ACME_MODE, parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=places.state, prefix=".apply-")
    except OSError as error:
        raise _not_allowed(places.state, error) from error
    with folder as name:
        text, database = Path(name) / "mongrel2.conf", Path(name) / "config.sqlite"
        write_database(configuration, text, database)
        yield Preparation(places, text, database, sites)


def install_pairs(places: Places, sites: Sequence[Site]) -> None:
    """Make the default pairs that TLS servers lack. Raises ConfigError if that is not allowed."""
    make_default_pairs(places.certs, [one.server_id for one in servers(sites) if one.tls], SOURCE)


def check_certificates(places: Places, sites: Sequence[Site]) -> None:
    """Check the pairs of all names, and that each name has one.

    Raises ConfigError for a name without a pair, or with one that Mongrel2 could not use.
    """
    secure = [one.server_id for one in servers(sites) if one.tls]
    if not secure:
        return
    for missing in list_missing(places.certs, sites):
        problem = f"the site {missing.site} says tls, and there is no certificate for this name"
        remedy = f"put NAME.crt and NAME.key into {places.certs}, or run certbot (see m2gate cert hook)"
        site = next(one for one in sites if one.name == missing.site)
        raise ConfigError("hosts", missing.host, problem, remedy, site.where("hosts"))
    for stem in sorted(find_stems(places.certs) - set(secure)):
        read_pair(places.certs, stem, str(places.certs))


def _not_allowed(place: Path, error: OSError) -> ConfigError:
    return ConfigError(SOURCE, str(place), f"cannot be written: {error.strerror}", "run it as root, or set M2GATE_ROOT")


def _fingerprint(certs: Path, defaults: Collection[str]) -> str:
    """Return what tells two states of the folder apart; not by default pairs, which are read once."""
    digest = hashlib.sha256()
    for path in sorted(certs.glob("[!.]*")) if certs.is_dir() else ():
        if path.is_file() and path.stem not in defaults:
            digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _handlers(sites: Sequence[Site]) -> dict[str, Any]:
    return {section.name: asdict(section) for site in sites for section in site.handlers}


def _routes(sites: Sequence[Site]) -> list[Any]:
    return [
        [
            list(site.hosts),
            [one.server_id for one in site.listen],
            [[one.path, one.handler] for one in site.routes],
            site.redirect,
        ]
        for site in sites
    ]


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}  # the first time, or somebody has broken it: then everything counts as changed
    return state if isinstance(state, dict) else {}
