"""Finding the App that a TARGET names: ``module:app``, ``path/to/file.py[:app]`` or a folder."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from m2gate.app.application import App
from m2gate.app.folder import load_folder
from m2gate.app.user_code import DEFAULT_NAME, find_app, import_file, user_errors
from m2gate.errors import ConfigError


def load_target(target: str) -> App:
    """Import TARGET and return its App.

    The folder of a file, or the current one for a module, becomes importable, as for ``python FILE``.
    Raises ConfigError: nothing of that name, an error in the user's code (its place named), no App.
    """
    path, _, name = target.partition(":") if not Path(target).exists() else (target, "", "")
    if not path:
        raise ConfigError("TARGET", target, "names no file and no module", "write module:app or file.py:app")
    if Path(path).is_dir():
        return load_folder(Path(path))
    if path.endswith(".py") or "/" in path:
        module = import_file(Path(path), target)
    else:
        module = _import_module(path, target)
    return find_app(module, name or DEFAULT_NAME, target)


def _import_module(name: str, target: str) -> ModuleType:
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    if found is None:
        remedy = "name a module on the path, as in package.module:app, or a file"
        raise ConfigError("TARGET", target, f"there is no module {name!r}", remedy)
    with user_errors(target):
        return importlib.import_module(name)
