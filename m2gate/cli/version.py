"""``m2gate version``: what to put into a report of a bug."""

import platform
import subprocess
from importlib import metadata
from typing import Final

import click

from m2gate.version import __version__

MONGREL2_TIMEOUT_S: Final = 10.0


@click.command()
def command() -> None:
    """Print the versions of m2gate and of what it stands on."""
    import zmq

    lines = {
        "m2gate": __version__,
        "python": platform.python_version(),
        "pyzmq": zmq.__version__,
        "libzmq": zmq.zmq_version(),
        "gevent": _installed("gevent"),
        "tnetstring3": _installed("tnetstring3"),
        "mongrel2": mongrel2_version(),
    }
    for name, version in lines.items():
        click.echo(f"{name} {version}")


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def mongrel2_version() -> str:
    """Return the version of the Mongrel2 in PATH, as its m2sh says it."""
    try:
        done = subprocess.run(
            ["m2sh", "version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=MONGREL2_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        return "not installed"
    except subprocess.TimeoutExpired:
        return "unknown: m2sh does not answer"
    for word in done.stdout.decode(errors="replace").split():
        if word.startswith("Mongrel2/"):
            return word.removeprefix("Mongrel2/")
    return "unknown"
