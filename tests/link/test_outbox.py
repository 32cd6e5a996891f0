"""What is answered in one turn leaves together, in order, and never late."""

from collections.abc import Callable

import pytest

from m2gate.link.outbox import HOLD_S, Outbox


class Loop:
    """Collects what an outbox sends, and what it wants to be called; the time stands still."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[bytes] = []
        self.calls: list[Callable[[], object]] = []
        self.now_s = 100.0
        monkeypatch.setattr("m2gate.link.outbox.monotonic", lambda: self.now_s)
        self.outbox = Outbox(self.sent.append, self.calls.append)

    def end_turn(self) -> None:
        for call in tuple(self.calls):
            self.calls.remove(call)
            call()


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    return Loop(monkeypatch)


def test_sends_at_once(loop: Loop) -> None:
    loop.outbox.send(b"1")
    assert loop.sent == [b"1"]
    assert not loop.calls


def test_answers_leave_at_the_end_of_the_turn(loop: Loop) -> None:
    loop.outbox.send_soon(b"1")
    loop.outbox.send_soon(b"2")
    assert loop.sent == []
    assert len(loop.calls) == 1
    loop.end_turn()
    assert loop.sent == [b"1", b"2"]


def test_whoever_holds_needs_no_call(loop: Loop) -> None:
    loop.outbox.hold()
    loop.outbox.send_soon(b"1")
    loop.outbox.send_soon(b"2")
    assert (loop.sent, loop.calls) == ([], [])
    loop.outbox.release()
    loop.outbox.release()
    assert loop.sent == [b"1", b"2"]


def test_a_part_of_an_answer_takes_what_is_held_along(loop: Loop) -> None:
    loop.outbox.send_soon(b"1")
    loop.outbox.send(b"2")
    assert loop.sent == [b"1", b"2"]
    loop.outbox.send_soon(b"3")
    loop.end_turn()
    assert loop.sent == [b"1", b"2", b"3"]


def test_nothing_is_held_once_the_time_is_over(loop: Loop) -> None:
    loop.outbox.hold()
    loop.outbox.send_soon(b"1")
    loop.now_s += HOLD_S
    loop.outbox.send_soon(b"2")
    loop.outbox.send_soon(b"3")
    assert loop.sent == [b"1", b"2", b"3"]


def test_the_next_turn_holds_again(loop: Loop) -> None:
    loop.outbox.send_soon(b"1")
    loop.end_turn()
    loop.now_s += HOLD_S
    loop.outbox.send_soon(b"2")
    assert loop.sent == [b"1"]
    loop.end_turn()
    assert loop.sent == [b"1", b"2"]
