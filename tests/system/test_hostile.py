"""What hostile clients send through the real Mongrel2: the right answer, one line of log, and life goes on."""

import json
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import zmq

from m2gate.wire.mongrel2 import HeaderValue, Request
from tests.system.processes import ROOT
from tests.system.support import Mongrel2, Served, mongrel2, running, wait_until
from tests.wire.frames import build_message

APP = ROOT / "tests/system/apps/hostile.py"
CLOSED = 0  # instead of a status: the connection ends without an answer


@dataclass(frozen=True)
class Case:
    """One request as bytes, and the statuses that it may have; ``absent`` must not be in the answer."""

    name: str
    request: bytes
    statuses: tuple[int, ...]
    absent: bytes = b"Evil"
    present: bytes = b""
    marks: tuple[pytest.MarkDecorator, ...] = field(default=())


def get(target: str, *headers: str, version: str = "1.1") -> bytes:
    lines = [f"GET {target} HTTP/{version}", "Host: localhost", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def post(target: str, body: bytes, *headers: str, length: str | None = None) -> bytes:
    lines = [f"POST {target} HTTP/1.1", "Host: localhost", *headers]
    if length != "":
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def multipart(*parts: bytes) -> bytes:
    return b"".join(b"--B\r\n" + part + b"\r\n" for part in parts) + b"--B--\r\n"


def part(name: str, content: bytes, filename: str = "") -> bytes:
    extra = f'; filename="{filename}"' if filename else ""
    return f'Content-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + content


FORM = "Content-Type: multipart/form-data; boundary=B"
URLENCODED = "Content-Type: application/x-www-form-urlencoded"
JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"
CHECK_13 = (pytest.mark.checklist("mongrel2", 13),)
CHECK_14 = (pytest.mark.checklist("mongrel2", 14),)
CHECK_27 = (pytest.mark.checklist("mongrel2", 27),)
SMUGGLED = b"GET /ok HTTP/1.1\r\nHost: localhost\r\n\r\n"

CASES = [
    # Smuggling: two lengths, or none that can be trusted.
    Case("te-and-cl", post("/echo/x", b"0\r\n\r\n", CHUNKED), (400,), marks=CHECK_13),
    Case("cl-and-te-smuggled", post("/echo/x", b"0\r\n\r\n" + SMUGGLED, CHUNKED), (400,), b"ok\n", marks=CHECK_13),
    Case("te-chunked-upper", post("/echo/x", b"", "Transfer-Encoding: Chunked", length=""), (400,)),
    Case("te-identity", post("/echo/x", b"", "Transfer-Encoding: identity", length=""), (400,)),
    Case("te-list", post("/echo/x", b"", "Transfer-Encoding: gzip, chunked", length=""), (400,)),
    Case("te-twice", post("/echo/x", b"0\r\n\r\n", CHUNKED, CHUNKED, length=""), (400, CLOSED)),
    Case("te-xchunked", post("/echo/x", b"", "Transfer-Encoding: xchunked", length=""), (400,)),
    Case("te-space", post("/echo/x", b"", "Transfer-Encoding : chunked", length=""), (400,)),
    Case("cl-twice-same", post("/echo/x", b"hello", "Content-Length: 5"), (400,), marks=CHECK_14),
    Case("cl-twice-different", post("/echo/x", b"hello", "Content-Length: 3"), (400,), marks=CHECK_14),
    Case("cl-list", post("/echo/x", b"hello", length="5, 5"), (400,), marks=CHECK_14),
    Case("cl-negative", post("/echo/x", b"", length="-5"), (400,), marks=CHECK_14),
    Case("cl-plus", post("/echo/x", b"hello", length="+5"), (400,), marks=CHECK_14),
    Case("cl-hex", post("/echo/x", b"", length="0x5"), (400,), marks=CHECK_14),
    Case("cl-text", post("/echo/x", b"", length="five"), (400,), marks=CHECK_14),
    Case("cl-empty", post("/echo/x", b"", length=" "), (400,)),
    Case("cl-huge", post("/echo/x", b"", length="99999999999999999999"), (400,), marks=CHECK_14),
    Case("cl-over-int", post("/echo/x", b"", length="2147483648"), (400,), marks=CHECK_14),
    Case("cl-float", post("/echo/x", b"hello", length="5.0"), (400,), marks=CHECK_14),
    Case("body-over-limit", post("/echo/x", b"", length=str(200 << 20)), (413,)),
    Case("body-over-memory", post("/echo/x", b"x" * (2 << 20)), (413,)),
    Case("chunk-bad-size", post("/echo/x", b"zzzzzzzzzz\r\nhello\r\n0\r\n\r\n", CHUNKED, length=""), (CLOSED, 400)),
    Case("chunk-too-large", post("/echo/x", b"fffffff\r\n", CHUNKED, length=""), (CLOSED, 400)),
    Case(
        "chunk-long-extension",
        post("/echo/x", b"5;aaaaaaaaaaaaaa\r\nhello\r\n0\r\n\r\n", CHUNKED, length=""),
        (CLOSED,),
    ),
    # Request lines and heads.
    Case("header-64k", get("/ok", "X-Big: " + "x" * 65_536), (400, CLOSED)),
    Case("headers-5000", get("/ok", *[f"X-{n}: 1" for n in range(5_000)]), (400, CLOSED)),
    Case("path-64k", get("/echo/" + "x" * 65_536), (400, CLOSED)),
    Case("folded-header", get("/ok", "X-A: 1", " folded"), (400,)),
    Case("nul-in-header", get("/ok", "X-A: a\0b"), (400,)),
    Case("control-in-header", get("/ok", "X-A: a\x01b"), (200,)),
    Case("space-in-header-name", get("/ok", "X A: 1"), (400,)),
    Case("version-2", get("/ok", version="2.0"), (400,)),
    Case("version-0.9", b"GET /ok\r\n\r\n", (400,)),
    Case("garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 5 + b"\r\n\r\n", (400,)),
    Case("method-lower", b"get /ok HTTP/1.1\r\nHost: localhost\r\n\r\n", (400,)),
    Case("method-unknown", b"BREW /ok HTTP/1.1\r\nHost: localhost\r\n\r\n", (405,)),
    Case("method-json", b"JSON /ok HTTP/1.1\r\nHost: localhost\r\n\r\n", (405,)),
    Case("method-xml", b"XML /ok HTTP/1.1\r\nHost: localhost\r\n\r\n", (405,)),
    Case("method-websocket", b"WEBSOCKET /ok HTTP/1.1\r\nHost: localhost\r\n\r\n", (405,)),
    Case("trace", b"TRACE /ok HTTP/1.1\r\nHost: localhost\r\n\r\n", (405,)),
    Case("connect", b"CONNECT example.com:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", (404, 400)),
    Case("absolute-target", b"GET http://evil.example/ok HTTP/1.1\r\nHost: localhost\r\n\r\n", (404,)),
    Case("asterisk", b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", (404,)),
    Case("expect-unknown", post("/echo/x", b"hello", "Expect: 200-ok"), (417,)),
    # Paths, queries, cookies.
    Case("path-bad-utf8", get("/echo/%ff%fe"), (400,)),
    Case("path-nul", get("/echo/a%00b"), (400,)),
    Case("path-bad-percent", get("/echo/%zz"), (400,)),
    Case("path-traversal", get("/echo/../../etc/passwd"), (200, 404), b"root:"),
    Case("path-encoded-traversal", get("/echo/%2e%2e%2f%2e%2e%2fetc%2fpasswd"), (200,), b"root:"),
    Case("path-backslash", get("/echo/a\\b"), (400,)),
    Case("path-raw-utf8", get("/echo/\xc3\xa4"), (400,)),
    Case("int-overflow", get("/int/" + "9" * 400), (404,)),
    Case("int-unicode-digits", get("/int/%D9%A3"), (404,)),
    Case("query-bad-utf8", get("/echo/x?a=%ff"), (200,), present=b'{"a":["\xef\xbf\xbd"]}'),
    Case("query-many-fields", get("/echo/x?" + "a&" * 7_000), (200, 400)),
    Case("cookie-bad-utf8", get("/echo/x", "Cookie: a=\xff\xfe; b=2"), (200,), present=b'"b":"2"'),
    Case("cookie-junk", get("/echo/x", 'Cookie: ;;;=;a==;"=\\"; $Path=/'), (200,)),
    # Headers that only Mongrel2 or a proxy may set.
    Case("forged-method", get("/echo/x", "METHOD: JSON", "PATTERN: /x", "REMOTE_ADDR: 9.9.9.9"), (200,), b"9.9.9.9"),
    Case("forged-xff", get("/echo/x", "X-Forwarded-For: 9.9.9.9"), (200,), b"9.9.9.9"),
    Case("forged-credits", get("/echo/x", "DOWNLOAD_CREDITS: 999999999"), (200,)),
    Case("forged-upload-stream", get("/echo/x", "UPLOAD_STREAM: 0", "UPLOAD_STREAM_DONE: 1"), (200,)),
    Case(
        "forged-upload-file",
        post("/echo/x", b"hello", "X-Mongrel2-Upload-Start: /etc/passwd", "X-Mongrel2-Upload-Done: /etc/passwd"),
        (200,),
        b"upload",
        b'"size":5',
    ),
    # Injection through what a handler does with a client's data.
    Case("inject-header-crlf", get("/header?v=a%0d%0aEvil:%201"), (500,), b"\r\nEvil", marks=CHECK_27),
    Case("inject-header-lf", get("/header?v=a%0aEvil:%201"), (500,), b"\nEvil", marks=CHECK_27),
    Case("inject-header-nul", get("/header?v=a%00b"), (500,), b"\0", marks=CHECK_27),
    Case("inject-header-name", get("/name?v=X%0d%0aEvil:%201%0d%0aY"), (500,), b"\r\nEvil", marks=CHECK_27),
    Case("inject-header-unicode", get("/header?v=%E2%98%83"), (500,)),
    Case(
        "inject-cookie",
        get("/cookie?v=a%0d%0aSet-Cookie:%20Evil=1"),
        (200, 500),
        b"\r\nSet-Cookie: Evil",
        marks=CHECK_27,
    ),
    Case("inject-location", get("/redirect?v=/x%0d%0aEvil:%201"), (302, 500), b"\r\nEvil", marks=CHECK_27),
    Case("inject-content-type", get("/type?v=text/html%0d%0aEvil:%201"), (500,), b"\r\nEvil", marks=CHECK_27),
    Case("inject-status", get("/status?v=99999"), (500,)),
    Case("inject-status-negative", get("/status?v=-200"), (500,)),
    # Bombs.
    Case("json-deep", post("/json", b"[" * 60_000, JSON), (400,)),
    Case("json-deep-closed", post("/json", b"[" * 30_000 + b"]" * 30_000, JSON), (400,)),
    Case("json-digits", post("/json", b"9" * 60_000, JSON), (400,)),
    Case("json-bad-utf8", post("/json", b'"\xff\xfe"', JSON), (400,)),
    Case("json-nul", post("/json", b"\0", JSON), (400,)),
    Case("json-empty", post("/json", b"", JSON), (400,)),
    Case("json-as-text", post("/json", b"{}", "Content-Type: text/plain"), (415,)),
    Case("json-large", post("/json", b'"' + b"x" * (2 << 20) + b'"', JSON), (413,)),
    Case("form-as-json", post("/form", b"{}", JSON), (415,)),
    Case("form-fields", post("/form", b"a&" * 500_000, URLENCODED), (413,)),
    Case("form-large", post("/form", b"a=" + b"x" * (2 << 20), URLENCODED), (413,)),
    Case("multipart-parts", post("/form", multipart(*[part("a", b"x")] * 3_000), FORM), (413,)),
    Case("multipart-large-field", post("/form", multipart(part("a", b"x" * (2 << 20))), FORM), (413,)),
    Case("multipart-no-boundary", post("/form", b"x", "Content-Type: multipart/form-data"), (400,)),
    Case("multipart-truncated", post("/form", multipart(part("a", b"x"))[:-20], FORM), (400,)),
    Case("multipart-no-name", post("/form", multipart(b"X: y\r\n\r\nz"), FORM), (400,)),
    Case("multipart-huge-header", post("/form", multipart(b"X: " + b"y" * 300_000 + b"\r\n\r\nz"), FORM), (400, 413)),
    Case("multipart-traversal", post("/form", multipart(part("f", b"x", "../../../etc/evil")), FORM), (200,)),
]


@pytest.fixture(scope="module")
def service(shape: str) -> Iterator[tuple[Mongrel2, Served]]:
    with mongrel2() as server, running(APP, server, access_log="-", drain_timeout_s=1) as worker:
        yield server, worker


def exchange(port: int, request: bytes, timeout_s: float = 15.0) -> bytes:
    """Send request and return all that comes back until the server closes or has answered once."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as client:
        answer = b""
        try:
            client.sendall(request)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was refused before it was sent; the answer may still be there
        try:
            while piece := client.recv(65_536):
                answer += piece
                if is_complete(answer):
                    break
        except ConnectionResetError:
            pass
        return answer


def is_complete(answer: bytes) -> bool:
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        return False
    if head.startswith(b"HTTP/1.1 100"):
        return is_complete(body)
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return length is not None and len(body) >= int(length[1])


def status_of(answer: bytes) -> int:
    while answer.startswith(b"HTTP/1.1 100"):
        answer = answer.partition(b"\r\n\r\n")[2]
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else CLOSED


def as_parameter(case: Case) -> object:
    return pytest.param(case, id=case.name, marks=case.marks)


@pytest.mark.parametrize("case", [as_parameter(case) for case in CASES])
def test_hostile_request(service: tuple[Mongrel2, Served], case: Case) -> None:
    server, worker = service
    before = worker.stderr()
    answer = exchange(server.port, case.request)
    assert status_of(answer) in case.statuses, answer[:300]
    assert case.absent not in answer
    assert case.present in answer
    following = f"/echo/after-{case.name}"
    assert status_of(exchange(server.port, get(following))) == 200
    wait_until(lambda: f'"{following}"' in worker.stderr()[len(before) :], "the next request is logged")
    wait_until(lambda: open_requests(worker) == 0, "all that came has ended")  # and none is logged in the next test
    lines = worker.stderr()[len(before) :].splitlines()
    assert not [line for line in lines if line.startswith(("Traceback", "  File"))]
    requests = [json.loads(line) for line in lines if line.startswith("{")]
    # Whatever reached the worker has one line in the access log; at most one more says why.
    assert len(requests) <= 2
    assert len(lines) - len(requests) <= 1, lines


def open_requests(worker: Served) -> int:
    counters = worker.status()["counters"]
    return counters["requests_started"] - counters["requests_finished"] - sum(counters["requests_failed"].values())


def test_there_are_sixty_cases() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)


def test_slow_senders_hold_nobody_up(service: tuple[Mongrel2, Served]) -> None:
    server, _ = service
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(200)]
        for number, client in enumerate(slow):
            client.sendall(
                b"POST /json HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx" if number % 2 else b"GET /o"
            )
        for _ in range(20):
            assert exchange(server.port, SMUGGLED, timeout_s=2).endswith(b"ok")


@pytest.mark.checklist("mongrel2", 9)
def test_mutated_messages_do_not_stop_the_loop(short_tmp: Path) -> None:
    """20,000 broken frames on the handler socket itself, then a sound one that is answered."""
    rng = random.Random(20_000)
    corpus = [file.read_bytes() for file in sorted((ROOT / "tests/corpus/mongrel2").glob("*.frame"))]
    assert len(corpus) >= 20
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    requests, replies = context.socket(zmq.PUSH), context.socket(zmq.SUB)
    requests.bind(f"ipc://{short_tmp}/requests")
    replies.bind(f"ipc://{short_tmp}/replies")
    replies.subscribe(b"fuzz ")
    replies.rcvtimeo = 100
    answers: list[bytes] = []
    # A SUB socket subscribes at new peers only while somebody calls it.
    reader = threading.Thread(target=collect, args=(replies, b"fuzz 10:4000000000, ", answers))
    reader.start()
    server = {"send_spec": f"ipc://{short_tmp}/requests", "recv_spec": f"ipc://{short_tmp}/replies"}
    try:
        with running(APP, servers=[{**server, "send_ident": "fuzz"}], drain_timeout_s=1) as worker:
            for _ in range(20_000):
                requests.send(mutated(rng, corpus))
            headers: dict[bytes, HeaderValue] = {b"METHOD": b"GET", b"VERSION": b"HTTP/1.1", b"PATTERN": b"/"}
            requests.send(build_message(Request(b"fuzz", 4_000_000_000, b"/ok", headers, b"")))
            wait_until(lambda: answers, "the sound message is answered", 30)
            assert answers[0].endswith(b"\r\n\r\nok")
            assert worker.is_alive
            assert "Traceback" not in worker.stderr()
            # What was rejected is said once a second at most.
            assert 1 <= worker.stderr().count("message rejected") <= 60
    finally:
        reader.join(60)
        requests.close(linger=0)
        replies.close(linger=0)
        context.term()


def collect(replies: "zmq.Socket[bytes]", wanted: bytes, answers: list[bytes]) -> None:
    """Read replies for at most a minute, until one begins with wanted."""
    deadline_s = time.monotonic() + 60
    while not answers and time.monotonic() < deadline_s:
        with suppress(zmq.Again):
            reply = replies.recv()
            if reply.startswith(wanted):
                answers.append(reply)


def mutated(rng: random.Random, corpus: list[bytes]) -> bytes:
    """Return one of the recorded frames with a few wrong bytes, some cut short."""
    frame = bytearray(re.sub(rb"^[^ ]+", b"fuzz", rng.choice(corpus)))
    for _ in range(rng.randint(1, 4)):
        frame[rng.randrange(len(frame))] = rng.randrange(256)
    if rng.random() < 0.15:
        del frame[rng.randrange(len(frame)) :]
    return bytes(frame)
