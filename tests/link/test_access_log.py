"""The access log: its fields, and what happens where it cannot be written."""

import json
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from m2gate.link.access_log import AccessLog
from m2gate.link.tally import QUEUE_FULL
from tests.link.fakes import FakeMongrel2, finish, in_greenlet


class Full(StringIO):
    """A log on a full disk."""

    def write(self, text: str, /) -> int:
        raise OSError(28, "No space left on device")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


@pytest.fixture
def log(path: Path) -> Iterator[AccessLog]:
    log = AccessLog(str(path), "w2", 3)
    yield log
    log._file.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_fields_of_a_line(log: AccessLog, path: Path) -> None:
    far = FakeMongrel2()
    exchange = far.opened(1, b"GET", path=b"/shop", REMOTE_ADDR=b"192.0.2.7")
    log.begin(exchange)
    exchange.respond(200, (), b"done")
    (line,) = lines(path)
    assert line.pop("time").endswith("Z")
    assert line.pop("duration_ms") >= 0
    assert line == {
        "request_id": exchange.request_id,
        "client": "192.0.2.7",
        "method": "GET",
        "path": "/shop",
        "status": 200,
        "bytes": 4,
        "gone": False,
        "worker": "w2",
        "generation": 3,
    }


def test_gone_is_said_of_incomplete_answers_only(log: AccessLog, path: Path) -> None:
    far = FakeMongrel2()
    last = far.opened(1, connection=b"close")
    log.begin(last)
    last.respond(200, (), b"done")
    left = far.opened(2)
    log.begin(left)
    left.start(200, (), None)
    left.write(b"a part")
    far.leave(2)
    left.finish()
    cut = far.opened(3)
    log.begin(cut)
    cut.start(200, (), 10)
    cut.write(b"a part")
    cut.finish()
    assert far.closed(1) == 1
    assert [line["gone"] for line in lines(path)] == [False, True, True]


def test_a_refusal_can_be_found_by_the_id_that_the_client_has(log: AccessLog, path: Path) -> None:
    far = FakeMongrel2()
    exchange = far.opened(1)
    exchange.refuse(503, "all handlers are busy", (("Retry-After", "1"),), reason=QUEUE_FULL)
    log.begin(exchange)
    exchange.answer_refusal()
    (line,) = lines(path)
    assert line["status"] == 503
    head, _, body = far.taken(1).partition(b"\r\n\r\n")
    assert b"\r\nX-Request-Id: " + line["request_id"].encode() + b"\r\n" in head + b"\r\n"
    text = f"503 Service Unavailable: all handlers are busy\nrequest id: {line['request_id']}\n"
    assert body == text.encode()


def test_a_websocket_is_gone_if_its_client_did_not_say_goodbye(log: AccessLog, path: Path) -> None:
    far = FakeMongrel2()
    for conn_id in (1, 2):
        exchange: Any = far.opened(conn_id, b"WEBSOCKET_HANDSHAKE", body=b"accept")
        log.begin(exchange)
        finish(in_greenlet(exchange.accept))
        if conn_id == 1:
            far.leave(1)
        else:
            exchange.close(1000)
        exchange.end()
    assert [(line["status"], line["gone"]) for line in lines(path)] == [(101, True), (101, False)]


def test_a_full_disk_costs_lines_not_answers(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(sys, "stderr", Full())
    log = AccessLog("-", "w1", 1)
    far = FakeMongrel2()
    for _ in range(3):
        exchange = far.opened(1)
        log.begin(exchange)
        exchange.respond(200, (), b"done")
        assert exchange.ended
    assert far.taken(1).count(b"done") == 3
    assert log.lost == 3
    assert len(caplog.records) == 1  # not one a request: that log may be on the same disk
