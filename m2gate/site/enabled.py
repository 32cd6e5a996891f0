"""The enabled sites, each read and all checked against each other."""

from collections.abc import Iterable
from pathlib import Path

from m2gate.errors import ConfigError
from m2gate.site.model import HandlerSection, Listen, Site
from m2gate.site.places import Places
from m2gate.site.sites import read_site


def enabled_files(places: Places) -> list[Path]:
    """Return the links in sites-enabled in the order of their names; none if the folder is not there."""
    if not places.enabled.is_dir():
        return []
    return sorted(path for path in places.enabled.iterdir() if path.suffix == ".toml")


def read_enabled(places: Places) -> tuple[Site, ...]:
    """Return the enabled sites. Raises ConfigError for the first thing that cannot work, alone or together."""
    sites = tuple(read_site(path) for path in enabled_files(places))
    check_together(sites)
    return sites


def check_together(sites: Iterable[Site]) -> None:
    """Raise ConfigError for what two sites cannot both have."""
    names: dict[tuple[str, str], Site] = {}
    handlers: dict[str, Site] = {}
    addresses: dict[tuple[str, int], tuple[Listen, Site]] = {}
    for site in sites:
        for section in site.handlers:
            other = handlers.setdefault(section.name, site)
            if other is not site:
                raise _clash(("handler", section.name), section.name, site, other, "rename one of them")
        for listen in site.listen:
            first, other = addresses.setdefault((listen.address, listen.port), (listen, site))
            if first.tls != listen.tls:
                problem = "one of them says tls there and the other does not"
                value = f"{listen.address}:{listen.port}"
                raise ConfigError(
                    "listen", value, f"{problem} ({other.where('listen')})", "agree", site.where("listen")
                )
            for host in site.hosts or ("",):
                other = names.setdefault((listen.server_id, host), site)
                if other is not site:
                    what = host or "any name"
                    raise _clash(("hosts",), what, site, other, f"name it in one of them ({listen.server_id})")
    _check_wildcards(addresses)


def _check_wildcards(addresses: dict[tuple[str, int], tuple[Listen, Site]]) -> None:
    """Raise ConfigError where 0.0.0.0 and one address of its kind want the same port: the second could not bind."""
    for (address, port), (_, site) in addresses.items():
        for everything, is_other in (("0.0.0.0", ":" not in address), ("::", ":" in address)):  # noqa: S104 - compared
            if address != everything and is_other and (everything, port) in addresses:
                other = addresses[everything, port][1]
                remedy = f"{everything}:{port} has this port already"
                raise _clash(("listen",), f"{address}:{port}", site, other, remedy)


def _clash(key: tuple[str, ...], value: str, site: Site, other: Site, remedy: str) -> ConfigError:
    return ConfigError(".".join(key), value, f"{other.where(*key)} has it, too", remedy, site.where(*key))


def servers(sites: Iterable[Site]) -> list[Listen]:
    """Return the addresses at which a Mongrel2 listens, each once."""
    return sorted({listen for site in sites for listen in site.listen}, key=lambda one: one.server_id)


def find_handler(sites: Iterable[Site], name: str) -> HandlerSection | None:
    """Return the handler section of this name."""
    return next((section for site in sites for section in site.handlers if section.name == name), None)
