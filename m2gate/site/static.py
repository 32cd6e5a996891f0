"""Folders that Mongrel2 serves by itself, and what one has to know about its way of doing it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from m2gate.errors import ConfigError
from m2gate.site.records import SettingValue

# Beyond m2sh's own table: newer types, and the character set that text files have today.
MIMETYPES: Final[Mapping[str, str]] = {
    ".avif": "image/avif",
    ".css": "text/css; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".htm": "text/html; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}

# With the default of 256 a folder with a longer path keeps Mongrel2 from starting.
SETTINGS: Final[Mapping[str, SettingValue]] = {"limits.dir_max_path": 4096}


def check_neighbours(folder: Path, source: str) -> None:
    """Raise ConfigError if Mongrel2 would serve files beside the folder too.

    It compares real paths by their beginning only: with ``/srv/public`` as the folder,
    ``GET /static/../public-old/x`` gets ``/srv/public-old/x`` (seen on 1.12.2).
    """
    real = Path(os.path.realpath(folder))
    if not real.parent.exists():
        return
    try:
        names = os.listdir(real.parent)
    except OSError as error:
        problem = f"{real.parent} cannot be read: {error.strerror}"
        raise ConfigError("static", str(folder), problem, "let this user read it", source) from error
    near = sorted(name for name in names if name != real.name and name.startswith(real.name))
    if near:
        problem = f"Mongrel2 would serve {near[0]} beside it as well, whose name begins alike"
        raise ConfigError("static", str(folder), problem, "rename one, or give the folder a parent of its own", source)
