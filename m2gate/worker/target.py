"""Finding the App that a TARGET names: ``module:app``, ``path/to/file.py[:app]`` or a folder."""

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from m2gate.app.application import App
from m2gate.app.folder import load_folder
from m2gate.errors import ConfigError

DEFAULT_NAME = "app"


def load_target(target: str) -> App:
    """Import TARGET and return its App.

    The folder of a file, or the current one for a module, becomes importable, as for ``python FILE``.
    Raises ConfigError: nothing of that name, an error in the user's code (its place named), no App.
    """
    path, _, name = target.partition(":") if not Path(target).exists() else (target, "", "")
    if Path(path).is_dir():
        return load_folder(Path(path))
    if path.endswith(".py") or "/" in path:
        module = _import_file(Path(path), target)
    else:
        module = _import_module(path, target)
    return _find_app(module, name or DEFAULT_NAME, target)


def _import_file(path: Path, target: str) -> ModuleType:
    if not path.is_file():
        raise ConfigError("TARGET", target, "there is no such file", "name a file, a folder or module:app", "m2gate")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError("TARGET", target, "is no Python file", "its name ends in .py", "m2gate")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    with _UserErrors(target):
        spec.loader.exec_module(module)
    return module


def _import_module(name: str, target: str) -> ModuleType:
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = importlib.util.find_spec(name) if name else None
    except (ImportError, ValueError):
        found = None
    if found is None:
        remedy = "name a module on the path, as in package.module:app, or a file"
        raise ConfigError("TARGET", target, f"there is no module {name!r}", remedy, "m2gate")
    with _UserErrors(target):
        return importlib.import_module(name)


def _find_app(module: ModuleType, name: str, target: str) -> App:
    found: object = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if isinstance(found, App):
        return found
    apps = [key for key, value in vars(module).items() if isinstance(value, App)]
    remedy = f"it has {', '.join(apps)}: name it behind a colon" if apps else f"write {name} = App() in it"
    problem = f"{name!r} is no m2gate.App" if found is not None else f"it has no {name!r}"
    raise ConfigError("TARGET", target, problem, remedy, "m2gate")


class _UserErrors:
    """Turns whatever the import of the user's code raises into one line that names the place."""

    def __init__(self, target: str) -> None:
        self._target = target

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, ConfigError) or not isinstance(error, (Exception, SystemExit)):
            return
        raise ConfigError("TARGET", self._target, describe(error), "mend it and start again", place(error)) from error


def describe(error: BaseException) -> str:
    """Say an exception in one line; of a syntax error also the line that has it."""
    if isinstance(error, SyntaxError):
        line = (error.text or "").rstrip("\n")
        marker = " " * max(0, (error.offset or 1) - 1) + "^"
        return f"{type(error).__name__}: {error.msg}\n    {line}\n    {marker}\n"
    return f"{type(error).__name__}: {error}"


def place(error: BaseException) -> str:
    """Return FILE:LINE where an exception came from: the last place outside the import system."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [one for one in traceback.extract_tb(error.__traceback__) if "importlib" not in one.filename]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "m2gate"
