"""The Debian package: how it is built, what is in it, and what lintian and systemd say of it."""

import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT, build

UNITS = sorted((ROOT / "debian/systemd").glob("*.service"))
EXPOSURE_MAX = 2.0


def listing(deb: Path) -> list[str]:
    text = subprocess.run(["dpkg", "-c", str(deb)], capture_output=True, text=True, check=True, timeout=30).stdout
    return [line.split()[5] for line in text.splitlines()]


def field(deb: Path, name: str) -> str:
    command = ["dpkg-deb", "-f", str(deb), name]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.iterdir() if path.suffix in (".deb", ".dsc")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.checklist("packaging", 1)
def test_it_is_built_without_a_network(built: Path) -> None:
    """The fixture has done it in a namespace of its own."""
    assert {path.name.split("_")[0] for path in built.glob("*.deb")} == {"m2gate", "m2gate-dbgsym"}
    assert len(list(built.glob("*.dsc"))) == 1


@pytest.mark.checklist("packaging", 2)
def test_a_second_build_elsewhere_has_the_same_bytes(built: Path, tmp_path: Path) -> None:
    assert digests(build(tmp_path / "somewhere/else", "--no-check")) == digests(built)


@pytest.mark.checklist("packaging", 4)
def test_tests_ran_at_the_build(built: Path) -> None:
    """First those of tnetstring3, then ours."""
    passed = [int(count) for count in re.findall(r"(\d+) passed", (built / "build.log").read_text())]
    assert len(passed) == 2
    assert passed[0] >= 5
    assert passed[1] > 1_000


@pytest.mark.checklist("packaging", 3)
def test_lintian_has_nothing_to_say(built: Path) -> None:
    (changes,) = built.glob("*.changes")
    command = ["lintian", "-EvIL", "+pedantic", "--fail-on", "error,warning", "--allow-root", str(changes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    tags = re.findall(r"^[IPX]: [^:]+: (\S+)", done.stdout, re.MULTILINE)
    assert done.returncode == 0, done.stdout
    assert set(tags) == {
        "package-supports-alternative-init-but-no-init.d-script",
        "maintainer-manual-page",
        "debian-watch-does-not-check-openpgp-signature",
    }


@pytest.mark.checklist("packaging", 5)
def test_the_codec_is_in_it(deb: Path) -> None:
    files = listing(deb)
    assert any(re.search(r"/_tnetstring\.cpython-311-.*\.so$", file) for file in files)
    assert any("/tnetstring3-0.4.0.dist-info/" in file for file in files)


@pytest.mark.checklist("packaging", 7)
def test_its_files_are_where_they_belong(deb: Path) -> None:
    for file in listing(deb):
        assert file == "./" or file.startswith(("./etc/", "./lib/", "./usr/")), file
        assert not re.search(r"__pycache__|egg-info|/tests/|\.(crt|key|pem)$", file), file


@pytest.mark.checklist("packaging", 8)
def test_files_that_belong_to_the_administrator(deb: Path) -> None:
    listed = subprocess.run(["dpkg-deb", "-I", str(deb), "conffiles"], capture_output=True, text=True, check=True)
    fragments = [f"/etc/m2gate/mongrel2.conf.d/{path.name}" for path in ROOT.glob("mongrel2.conf.d/[0-9]*.j2")]
    assert sorted(listed.stdout.split()) == sorted(
        [
            *fragments,
            "/etc/logrotate.d/m2gate",
            "/etc/m2gate/m2gate.toml",
            "/etc/m2gate/sites-available/example.toml",
        ]
    )


@pytest.mark.checklist("packaging", 6)
def test_what_it_depends_on(deb: Path) -> None:
    depends = field(deb, "Depends")
    for wanted in ("mongrel2-core (>= 1.12)", "procps", "python3-gevent", "python3-zmq", "python3 (<< 3.12)"):
        assert wanted in depends
    assert "tnetstring" not in depends
    assert "mongrel2-run" not in depends
    assert field(deb, "Provides") == "python3-tnetstring (= 0.4.0)"


@pytest.mark.checklist("packaging", 28)
@pytest.mark.parametrize("unit", UNITS, ids=lambda one: one.name)
def test_units_are_little_exposed(unit: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    found = re.search(r"exposure level for \S+: ([\d.]+)", said)
    assert found is not None
    assert float(found[1]) <= EXPOSURE_MAX
