"""Deterministic noise: recorded messages with random damage. Nothing but records and WireError may come of it."""

import random
import time
from collections.abc import Callable

import pytest

from m2gate.errors import WireError
from m2gate.wire.http import check_framing, wants_close
from m2gate.wire.mongrel2 import Credits, Leave, Message, Request, check_headers, find_credits, parse_message
from m2gate.wire.websocket import check_message, parse_close, parse_flags
from tests.corpus import frames

MESSAGES = 20_000
SLOW_S = 1.0  # of CPU for one message; a parser that takes longer than linear time would need hours
CORPUS = list(frames().values())
INTERESTING = [b"", b"0", b"-1", b"4294967296", b"99999999999999999999", b":", b",", b"}", b"]", b"#", b"~", b"^", b"!"]
INTERESTING += [b" ", b"\0", b"\xff", b'"', b"\\", b"{", b"[", b"0:}", b"0:,", b"@*", b"\\ud800", b"0:]" * 40]

Damage = Callable[[random.Random, bytes], bytes]


def change_byte(dice: random.Random, data: bytes) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + bytes((dice.randrange(256),)) + data[at + 1 :]


def change_digit(dice: random.Random, data: bytes) -> bytes:
    places = [at for at, byte in enumerate(data) if 48 <= byte <= 57]
    if not places:
        return data
    at = dice.choice(places)
    return data[:at] + b"%d" % dice.choice([0, 1, 9, 99, 1 << 31, 1 << 64]) + data[at + 1 :]


def cut_out(dice: random.Random, data: bytes) -> bytes:
    start, end = sorted((dice.randrange(len(data) + 1), dice.randrange(len(data) + 1)))
    return data[:start] + data[min(end, start + dice.choice([1, 2, 10, 10_000])) :]


def put_in(dice: random.Random, data: bytes) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + dice.choice(INTERESTING) + data[at:]


def repeat(dice: random.Random, data: bytes) -> bytes:
    start, end = sorted((dice.randrange(len(data) + 1), dice.randrange(len(data) + 1)))
    return data[:end] + data[start:end] * dice.randrange(1, 4) + data[end:]


def splice(dice: random.Random, data: bytes) -> bytes:
    other = dice.choice(CORPUS)
    return data[: dice.randrange(len(data) + 1)] + other[dice.randrange(len(other)) :]


DAMAGES: list[Damage] = [change_byte, change_digit, cut_out, put_in, repeat, splice]


def damaged(dice: random.Random, data: bytes) -> bytes:
    for _ in range(dice.choice([1, 1, 1, 2, 5])):
        data = dice.choice(DAMAGES)(dice, data)
    return data


def check_types(message: Message) -> None:
    """Hold the record to its annotations, which nothing checks at run time."""
    assert type(message.send_ident) is bytes
    assert 0 <= message.conn_id <= 0xFFFF_FFFF
    if isinstance(message, Credits):
        assert message.amount > 0
    elif isinstance(message, Request):
        assert type(message.body) is type(message.path) is bytes
        for name, value in message.headers.items():
            assert type(name) is bytes
            assert value != []
            assert all(type(one) is bytes for one in (value if isinstance(value, list) else [value]))
    else:
        assert isinstance(message, Leave)


def test_damaged_messages() -> None:
    dice = random.Random(20_000)
    records = 0
    for _ in range(MESSAGES):
        frame = damaged(dice, dice.choice(CORPUS))
        start_s = time.thread_time()
        try:
            found = find_credits(frame)
            message = parse_message(frame)
            if isinstance(message, Request):
                check_headers(message.headers)
        except WireError as error:
            broken = error
            assert broken.frame is not None
            assert found is None
        else:
            records += 1
            check_types(message)
            # The short way to credits is the long one's: it may leave some out, and invents none.
            assert found is None or (isinstance(message, Credits) and found == (message.conn_id, message.amount))
        assert time.thread_time() - start_s < SLOW_S
    # Some damage leaves a sound message: the test has not only thrown junk.
    assert 100 < records < MESSAGES // 2


@pytest.mark.parametrize(
    ("name", "parse"),
    [
        ("flags", parse_flags),
        ("close", parse_close),
        ("text", lambda data: check_message(1, data, 50)),
        ("binary", lambda data: check_message(2, data, 50)),
        ("opcode", lambda data: check_message(data[0] if data else 0, data, 50)),
        ("length", lambda data: check_framing({b"content-length": data})),
        ("coding", lambda data: check_framing({b"transfer-encoding": data})),
        ("lengths", lambda data: check_framing({b"content-length": data.split(b",")})),
        ("close-token", lambda data: wants_close(b"HTTP/1.1", data)),
    ],
)
def test_damaged_values(name: str, parse: Callable[[bytes], object]) -> None:
    dice = random.Random(name)
    seeds = [b"0x81", b"0xC1", b"\x03\xe8bye", "Grüße".encode(), b"17", b"2147483647", b"chunked", b"keep-alive, close"]
    for _ in range(MESSAGES // 10):
        try:
            parse(damaged(dice, dice.choice(seeds)))
        except WireError as error:
            broken = error
            assert broken.rule
