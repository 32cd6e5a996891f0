"""Announcements of stored bodies: which pairs count, and what becomes of the files."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from m2gate.link.exchange import Exchange
from m2gate.link.server import IDLE_FORGET_S
from tests.link.fakes import FakeMongrel2

pytestmark = pytest.mark.checklist("mongrel2", 52)
SIZE = 100_000


class Store:
    """Mongrel2's folder of stored bodies, and a server that knows of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opened: list[Exchange] = []
        self.far = FakeMongrel2(upload_store=f"{folder}/body.XXXXXX", max_body=1_000_000)

    def write(self, name: str = "body.abc123", size: int = SIZE) -> str:
        (self.folder / name).write_bytes(b"x" * size)
        return f"{self.folder}/{name}"

    def announce(self, start: str, done: str | None = None, conn_id: int = 1, **headers: Any) -> Any:
        fields = headers or {"content_length": b"%d" % SIZE}
        if done is not None:
            fields["x_mongrel2_upload_done"] = done.encode()
        exchange = self.far.request(conn_id, b"POST", x_mongrel2_upload_start=start.encode(), **fields)
        if exchange is not None:
            self.opened.append(exchange)
        return exchange

    def files(self) -> list[str]:
        return os.listdir(self.folder)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    one = Store(tmp_path)
    yield one
    for exchange in one.opened:
        exchange.abort()


def read_all(exchange: Exchange) -> int:
    return sum(map(len, iter(exchange.read, b"")))


def test_a_matching_pair(store: Store) -> None:
    path = store.write()
    assert store.announce(path) is None
    exchange = store.announce(path, path)
    assert read_all(exchange) == SIZE
    exchange.respond(200, (), b"")
    assert store.files() == []
    assert store.far.closed(1) == 0


def test_what_lies_behind_the_body_is_cut_off(store: Store) -> None:
    path = store.write(size=SIZE + 50)
    store.announce(path)
    exchange = store.announce(path, path)
    assert read_all(exchange) == SIZE
    assert os.path.getsize(path) == SIZE


@pytest.mark.parametrize(
    ("start", "done"),
    [
        ("body.abc123", "body.other1"),
        ("body.other1", "body.abc123"),
        ("body.other1", "body.other1"),
    ],
)
def test_a_pair_that_does_not_match(store: Store, start: str, done: str) -> None:
    store.write("body.other1")
    store.announce(store.write())
    exchange = store.announce(f"{store.folder}/{start}", f"{store.folder}/{done}")
    assert exchange.refusal[0] == 400
    exchange.answer_refusal()
    assert store.far.closed(1) == 1
    assert "body.other1" in store.files()


@pytest.mark.parametrize("path", ["/etc/passwd", "{}/body.abc1234", "{}/x/../body.abc123", "{}/other.abc123", ""])
def test_a_path_that_is_not_mongrel2_s(store: Store, path: str) -> None:
    store.write()
    path = path.format(store.folder)
    assert store.announce(path).refusal[0] == 400
    assert store.files() == ["body.abc123"]


def test_a_link_is_not_followed(store: Store, tmp_path: Path) -> None:
    secret = tmp_path.parent / f"{tmp_path.name}-secret"
    secret.write_bytes(b"x" * SIZE)
    os.symlink(secret, tmp_path / "body.abc123")
    path = f"{tmp_path}/body.abc123"
    store.announce(path)
    assert store.announce(path, path).refusal[0] == 500
    assert secret.stat().st_size == SIZE


@pytest.mark.parametrize("length", [b"0", b"00", b"-1", b"x", [b"100000", b"100000"]])
def test_doubtful_framing_opens_nothing(store: Store, length: Any) -> None:
    path = store.write()
    for done in (None, path):
        exchange = store.announce(path, done, conn_id=2, content_length=length)
        if exchange is not None:
            assert exchange.upload is None
            exchange.abort()
    assert os.path.getsize(path) == SIZE


def test_too_large_is_refused_at_its_start_or_its_end(store: Store) -> None:
    path = store.write(size=1_000_001)
    assert store.announce(path, content_length=b"1000001").refusal[0] == 413
    assert store.announce(path, conn_id=2, transfer_encoding=b"chunked") is None
    assert store.announce(path, path, conn_id=2, transfer_encoding=b"chunked").refusal[0] == 413
    assert store.files() == []


def test_a_client_that_leaves_while_its_body_waits_in_the_pipeline(store: Store) -> None:
    store.far.opened(1)
    path = store.write()
    assert store.announce(path) is None
    assert store.announce(path, path) is None
    store.far.leave(1)
    assert store.files() == []


def test_a_long_upload_is_not_forgotten(store: Store) -> None:
    """Mongrel2 says nothing between start and done, however long that takes."""
    path = store.write()
    store.announce(path)
    for _ in range(20):
        store.far.clock.move(IDLE_FORGET_S / 3)
        store.far.server.tick()
    assert read_all(store.announce(path, path)) == SIZE
    probes = [conn_ids for conn_ids, _ in store.far.controls(b"keep-alive")]
    assert probes  # so that one which Mongrel2 has killed is found
    assert all(conn_ids == [1] for conn_ids in probes)
    assert len(probes) < 10  # less often than would keep it alive


def test_a_file_that_somebody_else_has_deleted_holds_nobody_up(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    path = store.write()
    assert store.announce(path) is None
    exchange = store.announce(path, path)
    os.unlink(path)
    exchange.respond(200, (), b"")
    assert exchange.ended
    assert store.far.connection(1).current is None
    assert "stored body not deleted" in caplog.text
