"""Publishing from a process of one's own: where to, what is said when it fails, and that what was pushed leaves."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import zmq

import m2gate
from m2gate import BackendError, ConfigError, LimitReached, Publisher
from m2gate.app import publisher as module
from m2gate.inputs.publish_zmq import ITEM_MAX
from tests.system.processes import ROOT, environment, free_port, short_directory

RECEIPT = b'{"message": "Published", "receipt": [{"channel": "c", "matched": 3}]}'


class Input:
    """An HTTP input that answers as the test says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.status, self.answer = 200, RECEIPT
        self.requests: list[tuple[str, Any]] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                owner.requests.append((self.path, json.loads(body)))
                if owner.status:
                    self.send_response(owner.status)
                    self.send_header("Content-Length", str(len(owner.answer)))
                    self.end_headers()
                self.wfile.write(owner.answer)

            def log_message(self, *_: object) -> None:
                """Keep silent."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def http_input() -> Iterator[Input]:
    one = Input()
    thread = threading.Thread(target=one.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield one
    one.server.shutdown()
    thread.join()
    one.server.server_close()


@contextmanager
def pull_input(spec: str) -> "Iterator[zmq.Socket[bytes]]":
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        pull = context.socket(zmq.PULL)
        pull.rcvtimeo = 10_000
        pull.bind(spec)
        yield pull
    finally:
        context.destroy(linger=0)


# -- where to -----------------------------------------------------------------------------------------

GOOD = [
    "http://127.0.0.1:5561",
    "http://127.0.0.1:5561/",
    "http://127.0.0.1:5561/publish/",
    "http://[::1]:5561",
    "http://localhost",
    "tcp://127.0.0.1:5560",
    "tcp://[::1]:5560",
    "ipc:///run/items",
]
BAD = [
    "5561",
    "127.0.0.1:5561",
    "localhost:5561",
    "http://",
    "http://:5561",
    "http://127.0.0.1:0",
    "http://127.0.0.1:x",
    "http://127.0.0.1:70000",
    "http://127.0.0.1:5561/other",
    "http://127.0.0.1:5561/?receipt=1",
    "http://[::1",
    "https://127.0.0.1:5561",
    "tcp://127.0.0.1",
    "tcp://:5560",
    "ipc://",
    "ipc://relative",
    "inproc://x",
    "udp://127.0.0.1:1",
]


@pytest.mark.parametrize("url", GOOD)
def test_good_urls(url: str) -> None:
    assert Publisher(url).url == url


@pytest.mark.parametrize("url", BAD)
def test_bad_urls(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Publisher(url)
    assert str(caught.value).startswith(f"url = {url!r}: ")
    assert "use http://HOST:PORT" in str(caught.value)


def test_the_environment_says_where_to(monkeypatch: pytest.MonkeyPatch, http_input: Input) -> None:
    monkeypatch.delenv("M2GATE_PUBLISH", raising=False)
    assert Publisher().url == "http://127.0.0.1:5561"
    monkeypatch.setenv("M2GATE_PUBLISH", "")
    assert Publisher().url == "http://127.0.0.1:5561"
    monkeypatch.setenv("M2GATE_PUBLISH", "nowhere")
    with pytest.raises(ConfigError, match="M2GATE_PUBLISH = 'nowhere'"):
        Publisher()
    monkeypatch.setenv("M2GATE_PUBLISH", http_input.url)
    assert m2gate.publish("c", "x") == 3
    assert Publisher("tcp://127.0.0.1:5560").url == "tcp://127.0.0.1:5560"


BAD_SPECS = [
    pytest.param("tcp://*:5560", id="any-address"),
    pytest.param("ipc:///" + "x" * 200, id="long-path"),
]


@pytest.mark.parametrize("spec", BAD_SPECS)
def test_addresses_that_only_zeromq_refuses(spec: str) -> None:
    with Publisher(spec) as publisher:
        for _ in range(2):
            with pytest.raises(ConfigError, match=r"url = .*; use http://HOST:PORT"):
                publisher.publish("c", "x")


# -- over HTTP ----------------------------------------------------------------------------------------


def test_what_is_posted(http_input: Input) -> None:
    publisher = Publisher(http_input.url)
    formats = {
        "http-stream": b"\0",
        "ws-message": "M",
        "http-response": {"code": 404, "headers": {"X-A": "b"}, "body": "R"},
    }
    assert publisher.publish("c", {"n": [1]}, event="e", id="2", prev_id="1", formats=formats) == 3
    assert publisher.publish("c", b"\xff") == 3
    assert http_input.requests == [
        (
            "/publish/?receipt=1",
            {
                "items": [
                    {
                        "channel": "c",
                        "id": "2",
                        "prev-id": "1",
                        "formats": {
                            "http-stream": {"content-bin": "AA=="},
                            "ws-message": {"content": "M"},
                            "http-response": {"code": 404, "headers": [["X-A", "b"]], "body-bin": "Ug=="},
                            "m2gate": {"json": {"n": [1]}, "event": "e"},
                        },
                    }
                ]
            },
        ),
        ("/publish/?receipt=1", {"items": [{"channel": "c", "formats": {"m2gate": {"content-bin": "/w=="}}}]}),
    ]


ANSWERS = [
    pytest.param(500, b"", BackendError, r"http://127\.0\.0\.1:\d+: 500: $", id="500"),
    pytest.param(503, b"too many wait\n", BackendError, r": 503: too many wait$", id="503"),
    pytest.param(403, b"Browsers may not\n", BackendError, r": 403: Browsers may not$", id="403"),
    pytest.param(302, b"\xff", BackendError, r": 302: \ufffd$", id="redirect"),
    pytest.param(400, b"Invalid format: no\n", ValueError, r"^Invalid format: no$", id="400"),
    pytest.param(200, b"Published\n", BackendError, "no receipt in the answer", id="no-json"),
    pytest.param(200, b"[]", BackendError, "no receipt in the answer", id="list"),
    pytest.param(200, b'{"receipt": []}', BackendError, "no receipt in the answer", id="no-receipt"),
    pytest.param(200, b'{"receipt": [{"matched": null}]}', BackendError, "no receipt in the answer", id="no-count"),
    pytest.param(0, b"SSH-2.0\r\n", BackendError, "nobody takes items there: .*is --publish-http given", id="no-http"),
    pytest.param(0, b"", BackendError, "nobody takes items there", id="closed"),
]


@pytest.mark.parametrize(("status", "answer", "kind", "text"), ANSWERS)
def test_what_is_answered(http_input: Input, status: int, answer: bytes, kind: type[Exception], text: str) -> None:
    http_input.status, http_input.answer = status, answer
    with pytest.raises(kind, match=text) as caught:
        Publisher(http_input.url).publish("c", "x")
    assert type(caught.value) is kind


def test_an_answer_without_end_is_not_read_on(http_input: Input, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_MAX", 20)
    http_input.status, http_input.answer = 500, b"x" * 1_000
    with pytest.raises(BackendError) as caught:
        Publisher(http_input.url).publish("c", "x")
    assert str(caught.value).endswith(": 500: " + "x" * 20)


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match="nobody takes items there"):
        Publisher(f"http://127.0.0.1:{free_port()}").publish("c", "x")
    with pytest.raises(BackendError, match="nobody takes items there"):
        Publisher("http://" + "x" * 70).publish("c", "x")
    monkeypatch.setattr(module, "TIMEOUT_S", 0.1)
    silent = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    with silent, pytest.raises(BackendError, match="nobody takes items there: timed out"):
        Publisher(f"http://127.0.0.1:{silent.server_port}").publish("c", "x")


MISTAKES: list[Any] = [
    pytest.param({}, TypeError, "an item needs data or formats", id="nothing"),
    pytest.param({"data": 5}, TypeError, "data is str, bytes, dict or list, not int", id="int"),
    pytest.param({"data": "x", "id": 5}, TypeError, "id = 5: must be str", id="id"),
    pytest.param({"data": "x", "event": 5}, TypeError, "event = 5: must be str", id="event"),
    pytest.param({"data": "x", "prev_id": 5}, TypeError, "prev_id = 5: must be str", id="prev-id"),
    pytest.param({"data": "x", "event": "a\nb"}, ValueError, "line end", id="line-end"),
    pytest.param({"data": [float("nan")]}, ValueError, "JSON", id="nan"),
    pytest.param({"formats": {"other": "x"}}, ValueError, "unknown key 'other'", id="format"),
    pytest.param({"formats": {"http-response": {"headers": {"a": "b\n"}}}}, ValueError, "header 'a'", id="header"),
]


@pytest.mark.parametrize(("arguments", "kind", "text"), MISTAKES)
def test_mistakes_are_told_before_anything_is_sent(
    http_input: Input, arguments: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        Publisher(http_input.url).publish("c", **arguments)
    assert http_input.requests == []


# -- over ZeroMQ --------------------------------------------------------------------------------------


def test_what_is_pushed() -> None:
    with short_directory() as folder, pull_input(f"ipc://{folder}/items") as pull:
        with Publisher(f"ipc://{folder}/items") as publisher:
            assert publisher.publish("c", "x", id="1") is None
            assert publisher.publish("c", "y") is None
        assert [pull.recv(), pull.recv()] == [
            b'J{"channel": "c", "formats": {"m2gate": {"content": "x"}}, "id": "1"}',
            b'J{"channel": "c", "formats": {"m2gate": {"content": "y"}}}',
        ]
        publisher.close()
        assert publisher.publish("c", "after a close") is None  # opens it anew
        publisher.close()
        assert b"after a close" in pull.recv()


def test_an_item_that_the_input_would_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.PUSH_MAX == ITEM_MAX
    monkeypatch.setattr(module, "PUSH_MAX", 100)
    publisher = Publisher(f"tcp://127.0.0.1:{free_port()}")
    with pytest.raises(LimitReached, match=r"bytes of an item: \d+ is over the limit of 100"):
        publisher.publish("c", "x" * 100)


def test_nobody_pulls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.05)
    publisher = Publisher(f"tcp://127.0.0.1:{free_port()}")
    with publisher, pytest.raises(BackendError, match=r"nobody takes items there; is --publish-pull given\?"):
        publisher.publish("c", "x")


def test_who_waits_is_served_when_somebody_comes() -> None:
    spec = f"tcp://127.0.0.1:{free_port()}"
    done: list[object] = []

    def publish() -> None:
        with Publisher(spec) as publisher:
            done.append(publisher.publish("c", "x"))

    thread = threading.Thread(target=publish)
    thread.start()
    with pull_input(spec) as pull:
        assert pull.recv().startswith(b"J{")
    thread.join()
    assert done == [None]


@pytest.mark.parametrize("close", ["with", "nothing"])
def test_a_script_that_ends_at_once_has_delivered(close: str, tmp_path: Path) -> None:
    count = 500
    publish = f"for n in range({count}): publisher.publish('c', str(n) + 'x' * 10_000)"
    with short_directory() as folder, pull_input(f"ipc://{folder}/items") as pull:
        code = f"from m2gate import Publisher\npublisher = Publisher('ipc://{folder}/items')\n"
        code += f"with publisher:\n {publish}" if close == "with" else publish
        done = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment(), stderr=subprocess.PIPE)
        numbers = [int(json.loads(pull.recv()[1:])["formats"]["m2gate"]["content"].rstrip("x")) for _ in range(count)]
        _, errors = done.communicate(timeout=30)
    assert (numbers, done.returncode, errors) == (list(range(count)), 0, b"")
