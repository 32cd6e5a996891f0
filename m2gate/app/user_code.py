"""Importing the user's code: its errors become one line that names the place."""

import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Final

import m2gate
from m2gate.app.application import App
from m2gate.errors import ConfigError

DEFAULT_NAME: Final = "app"
_PACKAGE: Final = f"{Path(m2gate.__file__).parent}{os.sep}"  # its checks raise where the mistake is not


class FreshSource(SourceFileLoader):
    """Compiles a file whenever it is loaded.

    Cached bytecode counts as current while the file has the size and the second of before: a file
    that is changed twice within a second would be loaded as it was after the first change.
    """

    def get_code(self, fullname: str) -> CodeType:
        """Return the code of the file as it is now."""
        filename = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(filename), filename)
        return code


def import_file(path: Path, target: str) -> ModuleType:
    """Import a file under the name of its stem, with its folder importable, as for ``python FILE``.

    target: what the user named, for the message.
    Raises ConfigError: no such file, a name that hides a module of Python's own, any error in the code.
    """
    if not path.is_file():
        raise ConfigError("TARGET", target, "there is no such file", "name a file, a folder or module:app")
    if path.stem in sys.stdlib_module_names:
        problem = f"its name hides Python's own module {path.stem!r}"
        raise ConfigError("TARGET", target, problem, "give the file another name", str(path))
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    loader = FreshSource(path.stem, os.path.abspath(path))
    spec = importlib.util.spec_from_file_location(path.stem, path, loader=loader)
    if spec is None or path.suffix != ".py":
        raise ConfigError("TARGET", target, "is no Python file", "its name ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    with user_errors(target):
        loader.exec_module(module)
    return module


def find_app(module: ModuleType, name: str, target: str, source: str = "") -> App:
    """Return the App of that (dotted) name in module. Raises ConfigError that names those it has."""
    found: object = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if isinstance(found, App):
        return found
    apps = [key for key, value in vars(module).items() if isinstance(value, App)]
    remedy = f"it has {', '.join(apps)}: name it behind a colon" if apps else f"write {name} = App() in it"
    problem = f"{name!r} is no m2gate.App" if found is not None else f"it has no {name!r}"
    raise ConfigError("TARGET", target, problem, remedy, source)


@contextmanager
def user_errors(target: str) -> Iterator[None]:
    """Turn whatever the user's code raises at its import or start into a ConfigError at FILE:LINE."""
    try:
        yield
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError("TARGET", target, describe(error), "mend it and start again", place(error)) from error


def describe(error: BaseException) -> str:
    """Say an exception in one line; of a syntax error also what stands in the line that has it."""
    if isinstance(error, SyntaxError):
        where = f" in {error.text.strip()!r}" if error.text else ""
        return f"{type(error).__name__}: {error.msg}{where}"
    return " ".join(f"{type(error).__name__}: {error}".split())


def place(error: BaseException) -> str:
    """Return FILE:LINE where an exception came from: the last place outside the import system and m2gate."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    found = traceback.extract_tb(error.__traceback__)
    frames = [one for one in found if "importlib" not in one.filename and not one.filename.startswith(_PACKAGE)]
    frames = frames or list(found)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
