"""certbot's hook replaces a certificate while clients are busy: nobody notices, and new clients get the new one."""

import http.client
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.system.processes import ROOT, environment, make_pair, peer_certificate, wait_until
from tests.system.runs import write_app
from tests.system.support import Mongrel2, mongrel2, running

pytestmark = pytest.mark.shape("direct", reason="certificates are Mongrel2's")

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


class Rotation:
    """A tree below M2GATE_ROOT whose certificates a running Mongrel2 shows, and certbot's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.certs = root / "etc/m2gate/certs"
        self.control = root / "run/m2gate/control"
        self.lineage = root / "etc/letsencrypt/live/shop.test"
        for folder in (self.certs, self.control, self.lineage):
            folder.mkdir(parents=True)

    def renew(self) -> bytes:
        """Let certbot have a new certificate and run its hook; return the certificate, DER."""
        pair = make_pair(self.lineage, "new", ["shop.test", "*.shop.test"])
        pair.replace(self.lineage / "fullchain.pem")
        pair.with_suffix(".key").replace(self.lineage / "privkey.pem")
        environ = environment(
            M2GATE_ROOT=str(self.root), RENEWED_DOMAINS="shop.test *.shop.test", RENEWED_LINEAGE=str(self.lineage)
        )
        subprocess.run([ROOT / "share/certbot-deploy-hook"], env=environ, timeout=30, check=True)
        return ssl.PEM_cert_to_DER_cert((self.lineage / "fullchain.pem").read_text())

    def tell_pid(self, server: Mongrel2) -> None:
        (self.control / f"{server.send_ident}.pid").write_text(f"{server.pid}\n")


@pytest.mark.checklist("packaging", 30)
def test_rotation_under_load(tmp_path: Path) -> None:
    rotation = Rotation(tmp_path)
    make_pair(rotation.certs, "other.test", ["other.test"])
    old = rotation.renew()
    app = write_app(tmp_path / "app.py", "hello")
    with mongrel2(certificates=rotation.certs) as server, running(app, server):
        rotation.tell_pid(server)
        other = peer_certificate(server.port, "other.test")
        with busy(server.port) as (clients, new):
            certificates = [old]
            for _ in range(ROTATIONS):
                wait_served(clients)
                certificates.append(rotation.renew())
                wait_until(lambda: new.shown[-1:] == certificates[-1:], "the new certificate is shown")
            wait_served(clients)
            assert peer_certificate(server.port, "x.shop.test") == certificates[-1]
            assert peer_certificate(server.port, "other.test") == other
        assert [one.failures for one in clients] == [[]] * CLIENTS
        assert new.failures == []
        # Each in its turn: never a former one again, never the default.
        turns = [certificates.index(one) for one in new.shown]
        assert sorted(set(turns)) == list(range(ROTATIONS + 1))
        assert turns == sorted(turns)


def wait_served(clients: list[Client]) -> None:
    """Wait until each client has had some more answers, or has failed."""
    goals = [one.requests + REQUESTS for one in clients]

    def is_done() -> bool:
        return all(one.failures or one.requests >= goal for one, goal in zip(clients, goals, strict=True))

    wait_until(is_done, "every client is served", 30)
