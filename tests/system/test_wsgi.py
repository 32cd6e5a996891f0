"""Flask and Django behind Mongrel2 give the answers that they give under gunicorn."""

import hashlib
import http.client
import json
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Final

import pytest

from tests.system.support import (
    ROOT,
    accepts,
    environment,
    free_port,
    mongrel2,
    running,
    short_directory,
    stop_process,
    wait_until,
)

FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
JSON: Final = {"Content-Type": "application/json"}
MULTIPART: Final = {"Content-Type": "multipart/form-data; boundary=XX"}
# The server's own, or a matter of framing, which the client undoes.
NOT_COMPARED: Final = frozenset(("server", "date", "connection", "transfer-encoding"))


@dataclass(frozen=True, slots=True)
class Ask:
    """One request; a list as body goes out in chunks."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | list[bytes] = b""


def parts(file: bytes, part: str = "file", filename: str = "a.bin", **fields: str) -> bytes:
    """Build a multipart body."""
    start = "--XX\r\nContent-Disposition: form-data; name="
    texts = [f'{start}"{key}"\r\n\r\n{value}\r\n' for key, value in fields.items()]
    head = f'{start}"{part}"; filename="{filename}"\r\n'
    kind = "Content-Type: application/x-thing\r\n\r\n"
    return "".join([*texts, head, kind]).encode() + file + b"\r\n--XX--\r\n"


FLASK: Final[list[Ask]] = [
    Ask("GET", "/"),
    Ask("HEAD", "/"),
    Ask("PUT", "/", {}, b"something"),
    Ask("PATCH", "/"),
    Ask("DELETE", "/"),
    Ask("OPTIONS", "/"),
    Ask("POST", "/"),
    Ask("GET", "/missing"),
    Ask("GET", "/args?x=1&x=2&y=%C3%A4&z=a+b"),
    Ask("GET", "/path/a%2Fb%20c/%C3%A4?q=%2F"),
    Ask("GET", "/environ?a=b"),
    Ask("GET", "/headers", {"X-One": "1", "X_One": "forged", "X-Two": "\xe4", "Proxy": "evil"}),
    Ask("POST", "/form", FORM, b"a=1&a=2&b=%C3%A4"),
    Ask("POST", "/form", MULTIPART, parts(bytes(range(256)), filename="\xfc.bin", note="h\xe4")),
    Ask("POST", "/form", MULTIPART, parts(b"x" * 300_000)),
    Ask("POST", "/form", MULTIPART, [parts(b"x" * 100)[:50], parts(b"x" * 100)[50:]]),
    Ask("POST", "/json", JSON, b'{"a": [1, null]}'),
    Ask("POST", "/json", JSON, b"{"),
    Ask("POST", "/json", FORM, b"a=1"),
    Ask("POST", "/digest", {}, b"0123456789" * 50_000),
    Ask("POST", "/digest", {}, [b"y" * 50_000] * 4),
    Ask("POST", "/digest"),
    Ask("POST", "/unread", {}, b"ignored"),
    Ask("POST", "/login", FORM, b"user=anna"),
    Ask("GET", "/whoami"),
    Ask("GET", "/whoami"),
    Ask("GET", "/logout"),
    Ask("GET", "/whoami"),
    Ask("GET", "/folder"),
    Ask("GET", "/folder/"),
    Ask("GET", "/stream"),
    Ask("HEAD", "/stream"),
    Ask("GET", "/sized-stream"),
    Ask("GET", "/empty"),
    Ask("GET", "/cookies"),
    Ask("GET", "/teapot"),
    Ask("GET", "/boom"),
    Ask("GET", "/static/site.css"),
    Ask("HEAD", "/static/site.css"),
    Ask("GET", "/static/site.css", {"Range": "bytes=5-9"}),
    Ask("GET", "/static/site.css", {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}),
    Ask("GET", "/static/../wsgi_flask.py"),
    Ask("GET", "/write"),
]

DJANGO: Final[list[Ask]] = [
    Ask("GET", "/order/"),
    Ask("HEAD", "/order/"),
    Ask("DELETE", "/order/"),
    Ask("GET", "/order"),
    Ask("POST", "/order/", FORM, b"name=Anna&count=3"),
    Ask("POST", "/order/", FORM, b"name=much+too+long+a+name&count=0"),
    Ask("POST", "/order/", MULTIPART, parts(b"small", "note", name="x", count="1")),
    Ask("POST", "/order/", MULTIPART, parts(b"z" * 200_000, "note", "g.bin", name="Bert", count="2")),
    Ask("GET", "/visits/"),
    Ask("GET", "/visits/"),
    Ask("GET", "/leave/"),
    Ask("GET", "/visits/"),
    Ask("GET", "/stream/"),
    Ask("GET", "/download/"),
    Ask("HEAD", "/download/"),
    Ask("POST", "/body/", {"Content-Type": "text/plain"}, b"x" * 70_000),
    Ask("POST", "/read/", {"Content-Type": "text/plain"}, b"0123456789" * 30_000),
    Ask("GET", "/tagged/"),
    Ask("GET", "/tagged/", {"If-None-Match": '"fixed"'}),
    Ask("GET", "/info/a%2Fb/%C3%A4%20?x=1&x=2"),
    Ask("GET", "/static/site.css"),
    Ask("GET", "/static/site.css", {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}),
    Ask("GET", "/static/missing.css"),
    Ask("GET", "/boom/"),
    Ask("GET", "/large/"),
    Ask("GET", "/missing/"),
    Ask("GET", "/order/", {"Host": "evil.example"}),
]


class Browser:
    """A client that keeps its connection and its cookies."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self._cookies: dict[str, str] = {}

    def ask(self, ask: Ask) -> tuple[int, dict[str, list[str]], bytes]:
        """Return status, headers by lower-case name, and body."""
        connection = self._connection
        connection.putrequest(ask.method, ask.path, skip_host=True, skip_accept_encoding=True)
        headers = {"Host": "shop.example"} | ask.headers
        if self._cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        for name, text in headers.items():
            connection.putheader(name, text)
        if isinstance(ask.body, list):
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders(iter(ask.body), encode_chunked=True)
        else:
            if ask.body or ask.method == "POST":
                connection.putheader("Content-Length", str(len(ask.body)))
            connection.endheaders(ask.body or None)
        response = connection.getresponse()
        body = response.read()
        found: dict[str, list[str]] = {}
        for name, text in response.getheaders():
            found.setdefault(name.lower(), []).append(text)
        self._store(found.get("set-cookie", []))
        return response.status, found, body

    def _store(self, lines: list[str]) -> None:
        for line in lines:
            for name, morsel in SimpleCookie(line).items():
                if morsel["max-age"] == "0":
                    self._cookies.pop(name, None)
                elif morsel["path"] == "/":
                    self._cookies[name] = morsel.coded_value

    def close(self) -> None:
        self._connection.close()


@contextmanager
def gunicorn(target: str) -> Iterator[int]:
    """Run gunicorn with TARGET; the port it listens on."""
    with short_directory() as folder, (folder / "gunicorn.log").open("wb") as log:
        port = free_port()
        command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--no-control-socket", target]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(PYTHONHASHSEED="0", M2GATE_TEST_SHARED=str(folder)),
            stdout=log,
            stderr=log,
        )
        try:
            wait_until(lambda: accepts(port), "gunicorn listens", 20)
            yield port
        except BaseException:
            print((folder / "gunicorn.log").read_text(errors="replace"), file=sys.stderr)
            raise
        finally:
            stop_process(process)


@contextmanager
def both(module: str) -> Iterator[tuple[Browser, Browser]]:
    """Run a module's application under gunicorn and behind Mongrel2; a browser for each."""
    with (
        gunicorn(f"{module}:application") as port,
        mongrel2() as server,
        running(f"{module}:app", server, environ={"PYTHONHASHSEED": "0"}),
    ):
        browsers = Browser(port), Browser(server.port)
        yield browsers
        for browser in browsers:
            browser.close()


def without_time(cookie: str) -> str:
    """Of a signed cookie that has the time in it, leave everything but the value."""
    name, _, rest = cookie.partition("=")
    if name not in ("session", "sessionid"):
        return cookie
    value, _, attributes = rest.partition(";")
    kept = [one for one in attributes.split(";") if "expires" not in one]
    return f"{name}={'set' if value else 'unset'};{';'.join(kept)}"


@pytest.mark.checklist("mongrel2", 12)
def test_flask_as_under_gunicorn() -> None:
    with both("tests.system.wsgi_flask") as (other, ours):
        compare(FLASK, other, ours)


def test_django_as_under_gunicorn() -> None:
    with both("tests.system.wsgi_django") as (other, ours):
        compare(DJANGO, other, ours)


@pytest.fixture(scope="module")
def flask_port(shape: str) -> Iterator[int]:
    with mongrel2() as server, running("tests.system.wsgi_flask:app", server):
        yield server.port


def test_uploads_at_once_do_not_mix(flask_port: int) -> None:
    bodies = [random.Random(seed).randbytes(1_500_000 + seed) for seed in range(20)]

    def upload(body: bytes) -> bytes:
        browser = Browser(flask_port)
        answer = browser.ask(Ask("POST", "/digest", {}, body))[2]
        browser.close()
        return answer

    with ThreadPoolExecutor(len(bodies)) as pool:
        answers = [json.loads(answer) for answer in pool.map(upload, bodies)]
    assert answers == [{"size": len(body), "sha": hashlib.sha256(body).hexdigest()} for body in bodies]


def test_a_stream_ends_when_its_client_leaves(flask_port: int) -> None:
    browser = Browser(flask_port)
    before = int(browser.ask(Ask("GET", "/ended"))[2])
    with socket.create_connection(("127.0.0.1", flask_port), timeout=10) as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: shop.example\r\n\r\n")
        received = b""
        while b"line 3\n" not in received:
            received += client.recv(1_000)
        assert browser.ask(Ask("GET", "/ended"))[2] == b"%d" % before
    wait_until(lambda: browser.ask(Ask("GET", "/ended"))[2] == b"%d" % (before + 1), "the producer is closed", 2)
    browser.close()


def compare(table: list[Ask], other: Browser, ours: Browser) -> None:
    """Ask both the same, and report all differences at once."""
    differences = []
    for ask in table:
        expected, got = summary(other.ask(ask)), summary(ours.ask(ask))
        differences += [
            f"{ask.method} {ask.path}: {name}: {got.get(name)!r:.300}, not {expected.get(name)!r:.300}"
            for name in sorted({*expected, *got})
            if expected.get(name) != got.get(name)
        ]
    assert not differences, "\n".join(differences)


def summary(answer: tuple[int, dict[str, list[str]], bytes]) -> dict[str, object]:
    """Return what must be equal, by name."""
    status, headers, body = answer
    kept: dict[str, object] = {name: texts for name, texts in headers.items() if name not in NOT_COMPARED}
    kept["set-cookie"] = [without_time(text) for text in headers.get("set-cookie", [])]
    if not body and kept.get("content-length") == ["0"]:
        del kept["content-length"]  # one server says so, the other sends an empty chunk, or nothing with 304
    return kept | {"status": status, "body": body}
