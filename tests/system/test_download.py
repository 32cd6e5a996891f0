"""Responses of all sizes to clients of all speeds, through the real Mongrel2."""

import hashlib
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.system.support import Mongrel2, wait_until
from tests.system.transfer_app import BLOCK, MIB, content
from tests.system.transfers import (
    WEBSOCKET,
    Memory,
    Site,
    connection,
    exchange,
    fetch,
    read_answer,
    read_head,
    request_bytes,
    rss_kib,
    sha256,
    site,
    wait_stable,
)

GONE_S = 1.0  # in which a producer has to stop once its client has left
SMALL_BUFFER = 16_384


@pytest.fixture(scope="module")
def here(shape: str) -> Iterator[Site]:
    with site() as one:
        yield one


@pytest.fixture
def web(here: Site) -> Mongrel2:
    return here.server


@pytest.fixture(scope="module")
def web_without_credits(shape: str) -> Iterator[Mongrel2]:
    with site({"download.flow_control": 0}) as one:
        yield one.server


def read_slowly(client: socket.socket, size: int, rate: int, look: Callable[[], None]) -> str:
    """Read size bytes at rate bytes a second; return their digest."""
    hashed, left, start = hashlib.sha256(), size, time.monotonic()
    while left:
        piece = client.recv(min(left, 65_536))
        assert piece, f"cut with {left} bytes to go"
        hashed.update(piece)
        left -= len(piece)
        look()
        ahead_s = (size - left) / rate - (time.monotonic() - start)
        if ahead_s > 0.005:
            time.sleep(ahead_s)
    return hashed.hexdigest()


def body_start(client: socket.socket) -> bytes:
    """Read up to the end of the response's head; return its bytes."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = client.recv(1)
        assert byte
        head += byte
    return head


@pytest.mark.checklist("mongrel2", 36, 37)
def test_a_client_of_20_mb_a_second_gets_200_mb(here: Site) -> None:
    server, worker = here.server, here.worker
    size = 200_000_000
    fetch(server, f"/stream/{20 * MIB}?name=warm-up")
    memory = Memory(server.pid, *worker.pids)
    with connection(server) as client:
        client.sendall(request_bytes(f"/stream/{size}?name=slow", version="1.0"))
        body_start(client)
        assert read_slowly(client, size, 20_000_000, memory.look) == sha256(size)
        assert client.recv(1) == b""
    assert here.note("slow", "produced") == size
    assert memory.growth_mib < 20


@pytest.mark.checklist("mongrel2", 36)
@pytest.mark.parametrize("size", [1, 32_768, 102_400, 102_401, 1_000_000, 8 * MIB])
def test_a_large_write_is_split(web: Mongrel2, size: int) -> None:
    assert hashlib.sha256(fetch(web, f"/whole/{size}").body).hexdigest() == sha256(size)
    answer = exchange(web, request_bytes(f"/stream/{size}?piece={size}"))
    assert answer.is_whole
    assert hashlib.sha256(answer.body).hexdigest() == sha256(size)


@pytest.mark.checklist("mongrel2", 38)
def test_the_producer_rests_while_the_client_does_not_read(here: Site, web: Mongrel2) -> None:
    size = 100 * MIB
    with connection(web, SMALL_BUFFER) as client:
        client.sendall(request_bytes(f"/stream/{size}?name=rest&piece=10000", version="1.0"))
        produced = wait_stable(lambda: here.note("rest", "produced"))
        # Besides the window of 102,400 bytes the kernels of both sides hold something.
        assert produced < 20 * MIB
        body_start(client)
        assert read_slowly(client, size, 10**9, lambda: None) == sha256_of_pieces(size, 10_000)


def sha256_of_pieces(size: int, piece: int) -> str:
    hashed = hashlib.sha256()
    for one in content(size, piece):
        hashed.update(one)
    return hashed.hexdigest()


@pytest.mark.parametrize("path", ["/small/200", "/small/5000"])
def test_small_writes_at_once_do_not_cut_the_client(web: Mongrel2, path: str) -> None:
    answer = exchange(web, request_bytes(path))
    assert answer.is_whole
    assert answer.text.split() == [str(number) for number in range(int(path.rpartition("/")[2]))]


def test_small_writes_do_not_cut_a_client_that_reads_late(here: Site, web: Mongrel2) -> None:
    with connection(web, SMALL_BUFFER) as client, client.makefile("rb") as stream:
        client.sendall(request_bytes("/stream/3000000?name=late&piece=100"))
        wait_stable(lambda: here.note("late", "produced"))
        assert read_answer(stream).body == BLOCK[:100] * 30_000


@pytest.mark.parametrize("path", ["/asleep/stream", "/events/stream"])
def test_a_sleeping_producer_ends_with_its_client(here: Site, web: Mongrel2, path: str) -> None:
    with connection(web) as client, client.makefile("rb") as stream:
        client.sendall(request_bytes(path))
        assert b"first" in read_head(stream).body + stream.readline() + stream.readline()
        assert here.note("stream", "finally") == 0
        client.shutdown(socket.SHUT_RDWR)
        left_s = time.monotonic()
    wait_until(lambda: here.note("stream", "finally"), "the producer's finally has run")
    assert here.note("stream", "finally") - left_s < GONE_S


@pytest.mark.checklist("mongrel2", 60)
@pytest.mark.parametrize("count", [1, 20])
def test_producers_that_wait_for_credits_end_with_their_clients(here: Site, web: Mongrel2, count: int) -> None:
    """Mongrel2 by itself reports only half of the clients that reset while it waits to write to them."""
    names = [f"blocked-{count}-{number}" for number in range(count)]
    with ExitStack() as stack:
        for name in names:
            client = stack.enter_context(connection(web, SMALL_BUFFER))
            client.sendall(request_bytes(f"/stream/{100 * MIB}?name={name}"))
        wait_stable(lambda: sum(here.note(name, "produced") or 0 for name in names))
        assert not any(here.note(name, "finally") for name in names)
    left_s = time.monotonic()
    wait_until(lambda: all(here.note(name, "finally") for name in names), "each producer's finally has run")
    assert max(here.note(name, "finally") for name in names) - left_s < GONE_S


def test_clients_that_leave_cost_no_memory_and_no_handler(here: Site) -> None:
    server, worker = here.server, here.worker

    def leave_in_the_middle(count: int) -> None:
        for number in range(count):
            with connection(server, SMALL_BUFFER) as client:
                client.sendall(request_bytes(f"/stream/{10 * MIB}?name=leaver-{number % 4}"))
                client.recv(1000)
                client.sendall(b"")
            with connection(server) as client:
                client.sendall(request_bytes(f"/asleep/leaver-{number % 4}"))
                client.recv(1000)

    leave_in_the_middle(80)
    before = sum(rss_kib(pid) for pid in worker.pids)
    leave_in_the_middle(160)
    assert fetch(server, "/hello").text == "hello"
    wait_until(lambda: all(here.note(f"leaver-{n}", "finally") for n in range(4)), "all producers have ended")
    assert sum(rss_kib(pid) for pid in worker.pids) - before < 30 * 1024  # of 160 pieces of 1 MiB


@pytest.mark.checklist("mongrel2", 24, 25)
@pytest.mark.parametrize("path", ["/whole/70000", "/stream/70000", "/whole/1000000", "/stream/1000000"])
@pytest.mark.parametrize(("version", "headers"), [("1.0", {}), ("1.1", {"Connection": "close"})])
def test_the_connection_ends_where_it_must(web: Mongrel2, path: str, version: str, headers: dict[str, str]) -> None:
    with connection(web) as client, client.makefile("rb") as stream:
        client.sendall(request_bytes(path, version=version, **headers))
        answer = read_answer(stream)
        assert stream.read() == b""
    assert answer.body == BLOCK[: int(path.rpartition("/")[2])]
    assert answer.is_whole
    assert answer.headers["connection"] == "close"
    assert ("transfer-encoding" in answer.headers) == (version == "1.1" and "stream" in path)


@pytest.mark.checklist("mongrel2", 25)
def test_a_stream_to_a_modern_client_leaves_the_connection_open(web: Mongrel2) -> None:
    with connection(web) as client, client.makefile("rb") as stream:
        for _ in range(2):
            client.sendall(request_bytes("/stream/70000"))
            answer = read_answer(stream)
            assert answer.headers["transfer-encoding"] == "chunked"
            assert "content-length" not in answer.headers
            assert answer.body == BLOCK[:70_000]


@pytest.mark.checklist("mongrel2", 26)
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/hello", 200),
        ("HEAD", "/whole/70000", 200),
        ("HEAD", "/stream/70000", 200),
        ("HEAD", "/nowhere", 404),
        ("GET", "/status/204", 204),
        ("GET", "/status/304", 304),
        ("HEAD", "/status/204", 204),
    ],
)
def test_no_byte_of_a_body_where_none_may_be(web: Mongrel2, method: str, path: str, status: int) -> None:
    with connection(web) as client, client.makefile("rb") as stream:
        client.sendall(request_bytes(path, method) + request_bytes("/hello"))
        assert read_answer(stream, "HEAD").status == status
        assert read_answer(stream).text == "hello"


@pytest.mark.checklist("mongrel2", 28)
def test_pipelined_requests_are_answered_in_order(web: Mongrel2) -> None:
    paths = ["/echo/0?sleep=0.3", *[f"/echo/{n}" for n in range(1, 30)], "/echo/30?sleep=0.2", "/echo/31"]
    with connection(web) as client, client.makefile("rb") as stream:
        client.sendall(b"".join(map(request_bytes, paths)))
        assert [read_answer(stream).text for _ in paths] == [str(n) for n in range(32)]


@pytest.mark.checklist("mongrel2", 28)
def test_streams_in_a_pipeline_do_not_mix(web: Mongrel2) -> None:
    with connection(web) as client, client.makefile("rb") as stream:
        client.sendall(
            request_bytes("/stream/300000?piece=1000") + request_bytes("/echo/x") + request_bytes("/small/9")
        )
        assert read_answer(stream).body == BLOCK[:1000] * 300
        assert read_answer(stream).text == "x"
        assert read_answer(stream).text.split() == [str(n) for n in range(9)]


@pytest.mark.checklist("mongrel2", 24, 29)
def test_nothing_follows_the_answer_that_closes(web: Mongrel2) -> None:
    with connection(web) as client:
        client.sendall(request_bytes("/echo/1", Connection="close") + request_bytes("/echo/2"))
        received = b""
        while piece := client.recv(65_536):
            received += piece
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.endswith(b"\r\n\r\n1")


@pytest.mark.checklist("mongrel2", 35, 39)
def test_the_balance_is_the_connection_s_not_the_request_s(web: Mongrel2) -> None:
    """60 heads and bodies are ten times the window: were any of them free, the client would be cut."""
    count = 60
    with connection(web, SMALL_BUFFER) as client, client.makefile("rb") as stream:
        client.sendall(request_bytes("/whole/20000") * count)
        for _ in range(count):
            assert read_answer(stream).body == BLOCK[:20_000]
        client.sendall(request_bytes("/whole/5000000"))
        assert len(read_answer(stream).body) == 5_000_000


@pytest.mark.checklist("mongrel2", 39)
def test_frames_are_paid_for(here: Site, web: Mongrel2) -> None:
    count = 8_000
    with connection(web, SMALL_BUFFER) as client, client.makefile("rb") as stream:
        client.sendall(request_bytes(f"/frames/{count}", **WEBSOCKET))
        assert read_head(stream).status == 101
        sent = wait_stable(lambda: here.notes().get("frames"))
        assert sent < count  # the client's pace is the handler's
        frame = b"\x82\x7e" + (1000).to_bytes(2) + BLOCK[:1000]
        for _ in range(count):
            assert stream.read(len(frame)) == frame


@pytest.mark.checklist("mongrel2", 40)
@pytest.mark.parametrize("path", ["/small/200", "/stream/2000000?piece=20000", "/whole/2000000"])
def test_without_flow_control_nobody_is_cut(web_without_credits: Mongrel2, path: str) -> None:
    version = "1.0" if path.startswith("/whole") else "1.1"
    answer = exchange(web_without_credits, request_bytes(path, version=version))
    assert answer.is_whole
    if path.startswith("/small"):
        assert answer.text.split() == [str(number) for number in range(200)]
    else:
        assert len(answer.body) == 2_000_000


@pytest.mark.checklist("mongrel2", 40)
def test_without_flow_control_many_clients_at_once(web_without_credits: Mongrel2) -> None:
    clients = [socket.create_connection(("127.0.0.1", web_without_credits.port), timeout=30) for _ in range(30)]
    for client in clients:
        client.sendall(request_bytes("/small/50"))
    for client in clients:
        with client, client.makefile("rb") as stream:
            assert len(read_answer(stream).text.split()) == 50


@pytest.mark.checklist("mongrel2", 41)
@pytest.mark.parametrize("path", ["/whole/5000000", "/stream/5000000"])
def test_a_close_lets_everything_out(web: Mongrel2, path: str) -> None:
    with connection(web, SMALL_BUFFER) as client, client.makefile("rb") as stream:
        client.sendall(request_bytes(path, Connection="close"))
        answer = read_answer(stream)
        assert stream.read() == b""
    assert answer.is_whole
    assert hashlib.sha256(answer.body).hexdigest() == sha256(5_000_000)


@pytest.mark.checklist("mongrel2", 41)
def test_a_response_that_breaks_off_is_cut(web: Mongrel2) -> None:
    answer = exchange(web, request_bytes("/broken"))
    assert answer.status == 200
    assert not answer.is_whole
