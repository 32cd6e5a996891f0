"""Several sites behind real Mongrel2 servers, with a gateway and workers started as the units start them."""

import http.client
import os
import re
import ssl
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.system.processes import peer_certificate, wait_until
from tests.system.sited import Deployment, deployment


@pytest.fixture(scope="module")
def two() -> Iterator[Deployment]:
    """Two sites on one pair of addresses; the first sends plain http to https, and has a folder."""
    with deployment() as one:
        (one.root / "srv/static").mkdir()
        (one.root / "srv/static/a.txt").write_text("a file")
        folder = f'[[route]]\npath = "/static/"\ndir = "{one.root}/srv/static/"'
        one.site("shop", ["shop.test", "*.shop.test"], routes=folder, options='redirect = "https"')
        one.site("blog", ["blog.test"])
        for name in ("shop", "blog"):
            one.m2gate("site", "enable", name)
        one.m2gate("config", "apply")
        one.run("shop", "blog")
        yield one


def ask(port: int, host: str, path: str = "/", *, tls: bool = False) -> tuple[int, str, http.client.HTTPMessage]:
    """Return status, text and headers of an answer."""
    context = ssl._create_unverified_context()  # noqa: S323 - whose certificate it is, is another test's business
    connection = (
        http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
        if tls
        else http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    )
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, answer.headers


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [
        ("shop.test", "/x", "shop https /x"),
        ("SHOP.test", "/x", "shop https /x"),
        ("www.shop.test", "/x", "shop https /x"),
        ("blog.test", "/x", "blog https /x"),
        ("shop.test", "/static/a.txt", "a file"),
        ("blog.test", "/static/a.txt", "blog https /static/a.txt"),
    ],
)
def test_who_answers(two: Deployment, host: str, path: str, expected: str) -> None:
    assert ask(two.secure, host, path, tls=True)[:2] == (200, expected)


@pytest.mark.parametrize(
    "host", ["evilshop.test", "shop.test.evil", "a.b.shop.test", "", "127.0.0.1", "blog.test@shop.test"]
)
def test_unknown_names_reach_nobody(two: Deployment, host: str) -> None:
    assert ask(two.plain, host)[0] == 421
    assert ask(two.secure, host, tls=True)[0] == 421


def test_plain_http_is_sent_to_https(two: Deployment) -> None:
    status, _, headers = ask(two.plain, "shop.test", "/x?y=1")
    assert (status, headers["Location"]) == (308, f"https://shop.test:{two.secure}/x?y=1")
    assert ask(two.plain, "blog.test")[:2] == (200, "blog http /")


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("shop.test", "shop.test"),
        ("SHOP.test", "shop.test"),
        ("www.shop.test", "_.shop.test"),
        ("a.b.shop.test", None),
        ("blog.test", "blog.test"),
        ("other.test", None),
        (None, None),
    ],
)
def test_certificates_by_name(two: Deployment, name: str | None, stem: str | None) -> None:
    file = two.places.certs / f"{stem or f'local-{two.secure}'}.crt"
    assert peer_certificate(two.secure, name) == ssl.PEM_cert_to_DER_cert(file.read_text())


class Load:
    """Keep-alive clients that ask one site until they are stopped."""

    def __init__(self, port: int, host: str, expected: str, clients: int = 10) -> None:
        self._stop = threading.Event()
        self.answers: Counter[str] = Counter()
        self._expected = expected
        self._threads = [threading.Thread(target=self._ask, args=(port, host)) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, port: int, host: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        while not self._stop.is_set():
            try:
                connection.request("GET", "/load", headers={"Host": host})
                answer = connection.getresponse()
                text = answer.read().decode()
                self.answers["good" if (answer.status, text) == (200, self._expected) else f"{answer.status}"] += 1
            except OSError as error:
                self.answers[type(error).__name__] += 1
                connection.close()
        connection.close()

    def stop(self) -> Counter[str]:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.answers


def test_a_site_comes_and_goes_while_the_other_is_asked() -> None:
    with deployment() as one:
        for name in ("shop", "blog"):
            one.site(name, [f"{name}.test"])
            one.m2gate("site", "enable", name)
        one.m2gate("config", "apply")
        one.run("shop", "blog")
        load = Load(one.plain, "blog.test", "blog http /load")
        for _ in range(3):
            one.m2gate("site", "disable", "shop")
            said = one.m2gate("config", "apply")
            assert "workers shop: stop, no enabled site has it" in said
            assert "refuses" not in said  # as no server has to be restarted
            one.hang_up("gateway")
            wait_until(lambda: ask(one.plain, "shop.test")[0] == 421, "it is gone")
            one.m2gate("site", "enable", "shop")
            one.m2gate("config", "apply")
            one.hang_up("gateway")
            wait_until(lambda: ask(one.plain, "shop.test")[:2] == (200, "shop http /"), "it is back")
        answers = load.stop()
        assert answers["good"] > 100
        assert answers == {"good": answers["good"]}


def test_what_refuses_connections_is_said_and_waits_for_leave() -> None:
    with deployment() as one:
        one.site("shop", ["shop.test"])
        one.m2gate("site", "enable", "shop")
        one.m2gate("config", "apply")
        one.run("shop")
        (one.places.settings).write_text('[mongrel2]\n"limits.min_ping" = 300\n')
        before = one.places.database.read_bytes()
        said = one.m2gate("config", "apply", status=1)
        assert f"server local-{one.plain}: restart, Mongrel2's settings have changed, refuses connections" in said
        assert "nothing was changed: say --restart" in said
        assert one.places.database.read_bytes() == before
        assert ask(one.plain, "shop.test")[0] == 200
        assert "restart it yourself" in one.m2gate("config", "apply", "--restart")
        assert one.places.database.read_bytes() != before
        assert one.m2gate("config", "apply") == "nothing to do: all that is enabled is applied\n"


def test_a_gateway_keeps_what_it_has_if_a_site_is_broken() -> None:
    with deployment() as one:
        one.site("shop", ["shop.test"])
        one.m2gate("site", "enable", "shop")
        one.m2gate("config", "apply")
        one.run("shop")
        file = one.places.available / "shop.toml"
        file.write_text(file.read_text().replace("target", "targte"))
        one.hang_up("gateway")
        wait_until(lambda: "settings not applied" in one.said("gateway"), "it says so")
        assert f"{one.places.enabled}/shop.toml:5: handler.shop.targte = " in one.said("gateway")
        assert ask(one.plain, "shop.test")[:2] == (200, "shop http /")


@pytest.mark.full
def test_rolling_reloads_lose_nothing() -> None:
    with deployment() as one:
        one.site("shop", ["shop.test"])
        one.m2gate("site", "enable", "shop")
        one.m2gate("config", "apply")
        one.run("shop", count=2)
        load = Load(one.plain, "shop.test", "shop http /load", clients=20)
        for number in range(1, 21):
            one.hang_up("shop")
            generation = number + 1
            wait_until(lambda: f"generation={generation}" in one.said("gateway"), "new workers", 30)  # noqa: B023
        answers = load.stop()
        assert answers["good"] > 100
        assert answers == {"good": answers["good"]}
        assert len(re.findall(r"worker attached", one.said("gateway"))) >= 40


def test_status_finds_the_gateway(two: Deployment) -> None:
    said = two.m2gate("status")
    assert "shop/w1" in said
    assert f"local-{two.plain}" in said


def test_the_gateway_of_no_site_says_what_to_do() -> None:
    with deployment() as one:
        said = one.m2gate("gateway", status=1)
        assert f"no site is enabled in {one.places.enabled}; m2gate site enable NAME does that" in said


def test_an_unknown_handler_is_one_line(two: Deployment) -> None:
    assert "no enabled site has such a handler" in two.m2gate("worker", "nobody", status=1)


def test_site_commands(two: Deployment) -> None:
    assert "is enabled already" in two.m2gate("site", "enable", "shop")
    link = two.places.enabled / "shop.toml"
    assert os.readlink(link) == "../sites-available/shop.toml"
    assert "no such site" in two.m2gate("site", "enable", "nothing", status=1)
    assert not (two.places.enabled / "nothing.toml").exists()
    assert two.m2gate("site", "list").startswith("* blog  blog.test at ")
    assert '"enabled": true' in two.m2gate("site", "list", "--json")
    assert "handler   shop: " in two.m2gate("site", "show", "shop")
    assert ": good" in two.m2gate("site", "check", "shop")
    other = two.root / "other.toml"
    other.write_text('hosts = 7\nlisten = ["127.0.0.1:1"]\n')
    assert f"{other}:1: hosts = 7" in two.m2gate("site", "check", str(other), status=2)
