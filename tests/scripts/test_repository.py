"""What holds for the tree as a whole and no linter looks at."""

import ast
import configparser
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from m2gate.version import __version__

ROOT = Path(__file__).parents[2]
LINES_MAX = 600  # a module this long has a second noun in it, which is to be looked for from 400 on


def imported_modules(path: Path) -> set[str]:
    """The full names of the modules that a file imports; a relative import shows its dots."""
    names = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
    return names


def test_changelog_starts_with_this_version() -> None:
    versions = re.findall(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == __version__


def test_pyproject_has_no_more_than_the_build_system() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text()).keys() == {"build-system"}


def test_requirements_have_lower_bounds_only() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    requirements = setup["options"]["install_requires"].split()
    assert sorted(re.match(r"[\w-]+", one)[0] for one in requirements) == [  # type: ignore[index]  # each starts with a name
        "click",
        "gevent",
        "jinja2",
        "prometheus-client",
        "pyzmq",
        "tnetstring3",
        "werkzeug",
    ]
    assert all(re.fullmatch(r"[\w-]+>=[\d.]+", one) for one in requirements)


def test_handlers_use_the_public_names_only() -> None:
    files = list((ROOT / "handlers").rglob("*.py"))
    assert files
    inner = {
        f"{path.name}: {name}" for path in files for name in imported_modules(path) if name.startswith(("m2gate.", "."))
    }
    assert inner == set()


def test_no_module_has_grown_too_long() -> None:
    lengths = {path: path.read_bytes().count(b"\n") for path in (ROOT / "m2gate").rglob("*.py")}
    assert {str(path.relative_to(ROOT)): length for path, length in lengths.items() if length > LINES_MAX} == {}


def test_a_wheel_has_package_templates_and_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    tree = tmp_path / "tree"
    shutil.copytree(
        ROOT, tree, ignore=shutil.ignore_patterns(".*", "node_modules", "__pycache__", "*.egg-info", "build")
    )
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(tree)], timeout=120, check=True)
    (wheel,) = tmp_path.glob("m2gate-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    templates = {path.name for path in (ROOT / "mongrel2.conf.d").glob("*.j2")}
    assert templates
    data = f"m2gate-{__version__}.data/data/share/m2gate/mongrel2.conf.d/"
    assert {name.removeprefix(data) for name in names if name.startswith(data)} == templates
    assert {"m2gate/py.typed", "m2gate/wire/mongrel2.py"} <= names
    assert not any(name.startswith(("tests/", "handlers/", "bench/", "stubs/")) for name in names)
    entry_points = zipfile.ZipFile(wheel).read(f"m2gate-{__version__}.dist-info/entry_points.txt")
    assert b"m2gate = m2gate.cli:main" in entry_points


def test_scripts_say_what_they_cannot_do() -> None:
    done = subprocess.run(
        [str(ROOT / "scripts/test"), "nonsense"], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 2
    assert "scripts/test unit" in done.stderr


@pytest.mark.parametrize("name", ["run", "test", "conformance", "docs", "debian_versions"])
def test_scripts_are_executable(name: str) -> None:
    assert (ROOT / "scripts" / name).stat().st_mode & 0o111 == 0o111
