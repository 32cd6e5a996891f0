"""What is known of the pairs in the folder of certificates."""

import time
from pathlib import Path

import pytest

from m2gate.errors import ConfigError
from m2gate.site.certificates import make_default_pairs
from m2gate.site.inventory import ListedPair, describe_mode, list_missing, list_pairs, read_leaf
from m2gate.site.model import Listen, Route, Site
from tests.site.authority import Authority
from tests.system.processes import make_pair

TLS = Listen(address="127.0.0.1", port=443, tls=True)
PLAIN = Listen(address="127.0.0.1", port=80)


def make_site(name: str, *hosts: str, listen: Listen = TLS) -> Site:
    return Site(
        name=name,
        path=Path(f"{name}.toml"),
        hosts=hosts,
        listen=(listen,),
        routes=(Route(path="/", handler=name),),
    )


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    folder = tmp_path / "certs"
    folder.mkdir()
    return folder


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """An authority that this machine knows."""
    folder = tmp_path / "authority"
    folder.mkdir()
    one = Authority(folder)
    monkeypatch.setenv("SSL_CERT_FILE", str(one.root))
    return one


def the_pair(certs: Path, *sites: Site) -> ListedPair:
    (one,) = list_pairs(certs, sites)
    return one


def test_a_pair_of_an_authority(certs: Path, authority: Authority) -> None:
    authority.issue(certs, "_.shop.test", ["*.shop.test", "Shop.test"], days=90)
    pair = the_pair(
        certs, make_site("shop", "*.shop.test", "x.shop.test"), make_site("plain", "a.shop.test", listen=PLAIN)
    )
    assert (pair.name, pair.chain, pair.problem, pair.sites) == ("*.shop.test", "complete", "", ("shop",))
    assert pair.days_left() == 89
    assert pair.days_left(time.time() + 91 * 86_400) == -2
    assert pair.key_mode.startswith("0640 ")
    assert not pair.is_default
    assert pair.leaf is not None
    assert pair.leaf.names == ("*.shop.test", "shop.test")
    assert pair.leaf.issuer == "CN=Test Intermediate"


@pytest.mark.parametrize(
    ("name", "is_covered"),
    [
        ("shop.test", True),
        ("a.shop.test", True),
        ("*.shop.test", True),
        ("b.a.shop.test", False),
        ("evilshop.test", False),
        ("*.test", False),
        ("test", False),
    ],
)
def test_names_that_a_certificate_covers(certs: Path, name: str, is_covered: bool) -> None:
    leaf = read_leaf(make_pair(certs, "a", ["shop.test", "*.shop.test"]))
    assert leaf is not None
    assert leaf.covers(name) is is_covered


def test_a_chain_without_its_intermediate(certs: Path, authority: Authority) -> None:
    authority.issue(certs, "shop.test", ["shop.test"], with_chain=False)
    assert the_pair(certs).chain == "an intermediate certificate is missing"


def test_an_authority_that_is_not_known_here(
    certs: Path, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.issue(certs, "shop.test", ["shop.test"])
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(make_pair(tmp_path / "other", "root", ["Other Root"])))
    assert the_pair(certs).chain == "its authority is not known here"


def test_expired_is_no_matter_of_the_chain(certs: Path, authority: Authority) -> None:
    authority.issue(certs, "shop.test", ["shop.test"], days=-1)
    pair = the_pair(certs)
    assert pair.chain == "complete"
    assert (pair.days_left() or 0) < 0


def test_a_machine_without_a_list_of_authorities(
    certs: Path, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.issue(certs, "shop.test", ["shop.test"])
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nothing"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "empty"))
    assert the_pair(certs).chain == "unknown"


def test_self_signed_and_default(certs: Path) -> None:
    make_pair(certs, "a.test", ["a.test"])
    make_default_pairs(certs, ["local-443", "left-over"], "test")
    plain, left_over, default = list_pairs(certs, [make_site("a", "a.test")])
    assert (default.stem, default.chain, default.sites) == ("local-443", "self-signed", ())
    assert (plain.is_default, plain.sites) == (False, ("a",))
    assert left_over.is_default


def test_broken_pairs_say_how(certs: Path) -> None:
    make_pair(certs, "a.test", ["a.test"])
    (certs / "a.test.key").rename(certs / "b.test.key")
    (certs / ".c.test.crt").touch()
    first, second = list_pairs(certs, [])
    assert (first.stem, first.problem, first.key_mode) == ("a.test", "its .key is missing", "")
    assert first.leaf is not None
    assert (second.stem, second.problem, second.leaf) == ("b.test", "its .crt is missing", None)
    (certs / "b.test.crt").write_text("nonsense")
    assert list_pairs(certs, [])[1].problem == "not a pair of PEM files"


def test_hosts_without_a_pair(certs: Path) -> None:
    make_pair(certs, "_.shop.test", ["*.shop.test"])
    sites = [make_site("shop", "shop.test", "a.shop.test", "*.shop.test"), make_site("plain", "b.test", listen=PLAIN)]
    assert [(one.host, one.site) for one in list_missing(certs, sites)] == [("shop.test", "shop")]


def test_a_folder_that_is_not_there(certs: Path) -> None:
    with pytest.raises(ConfigError, match="make it: install -d"):
        list_pairs(certs / "missing", [])


def test_mode_of_what_is_gone(certs: Path) -> None:
    assert describe_mode(certs / "missing") == ""
