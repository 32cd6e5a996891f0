"""The environ that a WSGI application gets (PEP 3333)."""

import sys
from collections.abc import Iterable
from typing import Any

import pytest

from m2gate import App, Request, TestClient
from tests.app.wsgi import PLAIN, Environ, StartResponse, mounted


def environ_of(path: str, prefix: str = "/", method: str = "GET", **options: Any) -> Environ:
    """Return the environ that an application on prefix gets."""
    seen: list[Environ] = []

    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ)
        start_response("200 OK", PLAIN)
        return [b"x"]

    settings = options.pop("settings", {})
    with TestClient(mounted(application, prefix, **settings), **options.pop("client", {})) as client:
        client.request(method, path, **options)
    return seen[0]


PATHS = [
    ("/", "/", "", "/"),
    ("/", "/a/b", "", "/a/b"),
    ("/legacy", "/legacy", "/legacy", ""),
    ("/legacy", "/legacy/", "/legacy", "/"),
    ("/legacy/", "/legacy/a%20b", "/legacy", "/a b"),
    ("/", "/%C3%A4%2F%FF", "", "/\xc3\xa4/\xff"),
    ("/", "//a", "", "//a"),
]


@pytest.mark.parametrize(("prefix", "path", "script_name", "path_info"), PATHS)
def test_paths(prefix: str, path: str, script_name: str, path_info: str) -> None:
    environ = environ_of(path, prefix)
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (script_name, path_info)


def test_script_name_counts_from_the_root() -> None:
    names: list[tuple[str, str]] = []

    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        names.append((environ["SCRIPT_NAME"], environ["PATH_INFO"]))
        start_response("200 OK", PLAIN)
        return [b"x"]

    outer = App()
    outer.mount("/outer", app=mounted(application, "/inner"))
    with TestClient(outer) as client:
        client.get("/outer/inner/page")
    assert names == [("/outer/inner", "/page")]


def test_environ() -> None:
    environ = environ_of(
        "/x?a=%20&b", method="POST", data=b"body", headers=[("Content-Type", "text/x"), ("X-One", "1"), ("X-One", "2")]
    )
    expected = {
        "REQUEST_METHOD": "POST",
        "QUERY_STRING": "a=%20&b",
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_TYPE": "text/x",
        "CONTENT_LENGTH": "4",
        "HTTP_X_ONE": "1,2",
        "HTTP_HOST": "testserver",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.errors": sys.stderr,
    }
    assert {name: environ.get(name) for name in expected} == expected
    assert isinstance(environ["m2gate.request"], Request)
    assert {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"}.isdisjoint(environ)


@pytest.mark.parametrize(
    ("host", "scheme", "name", "port"),
    [
        ("x.example", "http", "x.example", "80"),
        ("x.example:8080", "http", "x.example", "8080"),
        ("x.example", "https", "x.example", "443"),
        ("[::1]:81", "http", "[::1]", "81"),
        ("[::1]", "http", "[::1]", "80"),
        ("x:rubbish", "http", "x:rubbish", "80"),
        ("", "http", "localhost", "80"),
    ],
)
def test_server_name_and_port(host: str, scheme: str, name: str, port: str) -> None:
    environ = environ_of("/", client={"host": host, "scheme": scheme})
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"], environ["wsgi.url_scheme"]) == (name, port, scheme)


@pytest.mark.checklist("mongrel2", 12)
def test_names_that_would_pose_as_others_are_dropped() -> None:
    headers = {"X_Forwarded_For": "6.6.6.6", "Content_Length": "9", "Proxy": "http://evil", "X-Fine": "1"}
    environ = environ_of("/", headers=headers)
    assert {name for name in environ if name.startswith(("HTTP_", "CONTENT_"))} == {"HTTP_HOST", "HTTP_X_FINE"}


@pytest.mark.checklist("mongrel2", 6, 52)
def test_headers_of_the_server_are_not_in_the_environ() -> None:
    environ = environ_of("/", headers={"X-Mongrel2-Upload-Done": "/etc/passwd"})
    assert not [name for name in environ if "UPLOAD" in name or "CREDITS" in name or "PATTERN" in name]


def test_cookies_are_joined_as_cookies() -> None:
    assert environ_of("/", headers=[("Cookie", "a=1"), ("Cookie", "b=2")])["HTTP_COOKIE"] == "a=1; b=2"


def test_remote_addr_is_the_client_behind_trusted_proxies() -> None:
    environ = environ_of("/", settings={"trusted_proxies": ["127.0.0.1"]}, headers={"X-Forwarded-For": "1.2.3.4"})
    assert environ["REMOTE_ADDR"] == "1.2.3.4"
