import io
import string
from http.client import parse_headers

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2gate.errors import WireError
from m2gate.wire.http import (
    LAST_CHUNK,
    LENGTH_MAX,
    REASONS,
    UnsendableError,
    build_chunk,
    build_fields,
    check_framing,
    has_body,
    head_prefix,
    status_line,
    wants_close,
)
from m2gate.wire.mongrel2 import HeaderValue
from tests.wire.passes import check_passes

STATUSES = [
    (100, b"HTTP/1.1 100 Continue\r\n"),
    (200, b"HTTP/1.1 200 OK\r\n"),
    (404, b"HTTP/1.1 404 Not Found\r\n"),
    (413, b"HTTP/1.1 413 Content Too Large\r\n"),
    (414, b"HTTP/1.1 414 URI Too Long\r\n"),
    (416, b"HTTP/1.1 416 Range Not Satisfiable\r\n"),
    (422, b"HTTP/1.1 422 Unprocessable Content\r\n"),
    (299, b"HTTP/1.1 299 \r\n"),
    (599, b"HTTP/1.1 599 \r\n"),
]


@pytest.mark.parametrize(("status", "line"), STATUSES)
def test_status_line(status: int, line: bytes) -> None:
    assert status_line(status) == line


@pytest.mark.parametrize("status", [-1, 0, 99, 600, 1000])
def test_a_status_has_three_digits(status: int) -> None:
    with pytest.raises(ValueError, match="100 to 599"):
        status_line(status)
    with pytest.raises(ValueError, match="100 to 599"):
        head_prefix(status, ())


def test_reasons_are_safe_in_a_status_line() -> None:
    assert all(100 <= status <= 599 and reason.isascii() and reason.isprintable() for status, reason in REASONS.items())


FIELDS = [
    pytest.param([], b"", id="none"),
    pytest.param([("Content-Type", "text/plain")], b"Content-Type: text/plain\r\n", id="one"),
    pytest.param(
        [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n", id="repeated"
    ),
    pytest.param([("X-Name", "caf\xe9 \xa0\xff\x80")], b"X-Name: caf\xe9 \xa0\xff\x80\r\n", id="latin-1"),
    pytest.param([("X-Empty", "")], b"X-Empty: \r\n", id="empty-value"),
    pytest.param([("!#$%&'*+-.^_`|~0aZ", "x")], b"!#$%&'*+-.^_`|~0aZ: x\r\n", id="every-token-character"),
]


@pytest.mark.parametrize(("pairs", "lines"), FIELDS)
def test_build_fields(pairs: list[tuple[str, str]], lines: bytes) -> None:
    assert build_fields(pairs) == lines
    assert build_fields(iter(pairs)) == lines
    assert head_prefix(204, tuple(pairs)) == b"HTTP/1.1 204 No Content\r\n" + lines


TOKEN = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"


@pytest.mark.checklist("mongrel2", 27)
@pytest.mark.parametrize("code", range(256))
def test_no_other_character_gets_into_a_head(code: int) -> None:
    character = chr(code)
    is_control = code < 0x20 or code == 0x7F
    for value in (character, f"a{character}b", f"a{character}", f"{character}a"):
        if is_control:
            with pytest.raises(ValueError, match="'X-Name'"):
                build_fields([("X-Name", value)])
        else:
            assert build_fields([("X-Name", value)]) == f"X-Name: {value}\r\n".encode("latin-1")
    for name in (character, f"a{character}b", f"a{character}", f"{character}a"):
        if character in TOKEN:
            assert build_fields([(name, "x")]) == f"{name}: x\r\n".encode()
        else:
            with pytest.raises(ValueError, match="header name"):
                build_fields([(name, "x")])


@pytest.mark.checklist("mongrel2", 27)
@pytest.mark.parametrize(
    "value", ["a\r\nSet-Cookie: x=1", "a\nb", "a\rb", "a\r\n\r\n<html>", "a\0b", "\u010d\u010a", "\u2028", "\ud800"]
)
@pytest.mark.parametrize("build", [lambda pair: build_fields([pair]), lambda pair: head_prefix(200, (pair,))])
def test_no_second_field_can_be_smuggled_in(build: object, value: str) -> None:
    assert callable(build)
    for pair in (("X-Name", value), (value, "x"), ("", "x")):
        # Twice, as a result may have been kept.
        for _ in range(2):
            with pytest.raises(UnsendableError, match="header") as caught:
                build(pair)
            assert isinstance(caught.value, ValueError)
    # A value may be secret.
    with pytest.raises(UnsendableError) as caught:
        build(("X-Name", f"secret{value}"))
    assert "secret" not in str(caught.value)


NAMES = st.text(TOKEN, min_size=1, max_size=20)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, blacklist_characters="\x7f\x85"), max_size=40)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=10))
def test_another_parser_reads_the_same_fields(pairs: list[tuple[str, str]]) -> None:
    message = parse_headers(io.BytesIO(build_fields(pairs) + b"\r\n"))
    assert [(name, str(value).strip()) for name, value in message.items()] == [
        (name, value.strip()) for name, value in pairs
    ]


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=8)), max_size=3))
def test_a_head_has_as_many_lines_as_fields_or_is_refused(pairs: list[tuple[str, str]]) -> None:
    try:
        lines = build_fields(pairs)
    except ValueError:
        return
    assert lines.count(b"\r\n") == lines.count(b"\n") == lines.count(b"\r") == len(pairs)
    assert b"\0" not in lines


CHUNKS = [
    (b"a", b"1\r\na\r\n"),
    (b"x" * 15, b"f\r\n" + b"x" * 15 + b"\r\n"),
    (b"x" * 16, b"10\r\n" + b"x" * 16 + b"\r\n"),
    (b"\r\n0\r\n\r\n", b"7\r\n\r\n0\r\n\r\n\r\n"),
    (b"x" * 70_000, b"11170\r\n" + b"x" * 70_000 + b"\r\n"),
]


@pytest.mark.parametrize(("data", "chunk"), CHUNKS, ids=range(len(CHUNKS)))
def test_build_chunk(data: bytes, chunk: bytes) -> None:
    assert build_chunk(data) == chunk


def test_no_data_is_no_chunk() -> None:
    assert LAST_CHUNK == b"0\r\n\r\n"
    with pytest.raises(ValueError, match="LAST_CHUNK"):
        build_chunk(b"")


BODIES = [
    (b"GET", 200, True),
    (b"POST", 500, True),
    (b"HEAD", 200, False),
    (b"HEAD", 404, False),
    (b"GET", 100, False),
    (b"GET", 103, False),
    (b"GET", 204, False),
    (b"GET", 205, True),
    (b"GET", 304, False),
]


@pytest.mark.parametrize(("method", "status", "answer"), BODIES)
def test_has_body(method: bytes, status: int, answer: bool) -> None:
    assert has_body(method, status) is answer


FRAMINGS: list[tuple[dict[bytes, HeaderValue], int | None]] = [
    ({}, 0),
    ({b"content-length": b"0"}, 0),
    ({b"content-length": b"17"}, 17),
    ({b"content-length": b"017"}, 17),
    ({b"content-length": b"2147483647"}, LENGTH_MAX),
    ({b"transfer-encoding": b"chunked"}, None),
]


@pytest.mark.parametrize(("headers", "length"), FRAMINGS, ids=str)
def test_check_framing(headers: dict[bytes, HeaderValue], length: int | None) -> None:
    assert check_framing(headers) == length


REFUSED: list[tuple[dict[bytes, HeaderValue], str]] = [
    ({b"content-length": b"3", b"transfer-encoding": b"chunked"}, "excludes"),
    ({b"content-length": b"3", b"transfer-encoding": b"identity"}, "excludes"),
    ({b"content-length": [b"3", b"3"], b"transfer-encoding": b"chunked"}, "excludes"),
    ({b"transfer-encoding": b"Chunked"}, "chunked"),
    ({b"transfer-encoding": b"chunked "}, "chunked"),
    ({b"transfer-encoding": b"gzip, chunked"}, "chunked"),
    ({b"transfer-encoding": b""}, "chunked"),
    ({b"transfer-encoding": [b"chunked", b"chunked"]}, "chunked"),
    ({b"content-length": [b"3", b"3"]}, "once"),
    ({b"content-length": b""}, "number"),
    ({b"content-length": b"-1"}, "number"),
    ({b"content-length": b"+1"}, "number"),
    ({b"content-length": b"1_0"}, "number"),
    ({b"content-length": b" 1"}, "number"),
    ({b"content-length": b"1 "}, "number"),
    ({b"content-length": b"0x10"}, "number"),
    ({b"content-length": b"3, 3"}, "number"),
    ({b"content-length": b"\xd9\xa1"}, "number"),
    ({b"content-length": b"\xb2"}, "number"),
    ({b"content-length": b"2147483648"}, "number"),
    ({b"content-length": b"18446744073709551617"}, "number"),
    ({b"content-length": b"1" * 5_000}, "number"),
]


@pytest.mark.parametrize(("headers", "rule"), REFUSED, ids=range(len(REFUSED)))
def test_ambiguous_framing_is_a_wire_error(headers: dict[bytes, HeaderValue], rule: str) -> None:
    with pytest.raises(WireError, match=rule):
        check_framing(headers)


def test_four_passes_of_a_length() -> None:
    def parse(value: bytes) -> int | None:
        return check_framing({b"content-length": value})

    check_passes(parse, b"2147483647", LENGTH_MAX, build=lambda length: b"%d" % length, prefixes_fail=False)


def test_four_passes_of_a_coding() -> None:
    def parse(value: bytes) -> str:
        return "chunked" if check_framing({b"transfer-encoding": value}) is None else "length"

    check_passes(parse, b"chunked", "chunked", build=str.encode)


CLOSES: list[tuple[bytes, HeaderValue | None, bool]] = [
    (b"HTTP/1.1", None, False),
    (b"HTTP/1.1", b"keep-alive", False),
    (b"HTTP/1.1", b"Keep-Alive", False),
    (b"HTTP/1.1", b"", False),
    (b"HTTP/1.1", b"Upgrade", False),
    (b"HTTP/1.1", b"closed", False),
    (b"HTTP/1.1", b"close", True),
    (b"HTTP/1.1", b"Close", True),
    (b"HTTP/1.1", b"upgrade,\tclose ", True),
    (b"HTTP/1.1", [b"keep-alive", b"close"], True),
    (b"HTTP/1.1", [b"keep-alive", b"te"], False),
    (b"HTTP/1.0", None, True),
    (b"HTTP/1.0", b"keep-alive", True),
    (b"", None, True),
]


@pytest.mark.parametrize(("version", "connection", "answer"), CLOSES)
def test_wants_close(version: bytes, connection: HeaderValue | None, answer: bool) -> None:
    assert wants_close(version, connection) is answer
