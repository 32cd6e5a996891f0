"""The programs and libraries that m2gate stands on: which there are, and which are missing or too old."""

import importlib
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import machinery, metadata
from typing import Final

from m2gate.site.doctor.finding import Finding, finding
from m2gate.version import __version__

MONGREL2_TIMEOUT_S: Final = 10.0
MONGREL2_MIN: Final = "1.12"
LIBZMQ_MIN: Final = "4.3"
MISSING: Final = "not installed"

# The lower bounds of setup.cfg, which a test compares.
LIBRARIES: Final[Mapping[str, str]] = {
    "click": "8.1",
    "gevent": "22.10",
    "jinja2": "3.1",
    "prometheus-client": "0.16",
    "pyzmq": "24",
    "tnetstring3": "0.4",
    "werkzeug": "2.2",
}
_SHOWN: Final = ("pyzmq", "gevent", "jinja2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """Versions as they are found; ``not installed`` where there is none.

    codec: path of the compiled part of tnetstring; None if it has none.
    """

    python: str
    libraries: Mapping[str, str]
    libzmq: str
    mongrel2: str
    codec: str | None
    has_openssl: bool

    def lines(self) -> dict[str, str]:
        """Return what belongs into a report, by name."""
        return {
            "m2gate": __version__,
            "python": self.python,
            **{name: self.libraries[name] for name in _SHOWN},
            "libzmq": self.libzmq,
            "tnetstring": self.libraries["tnetstring3"],
            "codec": self.codec or "not compiled",
            "mongrel2": self.mongrel2,
        }


def find_software() -> Software:
    """Look at this interpreter and at PATH."""
    return Software(
        python=platform.python_version(),
        libraries={name: _installed(name) for name in LIBRARIES},
        libzmq=_libzmq(),
        mongrel2=mongrel2_version(),
        codec=_codec(),
        has_openssl=shutil.which("openssl") is not None,
    )


def check_software(found: Software) -> Iterator[Finding]:
    """Find what is missing or too old."""
    if found.codec is None:
        what = "tnetstring has no compiled part: each message takes ten times as long"
        yield finding("codec", "python", what, "install tnetstring3 again, with its extension")
    for name, low in LIBRARIES.items():
        yield from _check_version(name, "python", found.libraries[name], low)
    yield from _check_version("libzmq", "python", found.libzmq, LIBZMQ_MIN)
    yield from _check_version("mongrel2", "PATH", found.mongrel2, MONGREL2_MIN)
    if not found.has_openssl:
        yield finding("openssl", "PATH", "there is no openssl", "apt install openssl")


def _check_version(name: str, where: str, version: str, low: str) -> Iterator[Finding]:
    remedy = f"install {name} {low} or newer"
    if version == MISSING:
        yield finding("version", where, f"{name} is not installed", remedy)
    elif (numbers := _numbers(version)) and numbers < _numbers(low):
        yield finding("version", where, f"{name} {version} is too old", remedy)


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return MISSING


def _libzmq() -> str:
    try:
        zmq = importlib.import_module("zmq")
    except ImportError:
        return MISSING
    return str(zmq.zmq_version())


def _codec() -> str | None:
    try:
        compiled = importlib.import_module("tnetstring._tnetstring")
    except ImportError:
        return None
    file = str(getattr(compiled, "__file__", ""))
    return file if file.endswith(tuple(machinery.EXTENSION_SUFFIXES)) else None


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
        return MISSING
    except subprocess.TimeoutExpired:
        return "unknown: m2sh does not answer"
    for word in done.stdout.decode(errors="replace").split():
        if word.startswith("Mongrel2/"):
            return word.removeprefix("Mongrel2/")
    return "unknown"
