"""Render a configuration as m2sh's language, from the templates in ``mongrel2.conf.d``."""

import sys
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import jinja2

from m2gate.errors import ConfigError
from m2gate.site.check import check_configuration
from m2gate.site.places import Places
from m2gate.site.records import HOST_NAME, Configuration, Directory, Handler, Server, SettingValue, Target

MAIN_TEMPLATE: Final = "mongrel2.conf.j2"
FRAGMENTS: Final = "[0-9]*.j2"


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


@dataclass(frozen=True, slots=True)
class Rendered:
    """The text that ``m2sh load`` takes, and the configuration that it says."""

    text: str
    configuration: Configuration


def find_fragments(templates: Path) -> Path:
    """Return the folder of the fragments that write the settings: the administrator's, if there is one."""
    administrators = Places.here().fragments
    return administrators if administrators.is_dir() else templates


def render(configuration: Configuration, templates: Path | None = None) -> Rendered:
    """Render a configuration.

    templates: another folder of templates, fragments included; None searches the usual places.
    Raises ConfigError if the configuration cannot work, or a template cannot be rendered.
    """
    check_configuration(configuration)
    folder = templates or find_templates()
    fragments = templates or find_fragments(folder)
    names = sorted(path.name for path in fragments.glob(FRAGMENTS))
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.FileSystemLoader(folder), jinja2.PrefixLoader({"fragment": jinja2.FileSystemLoader(fragments)})]
        ),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - the text is no HTML; quoted() knows m2sh's strings
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = quoted
    settings = _Settings(configuration)
    servers = configuration.servers
    targets = list(dict.fromkeys(target for server in servers for _, target in server.all_routes))
    try:
        text = environment.get_template(MAIN_TEMPLATE).render(
            servers=[_View(server, number, targets) for number, server in enumerate(servers, 1)],
            handlers=[(_name(target, targets), target) for target in targets if isinstance(target, Handler)],
            directories=[(_name(target, targets), target) for target in targets if isinstance(target, Directory)],
            mimetypes=configuration.mimetypes,
            fragments=[f"fragment/{name}" for name in names],
            settings=settings,
        )
    except jinja2.TemplateError as error:
        raise _template_error(error, folder) from error
    changed = replace(configuration, settings=settings.written)
    if settings.written != configuration.settings:
        check_configuration(replace(changed, source=str(fragments)))
    return Rendered(text, changed)


def _template_error(error: jinja2.TemplateError, folder: Path) -> ConfigError:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".j2")]
    path, line = folder / MAIN_TEMPLATE, 0
    if isinstance(error, jinja2.TemplateSyntaxError):
        path, line = Path(error.filename or path), error.lineno
    elif frames:  # jinja puts the template's own lines into the traceback
        path, line = Path(frames[-1].filename), frames[-1].lineno or 0
    source = f"{path}:{line}" if line else str(path)
    remedy = "correct it, or install the packaged one again"
    return ConfigError("template", path.name, str(error.message), remedy, source)


class _View:
    """One server as the templates see it."""

    def __init__(self, server: Server, number: int, targets: list[Target]) -> None:
        self._server = server
        self.variable = f"server_{number}"
        hosts = [(HOST_NAME, server.routes), *((host.matching, host.routes) for host in server.hosts)]
        self.hosts = [
            {
                "variable": f"host_{number}_{place}",
                "name": name,
                "matching": name,
                "is_default": place == 0,
                "routes": [(path, _name(target, targets)) for path, target in routes.items()],
            }
            for place, (name, routes) in enumerate(hosts)
        ]

    def __getattr__(self, name: str) -> object:
        return getattr(self._server, name)


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
        self.written: dict[str, SettingValue] = {}

    def has(self, key: str) -> bool:
        """Tell whether the setting is there and not written yet."""
        return key in self._left

    def line(self, key: str, value: SettingValue | None = None) -> str:
        """Return the line of a setting, and count it as written. value: in place of what it has."""
        meant = self._left.pop(key, None) if key not in self.written else None
        if value is None:
            value = meant
        if value is None:
            raise jinja2.TemplateRuntimeError(f"the setting {key} is written twice, or has no value")
        self.written[key] = value
        return f"{quoted(key)}: {quoted(value)}"

    def rest(self) -> list[str]:
        """Return the names of the settings that no template mentions."""
        return list(self._left)
