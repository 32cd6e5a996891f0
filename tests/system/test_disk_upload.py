"""Bodies that Mongrel2 stores in files, and clients that pretend it did."""

import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.support import wait_until
from tests.system.transfer_app import BLOCK, MIB
from tests.system.transfers import (
    Answer,
    Site,
    connection,
    exchange,
    fetch,
    read_answer,
    request_bytes,
    sha256,
    site,
)

pytestmark = pytest.mark.checklist("mongrel2", 52)

SIZE = 300_000
START = "X-Mongrel2-Upload-Start"
DONE = "X-Mongrel2-Upload-Done"


@pytest.fixture(scope="module")
def here(shape: str) -> Iterator[Site]:
    with site(upload_store=True) as one:
        yield one


@pytest.fixture
def store(here: Site) -> Path:
    assert here.server.upload_store is not None
    return here.server.upload_store


def post(path: str, body: bytes, *lines: str) -> bytes:
    fields = "".join(f"{line}\r\n" for line in lines)
    return f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n{fields}\r\n".encode() + body


def found(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer
    result: dict[str, Any] = json.loads(answer.body)
    return result


def assert_empty(store: Path) -> None:
    wait_until(lambda: not os.listdir(store), "no file is left")


def test_a_stored_body_is_read_and_deleted(here: Site, store: Path) -> None:
    with connection(here.server) as client, client.makefile("rb") as stream:
        for size in (SIZE, 100, 5_000_000):
            client.sendall(post("/digest", (BLOCK * 5)[:size]))
            result = found(read_answer(stream))
            assert result == {"size": size, "sha256": sha256(size), "upload_headers": []}
            assert_empty(store)


def test_a_chunked_body_is_stored_too(here: Site, store: Path) -> None:
    pieces = (BLOCK[start : start + 10_000] for start in range(0, SIZE, 10_000))
    assert found(fetch(here.server, "/digest", "POST", pieces))["sha256"] == sha256(SIZE)
    assert_empty(store)


def test_what_nobody_reads_is_deleted(here: Site, store: Path) -> None:
    assert exchange(here.server, post("/unread", BLOCK[:SIZE])).text == "not read"
    assert exchange(here.server, post("/half", BLOCK[:SIZE])).text == "True"
    assert exchange(here.server, post("/nowhere", BLOCK[:SIZE])).status == 404
    assert_empty(store)


def test_what_is_pipelined_behind_a_body_is_no_part_of_it(here: Site, store: Path) -> None:
    """Mongrel2 writes those bytes to the file as well, and they are lost as a request."""
    with connection(here.server) as client, client.makefile("rb") as stream:
        client.sendall(post("/digest", BLOCK[:SIZE]) + request_bytes("/echo/lost"))
        result = found(read_answer(stream))
        assert (result["size"], result["sha256"]) == (SIZE, sha256(SIZE))
    assert_empty(store)


def test_too_large_is_refused_when_it_starts(here: Site, store: Path) -> None:
    """No route of the App allows more than 2000 MiB; a route's own limit is known when the file is complete."""
    with connection(here.server) as client, client.makefile("rb") as stream:
        client.sendall(request_bytes("/digest", "POST", Content_Length=str(2001 * MIB)))
        client.sendall(BLOCK[:10_000])  # what nobody reads when the connection is closed, may cost it the answer
        answer = read_answer(stream)
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert stream.read() == b""
    assert_empty(store)
    assert exchange(here.server, post("/limited", BLOCK + b"x")).status == 413
    assert exchange(here.server, post("/limited", BLOCK)).text == str(MIB)
    assert_empty(store)


def test_a_client_that_leaves_leaves_no_file(here: Site, store: Path) -> None:
    with connection(here.server) as client:
        client.sendall(post("/digest", BLOCK)[:SIZE])
        wait_until(lambda: os.listdir(store), "the upload has begun")
        client.shutdown(socket.SHUT_RDWR)
    assert_empty(store)


FORGED = ["/etc/passwd", "STORE/upload.AAAAAA", "STORE/../secret", "STORE/upload.AAAAAA/../../secret", ""]


@pytest.mark.parametrize("path", FORGED)
@pytest.mark.parametrize("names", [(START,), (DONE,), (START, DONE)], ids=["start", "done", "both"])
@pytest.mark.parametrize("size", [0, 100, SIZE])
def test_forged_headers_open_no_file(here: Site, store: Path, path: str, names: tuple[str, ...], size: int) -> None:
    (store.parent / "secret").write_text("secret")
    (store / "upload.AAAAAA").write_text("of somebody else")
    try:
        forged = [f"{name}: {path.replace('STORE', str(store))}" for name in names]
        for _ in range(2):  # the second one on a connection that had a start
            answers = converse(here, post("/digest", BLOCK[:size], *forged), 2)
            for answer in answers:
                if answer.status != 400:
                    assert found(answer) == {"size": size, "sha256": sha256(size), "upload_headers": []}
        assert (store / "upload.AAAAAA").read_text() == "of somebody else"
        assert (store.parent / "secret").read_text() == "secret"
    finally:
        (store / "upload.AAAAAA").unlink()
    assert_empty(store)


def converse(here: Site, data: bytes, count: int) -> list[Answer]:
    """Send data count times over one connection, until it is closed."""
    answers = []
    with connection(here.server) as client, client.makefile("rb") as stream:
        for _ in range(count):
            client.sendall(data)
            answers.append(read_answer(stream))
            if answers[-1].headers.get("connection") == "close":
                break
    return answers


@pytest.mark.parametrize("length", ["Content-Length: 00", "Content-Length: -5", "Transfer-Encoding: Chunked"])
def test_framing_that_only_mongrel2_takes_for_no_body(here: Site, store: Path, length: str) -> None:
    (store / "upload.AAAAAA").write_text("of somebody else")
    forged = f"{START}: {store}/upload.AAAAAA\r\n{DONE}: {store}/upload.AAAAAA\r\n"
    data = f"POST /digest HTTP/1.1\r\nHost: test\r\n{length}\r\n{forged}\r\n".encode()
    try:
        answers = converse(here, data, 2)
        assert [answer.status for answer in answers] == [400]
        assert (store / "upload.AAAAAA").read_text() == "of somebody else"
    finally:
        (store / "upload.AAAAAA").unlink()


def test_without_a_store_the_headers_are_only_dropped() -> None:
    with site() as one:
        for size in (0, 100, SIZE):
            answer = exchange(
                one.server, post("/digest", BLOCK[:size], f"{START}: /etc/passwd", f"{DONE}: /etc/passwd")
            )
            assert found(answer) == {"size": size, "sha256": sha256(size), "upload_headers": []}


def test_files_have_names_that_nobody_guesses(here: Site, store: Path) -> None:
    with connection(here.server) as client:
        client.sendall(post("/digest", BLOCK)[:SIZE])
        wait_until(lambda: os.listdir(store), "the upload has begun")
        [name] = os.listdir(store)
        assert re.fullmatch(r"upload\.[A-Za-z0-9]{6}", name)
        assert os.stat(store / name).st_mode & 0o777 == 0o600
    assert_empty(store)
