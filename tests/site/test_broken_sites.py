"""Sites and templates that cannot work: refused with file, line, key, reason and remedy; nothing changes."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from m2gate.errors import ConfigError, M2GateError
from m2gate.site.apply import prepared
from m2gate.site.configure import configure
from m2gate.site.enabled import read_enabled
from m2gate.site.installation import Installation
from m2gate.site.places import Places
from m2gate.site.render import render
from tests.system.processes import make_pair

pytestmark = pytest.mark.system

GOOD = """\
hosts = ["shop.test", "*.shop.test"]
listen = ["127.0.0.1:8080", "127.0.0.1:8443 tls"]
redirect = "https"

[handler.shop]
target = "/srv/shop/app.py:app"
workers = 2
drain_timeout = 10
max_requests = 1000

[[route]]
path = "/"
handler = "shop"

[[route]]
path = "/static/"
dir = "{static}/"
"""


class Refusal(NamedTuple):
    """The line and the key that are named; words of the reason and of the remedy."""

    line: int | None
    key: str
    reason: str
    remedy: str


# What is replaced, by what, and how that is refused.
BROKEN = [
    pytest.param(
        'hosts = ["shop', 'host = ["shop', Refusal(1, "host", "no such key", "did you mean hosts"), id="wrong-key"
    ),
    pytest.param(
        "workers = 2", "worker = 2", Refusal(7, "handler.shop.worker", "no such key", "workers"), id="key-of-handler"
    ),
    pytest.param(
        'path = "/"', 'paths = "/"', Refusal(12, "route[1].paths", "no such key", "mean path"), id="key-of-route"
    ),
    pytest.param(
        "[handler.shop]", "[handlers.shop]", Refusal(5, "handlers", "no such key", "mean handler"), id="wrong-table"
    ),
    pytest.param(
        'hosts = ["shop.test", "*.shop.test"]', "hosts = 7", Refusal(1, "hosts", "no list", "shop.ex"), id="hosts-type"
    ),
    pytest.param(
        '"shop.test", ', '"Shop.test", ', Refusal(1, "hosts", "lower case", "write shop.example"), id="capitals"
    ),
    pytest.param('"shop.test", ', '"shop..test", ', Refusal(1, "hosts", "no host name", "shop.example"), id="two-dots"),
    pytest.param('"*.shop.test"', '"a*.shop.test"', Refusal(1, "hosts", "no host name", "one level"), id="star-inside"),
    pytest.param('"*.shop.test"', '"shop.test"', Refusal(1, "hosts", "given twice", "remove one"), id="host-twice"),
    pytest.param(
        '"shop.test", ', '"http://shop.test/", ', Refusal(1, "hosts", "no host name", "shop.ex"), id="host-is-url"
    ),
    pytest.param(
        'listen = ["127.0.0.1:8080", "127.0.0.1:8443 tls"]\n',
        "",
        Refusal(None, "listen", "no list", "0.0.0.0:80"),
        id="no-listen",
    ),
    pytest.param(
        '"127.0.0.1:8080"', '"8080"', Refusal(2, "listen", "no address with a port", "ADDRESS:PORT"), id="only-port"
    ),
    pytest.param('"127.0.0.1:8080"', '"127.0.0.1:0"', Refusal(2, "listen", "from 1 to 65535", "ADDRESS"), id="port-0"),
    pytest.param(
        '"127.0.0.1:8080"', '"127.0.0.1:70000"', Refusal(2, "listen", "from 1 to 65535", "ADDRESS"), id="port-high"
    ),
    pytest.param(
        '"127.0.0.1:8080"', '"localhost:8080"', Refusal(2, "listen", "no IP address", "0.0.0.0:80"), id="host-in-listen"
    ),
    pytest.param('"127.0.0.1:8080"', '"::1:8080"', Refusal(2, "listen", "no address", "[::]:80"), id="ipv6-bare"),
    pytest.param("8443 tls", "8443 ssl", Refusal(2, "listen", "means nothing", "write tls"), id="ssl"),
    pytest.param("8443 tls", "8080 tls", Refusal(2, "listen", "given twice", "remove one"), id="address-twice"),
    pytest.param('"https"', '"http"', Refusal(3, "redirect", "only redirect", 'redirect = "https"'), id="redirect"),
    pytest.param(
        ', "127.0.0.1:8443 tls"', "", Refusal(3, "redirect", "not served by https", "443 tls"), id="redirect-nowhere"
    ),
    pytest.param(
        "[handler.shop]", "[handler.Shop]", Refusal(5, "handler.Shop", "lower-case", "rename"), id="handler-name"
    ),
    pytest.param(
        'target = "/srv/shop/app.py:app"\n', "", Refusal(5, "handler.shop.target", "no target", "write"), id="no-target"
    ),
    pytest.param(
        '"/srv/shop/app.py:app"', '"app.py"', Refusal(6, "handler.shop.target", "from the root", "/srv"), id="relative"
    ),
    pytest.param(
        "workers = 2", "workers = 0", Refusal(7, "handler.shop.workers", "from 1 to 256", "correct"), id="no-workers"
    ),
    pytest.param(
        "workers = 2", 'workers = "2"', Refusal(7, "handler.shop.workers", "whole number", "correct"), id="workers-type"
    ),
    pytest.param(
        "workers = 2",
        "workers = true",
        Refusal(7, "handler.shop.workers", "whole number", "correct"),
        id="workers-bool",
    ),
    pytest.param(
        "drain_timeout = 10",
        "drain_timeout = -1",
        Refusal(8, "handler.shop.drain_timeout", "seconds", "correct"),
        id="drain",
    ),
    pytest.param(
        "max_requests = 1000",
        "max_requests = 1.5",
        Refusal(9, "handler.shop.max_requests", "whole", "correct"),
        id="max",
    ),
    pytest.param(
        'handler = "shop"',
        'handler = "shopp"',
        Refusal(13, "route[1].handler", "no such handler", "known are: shop"),
        id="unknown-handler",
    ),
    pytest.param(
        'handler = "shop"\n', "", Refusal(11, "route[1]", "nothing answers", "name one of"), id="no-target-of-route"
    ),
    pytest.param(
        'handler = "shop"',
        'handler = "shop"\ndir = "/srv/"',
        Refusal(11, "route[1]", "handler and dir", "name one"),
        id="two-targets",
    ),
    pytest.param(
        'handler = "shop"',
        'grip = ["http://127.0.0.1:8000"]',
        Refusal(13, "route[1].grip", "not there yet", "Pushpin"),
        id="grip",
    ),
    pytest.param(
        'path = "/"',
        'path = "api"',
        Refusal(12, "route[1].path", "from the root", 'path = "/"'),
        id="path-without-slash",
    ),
    pytest.param('path = "/"', 'path = "/a(b)"', Refusal(12, "route[1].path", "no path", 'path = "/"'), id="pattern"),
    pytest.param('path = "/"', 'path = "/a/../b/"', Refusal(12, "route[1].path", "no path", 'path = "/"'), id="dots"),
    pytest.param(
        'path = "/static/"', 'path = "/static"', Refusal(16, "route[2].path", "ends in /", '"/static/"'), id="dir-path"
    ),
    pytest.param(
        'path = "/static/"',
        'path = "/"',
        Refusal(16, "route[2].path", "two routes", "remove one"),
        id="duplicate-route",
    ),
    pytest.param(
        '{static}/"', '{static}"', Refusal(17, "route[2].dir", "/ at its end", '{static}/"'), id="dir-without-slash"
    ),
    pytest.param(
        '{static}/"', '/nothing/there/"', Refusal(17, "route[2].dir", "no such folder", "make it"), id="no-folder"
    ),
    pytest.param(
        '"{static}/"', '"static/"', Refusal(17, "route[2].dir", "from the root", "/srv/shop"), id="relative-dir"
    ),
    pytest.param(
        '[[route]]\npath = "/"',
        '[[route]\npath = "/"',
        Refusal(11, "file", "no TOML", "correct this line"),
        id="no-toml",
    ),
    pytest.param(
        "workers = 2", "workers = 2\nworkers = 3", Refusal(8, "file", "no TOML", "correct this line"), id="key-twice"
    ),
]


class Shop:
    """An installation that has been applied once."""

    def __init__(self, root: Path) -> None:
        self.places = Places(root)
        self.static = root / "static"
        for folder in (self.static, self.places.available, self.places.enabled, self.places.certs):
            folder.mkdir(parents=True)
        make_pair(self.places.certs, "shop.test", ["shop.test"])
        make_pair(self.places.certs, "_.shop.test", ["*.shop.test"])
        self.write(GOOD)
        with prepared(self.places) as preparation:
            preparation.install(preparation.plan())
        self.before = self.places.database.read_bytes()

    def write(self, text: str, name: str = "shop") -> Path:
        file = self.places.available / f"{name}.toml"
        file.write_text(text.replace("{static}", str(self.static)))
        link = self.places.enabled / file.name
        if not link.is_symlink():
            link.symlink_to(Path("../sites-available") / file.name)
        return link

    def refusal(self) -> M2GateError:
        with pytest.raises(M2GateError) as caught, prepared(self.places) as preparation:
            preparation.plan()
        assert self.places.database.read_bytes() == self.before
        assert not [path for path in self.places.state.iterdir() if path.name.startswith(".apply")]
        return caught.value


def line_of(key: str) -> int:
    """Return the line of a top level key in GOOD."""
    return next(number for number, line in enumerate(GOOD.splitlines(), 1) if line.startswith(key))


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("M2GATE_ROOT", str(tmp_path))
    return Shop(tmp_path)


@pytest.mark.parametrize(("old", "new", "refusal"), BROKEN)
def test_a_broken_site_is_refused(shop: Shop, old: str, new: str, refusal: Refusal) -> None:
    assert GOOD.count(old) == 1
    link = shop.write(GOOD.replace(old, new))
    error = shop.refusal()
    assert isinstance(error, ConfigError)
    place = f"{link}:{refusal.line}: " if refusal.line else f"{link}: "
    assert str(error).startswith(f"{place}{refusal.key} = ")
    assert refusal.reason in error.problem
    assert refusal.remedy.replace("{static}", str(shop.static)) in error.remedy


def test_there_are_forty_cases() -> None:
    others = [name for name in globals() if name.startswith("test_a_") and "broken_site" not in name]
    assert len(BROKEN) + len(others) >= 40


@pytest.mark.parametrize(
    ("changes", "key", "reason"),
    [
        ({"[handler.shop]": "[handler.blog]", '"shop"': '"blog"'}, "hosts", "has it, too"),
        ({"shop.test": "blog.test"}, "handler.shop", "has it, too"),
        (
            {"shop.test": "blog.test", "handler.shop": "handler.blog", '"shop"': '"blog"', "8443 tls": "8443"},
            "listen",
            "tls",
        ),
        (
            {
                "shop.test": "blog.test",
                "handler.shop": "handler.blog",
                '"shop"': '"blog"',
                "127.0.0.1:8080": "0.0.0.0:8080",
            },
            "listen",
            "has it, too",
        ),
    ],
    ids=["host", "handler", "tls", "port-taken"],
)
def test_a_pair_of_sites_that_exclude_each_other(shop: Shop, changes: dict[str, str], key: str, reason: str) -> None:
    text = GOOD.replace('redirect = "https"\n', "")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    shop.write(text, "other")
    error = shop.refusal()
    assert isinstance(error, ConfigError)
    assert error.key == key
    assert reason in error.problem
    link = shop.places.enabled
    assert re.match(rf"{link}/(shop|other)\.toml:\d+$", error.source)
    assert re.search(rf"{link}/(shop|other)\.toml:\d+", error.problem)


@pytest.mark.parametrize(
    ("text", "line", "key", "reason"),
    [
        ('[mongrel2]\ncertdir = "/etc/m2gate/certs"\n', 2, "mongrel2.certdir", "must end in /"),
        ('[mongrel2]\n\n"limits.min_pong" = 3\n', 3, "mongrel2.limits.min_pong", "did you mean limits.min_ping?"),
        ('[mongrel2]\n"superpoll.hot_dividend" = 1\n', 2, "mongrel2.superpoll.hot_dividend", "does not start with 1"),
        ("[gateway]\nqueue = 5\n", 2, "gateway.queue", "did you mean queue_max?"),
        ("gateway = 5\n", 1, "gateway", "this is a table"),
    ],
)
def test_a_broken_m2gate_toml(shop: Shop, text: str, line: int, key: str, reason: str) -> None:
    shop.places.settings.write_text(text)
    error = str(shop.refusal())
    assert error.startswith(f"{shop.places.settings}:{line}: {key} = ")
    assert reason in error


def test_a_name_without_certificate(shop: Shop) -> None:
    shop.write(GOOD.replace('"*.shop.test"', '"blog.test"'))
    error = str(shop.refusal())
    assert error.startswith(f"{shop.places.enabled}/shop.toml:{line_of('hosts')}: hosts = 'blog.test'")
    assert "there is no certificate for this name" in error


def test_a_certificate_of_another_key(shop: Shop) -> None:
    (shop.places.certs / "shop.test.key").write_bytes((shop.places.certs / "_.shop.test.key").read_bytes())
    assert "this key belongs to another certificate" in str(shop.refusal())


def test_a_key_that_cannot_be_read(shop: Shop) -> None:
    key = shop.places.certs / "shop.test.key"
    key.unlink()
    key.mkdir()
    assert "cannot be read" in str(shop.refusal())


def test_a_site_with_an_impossible_name(shop: Shop) -> None:
    (shop.places.enabled / "a b.toml").write_text(GOOD)
    assert "a site is named by its file" in str(shop.refusal())


def test_a_link_to_nothing(shop: Shop) -> None:
    (shop.places.available / "shop.toml").unlink()
    assert "cannot be read: No such file" in str(shop.refusal())


def test_a_file_that_is_no_utf8(shop: Shop) -> None:
    (shop.places.available / "shop.toml").write_bytes(b"hosts = ['\xff']")
    assert "it is no UTF-8" in str(shop.refusal())


def test_a_neighbour_that_mongrel2_would_serve(shop: Shop) -> None:
    (shop.places.root / "static-old").mkdir()
    assert "Mongrel2 would serve static-old beside it" in str(shop.refusal())


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("{% if %}\n", 1, "Expected an expression"),
        ('# fine\n{{ settings.line("limits.min_pong") }}\n', 2, "the setting limits.min_pong"),
        ("\n\n{{ nothing.there }}\n", 3, "'nothing' is undefined"),
        ('{% include "none.j2" %}\n', None, "none.j2"),
    ],
    ids=["syntax", "unknown-setting", "undefined", "include"],
)
def test_a_fragment_that_cannot_be_rendered(shop: Shop, text: str, line: int | None, reason: str) -> None:
    shop.places.fragments.mkdir()
    file = shop.places.fragments / "50-own.j2"
    file.write_text(text)
    error = shop.refusal()
    if line is not None:
        assert str(error).startswith(f"{file}:{line}: template = '50-own.j2'")
    assert reason in str(error)


def test_a_fragment_with_a_value_out_of_bounds(shop: Shop) -> None:
    shop.places.fragments.mkdir()
    (shop.places.fragments / "50-own.j2").write_text('    {{ settings.line("limits.kill_limit", 1) }}\n')
    assert "with less every connection is killed" in str(shop.refusal())


def test_a_setting_that_mongrel2_does_not_have(shop: Shop) -> None:
    shop.places.settings.write_text('[mongrel2]\n"limits.min_pong" = 3\n')
    assert str(shop.refusal()).endswith("Mongrel2 has no such setting; did you mean limits.min_ping?")


@pytest.mark.parametrize("change", [lambda text: text, lambda text: text.replace("workers = 2", "workers = 3")])
def test_what_is_good_is_taken(shop: Shop, change: Callable[[str], str]) -> None:
    shop.write(change(GOOD))
    with prepared(shop.places) as preparation:
        assert not preparation.plan().needs_database
    assert [site.name for site in read_enabled(shop.places)] == ["shop"]


def test_a_deleted_fragment_stays_deleted(shop: Shop) -> None:
    shop.places.fragments.mkdir()
    (shop.places.fragments / "10-base.j2").write_text('    {{ settings.line("server.daemonize") }}\n')
    configuration = configure(read_enabled(shop.places), Installation(), shop.places)
    text = render(configuration).text
    assert text.count("Asked for; m2gate has no opinion on it.") == len(configuration.settings) - 1
    assert os.stat(shop.places.database).st_mode & 0o777 == 0o644
