"""WebSockets through the real Mongrel2, with clients of others and with one that breaks the rules."""

import json
import os
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets import Subprotocol
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from tests.system.processes import ROOT
from tests.system.raw_socket import RawSocket, masked
from tests.system.support import Mongrel2, Served, mongrel2, running, wait_until

pytestmark = pytest.mark.core  # what a gateway could break first

APP = ROOT / "tests/system/apps/sockets.py"
SIZES = [0, 125, 126, 65_535, 65_536, 1_000_000]
KIB = 1024


@pytest.fixture(scope="module")
def service(shape: str) -> Iterator[tuple[Mongrel2, Served]]:
    with mongrel2() as server, running(APP, server, drain_timeout_s=1) as worker:
        yield server, worker


@pytest.fixture
def port(service: tuple[Mongrel2, Served]) -> int:
    return service[0].port


def open_socket(port: int, path: str, subprotocols: list[Subprotocol] | None = None) -> ClientConnection:
    url = f"ws://127.0.0.1:{port}{path}"
    return connect(url, max_size=None, compression=None, subprotocols=subprotocols, open_timeout=30)


def closes(port: int) -> list[int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/closed", timeout=10) as answer:
        return list(json.load(answer))


@pytest.mark.checklist("mongrel2", 58)
@pytest.mark.parametrize("size", SIZES)
def test_echo_of_text_and_binary(port: int, size: int) -> None:
    with open_socket(port, "/echo") as ws:
        for message in ("x" * size, b"\xff" * size):
            ws.send(message)
            assert ws.recv(timeout=10) == message


def test_fragments_are_one_message(port: int) -> None:
    with open_socket(port, "/echo") as ws:
        ws.send(["one ", "two ", "three"])
        assert ws.recv(timeout=10) == "one two three"
        ws.send([b"a", b"b"])
        assert ws.recv(timeout=10) == b"ab"


@pytest.mark.checklist("mongrel2", 55)
def test_ping_is_answered_with_its_payload(port: int) -> None:
    with open_socket(port, "/echo") as ws:
        assert ws.ping(b"payload").wait(timeout=10)
    with RawSocket(port, "/echo") as raw:
        raw.send(masked(0x89, b"x" * 125))
        # The 101 goes out at the first receive; a ping is answered behind it.
        assert raw.receive() == (0x8A, b"x" * 125)


def test_close_by_the_client(port: int) -> None:
    before = len(closes(port))
    with RawSocket(port, "/echo") as raw:
        raw.send(masked(0x88, (4002).to_bytes(2, "big") + b"mine"))
        assert raw.receive_close() == 4002
    # Handlers of connections that earlier tests left may end in between.
    wait_until(lambda: closes(port)[before:].count(4002) == 1, "the handler sees the close code")


def test_close_by_the_handler(port: int) -> None:
    with open_socket(port, "/bye") as ws, pytest.raises(ConnectionClosed) as closed:
        ws.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "bye")


def test_return_closes_with_1000_and_exception_with_1011(port: int) -> None:
    with open_socket(port, "/return") as ws:
        assert ws.recv(timeout=10) == "only this"
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1000
    with open_socket(port, "/fail") as ws:
        ws.send("go")
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011


def test_handler_ping_reaches_the_client(port: int) -> None:
    with RawSocket(port, "/ping") as raw:
        assert raw.receive() == (0x89, b"are you there")


def test_receive_timeout(port: int) -> None:
    with open_socket(port, "/timeout") as ws:
        assert ws.recv(timeout=10) == "timeout"


def test_parameters_and_subprotocol(port: int) -> None:
    with open_socket(port, "/room/blue/41", subprotocols=[Subprotocol("x")]) as ws:
        assert ws.recv(timeout=10) == "blue 42 None"
    with open_socket(port, "/echo", subprotocols=[Subprotocol("one"), Subprotocol("two")]) as ws:
        assert ws.subprotocol == "two"  # the server's preference


@pytest.mark.checklist("mongrel2", 53)
@pytest.mark.parametrize(
    ("path", "extra", "version", "expected"),
    [
        pytest.param("/echo", "", "99", (426, "Sec-WebSocket-Version: 13"), id="version"),
        pytest.param("/echo", "Origin: http://evil.example\r\n", "13", (403, ""), id="foreign-origin"),
        pytest.param("/echo", "Origin: http://localhost.evil.example\r\n", "13", (403, ""), id="origin-prefix"),
        pytest.param("/echo", "Origin: null\r\n", "13", (403, ""), id="null-origin"),
        pytest.param("/refuse", "", "13", (401, ""), id="handler-refuses"),
        pytest.param("/nowhere", "", "13", (404, ""), id="unknown-path"),
        pytest.param("/closed", "", "13", (405, "Allow: GET"), id="no-websocket-there"),
    ],
)
def test_refused_handshakes(port: int, path: str, extra: str, version: str, expected: tuple[int, str]) -> None:
    status, header = expected
    with RawSocket(port, path, extra=extra, version=version) as raw:
        assert raw.status == status
        assert header in raw.head
        assert "Connection: close" in raw.head


@pytest.mark.parametrize("origin", ["http://localhost", "https://friend.example", "HTTPS://Friend.Example"])
def test_accepted_origins(port: int, origin: str) -> None:
    with RawSocket(port, "/return", extra=f"Origin: {origin}\r\n") as raw:
        assert raw.status == 101
        assert raw.receive() == (0x81, b"only this")


def test_refusal_through_a_library(port: int) -> None:
    with pytest.raises(InvalidStatus) as refused, open_socket(port, "/refuse"):
        pass
    assert refused.value.response.status_code == 401


VIOLATIONS = [
    pytest.param(masked(0x81, b"\xff\xfe"), 1007, id="text-no-utf8"),
    pytest.param(masked(0x83, b"x"), 1002, id="unknown-opcode"),
    pytest.param(masked(0x8B, b""), 1002, id="unknown-control-opcode"),
    pytest.param(masked(0xC1, b"x"), 1002, id="reserved-bit"),
    pytest.param(masked(0x88, b"x"), 1002, id="close-of-one-byte"),
    pytest.param(masked(0x88, (1005).to_bytes(2, "big")), 1002, id="close-code-that-may-not-be-sent"),
    pytest.param(masked(0x88, (1000).to_bytes(2, "big") + b"\xff"), 1007, id="close-reason-no-utf8"),
    pytest.param(masked(0x82, b"x" * (4096 * KIB + 1)), 1009, id="over-4-MiB"),
]


@pytest.mark.checklist("mongrel2", 54, 56)
@pytest.mark.parametrize(("frame", "code"), VIOLATIONS)
def test_violations_get_their_close_code(port: int, frame: bytes, code: int) -> None:
    with RawSocket(port, "/echo") as raw:
        assert raw.status == 101
        raw.send(frame)
        assert raw.receive_close() == code
    with open_socket(port, "/echo") as ws:
        ws.send("next")
        assert ws.recv(timeout=10) == "next"


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"\x81\x01x", id="unmasked"),
        pytest.param(masked(0x80, b"x"), id="stray-continuation"),
        pytest.param(masked(0x01, b"a") + masked(0x81, b"b"), id="new-message-inside-a-fragmented-one"),
        pytest.param(masked(0x09, b""), id="fragmented-ping"),
        pytest.param(masked(0x89, b"x" * 126), id="ping-of-126-bytes"),
    ],
)
def test_what_mongrel2_itself_cuts(port: int, frame: bytes) -> None:
    before = len(closes(port))
    with RawSocket(port, "/echo") as raw:
        raw.send(frame)
        raw.expect_end()
    wait_until(lambda: closes(port)[before:] == [1006], "the handler is told")


@pytest.mark.checklist("mongrel2", 57)
def test_frames_before_the_101_wait_and_those_after_the_close_do_not_count(port: int) -> None:
    eager = b"".join(masked(0x81, f"early {i}".encode()) for i in range(5))
    with RawSocket(port, "/late", eager=eager) as raw:
        assert [raw.receive() for _ in range(5)] == [(0x81, f"early {i}".encode()) for i in range(5)]
        raw.send(masked(0x88, (1000).to_bytes(2, "big")) + masked(0x81, b"after"))
        assert raw.receive_close() == 1000


def test_a_client_faster_than_its_handler_is_closed_with_1013(port: int) -> None:
    with RawSocket(port, "/slow") as raw:
        raw.send(masked(0x81, b"x") * 257)
        assert raw.receive_close() == 1013


def test_unread_bytes_have_a_bound_as_well(port: int) -> None:
    with RawSocket(port, "/slow") as raw:
        raw.send(masked(0x82, b"x" * (600 * KIB)) * 3)
        assert raw.receive_close() == 1013


def test_five_hundred_connections_keep_their_order(port: int) -> None:
    """500 connections at once, each with 100 messages under way in order."""
    failures: list[str] = []
    barrier = threading.Barrier(50)

    def talk(number: int) -> None:
        try:
            with ExitStack() as stack:
                sockets = [stack.enter_context(open_socket(port, "/echo")) for _ in range(10)]
                barrier.wait(60)
                for turn in range(10):
                    for i, ws in enumerate(sockets):
                        for k in range(10):
                            ws.send(f"{number} {i} {turn * 10 + k}")
                    for i, ws in enumerate(sockets):
                        got = [ws.recv(timeout=30) for _ in range(10)]
                        if got != [f"{number} {i} {turn * 10 + k}" for k in range(10)]:
                            failures.append(f"{number} {i} {got}")
        except (OSError, TimeoutError, WebSocketException, threading.BrokenBarrierError) as error:
            failures.append(repr(error))
            barrier.abort()

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []


def test_npm_ws(port: int) -> None:
    modules = Path(os.environ.get("M2GATE_NODE_MODULES", ROOT / "node_modules"))
    assert (modules / "ws/package.json").is_file(), f"npm package ws is missing in {modules}; run scripts/test"
    done = subprocess.run(
        ["node", str(ROOT / "tests/system/ws_client.mjs"), f"ws://127.0.0.1:{port}/echo"],
        env={**os.environ, "M2GATE_NODE_MODULES": str(modules)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout) == {"same": True, "count": 13, "pongs": 1, "code": 1000, "protocol": "one"}
