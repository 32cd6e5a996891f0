import re
from collections.abc import Callable

import pytest
import tnetstring
from hypothesis import given
from hypothesis import strategies as st

from m2gate.errors import WireError
from m2gate.wire.mongrel2 import (
    TARGETS_MAX,
    Credits,
    HeaderValue,
    Leave,
    Message,
    Request,
    build_control,
    build_reply,
    build_targets,
    check_headers,
    check_ident,
    parse_message,
    split_ids,
)
from tests.wire.frames import build_json_message, build_message
from tests.wire.passes import check_passes

Build = Callable[[Request], bytes]
BUILDS = [pytest.param(build_message, id="tnetstring"), pytest.param(build_json_message, id="json")]

GET = Request(b"m2-in", 7, b"/a%20b", {b"METHOD": b"GET", b"PATTERN": b"/", b"x-one": [b"a", b"b"]}, b"")
POST = Request(b"m2-in", 7, b"/in", {b"METHOD": b"POST", b"PATTERN": b"/"}, bytes(range(256)) + b" 3:abc,}]\r\n")
PIECE = Request(b"m2-in", 7, b"/in", {b"UPLOAD_STREAM": b"4033"}, b"piece")

MESSAGES = [
    pytest.param(
        b"m2-in 7 /a%20b 48:6:METHOD,3:GET,7:PATTERN,1:/,5:x-one,8:1:a,1:b,]}0:,",
        GET,
        marks=pytest.mark.checklist("mongrel2", 1),
        id="get-tnetstring",
    ),
    pytest.param(
        b'm2-in 7 /a%20b 48:{"METHOD":"GET","PATTERN":"/","x-one":["a","b"]},0:,',
        GET,
        marks=pytest.mark.checklist("mongrel2", 1),
        id="get-json",
    ),
    pytest.param(
        b"m2-in 7 /in 24:13:UPLOAD_STREAM,4:4033,}5:piece,",
        PIECE,
        marks=pytest.mark.checklist("mongrel2", 11),
        id="piece-without-method",
    ),
    pytest.param(
        b'm2-in 7 /in 24:{"UPLOAD_STREAM":"4033"},5:piece,',
        PIECE,
        marks=pytest.mark.checklist("mongrel2", 11),
        id="piece-without-method-json",
    ),
    pytest.param(
        b'm2-in 7 / 13:{"x":"\xff\xfe \xc3\xbc"},0:,',
        Request(b"m2-in", 7, b"/", {b"x": b"\xff\xfe \xc3\xbc"}, b""),
        marks=pytest.mark.checklist("mongrel2", 3),
        id="json-not-utf8",
    ),
    pytest.param(
        b'm2-in 7 / 11:{"x":"a\tb"},0:,',
        Request(b"m2-in", 7, b"/", {b"x": b"a\tb"}, b""),
        marks=pytest.mark.checklist("mongrel2", 4),
        id="json-raw-tab",
    ),
    pytest.param(
        b'm2-in 7 / 19:{"x":"\\"\\\\u00e9\\\\"},0:,',
        Request(b"m2-in", 7, b"/", {b"x": b'"\\u00e9\\'}, b""),
        id="json-escapes",
    ),
    pytest.param(b"m2 4294967295 / 0:}0:,", Request(b"m2", 0xFFFF_FFFF, b"/", {}, b""), id="largest-id"),
    pytest.param(b"m2 1 @chat 0:}2:{},", Request(b"m2", 1, b"@chat", {}, b"{}"), id="json-socket"),
    pytest.param(b'm2 3 @* 16:6:METHOD,4:JSON,}21:{"type":"disconnect"},', Leave(b"m2", 3), id="leave"),
    pytest.param(b'm2 3 @* 17:{"METHOD":"JSON"},21:{"type":"disconnect"},', Leave(b"m2", 3), id="leave-json"),
    pytest.param(
        b'm2 -1 @* 16:6:METHOD,4:JSON,}21:{"type":"disconnect"},', Leave(b"m2", 0xFFFF_FFFF), id="leave-minus-1"
    ),
    pytest.param(
        b'm2 -2147483648 @* 16:6:METHOD,4:JSON,}21:{"type":"disconnect"},', Leave(b"m2", 1 << 31), id="leave-least-id"
    ),
    pytest.param(
        b'm2 3 @* 40:16:DOWNLOAD_CREDITS,1:5,6:METHOD,4:JSON,}18:{"type":"credits"},',
        Credits(b"m2", 3, 5),
        id="credits",
    ),
    pytest.param(
        b'm2 3 @* 41:{"METHOD":"JSON","DOWNLOAD_CREDITS":"46"},18:{"type":"credits"},',
        Credits(b"m2", 3, 46),
        id="credits-json",
    ),
    pytest.param(
        b'm2 -2 @* 45:16:DOWNLOAD_CREDITS,6:102400,6:METHOD,4:JSON,}18:{"type":"credits"},',
        Credits(b"m2", 0xFFFF_FFFE, 102_400),
        id="credits-minus-2",
    ),
]


@pytest.mark.parametrize(("frame", "message"), MESSAGES)
def test_four_passes(frame: bytes, message: Message) -> None:
    check_passes(parse_message, frame, message)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.checklist("mongrel2", 1, 2)
def test_round_trip_of_a_binary_body(build: Build) -> None:
    check_passes(parse_message, build(POST), POST, build=build)


LATIN1 = st.binary(max_size=20)
HEADERS = st.dictionaries(LATIN1, st.one_of(LATIN1, st.lists(LATIN1, min_size=1, max_size=5)), max_size=8)
REQUESTS = st.builds(
    Request,
    st.from_regex(rb"[A-Za-z0-9-]{1,9}", fullmatch=True),
    st.integers(0, 0xFFFF_FFFF),
    st.from_regex(rb"[^ ]{1,20}", fullmatch=True).filter(lambda path: path != b"@*"),
    HEADERS,
    st.binary(max_size=300),
)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.checklist("mongrel2", 1, 2, 3)
@given(request_=REQUESTS)
def test_both_protocols_carry_any_bytes(build: Build, request_: Request) -> None:
    assert parse_message(build(request_)) == request_


@pytest.mark.checklist("mongrel2", 18)
@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("body", [b'{"type":"disconnect"}', b'{"type":"credits"}'])
@pytest.mark.parametrize("amount", [{}, {b"DOWNLOAD_CREDITS": b"5"}], ids=["later", "first"])
def test_a_clients_message_to_the_star_route_is_no_notice(
    build: Build, body: bytes, amount: dict[bytes, HeaderValue]
) -> None:
    # The first message of a connection tells its credits, whatever the message is.
    headers: dict[bytes, HeaderValue] = {b"PATTERN": b"@*", b"METHOD": b"JSON", **amount}
    request = Request(b"m2", 1, b"@*", headers, body)
    assert parse_message(build(request)) == request


def test_a_notice_has_the_path_of_notices() -> None:
    frame = b'm2 3 /x 40:16:DOWNLOAD_CREDITS,1:5,6:METHOD,4:JSON,}18:{"type":"credits"},'
    headers: dict[bytes, HeaderValue] = {b"DOWNLOAD_CREDITS": b"5", b"METHOD": b"JSON"}
    assert parse_message(frame) == Request(b"m2", 3, b"/x", headers, b'{"type":"credits"}')


NOT_NOTICES = [
    pytest.param(b'm2 3 @* 16:6:METHOD,4:JSON,}22:{"type": "disconnect"},', id="blank-in-body"),
    pytest.param(b"m2 3 @* 16:6:METHOD,4:JSON,}0:,", id="no-body"),
    pytest.param(b'm2 3 @* 15:6:METHOD,3:GET,}21:{"type":"disconnect"},', id="other-method"),
    pytest.param(b'm2 3 @* 0:}21:{"type":"disconnect"},', id="no-headers"),
    pytest.param(b'm2 3 @* 16:6:METHOD,4:JSON,}18:{"type":"credits"},', id="credits-without-amount"),
    pytest.param(b'm2 3 @* 40:16:DOWNLOAD_CREDITS,1:0,6:METHOD,4:JSON,}18:{"type":"credits"},', id="no-credits"),
    pytest.param(b'm2 3 @* 41:16:DOWNLOAD_CREDITS,2:-5,6:METHOD,4:JSON,}18:{"type":"credits"},', id="negative-credits"),
    pytest.param(b'm2 3 @* 41:16:DOWNLOAD_CREDITS,2:1_,6:METHOD,4:JSON,}18:{"type":"credits"},', id="underscore"),
    pytest.param(
        b'm2 3 @* 43:16:DOWNLOAD_CREDITS,4:1:5,]6:METHOD,4:JSON,}18:{"type":"credits"},', id="list-of-credits"
    ),
    pytest.param(
        b'm2 3 @* 51:16:DOWNLOAD_CREDITS,11:99999999999,6:METHOD,4:JSON,}18:{"type":"credits"},', id="absurd-credits"
    ),
    pytest.param(b'm2 -2147483649 @* 16:6:METHOD,4:JSON,}21:{"type":"disconnect"},', id="id-below-32-bits"),
    pytest.param(b'm2 - @* 16:6:METHOD,4:JSON,}21:{"type":"disconnect"},', id="id-is-a-sign"),
    pytest.param(b'm2 -1 / 16:6:METHOD,4:JSON,}21:{"type":"disconnect"},', id="negative-id-of-a-request"),
]


@pytest.mark.parametrize("frame", NOT_NOTICES)
def test_what_is_no_notice(frame: bytes) -> None:
    with pytest.raises(WireError):
        parse_message(frame)


BROKEN = [
    pytest.param(b"", id="empty"),
    pytest.param(b"junk", id="junk"),
    pytest.param(b"m2 1 /", id="three-parts"),
    pytest.param(b"m2 one / 0:}0:,", id="id-no-number"),
    pytest.param(b"m2 +1 / 0:}0:,", id="id-with-sign"),
    pytest.param(b"m2 1_0 / 0:}0:,", id="id-with-underscore"),
    pytest.param(b"m2  / 0:}0:,", id="id-missing"),
    pytest.param(b"m2 \xd9\xa1 / 0:}0:,", id="id-in-other-digits"),
    pytest.param(b"m2 4294967296 / 0:}0:,", id="id-over-32-bits"),
    pytest.param(b"m2 11111111111 / 0:}0:,", id="id-with-11-digits"),
    pytest.param(b"m2 " + b"1" * 5_000 + b" / 0:}0:,", id="id-too-long-for-int"),
    pytest.param(b"m2 1  0:}0:,", id="path-missing"),
    pytest.param(b"m2 1 / 0:]0:,", id="headers-are-a-list"),
    pytest.param(b"m2 1 / 1:1#0:,", id="headers-are-a-number"),
    pytest.param(b"m2 1 / 0:~0:,", id="headers-are-null"),
    pytest.param(b"m2 1 / 7:1:a,1:1#}0:,", id="value-is-cut-short"),
    pytest.param(b"m2 1 / 12:1:a,5:1.5^}0:,", id="value-is-cut"),
    pytest.param(b"m2 1 / 7:0:]1:a,}0:,", id="name-is-a-list"),
    pytest.param(b"m2 1 / 0:}0:}", id="body-is-a-dictionary"),
    pytest.param(b"m2 1 / 0:}1:1#", id="body-is-a-number"),
    pytest.param(b"m2 1 / 0:}0:,x", id="bytes-behind-the-body"),
    pytest.param(b"m2 1 / 0:}0:,0:,", id="second-body"),
    pytest.param(b"m2 1 / 0:}", id="no-body"),
    pytest.param(b"m2 1 / 0:}5:hello", id="body-without-end"),
    pytest.param(b"m2 1 / 0:}6:hello,", id="body-too-short"),
    pytest.param(b"m2 1 / 0:}4:hello,", id="body-too-long"),
    pytest.param(b"m2 1 / 0:}-1:,", id="negative-length"),
    pytest.param(b"m2 1 / 2:[],0:,", id="json-list"),
    pytest.param(b'm2 1 / 3:"a",0:,', id="json-string"),
    pytest.param(b"m2 1 / 1:{,0:,", id="json-cut"),
    pytest.param(b"m2 1 / 0:,0:,", id="json-empty"),
    pytest.param(b'm2 1 / 7:{"a":1},0:,', id="json-number"),
    pytest.param(b'm2 1 / 10:{"a":null},0:,', id="json-null"),
    pytest.param(b'm2 1 / 8:{"a":[]},0:,', id="json-empty-list"),
    pytest.param(b'm2 1 / 9:{"a":[1]},0:,', id="json-list-of-numbers"),
    pytest.param(b'm2 1 / 8:{"a":{}},0:,', id="json-object-in-object"),
    pytest.param(b'm2 1 / 14:{"a":"\\u0100"},0:,', id="json-beyond-latin-1"),
    pytest.param(b'm2 1 / 14:{"\\u0100":"a"},0:,', id="json-name-beyond-latin-1"),
    pytest.param(b'm2 1 / 10:{"a":"b"}x,0:,', id="json-and-more"),
]


@pytest.mark.parametrize("frame", BROKEN)
def test_a_broken_message_is_a_wire_error(frame: bytes) -> None:
    with pytest.raises(WireError) as caught:
        parse_message(frame)
    assert caught.value.frame is frame
    assert str(len(frame)) in str(caught.value)


MISTYPED = [
    pytest.param(b"m2 1 / 7:1:a,0:~}0:,", id="value-is-null"),
    pytest.param(b"m2 1 / 7:1:a,0:]}0:,", id="value-is-an-empty-list"),
    pytest.param(b"m2 1 / 11:1:a,4:1:1#]}0:,", id="list-of-numbers"),
    pytest.param(b"m2 1 / 10:1:a,3:0:]]}0:,", id="list-of-lists"),
    pytest.param(b"m2 1 / 10:1:a,3:0:}]}0:,", id="list-of-dictionaries"),
    pytest.param(b"m2 1 / 8:1:1#1:a,}0:,", id="name-is-a-number"),
]


@pytest.mark.parametrize("frame", MISTYPED)
def test_headers_of_other_types_are_found_before_they_are_all_used(frame: bytes) -> None:
    message = parse_message(frame)
    assert isinstance(message, Request)
    with pytest.raises(WireError):
        check_headers(message.headers)


@pytest.mark.checklist("mongrel2", 10)
@pytest.mark.parametrize("length", [b"9999999999", b"9223372036854775807", b"18446744073709551616", b"9" * 5_000])
@pytest.mark.parametrize("frame", [b"m2 1 / %b:}0:,", b"m2 1 / 0:}%b:,", b"m2 1 / %b:,0:,", b"m2 1 / 9:1:a,%b:,}0:,"])
def test_an_absurd_length_is_refused(frame: bytes, length: bytes) -> None:
    with pytest.raises(WireError):
        parse_message(frame % length)


@pytest.mark.parametrize(("start", "end"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deeply_nested_json_is_a_wire_error(start: bytes, end: bytes) -> None:
    headers = start * 50_000 + b'""' + end * 50_000
    with pytest.raises(WireError):
        parse_message(b"m2 1 / " + tnetstring.dumps(headers) + b"0:,")


def test_deeply_nested_tnetstrings_are_a_wire_error() -> None:
    headers = b"0:~"
    for _ in range(5_000):
        headers = b"%d:%b]" % (len(headers), headers)
    with pytest.raises(WireError):
        parse_message(b"m2 1 / " + headers + b"0:,")


def test_an_error_says_where() -> None:
    with pytest.raises(WireError) as caught:
        parse_message(b"m2 1 / 0:}5:hell,")
    assert caught.value.at == len(b"m2 1 / 0:}")


REPLIES = [
    pytest.param([7], b"hi", b"m2-in 1:7, hi", id="one-target"),
    pytest.param([1, 22, 4294967295], b"hi", b"m2-in 15:1 22 4294967295, hi", id="three-targets"),
    pytest.param([1, 1], b"\x00 ,\xff", b"m2-in 3:1 1, \x00 ,\xff", id="binary"),
    pytest.param([1, 22], b"", b"m2-in 4:1 22, ", id="empty-body-closes"),
]


@pytest.mark.checklist("mongrel2", 19)
@pytest.mark.parametrize(("conn_ids", "body", "frame"), REPLIES)
def test_build_reply(conn_ids: list[int], body: bytes, frame: bytes) -> None:
    assert build_reply(b"m2-in", conn_ids, body) == frame
    assert build_targets(b"m2-in", conn_ids) + body == frame


@pytest.mark.checklist("mongrel2", 19)
@given(st.lists(st.integers(0, 0xFFFF_FFFF), min_size=1, max_size=TARGETS_MAX), st.binary(max_size=100))
def test_a_replys_length_is_that_of_its_ids(conn_ids: list[int], body: bytes) -> None:
    match = re.fullmatch(rb"m2-in ([0-9]+):([0-9 ]+), (.*)", build_reply(b"m2-in", conn_ids, body), re.DOTALL)
    assert match is not None
    assert int(match[1]) == len(match[2])
    assert [int(one) for one in match[2].split(b" ")] == conn_ids
    assert match[3] == body


@pytest.mark.parametrize("count", [0, TARGETS_MAX + 1])
def test_a_reply_has_1_to_128_targets(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} targets"):
        build_reply(b"m2-in", range(count), b"x")
    assert build_reply(b"m2-in", range(100, 100 + TARGETS_MAX), b"x").startswith(b"m2-in 511:100 101 ")


@pytest.mark.checklist("mongrel2", 21)
@pytest.mark.parametrize(
    ("count", "sizes"), [(0, []), (1, [1]), (128, [128]), (129, [128, 1]), (300, [128, 128, 44])], ids=str
)
def test_split_ids(count: int, sizes: list[int]) -> None:
    groups = list(split_ids(list(range(count))))
    assert [len(group) for group in groups] == sizes
    assert [one for group in groups for one in group] == list(range(count))
    assert all(build_reply(b"m2-in", group, b"") for group in groups)


def test_split_ids_of_control_messages() -> None:
    groups = list(split_ids(range(255), TARGETS_MAX - 1))
    assert [len(group) for group in groups] == [127, 127, 1]
    assert all(build_control(b"m2-in", group, keep_alive=True) for group in groups)


CONTROLS = [
    pytest.param([2], {"keep_alive": True}, b"m2 3:X 2, 31:3:ctl,21:10:keep-alive,4:true!}]", id="keep-alive"),
    pytest.param([2], {"credits": 64}, b"m2 3:X 2, 25:3:ctl,15:7:credits,2:64#}]", id="credits"),
    pytest.param([2], {"cancel": True}, b"m2 3:X 2, 26:3:ctl,16:6:cancel,4:true!}]", id="cancel"),
    pytest.param(
        [2, 10], {"credits": 1, "keep_alive": True},
        b"m2 6:X 2 10, 45:3:ctl,35:10:keep-alive,4:true!7:credits,1:1#}]", id="two-entries-two-targets"
    ),
]  # fmt: skip


@pytest.mark.checklist("mongrel2", 33, 34)
@pytest.mark.parametrize(("conn_ids", "entries", "frame"), CONTROLS)
def test_build_control(conn_ids: list[int], entries: dict[str, int], frame: bytes) -> None:
    assert build_control(b"m2", conn_ids, **entries) == frame


@pytest.mark.checklist("mongrel2", 34)
@pytest.mark.parametrize("amount", ["64", b"64", 64.0, True, None])
def test_credits_are_an_int(amount: int) -> None:
    with pytest.raises(TypeError, match="must be an int"):
        build_control(b"m2", [2], credits=amount)


def test_build_control_refuses_other_mistakes() -> None:
    with pytest.raises(ValueError, match="unknown control entries: \\['keepalive'\\]"):
        build_control(b"m2", [2], keepalive=True)
    with pytest.raises(ValueError, match="128 targets"):
        build_control(b"m2", range(128), cancel=True)
    with pytest.raises(ValueError, match="0 targets"):
        build_control(b"m2", [], cancel=True)


@pytest.mark.checklist("mongrel2", 22)
@pytest.mark.parametrize("ident", [b"a", b"m2-in", b"A-9", b"0"])
def test_an_ident_has_letters_digits_and_hyphens(ident: bytes) -> None:
    assert check_ident(ident) == ident


@pytest.mark.checklist("mongrel2", 22)
@pytest.mark.parametrize("ident", [b"", b"m2_in", b"m2.in", b"m2:in", b"m2 in", b"m2-in ", b"m2-in\n", b"m\xc3\xbc"])
def test_any_other_ident_is_refused(ident: bytes) -> None:
    with pytest.raises(ValueError, match="letters, digits and '-'"):
        check_ident(ident)
