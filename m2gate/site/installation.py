"""Settings of a whole installation: ``m2gate.toml``."""

from dataclasses import dataclass, field
from typing import Any, Final

from m2gate.errors import ConfigError
from m2gate.site.places import Places
from m2gate.site.schema import GATEWAY, names
from m2gate.site.settings import check_setting
from m2gate.site.toml import Document

TABLES: Final = ("mongrel2", "gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What the administrator has set for everything.

    mongrel2: Mongrel2's settings by their own names, over m2gate's.
    gateway:  see schema.GATEWAY; times are in seconds. Their values are checked by the gateway.
    """

    mongrel2: dict[str, int | str] = field(default_factory=dict)
    gateway: dict[str, Any] = field(default_factory=dict)


def read_installation(places: Places) -> Installation:
    """Read m2gate.toml; without it nothing is set. Raises ConfigError naming line and key."""
    if not places.settings.exists():
        return Installation()
    document = Document(places.settings)
    document.check_keys((), document.values, TABLES)
    for name, values in document.values.items():
        if not isinstance(values, dict):
            raise document.fail((name,), values, "this is a table", f"write [{name}] and its keys below")
    mongrel2, gateway = document.values.get("mongrel2", {}), document.values.get("gateway", {})
    for key, value in mongrel2.items():
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise document.fail(("mongrel2", key), value, "Mongrel2 knows whole numbers and texts", "write one of them")
        try:
            check_setting(key, value, str(places.settings))
        except ConfigError as error:
            raise document.fail(("mongrel2", key), value, error.problem, error.remedy) from error
    document.check_keys(("gateway",), gateway, names(GATEWAY))
    return Installation(mongrel2=mongrel2, gateway=gateway)
