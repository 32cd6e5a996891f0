"""The recipes of docs/howto/front-proxy.md, word for word, with Debian's nginx, haproxy and Caddy.

Only addresses and paths are put in the place of the page's: the tests need ports and certificates of their own.
"""

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import pytest
from websockets.sync.client import connect

from tests.system.processes import (
    ROOT,
    START_S,
    accepts,
    free_port,
    make_pair,
    short_directory,
    stop_process,
    wait_until,
)
from tests.system.support import M2GateRun, m2gate_run

pytestmark = pytest.mark.full

PAGE: Final = ROOT / "docs/howto/front-proxy.md"
APP: Final = ROOT / "tests/system/apps/fronted.py"
NAME: Final = "shop.example"
FORGED: Final = "203.0.113.9"
CLIENT: Final = "127.0.0.2"  # an address of this machine that is not the proxy's
MIB: Final = 1024 * 1024
HELD_MAX: Final = 40 * MIB  # buffers of five sockets on the way are below this; a proxy that buffers has no bound
STILL_S: Final = 1.0

# What Debian's own nginx.conf has around a site, with all paths in one folder.
NGINX_CONF: Final = """\
daemon off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
events {{ worker_connections 768; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    include {folder}/site;
}}
"""


@dataclass
class Front:
    """A proxy that runs in front of ``m2gate run``."""

    port: int
    run: M2GateRun
    certificate: Path

    def url(self, path: str) -> str:
        return f"https://{NAME}:{self.port}{path}"

    def curl(self, path: str, *options: str, **streams: Any) -> "subprocess.Popen[bytes]":
        """Start curl, from CLIENT; it checks the certificate."""
        resolve = f"{NAME}:{self.port}:127.0.0.1"
        command = ["curl", "-sSN", "--fail-with-body", "--max-time", "60", "--cacert", str(self.certificate)]
        command += ["--interface", CLIENT, "--resolve", resolve, *options, self.url(path)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, **streams)

    def get(self, path: str, *options: str) -> str:
        with self.curl(path, *options) as curl:
            output, _ = curl.communicate(timeout=60)
        assert curl.returncode == 0, output
        return output.decode()

    def s_client(self, *options: str) -> str:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{self.port}", "-servername", NAME, *options]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
        return done.stdout.decode(errors="replace")


def recipe(language: str) -> str:
    """The block of the page."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(block)


def put(text: str, *changes: tuple[str, str]) -> str:
    """Replace what belongs to the page's machine. Raises AssertionError if the page has no such thing."""
    for old, new in changes:
        assert old in text, f"the recipe has no {old!r}"
        text = text.replace(old, new)
    return text


def nginx_command(folder: Path, pair: Path, port: int, app_port: int) -> list[str]:
    site = put(
        recipe("nginx"),
        ("listen 443 ", f"listen 127.0.0.1:{port} "),
        ("    listen [::]:443 ssl http2;\n", ""),
        ("/etc/letsencrypt/live/shop.example/fullchain.pem", str(pair)),
        ("/etc/letsencrypt/live/shop.example/privkey.pem", str(pair.with_suffix(".key"))),
        ("127.0.0.1:8080", f"127.0.0.1:{app_port}"),
    )
    (folder / "site").write_text(site)
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(NGINX_CONF.format(folder=folder, user=user))
    return ["nginx", "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]


def haproxy_command(folder: Path, pair: Path, port: int, app_port: int) -> list[str]:
    certs = folder / "certs"
    certs.mkdir()
    (certs / NAME).write_text(pair.read_text() + pair.with_suffix(".key").read_text())
    configuration = put(
        recipe("haproxy"),
        ("bind :::443 v4v6 ", f"bind 127.0.0.1:{port} "),
        ("/etc/haproxy/certs", str(certs)),
        ("127.0.0.1:8080", f"127.0.0.1:{app_port}"),
    )
    (folder / "haproxy.cfg").write_text(configuration)
    return ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")]


def caddy_command(folder: Path, pair: Path, port: int, app_port: int) -> list[str]:
    own = f"tls {pair} {pair.with_suffix('.key')}"
    site = put(
        recipe("caddy"),
        ("shop.example {", f"https://{NAME}:{port} {{\n    {own}"),
        ("127.0.0.1:8080", f"127.0.0.1:{app_port}"),
    )
    (folder / "Caddyfile").write_text(f"{{\n    admin off\n    auto_https off\n}}\n{site}")
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


COMMANDS: Final = {"nginx": nginx_command, "haproxy": haproxy_command, "caddy": caddy_command}


@contextmanager
def fronted(kind: str) -> Iterator[Front]:
    with m2gate_run(APP) as run, short_directory() as folder:
        pair = make_pair(folder, "pair", [NAME])
        port = free_port()
        command = COMMANDS[kind](folder, pair, port, run.port)
        home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        environ = {**os.environ, **home, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        log = folder / "output.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, env=environ, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            wait_until(lambda: accepts(port) or process.poll() is not None, f"{kind} accepts", START_S)
            assert process.poll() is None
            yield Front(port, run, pair)
        except BaseException:
            print(f"--- {kind}\n{log.read_text(errors='replace')}", file=sys.stderr)
            raise
        finally:
            stop_process(process)


@pytest.fixture(scope="module", params=list(COMMANDS))
def front(request: pytest.FixtureRequest) -> Iterator[Front]:
    with fronted(request.param) as one:
        yield one


def read_until(stream: IO[bytes] | None, wanted: bytes) -> None:
    """Read lines until one has the text. curl ends by itself if nothing comes."""
    assert stream is not None
    for line in stream:
        if wanted in line:
            return
    raise AssertionError(f"{wanted!r} did not come")


def test_tls_13_and_http_2(front: Front) -> None:
    said = front.s_client("-tls1_3", "-alpn", "h2,http/1.1")
    assert "New, TLSv1.3, Cipher is TLS_" in said
    assert "ALPN protocol: h2" in said
    assert "New, TLSv1.2, Cipher is " in front.s_client("-tls1_2")
    assert "Cipher is (NONE)" in front.s_client("-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    assert front.get("/whoami", "-o", os.devnull, "-w", "%{http_version}") == "2"
    assert front.get("/whoami", "-o", os.devnull, "-w", "%{http_version}", "--http1.1") == "1.1"


@pytest.mark.parametrize("version", ["--http2", "--http1.1"])
def test_client_address_host_and_scheme(front: Front, version: str) -> None:
    seen = json.loads(front.get("/whoami", version))
    assert seen == {"client": CLIENT, "scheme": "https", "host": f"{NAME}:{front.port}", "forwarded": [CLIENT]}


@pytest.mark.parametrize("version", ["--http2", "--http1.1"])
def test_forged_addresses_are_replaced(front: Front, version: str) -> None:
    forged = ["-H", f"X-Forwarded-For: {FORGED}", "-H", f"x-forwarded-for: 127.0.0.1, {FORGED}"]
    forged += ["-H", "X-Forwarded-Proto: http"]
    seen = json.loads(front.get("/whoami", version, *forged))
    assert (seen["client"], seen["forwarded"], seen["scheme"]) == (CLIENT, [CLIENT], "https")


@pytest.mark.parametrize("version", ["--http2", "--http1.1"])
@pytest.mark.parametrize("path", ["/events", "/lines"])
def test_streams_come_as_they_are_made(front: Front, path: str, version: str) -> None:
    with front.curl(path, version) as curl:
        read_until(curl.stdout, b"first")
        # The second is not made before this: so nobody has held back the first.
        front.get("/go-on", "-X", "POST")
        read_until(curl.stdout, b"second")
        curl.terminate()


@pytest.mark.parametrize("version", ["--http2", "--http1.1"])
def test_uploads_go_on_as_they_are_sent(front: Front, version: str) -> None:
    with front.curl("/upload", version, "-X", "POST", "-T", "-", stdin=subprocess.PIPE) as curl:
        assert curl.stdin is not None
        curl.stdin.write(b"x" * MIB)
        curl.stdin.flush()

        def has_begun() -> bool:
            return int(json.loads(front.get("/uploaded"))["size"]) >= MIB // 2

        wait_until(has_begun, "the handler has a part of the upload", 20)
        output, _ = curl.communicate(b"y" * MIB, timeout=60)
    assert json.loads(output) == {"size": 2 * MIB}


def sent(front: Front) -> int:
    return int(json.loads(front.get("/sent"))["size"])


def test_a_slow_client_slows_the_handler_down(front: Front) -> None:
    with front.curl("/flood", "--http1.1") as curl:
        # Nobody reads what curl writes.
        wait_until(lambda: sent(front) > 0, "the handler has begun")
        before, since = 0, time.monotonic()
        while time.monotonic() - since < STILL_S:
            if (now := sent(front)) != before:
                before, since = now, time.monotonic()
            assert now < HELD_MAX, "the proxy takes what its client does not"
        curl.terminate()
    wait_until(lambda: sent(front) == -1, "the handler is told that the client has left")


@pytest.mark.parametrize(("path", "version"), [("/silence", "--http2"), ("/pings", "--http2"), ("/pings", "--http1.1")])
def test_a_client_that_leaves_is_noticed(front: Front, path: str, version: str) -> None:
    with front.curl(path, version) as curl:
        read_until(curl.stdout, b"first")
        assert sent(front) == 0
        curl.terminate()
    wait_until(lambda: sent(front) == -1, "the handler is told that the client has left")


def test_large_bodies_pass(front: Front, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"x" * (20 * MIB))
    assert json.loads(front.get("/upload", "--data-binary", f"@{body}")) == {"size": 20 * MIB}


def test_websockets_pass(front: Front) -> None:
    context = ssl.create_default_context(cafile=str(front.certificate))
    url = f"wss://{NAME}:{front.port}/echo"
    for number in range(5):
        # Requests in between leave connections behind on which Mongrel2 takes no upgrade.
        assert json.loads(front.get("/whoami"))["client"] == CLIENT
        plain = socket.create_connection(("127.0.0.1", front.port), timeout=20, source_address=(CLIENT, 0))
        with connect(url, sock=plain, ssl=context, server_hostname=NAME) as ws:
            assert ws.recv(timeout=20) == CLIENT
            for message in ("hello", b"\0\xff" * 70_000, str(number)):
                ws.send(message)
                assert ws.recv(timeout=20) == message


def test_reader_who_asks_mongrel2_itself_is_believed_nothing(front: Front) -> None:
    """The proxy's address alone makes these headers count."""
    command = ["curl", "-sS", "--max-time", "20", "--interface", CLIENT, "-H", f"X-Forwarded-For: {FORGED}"]
    done = subprocess.run([*command, f"{front.run.url}/whoami"], capture_output=True, timeout=30, check=True)
    assert json.loads(done.stdout)["client"] == CLIENT
