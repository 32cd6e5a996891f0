"""A WebSocket between its handshake and the 101."""

import pytest

from m2gate.errors import ConnectionGone
from m2gate.link.websocket import WebSocketExchange
from m2gate.wire.mongrel2 import HeaderValue
from m2gate.wire.websocket import CLOSE, build_close, build_frame
from tests.link.fakes import FakeMongrel2

GOING_AWAY = build_frame(CLOSE, build_close(1001, "the service is stopping"))


def shake(far: FakeMongrel2) -> WebSocketExchange:
    fields: dict[bytes, HeaderValue] = {
        b"METHOD": b"WEBSOCKET_HANDSHAKE", b"VERSION": b"HTTP/1.1", b"PATTERN": b"/", b"DOWNLOAD_CREDITS": b"102400",
    }  # fmt: skip
    exchange = far.message(1, fields, b"KEY")
    assert isinstance(exchange, WebSocketExchange)
    return exchange


def send(far: FakeMongrel2, payload: bytes) -> None:
    far.message(1, {b"METHOD": b"WEBSOCKET", b"FLAGS": b"0x82"}, payload)


@pytest.mark.parametrize("is_before", [True, False], ids=["before-the-drain", "in-the-drain"])
def test_a_drain_closes_it_behind_the_101(is_before: bool) -> None:
    far = FakeMongrel2()
    exchange = shake(far) if is_before else None
    far.server.begin_drain()
    exchange = exchange or shake(far)
    assert far.taken(1) == b""  # a frame is no answer to a handshake
    exchange.accept()
    assert far.taken(1).startswith(b"HTTP/1.1 101 ")
    assert far.taken(1).endswith(b"\r\n\r\n" + GOING_AWAY)
    with pytest.raises(ConnectionGone):
        exchange.receive(0)


def test_the_end_of_a_drain_sends_no_frame_before_the_101() -> None:
    far = FakeMongrel2()
    shake(far)
    far.server.end_sessions()
    assert far.taken(1) == b""
    assert far.closed(1) == 1


def test_messages_before_the_101_are_bounded() -> None:
    far = FakeMongrel2(inbox_bytes=1000)
    exchange = shake(far)
    for _ in range(2):
        send(far, b"x" * 500)
    assert not exchange.gone
    send(far, b"")
    assert exchange.gone


def test_messages_before_the_101_count_once() -> None:
    far = FakeMongrel2(inbox_bytes=1000)
    exchange = shake(far)
    send(far, b"x" * 999)
    exchange.accept()
    send(far, b"y")
    assert [exchange.receive(), exchange.receive()] == [b"x" * 999, b"y"]
