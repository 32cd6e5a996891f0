"""Tokens: what is none, how many there are, and when they end."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tnetstring
import zmq

from m2gate.link.mailbox import Mailbox, Token
from m2gate.link.server import IDLE_FORGET_S
from tests.link.fakes import FakeMongrel2, settle


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[Mailbox]:
    context: Any = zmq.Context()
    one = Mailbox(context, tmp_path, None)
    yield one
    one.close()
    context.term()


def encode(payload: object) -> str:
    raw: bytes = tnetstring.dumps([tnetstring.dumps(payload), b""])
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@pytest.mark.parametrize("conn_id", [float("inf"), float("nan"), b"1" * 5000, None, b"", [1]], ids=repr)
def test_a_number_that_is_none(conn_id: object) -> None:
    with pytest.raises(ValueError, match="no connection token"):
        Token.parse(encode([b"ipc:///x", b"m2", conn_id, b"nonce"]))


def test_a_connection_has_one_token_however_often_it_asks(mailbox: Mailbox) -> None:
    far = FakeMongrel2()
    tokens = set()
    for _ in range(5):
        exchange = far.opened(1)
        tokens.add(mailbox.issue(exchange.connection))
        exchange.respond(200, (), b"")
    tokens.add(mailbox.issue(far.opened(2).connection))
    assert len(tokens) == 2


def test_a_token_ends_with_its_connection(mailbox: Mailbox) -> None:
    far = FakeMongrel2()
    token = Token.parse(mailbox.issue(far.opened(1).connection))
    assert mailbox.find(token) is far.connection(1)
    far.leave(1)
    settle()
    assert mailbox.find(token) is None


def test_a_token_ends_with_a_connection_that_is_forgotten(mailbox: Mailbox) -> None:
    far = FakeMongrel2()
    exchange = far.opened(1)
    token = Token.parse(mailbox.issue(exchange.connection))
    exchange.respond(200, (), b"")
    far.clock.move(IDLE_FORGET_S + 1)
    far.server.tick()
    assert mailbox.find(token) is None
    far.opened(1).respond(200, (), b"again")  # it lived after all
    assert far.taken(1).endswith(b"again")
