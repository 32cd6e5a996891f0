"""What the Debian package says agrees with the source; the package itself is built by scripts/build-deb."""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from m2gate.cli import commands
from m2gate.site.sites import read_site
from m2gate.version import __version__

ROOT = Path(__file__).resolve().parents[2]
DEBIAN = ROOT / "debian"
UNITS = sorted((DEBIAN / "systemd").glob("*.service"))
FILTERS = {
    "m2gate-mongrel2@.service": "setuid setgid setreuid sched_setscheduler",
    "m2gate-gateway.service": "sched_setscheduler",
    "m2gate-worker@.service": "sched_setscheduler",
}


def all_commands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            below = command.get_command(click.Context(command), name)
            assert below is not None
            yield from all_commands(f"{path} {name}", below)


def options_of(command: click.Command) -> list[str]:
    return [name for one in command.params if isinstance(one, click.Option) for name in one.opts if name != "--version"]


@pytest.mark.checklist("packaging", 9)
def test_versions_agree() -> None:
    first = (DEBIAN / "changelog").read_text().splitlines()[0]
    assert re.match(rf"m2gate \({re.escape(__version__)}-\d+\) ", first)


@pytest.mark.checklist("packaging", 4)
def test_the_codecs_source_is_the_one_that_was_reviewed() -> None:
    for line in (ROOT / "packaging/tnetstring3-0.4.0.tar.gz.sha256").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((ROOT / "packaging" / name).read_bytes()).hexdigest() == digest


@pytest.mark.checklist("packaging", 10)
def test_the_man_page_names_every_command_and_option() -> None:
    text = (DEBIAN / "man/m2gate.8").read_text().replace("\\-", "-")
    for path, command in all_commands("m2gate", commands):
        if path != "m2gate":
            assert f".SS {path}" in text, path
        for option in options_of(command):
            assert option in text, (path, option)


@pytest.mark.checklist("packaging", 10)
@pytest.mark.parametrize("name", ["m2gate.8", "m2gate.toml.5", "m2gate-site.toml.5"])
def test_man_pages_are_good_roff(name: str) -> None:
    if shutil.which("man") is None:
        text = (DEBIAN / "man" / name).read_text()
        assert not [line for line in text.splitlines() if line.startswith("'")]
        return
    done = subprocess.run(
        ["man", "-l", "--warnings", str(DEBIAN / "man" / name)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env={"PATH": "/usr/bin:/bin", "MANPAGER": "cat", "LC_ALL": "C.UTF-8"},
    )
    assert done.stderr == ""


@pytest.mark.checklist("packaging", 10)
def test_the_completion_knows_every_command_and_option() -> None:
    text = (DEBIAN / "completion/m2gate").read_text()
    for path, command in all_commands("m2gate", commands):
        words = path.split()[1:]
        assert all(re.search(rf"\b{word}\b", text) for word in words), path
        assert all(option in text for option in options_of(command) if option.startswith("--")), path


@pytest.mark.parametrize("unit", UNITS, ids=lambda one: one.name)
def test_units_are_hardened(unit: Path) -> None:
    lines = unit.read_text().splitlines()
    for wanted in (
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "MemoryDenyWriteExecute=yes",
        "RestrictNamespaces=yes",
    ):
        assert wanted in lines
    # The last line adds back what Mongrel2 and libzmq cannot live without; the order counts.
    assert [line.partition("=")[2] for line in lines if line.startswith("SystemCallFilter=")] == [
        "@system-service",
        "~@privileged @resources",
        FILTERS[unit.name],
    ]


def test_workers_cannot_reach_the_control_port_and_the_keys() -> None:
    lines = (DEBIAN / "systemd/m2gate-worker@.service").read_text().splitlines()
    assert "InaccessiblePaths=-/run/m2gate/control" in lines
    assert "InaccessiblePaths=-/etc/m2gate/certs" in lines
    assert "DynamicUser=yes" in lines


def test_no_key_and_no_certificate_is_in_the_package() -> None:
    assert not [path for path in DEBIAN.rglob("*") if path.suffix in (".crt", ".key", ".pem")]


def test_the_example_site_is_good(tmp_path: Path) -> None:

    file = tmp_path / "example.toml"
    file.write_text((DEBIAN / "conf/sites-available/example.toml").read_text())
    assert read_site(file).handlers[0].name == "example"
