"""Promises to handler authors, kept behind the real Mongrel2: bounds of mounts, holds, publishes, closing."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.system.support import ROOT, Mongrel2, mongrel2, running, wait_until

pytestmark = pytest.mark.core  # what a gateway could break first

APP = ROOT / "tests/system/apps/contract.py"
DEADLINE_S = 20.0


@pytest.fixture(scope="module")
def service(shape: str) -> Iterator[Mongrel2]:
    with mongrel2() as server, running(APP, server):
        yield server


def ask(server: Mongrel2, method: str, path: str, body: Any = None, **headers: str) -> http.client.HTTPResponse:
    """Send a request and return the response once its head is there; its body is still to be read."""
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    fields = {**headers, "Connection": "close"}  # so that the socket is closed together with the response
    client.request(method, path, body, fields, encode_chunked="Transfer-Encoding" in headers)
    return client.getresponse()


def publish(server: Mongrel2, **item: Any) -> int:
    answer = ask(server, "POST", "/publish", json.dumps(item), **{"Content-Type": "application/json"})
    matched: int = json.loads(answer.read())["matched"]
    return matched


@pytest.mark.parametrize(("path", "fits"), [("/size", 100), ("/in/size", 10)])
@pytest.mark.parametrize("headers", [{}, {"Transfer-Encoding": "chunked"}], ids=["declared", "chunked"])
def test_a_mounted_app_has_its_own_bound(service: Mongrel2, path: str, fits: int, headers: dict[str, str]) -> None:
    def body(length: int) -> Any:
        return iter([b"x" * length]) if headers else b"x" * length

    fitting = ask(service, "POST", path, body(fits), **headers)
    assert (fitting.status, json.loads(fitting.read())) == (200, {"size": fits})
    over = ask(service, "POST", path, body(fits + 1), **headers)
    assert (over.status, over.read()) == (413, b"the limit is %d bytes" % fits)


def test_the_detail_of_an_error_is_the_body(service: Mongrel2) -> None:
    answer = ask(service, "GET", "/refused")
    assert (answer.status, answer.read(), answer.headers["X-Reason"]) == (409, b"taken already", "name")
    head = ask(service, "HEAD", "/refused")
    assert (head.status, head.read(), head.headers["Content-Length"]) == (409, b"", "13")


def test_a_hold_that_nobody_answers_answers_itself(service: Mongrel2) -> None:
    answer = ask(service, "GET", "/late")
    assert (answer.status, json.loads(answer.read())) == (202, {"late": True})


def test_one_publish_reaches_every_kind_in_its_form(service: Mongrel2) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=DEADLINE_S) as waiting:
        waiting.sendall(b"GET /answer HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with ask(service, "GET", "/stream") as stream, ask(service, "GET", "/events") as events:
            assert stream.read(6) == b"begin\n"
            counts: list[int] = []
            formats = {"http-stream": "raw\n"}

            def has_all() -> bool:
                counts.append(publish(service, formats=formats))
                return counts[-1] == 2  # only streams, as formats says

            wait_until(has_all, "both streams are held", DEADLINE_S)
            response = {"code": 201, "headers": {"X-Kind": "whole"}, "body": "answered"}

            def is_answered() -> bool:
                item = {"http-stream": "again\n", "http-response": response}
                return publish(service, formats=item) == 3

            wait_until(is_answered, "the response hold is matched", DEADLINE_S)
            assert publish(service, data={"a": 1}, event="kind", id="7") == 2
            text = events_until(events, b'{"a":1}\n\n')
            assert text.endswith(b'event: kind\nid: 7\ndata: {"a":1}\n\n')
        with closing(http.client.HTTPResponse(waiting)) as answer:
            answer.begin()
            assert (answer.status, answer.headers["X-Kind"], answer.read()) == (201, "whole", b"answered")


def events_until(response: http.client.HTTPResponse, end: bytes) -> bytes:
    text = b""
    while not text.endswith(end):
        piece = response.read1()
        assert piece
        text += piece
    return text


def test_a_client_that_leaves_closes_the_generator(service: Mongrel2) -> None:
    with ask(service, "GET", "/endless") as stream:
        assert stream.read(3) == b"xxx"
    wait_until(lambda: json.loads(ask(service, "GET", "/seen").read()) == ["GeneratorExit"], "it is closed")
