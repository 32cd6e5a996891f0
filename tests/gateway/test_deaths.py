"""What clients of a dead worker get: 502 only where nothing can have been sent, and never two answers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from m2gate.gateway import endings
from m2gate.gateway.counters import WORKER_DIED
from m2gate.gateway.deaths import bury
from m2gate.gateway.workers import AttachedWorker
from m2gate.link.marks import CUT, SLOT_MASK, SLOTS
from m2gate.wire import attach as wire
from tests.gateway.fakes import Gate, credits_, first, leave, piece, reply, request


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    one = Gate(tmp_path, workers=1)
    yield one
    one.assert_counted()


def mark(worker: AttachedWorker, number: int, bits: int = 0) -> None:
    worker.table.slots[number & SLOT_MASK] = number | bits


def die(gate: Gate, *, is_certain: bool = True) -> int:
    worker = gate.workers[0]
    del gate.pool.workers[worker.identity]
    return bury(gate.dispatcher, worker, is_certain=is_certain)


def test_an_unmarked_request_gets_502_and_its_connection_goes_on(gate: Gate) -> None:
    gate.take(first(1), request(1, b"/behind"))
    assert die(gate) == 1
    assert gate.sent[0].startswith(b"m2 1:1, HTTP/1.1 502 Bad Gateway\r\n")
    assert len(gate.sent) == 1
    assert gate.session(1).balance == len(gate.sent[0]) - len(b"m2 1:1, ")
    other = gate.attach("w9")
    gate.take(credits_(1, gate.session(1).balance))
    gate.dispatcher.serve_queue()
    gate.flush()
    assert gate.given(other.name) == [request(1, b"/behind")]
    assert gate.dispatcher.counters.failed[WORKER_DIED] == 1


@pytest.mark.parametrize("bits", [0, CUT], ids=["sent", "cut"])
def test_a_marked_request_is_closed(gate: Gate, bits: int) -> None:
    gate.take(first(1))
    mark(gate.workers[0], 1, bits)
    die(gate)
    assert gate.sent == [reply(1, b"")]
    assert not gate.server.sessions


def test_an_older_mark_in_the_slot_means_that_nothing_was_sent(gate: Gate) -> None:
    gate.workers[0]._number = SLOTS  # the first frame of this test has number SLOTS + 1
    mark(gate.workers[0], 1)
    gate.take(first(1))
    die(gate)
    assert gate.sent[0].startswith(b"m2 1:1, HTTP/1.1 502 ")


def test_a_newer_mark_in_the_slot_hides_the_truth_so_the_connection_is_closed(gate: Gate) -> None:
    gate.take(first(1))
    gate.workers[0].table.slots[1] = SLOTS + 1
    die(gate)
    assert gate.sent == [reply(1, b"")]


def test_while_nobody_knows_whether_it_has_ended_nothing_is_answered(gate: Gate) -> None:
    gate.take(first(1))
    die(gate, is_certain=False)
    assert gate.sent == [reply(1, b"")]


def test_a_client_that_has_left_gets_nothing(gate: Gate) -> None:
    gate.take(first(1), leave(1))
    assert die(gate) == 0
    assert gate.sent == []
    assert gate.dispatcher.counters.failed == {"client-left": 1}


def test_an_idle_session_goes_on(gate: Gate) -> None:
    gate.take(first(1))
    gate.done(gate.workers[0], 1, 7)
    assert die(gate) == 0
    assert gate.sent == []
    other = gate.attach("w9")
    gate.take(credits_(1, 7), request(1, b"/2"))
    assert gate.given(other.name) == [request(1, b"/2")]


def test_what_was_reported_but_never_written_is_closed(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    gate.take(first(1), first(2))
    gate.done(gate.workers[0], 1, 7)
    gate.done(gate.workers[0], 2, 7)
    die(gate)
    gate.take(credits_(2, 7))
    gate.dispatcher.tick()
    assert gate.sent == []
    monkeypatch.setattr(endings, "DOUBT_S", 0.0)
    gate.dispatcher.tick()
    assert gate.sent == [reply(1, b"")]
    assert list(gate.server.sessions) == [2]


@pytest.mark.parametrize(("bits", "has_frame"), [pytest.param(0, True, id="whole"), pytest.param(CUT, False, id="cut")])
def test_a_websocket_is_told_1012_unless_a_frame_was_cut(gate: Gate, bits: int, *, has_frame: bool) -> None:
    gate.take(first(1, b"/ws", METHOD=b"WEBSOCKET_HANDSHAKE"))
    mark(gate.workers[0], 1, bits)
    die(gate)
    assert gate.sent[-1] == reply(1, b"")
    assert (len(gate.sent) == 2) is has_frame
    if has_frame:
        assert gate.sent[0].startswith(b"m2 1:1, \x88")
        assert b"\x03\xf4" in gate.sent[0]


def test_a_handshake_without_answer_is_refused(gate: Gate) -> None:
    gate.take(first(1, b"/ws", METHOD=b"WEBSOCKET_HANDSHAKE"))
    die(gate)
    assert gate.sent[0].startswith(b"m2 1:1, HTTP/1.1 502 ")
    assert gate.sent[1] == reply(1, b"")


def test_the_rest_of_an_upload_is_taken_in_so_that_its_client_sees_the_502(gate: Gate) -> None:
    gate.take(first(1, b"/up", METHOD=b"POST", UPLOAD_STREAM=b"0"), piece(1, 0, b"abc"))
    die(gate)
    assert gate.sent[0].startswith(b"m2 1:1, HTTP/1.1 502 ")
    assert b"\r\nConnection: close\r\n" in gate.sent[0]
    gate.take(piece(1, 3, b"", is_last=True))
    assert gate.sent[-1] == reply(1, b"")


def test_a_claimed_request_of_which_nothing_was_sent_gets_502(gate: Gate) -> None:
    gate.take(first(1))
    session = gate.session(1)
    session.open[0] = (1, b"", 0.0)
    die(gate)
    assert gate.sent[0].startswith(b"m2 1:1, HTTP/1.1 502 ")
    assert b"\r\nConnection: close\r\n" in gate.sent[0]


def test_two_open_requests_are_never_answered(gate: Gate) -> None:
    gate.take(first(1), request(1, b"/2"))
    gate.done(gate.workers[0], 1, what=wire.EXCHANGE_DETACHED)
    assert die(gate) == 2
    assert gate.sent == [reply(1, b"")]
