"""From the version before to this one, removal, purge, and what Debian's own testers say."""

import gzip
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging.conftest import APT, ROOT, Machine, base, build, only_deb

OLD = "0.2.9"
# What is no trace of a package, wherever it was installed.
UNRELATED = re.compile(
    r"/var/(lib/(dpkg|apt|systemd/deb-systemd-\w+|python|ucf)|cache|log)(/|$)|/__pycache__(/|$)|/etc/(passwd|shadow|group|gshadow)-?$"
)
LIST = "find /etc /var /usr /lib /run -xdev | sort"


@pytest.fixture(scope="session")
def old_deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The version before: this one with another number, and with two files that have changed since."""
    source = tmp_path_factory.mktemp("old") / "source"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True, timeout=60)
    version = source / "m2gate/version.py"
    version.write_text(re.sub(r'__version__(.*)"[\d.]+"', rf'__version__\1"{OLD}"', version.read_text()))
    changelog = source / "debian/changelog"
    changelog.write_text(re.sub(r"\(.*?\)", f"({OLD}-1)", changelog.read_text(), count=1))
    for name in ("mongrel2.conf.d/20-streaming.j2", "debian/conf/m2gate.toml"):
        path = source / name
        path.write_text(path.read_text() + "# of the version before\n" * name.endswith(".toml") + "\n")
    author = ["-c", "user.name=test", "-c", "user.email=test@example.test"]
    subprocess.run(["git", *author, "-C", str(source), "commit", "-qam", "the version before"], check=True, timeout=60)
    return only_deb(build(source.parent / "dist", "--no-check", source=source))


@pytest.fixture(scope="module")
def upgraded(deb: Path, old_deb: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, str]:
    """A machine on which the version before was in use, and was upgraded under load; and what was printed."""
    machine = Machine(tmp_path_factory.mktemp("upgraded"))
    (machine.root / "before").write_text(machine.run(LIST))
    machine.install(old_deb)
    said = machine.serve(
        f"""
m2gate --version
echo '# mine' >> /etc/m2gate/m2gate.toml
rm /etc/m2gate/mongrel2.conf.d/30-websocket.j2
: > /tmp/systemctl.log
load sh -c 'apt-get install -y --no-install-recommends {APT} {machine.put(deb)} > /tmp/apt.log 2>&1; sleep 1'
m2gate --version
""",
        timeout_s=300,
    )
    return machine, said


@pytest.mark.checklist("packaging", 34)
def test_an_upgrade_keeps_what_was_changed(upgraded: tuple[Machine, str]) -> None:
    machine, said = upgraded
    assert said.splitlines()[0] == f"m2gate {OLD}"
    assert said.splitlines()[-1] != f"m2gate {OLD}"
    etc = machine.root / "etc/m2gate"
    assert "# mine" in (etc / "m2gate.toml").read_text()
    assert "of the version before" not in (etc / "m2gate.toml.dpkg-dist").read_text()
    streaming = "mongrel2.conf.d/20-streaming.j2"
    assert (etc / streaming).read_text() == (ROOT / streaming).read_text()
    assert not (etc / "mongrel2.conf.d/30-websocket.j2").exists()
    assert (etc / "sites-enabled/shop.toml").readlink() == Path("../sites-available/shop.toml")


@pytest.mark.checklist("packaging", 35)
def test_the_configuration_is_still_good(upgraded: tuple[Machine, str]) -> None:
    assert upgraded[0].run("m2gate config check") == "configuration is good\n"


def test_an_upgrade_loses_no_request(upgraded: tuple[Machine, str]) -> None:
    found = re.search(r"asked (\d+), \{'200': (\d+)\}", upgraded[1])
    assert found is not None, upgraded[1]
    assert found[1] == found[2]
    assert int(found[1]) > 500


@pytest.mark.checklist("packaging", 36)
def test_an_upgrade_leaves_gateway_and_mongrel2_alone(upgraded: tuple[Machine, str]) -> None:
    machine = upgraded[0]
    calls = (machine.root / "tmp/systemctl.log").read_text().splitlines()
    assert "try-reload-or-restart 'm2gate-worker@*.service'" in calls
    touched = [call for call in calls if not call.startswith("is-active")]
    assert not [call for call in touched if "gateway" in call or "mongrel2" in call]
    printed = (machine.root / "tmp/apt.log").read_text()
    assert printed.count("systemctl restart m2gate-gateway") == 1


@pytest.mark.checklist("packaging", 37, 39)
def test_a_removal_keeps_the_configuration(upgraded: tuple[Machine, str], deb: Path) -> None:
    machine = upgraded[0]
    said = machine.serve(
        f"""
find /etc/m2gate /var/lib/m2gate -type f -o -type l | sort > /tmp/before
: > /tmp/systemctl.log
apt-get remove -y m2gate > /dev/null
find /etc/m2gate /var/lib/m2gate -type f -o -type l | sort | diff /tmp/before - && echo kept
cat /tmp/systemctl.log
pgrep -f 'mongrel2|m2gate' || echo nothing runs
apt-get install -y --no-install-recommends {APT} {machine.put(deb)} > /dev/null
m2gate config check
systemd-tmpfiles --create m2gate.conf
start
curl -sS -f --retry 20 --retry-delay 1 --retry-all-errors -H 'Host: shop.test' http://127.0.0.1/; echo
"""
    )
    lines = said.splitlines()
    assert lines[0] == "kept"
    assert "stop 'm2gate-worker@*.service' m2gate-gateway.service 'm2gate-mongrel2@*.service'" in lines
    assert lines[-3:] == ["nothing runs", "configuration is good", "hello http 127.0.0.1"]


@pytest.mark.checklist("packaging", 16)
def test_a_reinstallation_changes_nothing(upgraded: tuple[Machine, str], deb: Path) -> None:
    machine = upgraded[0]
    said = machine.run(
        f"""
sums() {{ find /etc /var/lib/m2gate /var/log/m2gate -type f | sort | xargs sha256sum; }}
modes() {{ find /etc /var/lib/m2gate /var/log/m2gate | sort | xargs stat -c '%n %a %U:%G'; }}
(sums; modes) > /tmp/before
apt-get install -y --reinstall {APT} {machine.put(deb)} > /dev/null
(sums; modes) | diff /tmp/before - && echo same
"""
    )
    assert said == "same\n"


@pytest.mark.checklist("packaging", 40)
def test_another_package_of_the_codec_takes_its_place(upgraded: tuple[Machine, str]) -> None:
    said = upgraded[0].run(
        """
mkdir -p /tmp/dummy/DEBIAN /tmp/dummy/usr/lib/python3/dist-packages/tnetstring
touch /tmp/dummy/usr/lib/python3/dist-packages/tnetstring/__init__.py
printf '%s\\n' 'Package: python3-tnetstring' 'Version: 0.5-1' 'Architecture: all' 'Maintainer: x <x@example.test>' \\
    'Description: another one' > /tmp/dummy/DEBIAN/control
dpkg-deb -b /tmp/dummy /tmp/python3-tnetstring_0.5-1_all.deb > /dev/null
apt-get install -s /tmp/python3-tnetstring_0.5-1_all.deb
"""
    )
    assert "Remv m2gate" in said


@pytest.mark.checklist("packaging", 38)
def test_a_purge_leaves_nothing_but_keys(upgraded: tuple[Machine, str], deb: Path) -> None:
    machine = upgraded[0]
    after = machine.run(f"apt-get purge -y m2gate > /dev/null; {LIST}").splitlines()
    before = set((machine.root / "before").read_text().splitlines())
    left = {path for path in after if path not in before and not UNRELATED.search(path)}
    pairs = {f"/etc/m2gate/certs/{name}.{end}" for name in ("shop.test", "_.wild.test") for end in ("crt", "key")}
    ours = {"/run/systemd", "/run/systemd/system", "/run/m2gate-worker", "/run/m2gate-worker/shop"}  # of the tests
    assert left - ours == {"/etc/m2gate", "/etc/m2gate/certs", *pairs}
    machine.install(deb)
    gone = (
        "rm -rf /etc/m2gate /var/lib/m2gate /var/log/m2gate /run/m2gate; apt-get purge -y m2gate > /dev/null; echo $?"
    )
    assert machine.run(gone) == "0\n"


@pytest.mark.checklist("packaging", 41)
def test_piuparts(deb: Path, tmp_path: Path) -> None:
    packed = tmp_path / "base.tar.gz"
    with base().open("rb") as source, gzip.open(packed, "wb", compresslevel=1) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    command = ["piuparts", "-b", str(packed), "-d", "bookworm", "--no-eatmydata"]
    # Of logrotate and of apt-utils, which are in the base; no package owns them.
    command += ["--ignore", "/var/lib/logrotate/status", "--ignore-regex", "^/var/cache/debconf/tmp.ci/?$", str(deb)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-4_000:]
    assert "PASS: All tests." in done.stdout


@pytest.mark.checklist("packaging", 42)
def test_autopkgtest(built: Path, deb: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    Machine(root)
    (source,) = built.glob("*.dsc")
    output = tmp_path / "output"
    command = ["autopkgtest", "-B", str(deb), str(source), "-o", str(output), "--", "chroot", str(root)]
    subprocess.run(["mount", "-t", "proc", "proc", str(root / "proc")], check=True, timeout=10)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    finally:
        subprocess.run(["umount", str(root / "proc")], check=True, timeout=10)
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-2_000:]
    results = dict(line.split()[:2] for line in (output / "summary").read_text().splitlines())
    assert results == {"smoke": "PASS", "import": "PASS"}
