"""Render a configuration as m2sh's language, from the templates in ``mongrel2.conf.d``."""

import sys
from pathlib import Path

import jinja2

from m2gate.errors import ConfigError
from m2gate.site.check import check_configuration
from m2gate.site.records import Configuration, Directory, Handler, SettingValue, Target

MAIN_TEMPLATE = "mongrel2.conf.j2"


def find_templates() -> Path:
    """Return the folder of the templates: a checkout's, else this environment's, else the system's.

    Raises ConfigError if there is none, which means a broken installation.
    """
    places = [
        Path(__file__).resolve().parents[2] / "mongrel2.conf.d",
        Path(sys.prefix) / "share" / "m2gate" / "mongrel2.conf.d",
        Path("/usr/share/m2gate/mongrel2.conf.d"),
    ]
    for place in places:
        if (place / MAIN_TEMPLATE).is_file():
            return place
    names = ", ".join(str(place) for place in places)
    raise ConfigError("templates", names, "no such folder has them", "install m2gate again", "installation")


def render(configuration: Configuration, templates: Path | None = None) -> str:
    """Return the text that ``m2sh load`` takes.

    templates: another folder of templates; None searches the usual places.
    Raises ConfigError if the configuration cannot work.
    """
    check_configuration(configuration)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates or find_templates()),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - the text is no HTML; quoted() knows m2sh's strings
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = quoted
    settings = _Settings(configuration)
    routes = list(configuration.server.routes.items())
    targets = list(dict.fromkeys(target for _, target in routes))
    return environment.get_template(MAIN_TEMPLATE).render(
        server=configuration.server,
        routes=[(path, _name(target, targets)) for path, target in routes],
        handlers=[(_name(target, targets), target) for target in targets if isinstance(target, Handler)],
        directories=[(_name(target, targets), target) for target in targets if isinstance(target, Directory)],
        mimetypes=configuration.mimetypes,
        settings=settings,
    )


def _name(target: Target, targets: list[Target]) -> str:
    kind = "handler" if isinstance(target, Handler) else "directory"
    return f"{kind}_{targets.index(target) + 1}"


def quoted(value: SettingValue) -> str:
    """Return a value as m2sh writes it: a number as it is, a text in double quotes.

    m2sh decodes no escapes, so a text with a double quote cannot be written at all; checked before.
    """
    return str(int(value)) if isinstance(value, int) else f'"{value}"'


class _Settings:
    """The settings as the templates see them: each is written once, beside its reason."""

    def __init__(self, configuration: Configuration) -> None:
        self._left = dict(configuration.settings)

    def has(self, key: str) -> bool:
        """Tell whether the setting is there and not written yet."""
        return key in self._left

    def line(self, key: str) -> str:
        """Return the line of a setting, and count it as written."""
        return f"{quoted(key)}: {quoted(self._left.pop(key))}"

    def rest(self) -> list[str]:
        """Return the names of the settings that no template mentions."""
        return list(self._left)
