"""Request bodies of all sizes and endings, through the real Mongrel2."""

import hashlib
import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system.support import Mongrel2, wait_until
from tests.system.transfer_app import BLOCK, MIB, content
from tests.system.transfers import (
    Answer,
    Memory,
    Site,
    connection,
    exchange,
    fetch,
    read_answer,
    request_bytes,
    sha256,
    site,
)

GONE_S = 1.0  # in which a reader has to hear that its client has vanished
CHUNK_MAX = 102_400  # Mongrel2 takes no larger chunk
PAUSE_S = 0.5  # a client that could send nothing for so long is held up


@pytest.fixture(scope="module")
def here(shape: str) -> Iterator[Site]:
    with site() as one:
        yield one


@pytest.fixture
def web(here: Site) -> Mongrel2:
    return here.server


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def post(path: str, **headers: str) -> bytes:
    return request_bytes(path, "POST", **headers)


def send_with_length(client: socket.socket, path: str, size: int, memory: Memory | None = None) -> None:
    client.sendall(post(path, Content_Length=str(size)))
    for piece in content(size):
        client.sendall(piece)
        if memory is not None:
            memory.look()


def send_chunked(client: socket.socket, path: str, size: int, memory: Memory | None = None) -> None:
    client.sendall(post(path, Transfer_Encoding="chunked"))
    for start in range(0, size, CHUNK_MAX):
        at = start % MIB
        data = (BLOCK[at:] + BLOCK[:at])[: min(CHUNK_MAX, size - start)]
        client.sendall(chunk(data))
        if memory is not None:
            memory.look()
    client.sendall(b"0\r\n\r\n")


def result(client: socket.socket) -> dict[str, Any]:
    with client.makefile("rb") as stream:
        answer = read_answer(stream)
    assert answer.status == 200, answer
    found: dict[str, Any] = json.loads(answer.body)
    return found


@pytest.mark.checklist("mongrel2", 43, 46, 47, 48)
@pytest.mark.parametrize(
    ("send", "size"),
    [
        pytest.param(send_with_length, 1 << 30, id="1-gib"),
        pytest.param(send_chunked, 200_000_000, id="200-mb-chunked"),
    ],
)
def test_large_bodies_arrive_whole_and_fill_no_memory(here: Site, send: Any, size: int) -> None:
    fetch(here.server, "/digest", "POST", content(10 * MIB, 65_536))
    memory = Memory(here.server.pid, *here.worker.pids)
    with connection(here.server) as client:
        send(client, "/digest", size, memory)
        found = result(client)
    assert found["size"] == size
    assert found["sha256"] == sha256(size)
    assert memory.growth_mib < 30


SIZES = [0, 1, 16_384, 65_535, 65_536, 65_537, 262_144, 262_145, 1_000_000]


@pytest.mark.checklist("mongrel2", 43, 46)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("send", [send_with_length, send_chunked])
def test_every_size_arrives_and_the_connection_lives_on(web: Mongrel2, send: Any, size: int) -> None:
    with connection(web) as client:
        for _ in range(2):
            send(client, "/digest", size)
            assert result(client) == {"size": size, "sha256": sha256(size), "upload_headers": []}


@pytest.mark.checklist("mongrel2", 48)
@pytest.mark.parametrize("size", [1, 7, 1_000, CHUNK_MAX])
def test_chunks_of_all_sizes(web: Mongrel2, size: int) -> None:
    count = min(2_000, 4 * MIB // size)
    with connection(web) as client:
        client.sendall(post("/digest", Transfer_Encoding="chunked"))
        client.sendall(chunk(BLOCK[:size]) * count + b"0\r\n\r\n")
        found = result(client)
    assert found["size"] == size * count
    assert found["sha256"] == hashlib.sha256(BLOCK[:size] * count).hexdigest()


def send_while_it_goes(client: socket.socket, size: int) -> int:
    """Send up to size bytes until the client is held up; return how many went."""
    client.setblocking(False)
    sent = 0
    while sent < size and select.select([], [client], [], PAUSE_S)[1]:
        sent += client.send(BLOCK[: min(65_536, size - sent)])
    client.settimeout(30)
    return sent


@pytest.mark.checklist("mongrel2", 47)
def test_a_slow_reader_slows_the_client_down(here: Site) -> None:
    size = 100 * MIB
    memory = Memory(here.server.pid, *here.worker.pids)
    with connection(here.server) as client:
        client.sendall(post("/gated/slow", Content_Length=str(size)))
        sent = send_while_it_goes(client, size)
        memory.look()
        assert sent < 20 * MIB  # buffers of two kernels, and the window
        assert here.note("slow", "read") <= 262_144
        here.ask("/open/slow", "POST")
        while sent < size:
            sent += client.send(BLOCK[: min(65_536, size - sent)])
        assert result(client) == {"size": size}
    assert memory.growth_mib < 30


@pytest.mark.checklist("mongrel2", 49, 51)
@pytest.mark.parametrize("size", [MIB + 1, 200 * MIB])
def test_too_large_by_its_length_is_refused_at_once(web: Mongrel2, size: int) -> None:
    with connection(web) as client, client.makefile("rb") as stream:
        client.sendall(post("/limited", Content_Length=str(size)))
        answer = read_answer(stream)  # no byte of the body was sent
        assert answer.status == 413
        assert answer.headers["connection"] == "close"
        for piece in content(min(size, 10 * MIB)):  # and none is in the way
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
        assert stream.read() == b""


@pytest.mark.checklist("mongrel2", 49, 51)
def test_a_client_that_sends_before_it_reads_sees_the_refusal(web: Mongrel2) -> None:
    """Closed with unread bytes, its connection would be reset before it had read the answer."""
    for _ in range(5):
        answer = fetch(web, "/limited", "POST", b"x" * 10 * MIB)
        assert answer.status == 413
        assert b"the limit is 1048576 bytes" in answer.body


@pytest.mark.checklist("mongrel2", 51)
def test_too_large_in_chunks_is_refused_when_it_is(web: Mongrel2) -> None:
    with connection(web) as client, client.makefile("rb") as stream:
        client.sendall(post("/limited", Transfer_Encoding="chunked"))
        for _ in range(MIB // 65_536):
            client.sendall(chunk(BLOCK[:65_536]))
        assert select.select([client], [], [], PAUSE_S)[0] == []
        client.sendall(chunk(b"x"))
        answer = read_answer(stream)
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        client.sendall(chunk(BLOCK[:65_536]) + b"0\r\n\r\n")
        assert stream.read() == b""


@pytest.mark.checklist("mongrel2", 51)
def test_the_limit_itself_is_not_too_large(web: Mongrel2) -> None:
    assert fetch(web, "/limited", "POST", content(MIB, 65_536)).body == b"%d" % MIB
    assert fetch(web, "/limited", "POST", BLOCK).body == b"%d" % MIB


@pytest.mark.checklist("mongrel2", 49)
@pytest.mark.parametrize(("path", "status"), [("/unread", 200), ("/half", 200), ("/refused", 403), ("/nowhere", 404)])
@pytest.mark.parametrize("send", [send_with_length, send_chunked])
def test_an_answer_before_the_end_closes_cleanly(web: Mongrel2, path: str, status: int, send: Any) -> None:
    with connection(web) as client, client.makefile("rb") as stream:
        send(client, path, 3_000_000)
        answer = read_answer(stream)
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert stream.read() == b""


@pytest.mark.checklist("mongrel2", 49)
def test_no_stale_piece_reaches_the_next_request(web: Mongrel2) -> None:
    """Small bodies come in one message, so the connection stays open though nobody reads them."""
    with connection(web) as client, client.makefile("rb") as stream:
        for _ in range(3):
            send_with_length(client, "/unread", 60_000)
            assert read_answer(stream).text == "not read"
            send_with_length(client, "/digest", 200_000)
            assert json.loads(read_answer(stream).body)["sha256"] == sha256(200_000)


@pytest.mark.checklist("mongrel2", 49)
def test_a_pipelined_request_waits_for_the_upload(web: Mongrel2) -> None:
    with connection(web) as client, client.makefile("rb") as stream:
        client.sendall(post("/digest", Content_Length="1000000") + BLOCK[:1_000_000] + request_bytes("/echo/x"))
        assert json.loads(read_answer(stream).body)["sha256"] == sha256(1_000_000)
        assert read_answer(stream).text == "x"


@pytest.mark.checklist("mongrel2", 50)
@pytest.mark.parametrize("framing", [{"Content_Length": "100000000"}, {"Transfer_Encoding": "chunked"}])
@pytest.mark.parametrize("sent", [0, 65_536, 500_000])
def test_a_client_that_vanishes_raises_in_the_reader(here: Site, framing: dict[str, str], sent: int) -> None:
    name = f"vanish-{sent}-{len(framing['Content_Length']) if 'Content_Length' in framing else 'chunked'}"
    with connection(here.server) as client:
        client.sendall(post(f"/reader/{name}", **framing))
        for start in range(0, sent, 65_536):
            data = BLOCK[: min(65_536, sent - start)]
            client.sendall(chunk(data) if "Transfer_Encoding" in framing else data)
        # Mongrel2 may keep the last bytes until they fill a piece.
        wait_until(lambda: here.note(name, "read") is not None, "the handler runs")
        wait_until(lambda: here.note(name, "read") >= sent // 2, "most of what was sent is read")
    left_s = time.monotonic()
    wait_until(lambda: here.note(name, "gone"), "the reader heard of it")
    assert here.note(name, "gone") - left_s < GONE_S


@pytest.mark.checklist("mongrel2", 50)
def test_a_client_that_vanishes_without_credits_raises_in_the_next_read(here: Site) -> None:
    """Mongrel2 says nothing of a client that leaves while its upload has no credits."""
    with connection(here.server) as client:
        client.sendall(post("/reader/late?gate=1", Content_Length="100000000") + BLOCK[:65_536])
        wait_until(lambda: here.note("late", "read") == 0, "the handler runs")
    here.ask("/open/late", "POST")
    opened_s = time.monotonic()
    wait_until(lambda: here.note("late", "gone"), "the reader heard of it")
    assert here.note("late", "gone") - opened_s < GONE_S


def test_fifty_uploads_at_once_do_not_mix(web: Mongrel2) -> None:
    bodies = [hashlib.shake_128(b"%d" % number).digest(300_000 + number) for number in range(50)]
    answers: list[Answer | None] = [None] * len(bodies)

    def upload(number: int) -> None:
        body = bodies[number]
        pieces = (body[start : start + 7_000] for start in range(0, len(body), 7_000))
        answers[number] = fetch(web, "/digest", "POST", body if number % 2 else pieces)

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for body, answer in zip(bodies, answers, strict=True):
        assert answer is not None
        assert json.loads(answer.body)["sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.checklist("mongrel2", 44)
def test_bytes_that_are_no_chunk_end_the_upload(here: Site) -> None:
    with connection(here.server) as client:
        client.sendall(post("/reader/no-chunk", Transfer_Encoding="chunked") + chunk(b"one"))
        wait_until(lambda: here.note("no-chunk", "read") == 3, "the first chunk is read")
        client.sendall(b"5;much-too-long-an-extension\r\nabcde\r\n")
        assert client.recv(100) == b""
    wait_until(lambda: here.note("no-chunk", "gone"), "the reader heard of it")


SMUGGLING = [
    pytest.param(b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc", id="both"),
    pytest.param(b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n", id="both-chunked"),
    pytest.param(b"Transfer-Encoding: chunked\r\nContent-Length: 100000\r\n\r\n" + BLOCK[:100_000], id="both-large"),
    pytest.param(b"Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", id="capital"),
    pytest.param(b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="list"),
    pytest.param(b"Transfer-Encoding: identity\r\n\r\n", id="identity"),
    pytest.param(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="twice"),
]
LENGTHS = [
    pytest.param(b"Content-Length: -1\r\n\r\n", id="negative"),
    pytest.param(b"Content-Length: abc\r\n\r\n", id="no-number"),
    pytest.param(b"Content-Length: 3abc\r\n\r\nabc", id="number-and-more"),
    pytest.param(b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nabc", id="two"),
    pytest.param(b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", id="twice"),
    pytest.param(b"Content-Length: 99999999999999\r\n\r\n", id="enormous"),
    pytest.param(b"Content-Length: 0x3\r\n\r\n", id="hexadecimal"),
]


@pytest.mark.checklist("mongrel2", 13)
@pytest.mark.parametrize("rest", SMUGGLING)
def test_transfer_encoding_that_is_doubtful(web: Mongrel2, rest: bytes) -> None:
    assert_refused(web, rest)


@pytest.mark.checklist("mongrel2", 14)
@pytest.mark.parametrize("rest", LENGTHS)
def test_content_length_that_is_doubtful(web: Mongrel2, rest: bytes) -> None:
    assert_refused(web, rest)


def assert_refused(web: Mongrel2, rest: bytes) -> None:
    for method in (b"POST", b"GET"):
        with connection(web) as client, client.makefile("rb") as stream:
            client.sendall(method + b" /digest HTTP/1.1\r\nHost: test\r\n" + rest)
            answer = read_answer(stream)
            assert answer.status == 400
            assert stream.read() == b""
    assert exchange(web, request_bytes("/hello")).text == "hello"


def test_the_worker_is_none_the_worse(here: Site) -> None:
    assert here.ask("/hello") == b"hello"
    assert "Traceback" not in here.worker.stderr()
