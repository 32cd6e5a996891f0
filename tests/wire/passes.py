"""The four passes every codec goes through: whole, round trip, every prefix, every one-byte change.

Whatever the bytes, there are two outcomes: a record or WireError. Any other exception fails the test by itself.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from m2gate.errors import WireError

R = TypeVar("R")


def record_or_none(parse: Callable[[bytes], R], data: bytes) -> R | None:
    """Return the record, or None for a WireError."""
    try:
        return parse(data)
    except WireError as error:
        broken = error
    assert 0 <= broken.at <= len(broken.frame), (broken.at, data)  # it goes into the log
    return None


def check_passes(
    parse: Callable[[bytes], R],
    data: bytes,
    record: object,
    *,
    build: Callable[[Any], bytes] | None = None,
    prefixes_fail: bool = True,
) -> None:
    """Put one message through all four passes.

    build:         the opposite of parse; None where a format has several spellings of one record.
    prefixes_fail: no message is the beginning of another one, so each cut one is a WireError.
    """
    assert parse(data) == record
    if build is not None:
        assert build(record) == data
    for cut in range(len(data)):
        found = record_or_none(parse, data[:cut])
        assert not (prefixes_fail and found is not None), data[:cut]
    for at, original in enumerate(data):
        for changed in range(256):
            if changed != original:
                record_or_none(parse, data[:at] + bytes((changed,)) + data[at + 1 :])
