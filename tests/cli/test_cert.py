"""`m2gate cert`: the list, and the link for certbot."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from m2gate.cli.cert import CertError, command, find_hook
from m2gate.errors import ConfigError
from tests.site.installation import SITE, Healthy
from tests.system.processes import ROOT, make_pair, short_directory


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Healthy]:
    monkeypatch.setenv("COLUMNS", "120")
    with short_directory() as folder:
        monkeypatch.setenv("M2GATE_ROOT", str(folder))
        yield Healthy(folder)


@pytest.fixture
def link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where certbot looks for it, in an installation that has nothing else."""
    monkeypatch.setenv("M2GATE_ROOT", str(tmp_path))
    return tmp_path / "etc/letsencrypt/renewal-hooks/deploy/m2gate"


def cert(*args: str) -> Result:
    return CliRunner().invoke(command, args)


def test_list(healthy: Healthy) -> None:
    (healthy.places.certs / "shop.test.key").chmod(0o640)
    make_pair(healthy.places.certs, "unused.test", ["unused.test"])
    (healthy.places.certs / "unused.test.key").unlink()
    done = cert("list")
    assert done.exit_code == 0
    head, *rows = [line.split() for line in done.stdout.splitlines()]
    assert head == ["NAME", "FILE", "EXPIRES", "DAYS", "CHAIN", "KEY", "USE"]
    default, shop, unused = rows
    assert (default[:2], default[3:]) == (
        ["local-8443", "local-8443.crt"],
        ["3649", "self-signed", *default[5:7], "default"],
    )
    assert (shop[:2], shop[3:6], shop[-1]) == (["shop.test", "shop.test.crt"], ["29", "self-signed", "0640"], "shop")
    assert unused[4:] == ["its", ".key", "is", "missing", "-", "-"]


def test_list_for_scripts(healthy: Healthy) -> None:
    healthy.enable("other", SITE.replace("shop", "other"))
    document = json.loads(cert("list", "--json").stdout)
    assert document["missing"] == [{"host": "other.test", "site": "other"}]
    default, shop = document["pairs"]
    assert (default["default"], default["sites"]) == (True, [])
    assert shop["certificate"] == str(healthy.places.certs / "shop.test.crt")
    assert shop["key"] == str(healthy.places.certs / "shop.test.key")
    assert (shop["name"], shop["days_left"], shop["chain"], shop["problem"]) == ("shop.test", 29, "self-signed", None)
    assert (shop["default"], shop["sites"], shop["key_mode"][:5]) == (False, ["shop"], "0600 ")
    assert shop["expires"].endswith("Z")


def test_list_names_what_is_missing(healthy: Healthy) -> None:
    for suffix in ("crt", "key"):
        (healthy.places.certs / f"shop.test.{suffix}").unlink()
        (healthy.places.certs / f"local-8443.{suffix}").unlink()
    first, missing = cert("list").stdout.splitlines()
    assert first == "no certificates"
    assert missing.startswith("missing: shop.test of site shop: ")


def test_list_fits_a_narrow_terminal(healthy: Healthy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert all(len(line) <= 80 for line in cert("list").stdout.splitlines())


def test_list_without_the_folder(link: Path) -> None:
    error = cert("list").exception
    assert isinstance(error, ConfigError)
    assert "make it: install -d" in str(error)


def test_hook_comes_and_goes(link: Path) -> None:
    assert cert("hook").stdout == "disabled\n"
    assert cert("hook", "enable").stdout == f"{link} -> {ROOT}/share/certbot-deploy-hook\n"
    assert link.readlink() == ROOT / "share/certbot-deploy-hook"
    assert cert("hook").stdout == f"enabled: {link}\n"
    assert cert("hook", "enable").stdout == f"{link} is there already\n"
    assert cert("hook", "disable").stdout == "disabled\n"
    assert not link.is_symlink()
    assert cert("hook", "disable").exit_code == 0


def test_hook_replaces_a_link_of_a_former_version(link: Path) -> None:
    link.parent.mkdir(parents=True)
    link.symlink_to("/opt/old/certbot-deploy-hook")
    assert cert("hook", "enable").exit_code == 0
    assert link.readlink() == find_hook()
    assert [file.name for file in link.parent.iterdir()] == ["m2gate"]


@pytest.mark.parametrize("action", ["enable", "disable"])
def test_hook_leaves_files_of_others_alone(link: Path, action: str) -> None:
    link.parent.mkdir(parents=True)
    link.write_text("theirs")
    assert isinstance(cert("hook", action).exception, CertError)
    assert link.read_text() == "theirs"


def test_hook_that_cannot_be_linked(link: Path, tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("a file where a folder should be")
    error = cert("hook", "enable").exception
    assert isinstance(error, CertError)
    assert "Not a directory" in str(error)


def test_hook_is_printed_as_it_is() -> None:
    assert cert("hook", "print").stdout == (ROOT / "share/certbot-deploy-hook").read_text()
    assert (ROOT / "share/certbot-deploy-hook").stat().st_mode & 0o111 == 0o111
