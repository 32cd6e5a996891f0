"""certbot's hook replaces a certificate while clients are busy: nobody notices, and new clients get the new one."""

import http.client
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.system.installed import Installed, installed
from tests.system.processes import ROOT, START_S, environment, make_pair, peer_certificate, wait_until
from tests.system.runs import write_app
from tests.system.served import running

pytestmark = [pytest.mark.full, pytest.mark.shape("direct", reason="certificates are Mongrel2's")]

CLIENTS = 12
ROTATIONS = 5
REQUESTS = 40  # that each client makes between two rotations, at least


@dataclass
class Client:
    """One TLS connection that is never opened again, and one request after the other on it."""

    port: int
    requests: int = 0
    failures: list[str] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=_context())
        try:
            connection.connect()
            first = connection.sock
            while not stop.is_set():
                connection.request("GET", "/")
                response = connection.getresponse()
                body = response.read()
                if (response.status, body) != (200, b"hello\n") or connection.sock is not first:
                    raise AssertionError(f"{response.status} {body!r}, or a new connection")
                self.requests += 1
        except (OSError, http.client.HTTPException, AssertionError) as error:
            self.failures.append(f"after {self.requests}: {error!r}")
        finally:
            connection.close()


@dataclass
class NewClients:
    """Connections that are opened one after the other, and the certificates that they get."""

    port: int
    shown: list[bytes] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self.shown.append(peer_certificate(self.port, "shop.test"))
            except OSError as error:
                self.failures.append(repr(error))


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def busy(port: int) -> Iterator[tuple[list[Client], NewClients]]:
    clients = [Client(port) for _ in range(CLIENTS)]
    new = NewClients(port)
    stop = threading.Event()
    runs = [*(one.run for one in clients), new.run]
    threads = [threading.Thread(target=run, args=(stop,)) for run in runs]
    for thread in threads:
        thread.start()
    try:
        yield clients, new
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


SITE: Final = """\
hosts  = ["shop.test", "other.test", "*.wild.test"]
listen = ["127.0.0.1:8080", "127.0.0.1:8443 tls"]

[handler.shop]
target = "/srv/shop/app.py"

[[route]]
path = "/"
handler = "shop"
"""


class Certbot:
    """certbot's folder of one certificate, and its hook."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lineage = root / "etc/letsencrypt/live/shop.test"
        self.lineage.mkdir(parents=True)

    def renew(self) -> bytes:
        """Have a new certificate and run the hook, as certbot does; return the certificate, DER."""
        pair = make_pair(self.lineage, "new", ["shop.test", "*.wild.test"])
        pair.replace(self.lineage / "fullchain.pem")
        pair.with_suffix(".key").replace(self.lineage / "privkey.pem")
        environ = environment(
            M2GATE_ROOT=str(self.root), RENEWED_DOMAINS="shop.test *.wild.test", RENEWED_LINEAGE=str(self.lineage)
        )
        subprocess.run([ROOT / "share/certbot-deploy-hook"], env=environ, timeout=30, check=True)
        return der(self.lineage / "fullchain.pem")


def der(file: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(file.read_text())


@pytest.fixture
def one() -> Iterator[Installed]:
    """An installation with certificates for all its names, whose TLS server runs."""
    with installed(SITE) as installation:
        installation.start(installation.secure)
        yield installation


def test_each_name_has_its_certificate(one: Installed) -> None:
    certs, port = one.places.certs, one.secure.port
    default = der(certs / f"{one.secure.send_ident}.crt")
    for name in ("shop.test", "SHOP.test", "Shop.Test"):
        assert peer_certificate(port, name) == der(certs / "shop.test.crt"), name
    for name in ("a.wild.test", "A.Wild.test"):
        assert peer_certificate(port, name) == der(certs / "_.wild.test.crt"), name
    for stranger in ("wild.test", "b.a.wild.test", "evilshop.test", "unknown.test", "default.invalid", None):
        assert peer_certificate(port, stranger) == default, stranger


def test_rotation_under_load(one: Installed, tmp_path: Path) -> None:
    certbot = Certbot(one.places.root)
    certificates = [certbot.renew()]
    port = one.secure.port
    with running(write_app(tmp_path / "app.py", "hello"), one.secure):
        other = peer_certificate(port, "other.test")
        with busy(port) as (clients, new):
            for _ in range(ROTATIONS):
                wait_served(clients)
                certificates.append(certbot.renew())
                wait_until(lambda: new.shown[-1:] == certificates[-1:], "the new certificate is shown")
            wait_served(clients)
            assert peer_certificate(port, "x.wild.test") == certificates[-1]
            assert peer_certificate(port, "other.test") == other
        assert [client.failures for client in clients] == [[]] * CLIENTS
        assert new.failures == []
        # Each in its turn: never a former one again, never the default.
        turns = [certificates.index(shown) for shown in new.shown]
        assert sorted(set(turns)) == list(range(ROTATIONS + 1))
        assert turns == sorted(turns)


def test_a_server_that_has_just_started_is_not_made_deaf() -> None:
    with installed(SITE) as one:
        one.secure.start(one.places.database, one.places.logs / "output.log")
        wait_until((one.places.control / f"{one.secure.send_ident}.pid").exists, "mongrel2 has a pid file", START_S)
        certbot = Certbot(one.places.root)
        for _ in range(2):
            # The first one comes before Mongrel2 is ready for a HUP.
            certificate = certbot.renew()
            wait_until(lambda: peer_certificate(one.secure.port, "shop.test") == certificate, "it is shown")  # noqa: B023


def wait_served(clients: list[Client]) -> None:
    """Wait until each client has had some more answers, or has failed."""
    goals = [client.requests + REQUESTS for client in clients]

    def is_done() -> bool:
        return all(client.failures or client.requests >= goal for client, goal in zip(clients, goals, strict=True))

    wait_until(is_done, "every client is served", 30)
