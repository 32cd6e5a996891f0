"""The package is built, and installed into a minimal Debian 12; needs root, as chroot and mount do."""

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "m2gate"
INCLUDED: Final = (
    "ca-certificates,curl,iproute2,logrotate,mongrel2-core,openssl,procps,python3-click,python3-gevent,python3-jinja2"
    ",python3-prometheus-client,python3-werkzeug,python3-zmq,systemd"
)
PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
APART: Final = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child")
BUILD_S: Final = 300
BASE_S: Final = 600


def build(output: Path) -> Path:
    """Build the package in a namespace without network; return the folder of its files."""
    command = [
        "unshare",
        "-n",
        "sh",
        "-c",
        f'ip link set lo up; exec "{ROOT}/scripts/build-deb" --no-check --output "{output}"',
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    return output


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the package, its source and the log of the build."""
    return build(tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="session")
def deb(built: Path) -> Path:
    (found,) = built.glob("m2gate_*.deb")
    return found


def base() -> Path:
    """Return the tarball of a minimal Debian 12 with our dependencies; made once a week."""
    key = hashlib.sha256(f"{INCLUDED} {time.strftime('%G-%V')}".encode()).hexdigest()[:16]
    tarball = CACHE / f"bookworm-{key}.tar"
    if not tarball.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        new = tarball.with_suffix(".new.tar")
        command = ["mmdebstrap", "--variant=apt", f"--include={INCLUDED}", '--aptopt=Apt::Install-Recommends "false"']
        command += [f"--dpkgopt=path-exclude=/usr/share/{one}/*" for one in ("man", "locale")]
        done = subprocess.run(
            [*command, "bookworm", str(new)], capture_output=True, text=True, timeout=BASE_S, check=False
        )
        assert done.returncode == 0, done.stderr[-3_000:]
        new.rename(tarball)
    return tarball


class Machine:
    """A chroot."""

    def __init__(self, root: Path) -> None:
        self.root = root
        subprocess.run(["tar", "xf", str(base()), "-C", str(root)], check=True, timeout=120)
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        policy = root / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)

    def run(self, script: str, *, status: int = 0, timeout_s: float = 120) -> str:
        """Run a shell script in it, in a network of its own; return what it printed. What it starts ends with it."""
        (self.root / "tmp/script").write_text(script)
        inside = "mount -t proc proc /proc; ip link set lo up; exec bash -eu /tmp/script"
        done = subprocess.run(
            [
                "unshare",
                "--net",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "chroot",
                str(self.root),
                "sh",
                "-c",
                inside,
            ],
            env={"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == status, f"{done.stdout[-3_000:]}\n{done.stderr[-3_000:]}"
        return done.stdout

    def install(self, deb: Path) -> str:
        shutil.copy(deb, self.root / "tmp")
        options = "-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold -o APT::Sandbox::User=root"
        return self.run(f"apt-get install -y --no-install-recommends {options} /tmp/{deb.name}")


@pytest.fixture(scope="session")
def machine(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A minimal Debian 12 on which the package was installed."""
    one = Machine(tmp_path_factory.mktemp("root"))
    one.install(deb)
    return one
