"""The deploy hook for certbot: what it copies, and what it refuses without having changed anything."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from m2gate.site.certificates import make_default_pairs
from m2gate.site.inventory import read_leaf
from tests.system.processes import ROOT, make_pair

pytestmark = pytest.mark.system

HOOK = ROOT / "share/certbot-deploy-hook"


class Installation:
    """A tree below M2GATE_ROOT with certificates, and a folder of certbot's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.certs = root / "etc/m2gate/certs"
        self.certs.mkdir(parents=True)
        self.lineage = root / "etc/letsencrypt/live/shop.test"
        self.lineage.mkdir(parents=True)
        self.renew()

    def renew(self, *names: str) -> None:
        """Do what certbot does: put a new pair into its folder."""
        pair = make_pair(self.root, "new", names or ["shop.test"])
        shutil.move(pair, self.lineage / "fullchain.pem")
        shutil.move(pair.with_suffix(".key"), self.lineage / "privkey.pem")

    def hook(self, domains: str, *, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        environ = {
            "PATH": os.environ["PATH"],
            "M2GATE_ROOT": str(self.root),
            "RENEWED_DOMAINS": domains,
            "RENEWED_LINEAGE": str(self.lineage),
        }
        return subprocess.run(
            [HOOK], env=environ, cwd=cwd or self.root, capture_output=True, text=True, timeout=30, check=False
        )

    def copied(self) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in self.certs.iterdir()}


@pytest.fixture
def site(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def test_each_name_gets_the_pair(site: Installation) -> None:
    make_pair(site.certs, "other.test", ["other.test"])
    other = (site.certs / "other.test.crt").read_bytes()
    done = site.hook("*.Shop.test shop.test")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    key, chain = (site.lineage / "privkey.pem").read_bytes(), (site.lineage / "fullchain.pem").read_bytes()
    copied = site.copied()
    assert sorted(copied) == [
        "_.shop.test.crt",
        "_.shop.test.key",
        "other.test.crt",
        "other.test.key",
        "shop.test.crt",
        "shop.test.key",
    ]
    assert copied["_.shop.test.key"] == copied["shop.test.key"] == key
    assert copied["_.shop.test.crt"] == copied["shop.test.crt"] == chain
    assert copied["other.test.crt"] == other
    assert (site.certs / "shop.test.key").stat().st_mode & 0o777 == 0o640


def test_a_renewed_pair_replaces_the_old_one(site: Installation) -> None:
    assert site.hook("shop.test").returncode == 0
    before = site.copied()
    open_file = (site.certs / "shop.test.crt").open("rb")
    site.renew()
    assert site.hook("shop.test").returncode == 0
    with open_file:
        assert open_file.read() == before["shop.test.crt"]  # who was reading has the whole old one
    assert site.copied()["shop.test.crt"] == (site.lineage / "fullchain.pem").read_bytes() != before["shop.test.crt"]


def test_a_star_is_no_pattern_for_files(site: Installation, tmp_path: Path) -> None:
    (tmp_path / "x.shop.test").touch()
    assert site.hook("*.shop.test", cwd=tmp_path).returncode == 0
    assert sorted(site.copied()) == ["_.shop.test.crt", "_.shop.test.key"]


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/b", ".hidden", "-n", "a.", "_.shop.test", "*", "*.", "*.*.test", "x;id", "ä.test", "a$b", "a,b"],
)
def test_odd_names_are_refused_and_nothing_is_changed(site: Installation, name: str) -> None:
    done = site.hook(f"shop.test {name}")
    assert done.returncode == 1
    assert done.stderr.startswith(f"m2gate: certbot-deploy-hook: {name}: ")
    assert site.copied() == {}


def test_a_mixed_pair_is_refused(site: Installation) -> None:
    make_pair(site.lineage, "privkey", ["shop.test"])
    (site.lineage / "privkey.key").replace(site.lineage / "privkey.pem")
    done = site.hook("shop.test")
    assert (done.returncode, "do not belong together" in done.stderr) == (1, True)
    assert site.copied() == {}


def test_broken_and_missing_files_are_refused(site: Installation) -> None:
    (site.lineage / "fullchain.pem").write_text("nonsense")
    assert "fullchain.pem: openssl cannot read it" in site.hook("shop.test").stderr
    (site.lineage / "privkey.pem").unlink()
    site.renew()
    shutil.rmtree(site.certs)
    assert f"{site.certs} is missing" in site.hook("shop.test").stderr
    assert site.hook("").returncode == 1


def test_the_default_pair_of_a_server_is_not_replaced(site: Installation) -> None:
    make_default_pairs(site.certs, ["any-443"], "test")
    before = site.copied()
    assert "the default pair of a server" in site.hook("any-443").stderr
    assert site.copied() == before


def test_a_pid_file_of_another_program_gets_no_signal(site: Installation) -> None:
    control = site.root / "run/m2gate/control"
    control.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            (control / "any-443.pid").write_text(f"{other.pid}\n")
            (control / "any-80.pid").write_text("nonsense")
            assert site.hook("shop.test").returncode == 0
            assert other.poll() is None
        finally:
            other.terminate()
    leaf = read_leaf(site.certs / "shop.test.crt")
    assert leaf is not None
    assert leaf.names == ("shop.test",)
