"""Requests as handlers see them, in both header protocols of the real Mongrel2."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from m2gate.site.records import Protocol
from tests.system.processes import ROOT
from tests.system.support import Mongrel2, mongrel2, running
from tests.system.test_hostile import exchange, get, is_complete, post, status_of

pytestmark = pytest.mark.core  # what a gateway could break first

APP = ROOT / "tests/system/apps/mirror.py"
PROTOCOLS: tuple[Protocol, ...] = ("tnetstring", "json")


@pytest.fixture(scope="module", params=PROTOCOLS)
def server(request: pytest.FixtureRequest, shape: str) -> Iterator[Mongrel2]:
    with mongrel2(protocol=request.param) as one, running(APP, one):
        yield one


def seen(server: Mongrel2, request: bytes) -> dict[str, Any]:
    """Send request; return what its handler saw."""
    answer = exchange(server.port, request)
    assert status_of(answer) == 200, answer
    return dict(json.loads(answer.partition(b"\r\n\r\n")[2]))


def values(document: dict[str, Any], name: str) -> list[str]:
    return [value for field, value in document["headers"] if field == name]


def test_a_plain_request(server: Mongrel2) -> None:
    found = seen(server, get("/mirror/a/b/c?x=1&x=2", "Cookie: k=v; l=w"))
    expected = {
        "method": "GET",
        "first": "a",
        "rest": "b/c",
        "path": "/mirror/a/b/c",
        "query": [["x", "1"], ["x", "2"]],
        "cookies": {"k": "v", "l": "w"},
        "host": "localhost",
        "url": "http://localhost/mirror/a/b/c?x=1&x=2",
        "scheme": "http",
        "client": "127.0.0.1",
        "http_version": "1.1",
        "server": "test-1",
        "connected": True,
        "body": "",
    }
    assert {key: found[key] for key in expected} == expected


@pytest.mark.checklist("mongrel2", 2)
def test_a_body_of_all_bytes_arrives_unchanged(server: Mongrel2) -> None:
    body = bytes(range(256)) + b" ,\r\n\0}] 5:hello," * 3
    assert seen(server, post("/mirror/a/b", body))["body"].encode("latin-1") == body


@pytest.mark.checklist("mongrel2", 3, 4)
def test_header_values_are_latin_1(server: Mongrel2) -> None:
    found = seen(server, get("/mirror/a/b", "X-Bytes: \xff\xfe", "X-Tab: a\tb"))
    assert values(found, "x-bytes") == ["\xff\xfe"]
    assert values(found, "x-tab") == ["a\tb"]


@pytest.mark.checklist("mongrel2", 5)
def test_repeated_headers_are_several_values(server: Mongrel2) -> None:
    found = seen(server, get("/mirror/a/b", "X-Two: one", "X-One: only", "X-Two: two"))
    assert values(found, "x-two") == ["one", "two"]
    assert values(found, "x-one") == ["only"]


@pytest.mark.checklist("mongrel2", 6, 16)
def test_mongrel2s_own_keys_and_credits_are_not_headers(server: Mongrel2) -> None:
    request = get("/mirror/a/b", "Method: x", "X-Mongrel2-Upload-Start: /tmp/x")
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        for _ in range(3):  # credits come back between these
            client.sendall(request)
            answer = b""
            while not is_complete(answer):
                answer += client.recv(65_536)
            names = {name for name, _ in json.loads(answer.partition(b"\r\n\r\n")[2])["headers"]}
            assert names == {"host", "method"}


@pytest.mark.checklist("mongrel2", 7)
@pytest.mark.parametrize(
    ("target", "text", "url"),
    [
        ("/mirror/a/b", "", "http://localhost/mirror/a/b"),
        ("/mirror/a/b?", "", "http://localhost/mirror/a/b"),
        ("/mirror/a/b?q", "q", "http://localhost/mirror/a/b?q"),
    ],
)
def test_missing_and_empty_query(server: Mongrel2, target: str, text: str, url: str) -> None:
    found = seen(server, get(target))
    assert (found["query_string"], found["url"]) == (text, url)


@pytest.mark.checklist("mongrel2", 8)
def test_paths_are_cut_before_they_are_unquoted(server: Mongrel2) -> None:
    found = seen(server, get("/mirror/a%2Fb%20c/d%2Fe/%C3%A4"))
    assert (found["first"], found["rest"]) == ("a/b c", "d/e/\u00e4")
    assert found["raw_path"] == "/mirror/a%2Fb%20c/d%2Fe/%C3%A4"
    assert found["path"] == "/mirror/a/b c/d/e/\u00e4"


@pytest.mark.checklist("mongrel2", 12)
def test_headers_with_underscores_keep_their_name(server: Mongrel2) -> None:
    found = seen(server, get("/mirror/a/b", "X_Under: 1", "X-Under: 2"))
    assert (values(found, "x_under"), values(found, "x-under")) == (["1"], ["2"])


@pytest.mark.checklist("mongrel2", 23)
def test_text_is_encoded_before_its_length_is_taken(server: Mongrel2) -> None:
    answer = exchange(server.port, get("/unicode"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body == "gr\u00fc\u00dfe \u2603 \U0001f600".encode()
    assert f"Content-Length: {len(body)}".encode() in head


@pytest.mark.checklist("mongrel2", 36)
def test_an_answer_larger_than_the_window_is_split(server: Mongrel2) -> None:
    answer = exchange(server.port, get("/large"))
    assert answer.endswith(b"\r\n\r\n" + b"x" * 300_000)


def test_http_1_0_and_a_request_without_host(server: Mongrel2) -> None:
    answer = exchange(server.port, b"GET /mirror/a/b HTTP/1.0\r\n\r\n")
    assert b"Connection: close" in answer
    found = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (found["http_version"], found["host"]) == ("1.0", "")
