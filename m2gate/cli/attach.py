"""``--attach``: what a worker is connected to."""

import os
from collections.abc import Sequence
from pathlib import Path

from m2gate.errors import ConfigError
from m2gate.gateway.place import FOLDER_MAX, SOCKET, default_folder


def parse_attach(specs: Sequence[str]) -> str:
    """Return the folder of the gateway that ``--attach`` names, the default one without any.

    SPEC: ``gateway``, or ``gateway:`` and the workers' socket or its folder.
    Raises ConfigError; a gateway that is not there is none.
    """
    if not specs:
        return default_folder()
    if len(specs) > 1:
        problem = "a worker is attached to one gateway"
        raise ConfigError("--attach", " ".join(specs), problem, "give it once; run m2gate worker for each gateway")
    kind, _, place = specs[0].partition(":")
    if kind in ("direct", "zhttp"):
        problem = f"{kind}: is not there yet in this version"
        remedy = "use gateway:SOCKET, or m2gate run TARGET for one worker that is connected to Mongrel2 directly"
        raise ConfigError("--attach", specs[0], problem, remedy)
    if kind != "gateway":
        raise ConfigError("--attach", specs[0], "no such kind", "write gateway:SOCKET, as m2gate gateway prints it")
    return _folder(specs[0], place) if place else default_folder()


def _folder(spec: str, place: str) -> str:
    path = Path(os.path.abspath(place))
    folder = path.parent if path.name == SOCKET and not path.is_dir() else path
    if len(os.fsencode(folder)) > FOLDER_MAX:
        problem = f"the gateway's folder has more than {FOLDER_MAX} bytes, which no socket can have"
        raise ConfigError("--attach", spec, problem, "use a gateway with a shorter folder")
    if folder.exists() and not folder.is_dir():
        raise ConfigError("--attach", spec, "this is no folder of a gateway", f"name its socket, /PATH/{SOCKET}")
    return str(folder)
