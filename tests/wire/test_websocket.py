import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2gate.errors import WireError
from m2gate.wire.mongrel2 import HeaderValue
from m2gate.wire.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    CONTROL_MAX,
    PING,
    PONG,
    REASON_MAX,
    TEXT,
    Violation,
    accept_key,
    build_close,
    build_frame,
    check_message,
    is_sendable_code,
    parse_close,
    parse_flags,
)
from tests.wire.passes import check_passes

DATA = (CONTINUATION, TEXT, BINARY)
CONTROL = (CLOSE, PING, PONG)


def read_frame(frame: bytes) -> tuple[int, bool, bytes]:
    """Read one unmasked frame as RFC 6455, section 5.2 lays it out: opcode, FIN, payload."""
    first, second = frame[:2]
    assert first & 0x70 == 0
    assert second & 0x80 == 0
    size, start = second & 0x7F, 2
    if size == 126:
        (size,), start = struct.unpack("!H", frame[2:4]), 4
        assert size > 125
    elif size == 127:
        (size,), start = struct.unpack("!Q", frame[2:10]), 10
        assert size > 0xFFFF
    assert len(frame) == start + size
    return first & 0x0F, bool(first & 0x80), frame[start:]


FRAMES = [
    pytest.param(TEXT, b"Hello", b"\x81\x05Hello", id="text"),
    pytest.param(BINARY, b"", b"\x82\x00", id="empty-binary"),
    pytest.param(PING, b"Hello", b"\x89\x05Hello", id="ping"),
    pytest.param(PONG, b"Hello", b"\x8a\x05Hello", id="pong"),
    pytest.param(CLOSE, b"\x03\xe8", b"\x88\x02\x03\xe8", id="close"),
    pytest.param(BINARY, b"x" * 125, b"\x82\x7d" + b"x" * 125, id="125"),
    pytest.param(BINARY, b"x" * 126, b"\x82\x7e\x00\x7e" + b"x" * 126, id="126"),
    pytest.param(BINARY, b"x" * 256, b"\x82\x7e\x01\x00" + b"x" * 256, id="256"),
    pytest.param(BINARY, b"x" * 65_535, b"\x82\x7e\xff\xff" + b"x" * 65_535, id="65535"),
    pytest.param(BINARY, b"x" * 65_536, b"\x82\x7f" + b"\0\0\0\0\0\1\0\0" + b"x" * 65_536, id="65536"),
]


@pytest.mark.checklist("mongrel2", 58)
@pytest.mark.parametrize(("opcode", "payload", "frame"), FRAMES)
def test_build_frame(opcode: int, payload: bytes, frame: bytes) -> None:
    assert build_frame(opcode, payload) == frame


def test_build_fragments() -> None:
    assert build_frame(TEXT, b"Hel", fin=False) == b"\x01\x03Hel"
    assert build_frame(CONTINUATION, b"x" * 126, fin=False) == b"\x00\x7e\x00\x7e" + b"x" * 126
    assert build_frame(CONTINUATION, b"lo") == b"\x80\x02lo"


@pytest.mark.checklist("mongrel2", 58)
@given(st.sampled_from(DATA), st.binary(max_size=300), st.sampled_from([0, 100, 65_300]), st.booleans())
def test_any_frame_can_be_read(opcode: int, payload: bytes, more: int, fin: bool) -> None:
    payload += bytes(more)
    assert read_frame(build_frame(opcode, payload, fin=fin)) == (opcode, fin, payload)


@pytest.mark.parametrize("opcode", [3, 7, 0xB, 0xF, 0x10, 0x81, -1])
def test_unknown_opcodes_are_not_sent(opcode: int) -> None:
    for size in (0, 126, 65_536):
        with pytest.raises(ValueError, match="opcode"):
            build_frame(opcode, bytes(size))


@pytest.mark.parametrize("opcode", CONTROL)
def test_control_frames_are_short_and_whole(opcode: int) -> None:
    assert len(build_frame(opcode, bytes(CONTROL_MAX))) == 127
    with pytest.raises(ValueError, match="control frame"):
        build_frame(opcode, bytes(CONTROL_MAX + 1))
    with pytest.raises(ValueError, match="control frame"):
        build_frame(opcode, b"", fin=False)


@pytest.mark.checklist("mongrel2", 54)
@pytest.mark.parametrize("opcode", range(16))
def test_flags_give_the_opcode(opcode: int) -> None:
    for flags in (b"0x%x" % (0x80 | opcode), b"0x%X" % (0x80 | opcode)):
        assert parse_flags(flags) == opcode


@pytest.mark.checklist("mongrel2", 54)
@pytest.mark.parametrize("byte", range(256))
def test_reserved_bits_and_fragments_are_a_protocol_error(byte: int) -> None:
    flags = b"0x%X" % byte
    if byte & 0xF0 == 0x80:
        assert parse_flags(flags) == byte & 0x0F
        return
    with pytest.raises(Violation) as caught:
        parse_flags(flags)
    assert caught.value.close_code == 1002


@pytest.mark.parametrize(
    "flags", [b"", b"0x", b"81", b"0x181", b"0xg1", b"0x 1", b"0x+1", b"0x_1", b"0X81", b"129", [b"0x81"], []]
)
def test_flags_that_mongrel2_does_not_send(flags: HeaderValue) -> None:
    with pytest.raises(WireError) as caught:
        parse_flags(flags)
    assert not isinstance(caught.value, Violation)


def test_four_passes_of_flags() -> None:
    check_passes(parse_flags, b"0x81", TEXT, build=lambda opcode: b"0x%X" % (0x80 | opcode))


TEXTS = ["", "Hello", "Grüße 世界 \U0001f600", "\0\r\n", "x" * 70_000]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_text_and_binary(text: str) -> None:
    payload = text.encode()
    assert check_message(TEXT, payload, len(payload)) == text
    assert check_message(BINARY, payload, len(payload)) == payload


NOT_UTF8 = [
    pytest.param(b"\xff", id="no-lead-byte"),
    pytest.param(b"abc\x80", id="stray-continuation"),
    pytest.param(b"\xc3", id="cut"),
    pytest.param(b"\xc0\xaf", id="overlong"),
    pytest.param(b"\xe0\x80\x80", id="overlong-3"),
    pytest.param(b"\xed\xa0\x80", id="surrogate"),
    pytest.param(b"\xf4\x90\x80\x80", id="beyond-unicode"),
    pytest.param(b"\xf8\x88\x80\x80\x80", id="five-bytes"),
]


@pytest.mark.checklist("mongrel2", 56)
@pytest.mark.parametrize("payload", NOT_UTF8)
def test_text_that_is_no_utf8(payload: bytes) -> None:
    with pytest.raises(Violation) as caught:
        check_message(TEXT, b"Hello " + payload, 100)
    assert caught.value.close_code == 1007
    assert check_message(BINARY, payload, 100) == payload


@pytest.mark.checklist("mongrel2", 56)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_the_limit_counts_bytes(opcode: int) -> None:
    payload = "üüüü".encode()
    assert check_message(opcode, payload, 8)
    with pytest.raises(Violation, match="at most 7 bytes") as caught:
        check_message(opcode, payload, 7)
    assert caught.value.close_code == 1009


@pytest.mark.checklist("mongrel2", 56)
@pytest.mark.parametrize("opcode", sorted(set(range(16)) - {TEXT, BINARY}))
def test_other_opcodes_are_no_messages(opcode: int) -> None:
    with pytest.raises(Violation) as caught:
        check_message(opcode, b"", 100)
    assert caught.value.close_code == 1002


CLOSES = [
    pytest.param(b"", None, "", id="empty"),
    pytest.param(b"\x03\xe8", 1000, "", id="code-only"),
    pytest.param(b"\x03\xe9going away", 1001, "going away", id="reason"),
    pytest.param(b"\x13\x87" + "ü".encode() * 61, 4999, "ü" * 61, id="long"),
    pytest.param(b"\x0b\xb8" + b"x" * 123, 3000, "x" * 123, id="longest"),
]


@pytest.mark.parametrize(("payload", "code", "reason"), CLOSES)
def test_close(payload: bytes, code: int | None, reason: str) -> None:
    assert parse_close(payload) == (code, reason)
    assert build_close(code, reason) == payload
    check_passes(parse_close, payload, (code, reason), build=lambda record: build_close(*record), prefixes_fail=False)


BAD_CLOSES = [
    pytest.param(b"\x03", 1002, marks=pytest.mark.checklist("mongrel2", 56), id="one-byte"),
    pytest.param(b"\x03\xe8" + b"x" * 124, 1002, id="too-long"),
    pytest.param(b"\x03\xe8\xff", 1007, marks=pytest.mark.checklist("mongrel2", 56), id="reason-no-utf8"),
    *[
        pytest.param(struct.pack("!H", code), 1002, id=str(code))
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
    ],
]


@pytest.mark.parametrize(("payload", "close_code"), BAD_CLOSES)
def test_a_close_that_breaks_a_rule(payload: bytes, close_code: int) -> None:
    with pytest.raises(Violation) as caught:
        parse_close(payload)
    assert caught.value.close_code == close_code


def test_sendable_codes() -> None:
    allowed = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}
    assert {code for code in range(-1, 65_537) if is_sendable_code(code)} == allowed


@pytest.mark.parametrize("code", [-1, 0, 999, 1005, 1006, 1015, 5000, 70_000])
def test_other_codes_are_not_sent(code: int) -> None:
    with pytest.raises(ValueError, match=f"close code {code}"):
        build_close(code)


@given(st.integers(3000, 4999), st.text(max_size=200))
def test_a_long_reason_is_cut_between_characters(code: int, reason: str) -> None:
    payload = build_close(code, reason)
    assert len(payload) <= CONTROL_MAX
    found_code, found = parse_close(payload)
    assert found_code == code
    assert reason.startswith(found)
    # Nothing is cut that would have had room: the next character is the one that does not fit.
    rest = reason[len(found) :]
    assert not rest or len((found + rest[0]).encode()) > REASON_MAX


def test_accept_key() -> None:
    # The example of RFC 6455, section 1.3.
    assert accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
