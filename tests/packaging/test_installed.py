"""The installed package: what it makes, how it serves as the units start it, upgrade, removal."""

import re
from pathlib import Path

from tests.packaging.conftest import Machine

SERVE = (Path(__file__).parent / "serve.sh").read_text()


def test_nothing_is_started_and_nothing_listens(machine: Machine) -> None:
    said = machine.run("ls /etc/systemd/system/multi-user.target.wants/ 2>/dev/null | grep m2gate || echo none enabled")
    assert "none enabled" in said


def test_the_doctor_is_content(machine: Machine) -> None:
    said = machine.run("m2gate doctor")
    for wanted in (
        "python 3.11",
        "pyzmq 24.0",
        "gevent 22.10",
        "jinja2 3.1.2",
        "tnetstring 0.4.0",
        "_tnetstring.cpython-311",
    ):
        assert wanted in said


def test_users_can_do_nothing_else(machine: Machine) -> None:
    said = machine.run("getent passwd m2gate m2gate-www; getent shadow m2gate m2gate-www")
    assert said.count("/usr/sbin/nologin") == 2
    assert len(re.findall(r"^m2gate(-www)?:[!*]", said, re.MULTILINE)) == 2


def test_owners_and_modes(machine: Machine) -> None:
    places = {
        "/etc/m2gate/m2gate.toml": "644 root:root",
        "/etc/m2gate/sites-enabled": "755 root:root",
        "/etc/m2gate/certs": "2750 root:m2gate-www",
        "/var/lib/m2gate": "755 root:root",
        "/var/log/m2gate": "2750 m2gate-www:adm",
        "/run/m2gate/handlers": "2750 m2gate-www:m2gate",
        "/run/m2gate/control": "700 m2gate-www:m2gate-www",
    }
    said = machine.run(f"stat -c '%n %a %U:%G' {' '.join(places)}")
    assert dict(line.split(" ", 1) for line in said.splitlines()) == places


def test_it_serves_as_the_units_start_it(machine: Machine) -> None:
    said = machine.run(
        SERVE
        + """
setup > /dev/null
start
secure https://shop.test/; echo
secure https://shop.test/static/a.txt
head -c 3000000 /dev/zero | secure --data-binary @- -H 'Transfer-Encoding: chunked' https://shop.test/size; echo
curl -sS -o /dev/null -w '%{http_code}\\n' -H 'Host: evilshop.test' http://127.0.0.1/
pid=$(cat /run/m2gate/control/local-80.pid)
grep -E '^(CapEff|CapBnd|NoNewPrivs|Groups)' /proc/$pid/status
stat -c '%a %U:%G' /run/m2gate/handlers/local-80.req
as 12345 12345 "$(getent group m2gate | cut -d: -f3)" "" sh -c '
    ls /run/m2gate/control; rm /run/m2gate/handlers/local-80.req; cat /etc/m2gate/certs/shop.test.key
    echo x >> /var/lib/m2gate/config.sqlite' 2>&1 | grep -c -i 'denied'
m2gate doctor > /dev/null && echo healthy
"""
    )
    lines = said.splitlines()
    assert lines[:4] == ["hello https 127.0.0.1", "a file", "3000000", "421"]
    assert "CapEff:\t0000000000000400" in said
    assert "CapBnd:\t0000000000000400" in said
    assert "NoNewPrivs:\t1" in said
    assert " 0 " not in next(line for line in lines if line.startswith("Groups")) + " "
    assert "770 m2gate-www:m2gate" in said
    assert "\n4\n" in said
    assert lines[-1] == "healthy"


def test_an_unchanged_configuration_is_left_alone(machine: Machine) -> None:
    said = machine.run(SERVE + "setup > /dev/null; m2gate config apply; stat -c '%a %U' /var/lib/m2gate/config.sqlite")
    assert said == "nothing to do: all that is enabled is applied\n644 root\n"


def test_a_reinstallation_keeps_what_is_there(machine: Machine) -> None:
    said = machine.run(
        """
echo '# mine' >> /etc/m2gate/m2gate.toml
rm /etc/m2gate/mongrel2.conf.d/30-websocket.j2
find /etc/m2gate /var/lib/m2gate -type f | sort | xargs sha256sum > /tmp/before
apt-get install -y --reinstall -o Dpkg::Options::=--force-confold /tmp/m2gate_*.deb > /dev/null
find /etc/m2gate /var/lib/m2gate -type f | sort | xargs sha256sum | diff /tmp/before - && echo same
m2gate config check
readlink /etc/m2gate/sites-enabled/shop.toml
"""
    )
    assert said.splitlines()[-3:] == ["same", "configuration is good", "../sites-available/shop.toml"]


def test_a_purge_leaves_nothing_but_keys(machine: Machine) -> None:
    said = machine.run(
        """
apt-get purge -y m2gate > /dev/null
find / -xdev -path /proc -prune -o \\( -iname '*m2gate*' -print \\) | grep -v -e '^/tmp/' -e '^/var/log/apt' || true
ls /etc/m2gate/certs
"""
    )
    assert set(said.split()) <= {"/etc/m2gate", "shop.test.crt", "shop.test.key", "local-443.crt", "local-443.key"}
    assert "shop.test.key" in said
