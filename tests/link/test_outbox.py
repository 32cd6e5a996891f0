"""What is answered in one turn leaves together, in order, and never late."""

import pytest

from m2gate.link.outbox import HOLD_S, Outbox


@pytest.fixture
def sent() -> list[bytes]:
    return []


@pytest.fixture
def outbox(sent: list[bytes], monkeypatch: pytest.MonkeyPatch) -> Outbox:
    monkeypatch.setattr("m2gate.link.outbox.monotonic", lambda: 100.0)
    return Outbox(sent.append)


def test_sends_at_once_unless_told_to_hold(outbox: Outbox, sent: list[bytes]) -> None:
    outbox.send(b"1")
    assert sent == [b"1"]


def test_holds_until_release(outbox: Outbox, sent: list[bytes]) -> None:
    outbox.hold()
    outbox.send(b"1")
    outbox.send(b"2")
    assert sent == []
    outbox.release()
    assert sent == [b"1", b"2"]
    outbox.send(b"3")
    assert sent == [b"1", b"2", b"3"]


def test_sends_all_in_order_once_the_time_is_over(
    outbox: Outbox, sent: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox.hold()
    outbox.send(b"1")
    monkeypatch.setattr("m2gate.link.outbox.monotonic", lambda: 100.0 + HOLD_S)
    outbox.send(b"2")
    outbox.send(b"3")
    assert sent == [b"1", b"2", b"3"]
    outbox.release()
    assert sent == [b"1", b"2", b"3"]
