"""Connections of a former process: which are closed, with a control port that answers as told."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import tnetstring
import zmq

from m2gate.link import orphans
from m2gate.link.orphans import close_orphans

HEADERS = [b"id", b"fd", b"type", b"last_ping", b"last_read", b"last_write", b"bytes_read", b"bytes_written"]


@pytest.fixture
def control_port(tmp_path: Path) -> Iterator[str]:
    """A control port that lists the connections -1, 3 to 7; 6 is being sent something, 7 was cancelled meanwhile."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    spec = f"ipc://{tmp_path}/c"
    rep = context.socket(zmq.REP)
    rep.bind(spec)

    def answer() -> None:
        with rep:
            for turn in range(3):
                if rep.poll(500):
                    rep.recv()
                    written = {6: 1000 * turn}
                    ids = [-1, 3, 4, 5, 6, 7][: 5 if turn == 2 else 6]
                    rows = [[one, 9, 1, 0, 0, 0, 10, written.get(one, 7)] for one in ids]
                    rep.send(tnetstring.dumps({b"headers": HEADERS, b"rows": rows}))

    thread = threading.Thread(target=answer)
    thread.start()
    yield spec
    thread.join(10)
    context.destroy(linger=1000)


def run(spec: str, is_behind: Callable[[], bool] = lambda: False, is_closed: bool = False) -> list[Any]:
    sent: list[Any] = []
    server = SimpleNamespace(
        send_ident=b"a",
        connections={4: None},
        is_closed=is_closed,
        send=sent.append,
    )
    count = close_orphans(cast("orphans.ServerLife", server), spec, is_behind)
    assert count == (3 if sent else 0)  # those that were closed, and the one whose piece has come
    return sent


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "GRACE_S", 0.0)
    monkeypatch.setattr(orphans, "PIECE_S", 0.0)


CREDITS = b"a 7:X 3 5 7, 29:3:ctl,19:7:credits,6:102401#}]"
CLOSE = b"a 3:3 5, "


def test_only_what_is_unknown_and_has_asked_something_is_closed(control_port: str) -> None:
    assert run(control_port) == [CREDITS, CLOSE]


def test_nothing_is_sent_to_a_server_that_is_gone(control_port: str) -> None:
    assert run(control_port, is_closed=True) == []


def test_it_waits_while_messages_are_queued(control_port: str) -> None:
    behind = iter([True, True, False])
    assert run(control_port, lambda: next(behind)) == [CREDITS, CLOSE]
    assert list(behind) == []


def test_without_a_control_port_nothing_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "CONTROL_TIMEOUT_S", 0.1)
    assert run(f"ipc://{tmp_path}/none") == []
