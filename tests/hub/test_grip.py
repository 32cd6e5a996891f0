"""Items in GRIP's words: what is understood, and the text with which everything else is refused."""

import json
from typing import Any

import pytest
import tnetstring
from hypothesis import given
from hypothesis import strategies as st

from m2gate.hub.building import build_item
from m2gate.hub.grip import decode_tnetstring, dump_item, parse_item, parse_items
from m2gate.hub.item import NO_FORMATS, Formats, Item, ResponseFormat

DATE = "Wed, 25 Nov 2026 04:22:00 GMT"
STREAM = {"http-stream": {"content": "S"}}


def formats(**kinds: Any) -> dict[str, Any]:
    """Return an item with these formats; ``http_stream`` stands for http-stream."""
    return {"channel": "c", "formats": {kind.replace("_", "-"): row for kind, row in kinds.items()}}


UNDERSTOOD: list[Any] = [
    pytest.param(formats(http_stream={"content": "é\n"}), Formats(stream="é\n".encode()), id="stream"),
    pytest.param(formats(http_stream={"content-bin": "AP8="}), Formats(stream=b"\0\xff"), id="stream-binary"),
    pytest.param(formats(http_stream={"action": "send", "content": ""}), Formats(stream=b""), id="send"),
    pytest.param({"channel": "c", **STREAM}, Formats(stream=b"S"), id="old-style"),
    pytest.param(formats(carrier_pigeon={"content": 1}), NO_FORMATS, id="unknown-format"),
    pytest.param(formats(ws_message={"content": "M"}), Formats(message="M"), id="message"),
    pytest.param(formats(ws_message={"content-bin": "TQ=="}), Formats(message=b"M"), id="message-binary"),
    pytest.param(
        formats(ws_message={"content-bin": "TQ==", "type": "text"}), Formats(message="M"), id="text-in-base64"
    ),
    pytest.param(formats(ws_message={"content": "M", "type": "binary"}), Formats(message=b"M"), id="binary-from-text"),
    pytest.param(formats(http_response={"body": "R"}), Formats(response=ResponseFormat(200, (), b"R")), id="response"),
    pytest.param(
        formats(http_response={"code": "404", "reason": "Nö", "headers": {"X-A": "b"}, "body-bin": "AP8="}),
        Formats(response=ResponseFormat(404, (("X-A", "b"),), b"\0\xff", "Nö")),
        id="whole-response",
    ),
    pytest.param(
        formats(http_response={"headers": [["A", "1"], ["A", "2"], ["Grip-Hold", "stream"]], "body": ""}),
        Formats(response=ResponseFormat(200, (("A", "1"), ("A", "2")), b"")),
        id="pairs-without-grip-headers",
    ),
    pytest.param({**formats(**STREAM), "meta": {"a": "b"}, "size": 5, "no-seq": True}, Formats(stream=b"S"), id="meta"),
    pytest.param({**formats(**STREAM), "size": "5", "else": 1}, Formats(stream=b"S"), id="numeric-text"),
    pytest.param(formats(http_stream={"content": "S", "content-filters": []}), Formats(stream=b"S"), id="no-filters"),
    # Read leniently: no padding, the other alphabet, what belongs to none, six bits too many.
    pytest.param(formats(http_stream={"content-bin": "AP8"}), Formats(stream=b"\0\xff"), id="no-padding"),
    pytest.param(formats(http_stream={"content-bin": "_-\n!+/"}), Formats(stream=b"\xff\xef\xbf"), id="alphabets"),
    pytest.param(formats(http_stream={"content-bin": "AP8=A"}), Formats(stream=b"\0\xff\x00"), id="rest"),
    pytest.param(formats(http_stream={"content-bin": "A"}), Formats(stream=b""), id="not-a-byte"),
]


@pytest.mark.parametrize(("row", "expected"), UNDERSTOOD)
def test_what_is_understood(row: dict[str, Any], expected: Formats) -> None:
    assert parse_item(row, DATE) == Item(channel="c", content=None, formats=expected, date=DATE)


def test_the_names_of_an_item() -> None:
    item = parse_item({**formats(**STREAM), "channel": "", "id": "2", "prev-id": "1"}, DATE)
    assert (item.channel, item.id, item.prev_id) == ("", "2", "1")
    assert parse_item({**formats(**STREAM), "channel": 1}, DATE, "frame").channel == "frame"


WHERE = "publish item object"
REFUSED: list[Any] = [
    pytest.param([], f"{WHERE} is not an object", id="list"),
    pytest.param({"formats": STREAM}, f"{WHERE} does not contain 'channel'", id="no-channel"),
    pytest.param({"channel": 1, "formats": STREAM}, f"{WHERE} contains 'channel' with wrong type", id="channel"),
    pytest.param({"channel": "\ud800", "formats": STREAM}, f"{WHERE} contains 'channel' with wrong type", id="half"),
    pytest.param({"channel": "c", "formats": None}, f"{WHERE} contains 'formats' with wrong type", id="null-formats"),
    pytest.param({"channel": "c", "formats": []}, f"{WHERE} contains 'formats' with wrong type", id="formats"),
    pytest.param({"channel": "c"}, "no formats specified", id="none"),
    pytest.param({"channel": "c", "formats": {}}, "no formats specified", id="empty"),
    pytest.param({**formats(**STREAM), "id": 1}, f"{WHERE} contains 'id' with wrong type", id="id"),
    pytest.param({**formats(**STREAM), "id": None}, f"{WHERE} contains 'id' with wrong type", id="null-id"),
    pytest.param({**formats(**STREAM), "prev-id": 1}, f"{WHERE} contains 'prev-id' with wrong type", id="prev-id"),
    pytest.param({**formats(**STREAM), "meta": []}, f"{WHERE} contains 'meta' with wrong type", id="meta"),
    pytest.param({**formats(**STREAM), "meta": {"q": 1}}, "'meta' contains 'q' with wrong type", id="meta-value"),
    pytest.param({**formats(**STREAM), "size": -1}, f"{WHERE} contains 'size' with invalid value", id="size"),
    pytest.param({**formats(**STREAM), "size": "x"}, f"{WHERE} contains 'size' with invalid value", id="size-text"),
    pytest.param({**formats(**STREAM), "size": "9" * 5_000}, f"{WHERE} contains 'size' with invalid value", id="huge"),
    pytest.param({**formats(**STREAM), "no-seq": 1}, f"{WHERE} contains 'no-seq' with wrong type", id="no-seq"),
    pytest.param(formats(http_stream=3), "'http-stream' is not an object", id="stream"),
    pytest.param(formats(http_stream=None), "'http-stream' is not an object", id="null-stream"),
    pytest.param(formats(http_stream={}), "'http-stream' does not contain 'content' or 'content-bin'", id="no-content"),
    pytest.param(formats(http_stream={"content": 1}), "'http-stream' contains 'content' with wrong type", id="number"),
    pytest.param(
        formats(http_stream={"content": "\udfff"}), "'http-stream' contains 'content' with wrong type", id="half-text"
    ),
    pytest.param(
        formats(http_stream={"content-bin": None}), "'http-stream' contains 'content-bin' with wrong type", id="bin"
    ),
    pytest.param(
        formats(http_stream={"content": "", "action": 1}), "'http-stream' contains 'action' with wrong type", id="act"
    ),
    pytest.param(
        formats(http_stream={"content": "", "action": "x"}),
        "'http-stream' contains 'action' with unknown value",
        id="unknown-action",
    ),
    pytest.param(formats(http_stream={"action": "hint"}), "'http-stream' with action 'hint' is not supported", id="h"),
    pytest.param(
        formats(http_stream={"action": "close"}), "'http-stream' with action 'close' is not supported", id="c"
    ),
    pytest.param(formats(ws_message={"action": "close"}), "'ws-message' with action 'close' is not supported", id="wc"),
    pytest.param(
        formats(http_stream={"content": "", "content-filters": "x"}),
        "'http-stream' contains 'content-filters' with wrong type",
        id="filters-type",
    ),
    pytest.param(
        formats(http_stream={"content": "", "content-filters": ["x"]}),
        "'http-stream' with 'content-filters' is not supported",
        id="filters",
    ),
    pytest.param(formats(ws_message={}), "'ws-message' does not contain 'content' or 'content-bin'", id="no-message"),
    pytest.param(
        formats(ws_message={"content": "", "type": "x"}), "'ws-message' contains 'type' with unknown value", id="type"
    ),
    pytest.param(formats(ws_message={"type": "ping"}), "'ws-message' of type 'ping' is not supported", id="ping"),
    pytest.param(
        formats(ws_message={"content-bin": "/w==", "type": "text"}),
        "'ws-message' contains 'content' with wrong type",
        id="no-utf-8",
    ),
    pytest.param(
        formats(http_response={"code": 200}),
        "'http-response' does not contain 'body', 'body-bin', or 'body-patch'",
        id="no-body",
    ),
    pytest.param(formats(http_response={"body": 1}), "'http-response' contains 'body' with wrong type", id="body"),
    pytest.param(
        formats(http_response={"body-patch": {}}), "'http-response' contains 'body-patch' with wrong type", id="patch"
    ),
    pytest.param(
        formats(http_response={"body-patch": []}), "'http-response' with 'body-patch' is not supported", id="patches"
    ),
    *[
        pytest.param(
            formats(http_response={"body": "", "code": code}),
            "'http-response' contains 'code' with invalid value",
            id=f"code-{code}",
        )
        for code in (True, "x", 99, 101, 600, -1, 2.0, None)
    ],
    pytest.param(
        formats(http_response={"body": "", "headers": "x"}),
        "'http-response' contains 'headers' with wrong type",
        id="hs",
    ),
    pytest.param(
        formats(http_response={"body": "", "headers": ["x"]}), "headers contains element with wrong type", id="element"
    ),
    pytest.param(
        formats(http_response={"body": "", "headers": [["x"]]}),
        "headers contains list with wrong number of elements",
        id="pair",
    ),
    pytest.param(
        formats(http_response={"body": "", "headers": {"a": 1}}), "headers contains 'a' with wrong type", id="value"
    ),
    pytest.param(
        formats(http_response={"body": "", "headers": {"a": "b\r\nc"}}),
        "'http-response' must not be sent: header 'a': its value has a control or non-latin-1 character",
        id="injection",
    ),
    pytest.param(
        formats(http_response={"body": "", "reason": "a\r\nb"}),
        "'http-response' must not be sent: reason: it has a control or non-latin-1 character",
        id="reason",
    ),
    pytest.param(formats(m2gate=[]), "'m2gate' is not an object", id="own"),
    pytest.param(formats(m2gate={}), "'m2gate' does not contain 'content' or 'content-bin'", id="own-content"),
    pytest.param(formats(m2gate={"json": [b"x"]}), "'m2gate' contains 'json' with wrong type", id="own-json"),
    pytest.param(formats(m2gate={"json": ["\ud800"]}), "'m2gate' contains 'json' with wrong type", id="own-half"),
    pytest.param(formats(m2gate={"content": "", "event": 1}), "'m2gate' contains 'event' with wrong type", id="event"),
    pytest.param(
        formats(m2gate={"content": "", "event": "a\nb"}), r"event = 'a\nb': must not have a line end or NUL", id="line"
    ),
]


@pytest.mark.parametrize(("row", "text"), REFUSED)
def test_what_is_refused_and_how(row: object, text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its text is compared as a whole
        parse_item(row, DATE)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("value", "content"), [("x", '"x"'), (1, "1"), (None, "null"), ({"é": [True]}, '{"é":[true]}')]
)
def test_json_stays_json(value: object, content: str) -> None:
    item = parse_item(formats(m2gate={"json": value}), DATE)
    assert (item.content, item.content_type) == (content, "application/json")


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({}, "object does not contain 'items'"),
        ({"items": {}}, "object contains 'items' with wrong type"),
        ({"items": [formats(**STREAM), {}]}, "publish item object does not contain 'channel'"),
    ],
)
def test_a_body_that_is_none(document: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        parse_items(document, DATE)


def test_a_body_of_several_items() -> None:
    assert [item.channel for item in parse_items({"items": [formats(**STREAM), {"channel": "d", **STREAM}]}, "")] == [
        "c",
        "d",
    ]
    assert parse_items({"items": []}, DATE) == []


# -- tnetstrings -------------------------------------------------------------------------------------


def from_tnetstring(row: dict[bytes, Any]) -> Item:
    return parse_item(decode_tnetstring(tnetstring.loads(tnetstring.dumps(row))), DATE)


def test_a_tnetstring_has_bytes_where_json_has_base64() -> None:
    item = from_tnetstring(
        {
            b"channel": "é".encode(),
            b"id": b"1",
            b"formats": {
                b"http-stream": {b"content": b"\0\xff"},
                b"ws-message": {b"content-bin": b"\0\xff"},
                b"http-response": {b"code": 201, b"headers": [[b"X", b"1"]], b"body": b"\xfe"},
            },
        }
    )
    response = ResponseFormat(201, (("X", "1"),), b"\xfe")
    assert (item.channel, item.id) == ("é", "1")
    assert item.formats == Formats(stream=b"\0\xff", message=b"\0\xff", response=response)


@pytest.mark.parametrize(
    "row",
    [
        {b"channel": b"\xff", b"formats": {b"http-stream": {b"content": b""}}},
        {b"channel": b"c", b"formats": {b"ws-message": {b"content": b"\xff"}}},
        {b"channel": b"c", b"formats": {b"m2gate": {b"content": b"\xff"}}},
        {b"channel": b"c", b"id": b"\xff", b"formats": {b"http-stream": {b"content": b""}}},
    ],
)
def test_text_that_is_none(row: dict[bytes, Any]) -> None:
    with pytest.raises(ValueError, match="with wrong type"):
        from_tnetstring(row)


def test_a_key_that_is_no_string() -> None:
    with pytest.raises(ValueError, match="keys are strings"):
        decode_tnetstring({1: b"x"})


# -- what a Publisher makes of an item is understood as what it was --------------------------------------


ROUND: list[Any] = [
    pytest.param({"data": "é"}, id="text"),
    pytest.param({"data": b"\0\xff"}, id="bytes"),
    pytest.param({"data": {"a": [1, 2.5, None, "é"]}}, id="object"),
    pytest.param({"data": []}, id="list"),
    pytest.param({"data": "x", "event": "tick", "id": "2", "prev_id": "1"}, id="event"),
    pytest.param({"data": "x", "formats": {"ws-message": b"\xff"}}, id="one-format"),
    pytest.param(
        {"formats": {"http-stream": b"\xff", "ws-message": "é", "http-response": {"code": 404, "reason": "No"}}},
        id="formats",
    ),
    pytest.param({"formats": {"http-response": {"headers": [("A", "1"), ("A", "2")], "body": "b"}}}, id="headers"),
]


@pytest.mark.parametrize("arguments", ROUND)
def test_round_trip(arguments: dict[str, Any]) -> None:
    names = {"event": None, "id": None, "prev_id": None, "formats": None, "data": None, **arguments}
    item = build_item("c", names.pop("data"), names.pop("formats"), date=DATE, **names)
    document = dump_item(item)
    assert parse_item(json.loads(json.dumps(document)), DATE) == Item(
        **{field: getattr(item, field) for field in item.__slots__ if field != "content_type"},
        content_type=item.content_type or "text/plain; charset=utf-8",
    )


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters() | st.just("\ud800"), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["content", "content-bin", "body", "body-bin", "type", "action", "code", "reason", "headers", "json", "event"]
)
ROWS = JSON | st.dictionaries(KEYS, JSON, max_size=4)


ITEM_KEYS = st.sampled_from(
    ["channel", "id", "prev-id", "meta", "size", "no-seq", "http-stream", "ws-message", "http-response", "m2gate"]
)


@given(
    st.dictionaries(
        ITEM_KEYS,
        ROWS | st.text(max_size=3),
    )
)
def test_whatever_comes_is_an_item_or_a_value_error(row: dict[str, Any]) -> None:
    try:
        item = parse_item({"channel": "c", **row}, DATE)
    except ValueError:
        return
    assert isinstance(item, Item)
