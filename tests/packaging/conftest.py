"""The package is built, and installed into a minimal Debian 12; needs root, as chroot and mount do."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conftest import SHARE

ROOT: Final = Path(__file__).resolve().parents[2]
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "m2gate"
INSIDE: Final = Path(__file__).parent / "inside"
# What the package depends on, then what the tests need.
INCLUDED: Final = (
    "mongrel2-core,openssl,procps,python3-click,python3-gevent,python3-jinja2,python3-prometheus-client"
    ",python3-werkzeug,python3-zmq,systemd"
    ",apt-utils,ca-certificates,curl,dpkg-dev,iproute2,logrotate,python3-seccomp,python3-websockets"
)
STANDALONE: Final = "systemd-standalone-sysusers systemd-standalone-tmpfiles"
PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
APART: Final = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child")
APT: Final = "-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold -o APT::Sandbox::User=root"
BUILD_S: Final = 300
BASE_S: Final = 600


def build(output: Path, *options: str, source: Path = ROOT) -> Path:
    """Build the package in a namespace without network; return the folder of its files."""
    words = " ".join(options)
    script = f'ip link set lo up; exec "{source}/scripts/build-deb" {words} --output "{output}"'
    command = ["unshare", "--net", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    return output


def only_deb(folder: Path) -> Path:
    """Return the package in a folder of what was built."""
    (found,) = folder.glob("m2gate_*.deb")
    return found


@contextmanager
def alone() -> Iterator[None]:
    """Do something that processes which share the tests do once for all of them."""
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the package, its source and the log of the build, which ran the unit tests."""
    place = Path(SHARE).parent / "built" if SHARE else tmp_path_factory.mktemp("first")
    CACHE.mkdir(parents=True, exist_ok=True)
    with alone():
        return place if (place / "build.log").exists() else build(place)


@pytest.fixture(scope="session")
def deb(built: Path) -> Path:
    return only_deb(built)


def base() -> Path:
    """Return the tarball of a minimal Debian 12 with our dependencies; made once a week."""
    key = hashlib.sha256(f"{INCLUDED} {STANDALONE} {time.strftime('%G-%V')}".encode()).hexdigest()[:16]
    tarball = CACHE / f"bookworm-{key}.tar"
    with alone():
        if tarball.exists():
            return tarball
        new = tarball.with_suffix(".new.tar")
        command = ["mmdebstrap", "--variant=apt", f"--include={INCLUDED}", '--aptopt=Apt::Install-Recommends "false"']
        command += [f"--dpkgopt=path-exclude=/usr/share/{one}/*" for one in ("man", "locale")]
        command += [f'--customize-hook=chroot "$1" sh -c "cd /var/cache && apt-get download {STANDALONE}"']
        done = subprocess.run(
            [*command, "bookworm", str(new)], capture_output=True, text=True, timeout=BASE_S, check=False
        )
        assert done.returncode == 0, done.stderr[-3_000:]
        new.rename(tarball)
    return tarball


class Machine:
    """A minimal Debian 12 in a chroot, with what the package depends on, and in /tests what the tests run there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        subprocess.run(["tar", "xf", str(base()), "-C", str(root)], check=True, timeout=120)
        policy = root / "usr/sbin/policy-rc.d"
        policy.write_text('#!/bin/sh\necho "$@" >> /tmp/policy-rc.d.log\nexit 101\n')
        policy.chmod(0o755)
        shutil.copytree(INSIDE, root / "tests")
        shutil.copy(INSIDE / "systemctl", root / "usr/bin/systemctl")

    def run(self, script: str, *, status: int = 0, timeout_s: float = 120, proc: bool = True) -> str:
        """Run a shell script in it, in a network of its own; return what it printed. What it starts ends with it."""
        for left in (self.root / "run/m2gate").glob("*/*"):
            left.unlink()  # as a start of the machine does
        (self.root / "tmp/script").write_text(script)
        mount = "mount -t proc proc /proc; " if proc else ""
        inside = f"{mount}ip link set lo up; exec bash -eu /tmp/script"
        done = subprocess.run(
            [*APART, "chroot", str(self.root), "sh", "-c", inside],
            env={"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == status, f"{done.stdout[-3_000:]}\n{done.stderr[-3_000:]}\n{self.logs()}"
        return done.stdout

    def serve(self, script: str, **options: Any) -> str:
        """Run a script beside the programs of the site `shop`, which run as the units say; see inside/serve.sh."""
        return self.run(f". /tests/serve.sh; setup\n{script}", **options)

    def logs(self) -> str:
        """Return the last lines of what the units printed."""
        texts = [f"--- {path.name}\n{path.read_text()[-2_000:]}" for path in self.root.glob("tmp/units/*.log")]
        return "\n".join(texts)

    def put(self, deb: Path) -> str:
        """Copy a package into it; return its path there."""
        shutil.copy(deb, self.root / "tmp")
        return f"/tmp/{deb.name}"

    def install(self, deb: Path, **options: Any) -> str:
        """Install a package with apt, as an administrator would."""
        command = f"apt-get install -y --no-install-recommends --allow-downgrades {APT} {self.put(deb)}"
        return self.run(command, **options)


@pytest.fixture(scope="session")
def machine(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A minimal Debian 12 on which the package was installed."""
    one = Machine(tmp_path_factory.mktemp("root"))
    (one.root / "before").write_text(one.run("find /etc /var /usr /lib -xdev | sort"))
    one.install(deb)
    return one
