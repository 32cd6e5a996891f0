"""What an installation makes, and where it works."""

import re
import shutil
from pathlib import Path

import pytest

from m2gate.version import __version__
from tests.packaging.conftest import STANDALONE, Machine

VERSIONS = ("python 3.11", "pyzmq 24.0", "gevent 22.10", "jinja2 3.1.2", "tnetstring 0.4.0", "_tnetstring.cpython-311")
PLACES = {
    "/etc/m2gate/m2gate.toml": "644 root:root",
    "/etc/m2gate/mongrel2.conf.d/20-streaming.j2": "644 root:root",
    "/etc/m2gate/sites-available/example.toml": "644 root:root",
    "/etc/m2gate/sites-enabled": "755 root:root",
    "/etc/m2gate/certs": "2750 root:m2gate-www",
    "/usr/share/m2gate/mongrel2.conf.d": "755 root:root",
    "/var/lib/m2gate": "755 root:root",
    "/var/log/m2gate": "2750 m2gate-www:adm",
    "/run/m2gate": "755 root:root",
    "/run/m2gate/gateway": "2770 m2gate-www:m2gate",
    "/run/m2gate/handlers": "2750 m2gate-www:m2gate",
    "/run/m2gate/control": "700 m2gate-www:m2gate-www",
}


@pytest.mark.checklist("packaging", 11)
def test_apt_alone_installs_it(machine: Machine) -> None:
    """The fixture has done it; nothing but the one file was named."""
    assert machine.run("dpkg -s m2gate | grep ^Status") == "Status: install ok installed\n"


@pytest.mark.checklist("packaging", 9)
def test_versions_agree(machine: Machine) -> None:
    assert machine.run("m2gate --version") == f"m2gate {__version__}\n"
    assert machine.run("dpkg-query -W -f '${Version}' m2gate") == f"{__version__}-1"


@pytest.mark.checklist("packaging", 12)
def test_the_doctor_is_content(machine: Machine) -> None:
    said = machine.run("m2gate doctor")
    for wanted in VERSIONS:
        assert wanted in said


@pytest.mark.checklist("packaging", 13)
def test_users_can_do_nothing_else(machine: Machine) -> None:
    said = machine.run("getent passwd m2gate m2gate-www; getent shadow m2gate m2gate-www")
    assert said.count("/usr/sbin/nologin") == 2
    assert len(re.findall(r"^m2gate(-www)?:[!*]", said, re.MULTILINE)) == 2


@pytest.mark.checklist("packaging", 14)
def test_owners_and_modes(machine: Machine) -> None:
    said = machine.run(f"stat -c '%n %a %U:%G' {' '.join(PLACES)}")
    assert dict(line.split(" ", 1) for line in said.splitlines()) == PLACES


@pytest.mark.checklist("packaging", 15)
def test_nothing_is_started_and_nothing_listens(machine: Machine) -> None:
    said = machine.run(
        """
find /etc/systemd -name 'm2gate*'
cat /tmp/policy-rc.d.log 2>/dev/null | grep m2gate || true
"""
    )
    assert said == ""


@pytest.mark.checklist("packaging", 28)
def test_systemd_understands_the_units(machine: Machine) -> None:
    units = "/lib/systemd/system/m2gate-*.service /lib/systemd/system/m2gate.target"
    assert machine.run(f"systemd-analyze verify --man=no {units} 2>&1") == ""


@pytest.mark.checklist("packaging", 43)
def test_it_works_from_anywhere(machine: Machine) -> None:
    said = machine.run(
        """
unset PYTHONPATH
cd /usr/lib/python3 && m2gate --version
cd / && python3 -c 'import m2gate, tnetstring; print(tnetstring.dumps(b"x"))'
python3 -m venv --without-pip --system-site-packages /tmp/venv
cd /tmp && /tmp/venv/bin/python -c 'import m2gate; print(m2gate.App)'
"""
    )
    assert said.splitlines() == [f"m2gate {__version__}", "b'1:x,'", "<class 'm2gate.app.application.App'>"]


@pytest.mark.checklist("packaging", 17)
def test_an_installation_without_proc(deb: Path, tmp_path: Path) -> None:
    """As in the build of a container's image; what is missing then is said by whoever needs it."""
    bare = Machine(tmp_path)
    bare.run("rm /usr/bin/systemd-tmpfiles", proc=False)
    bare.install(deb, proc=False)
    said = bare.run("m2gate doctor || true")
    for missing in ("/run/m2gate/handlers", "/run/m2gate/control", "/etc/m2gate/certs"):
        assert missing in said
    bare.run("systemd-sysusers --version > /dev/null && m2gate --version")
    shutil.rmtree(tmp_path)


@pytest.mark.checklist("packaging", 18)
def test_an_installation_without_systemd(deb: Path, tmp_path: Path) -> None:
    small = Machine(tmp_path)
    names = " ".join(f"/var/cache/{name}_*.deb" for name in STANDALONE.split())
    small.run(f"dpkg --purge --force-depends systemd > /dev/null 2>&1; dpkg -i {names} > /dev/null")
    small.install(deb)
    said = small.run(f"getent passwd m2gate-www > /dev/null; stat -c '%n %a %U:%G' {' '.join(PLACES)}; m2gate doctor")
    assert f"/run/m2gate/handlers {PLACES['/run/m2gate/handlers']}" in said
    shutil.rmtree(tmp_path)
