import pytest

from m2gate.hub.form import WEBSOCKET, Form, ResponseForm, StreamForm
from m2gate.hub.item import Formats, Item, ResponseFormat

RAW = StreamForm(chunked=False, events=False)
CHUNKED = StreamForm(chunked=True, events=False)
EVENTS = StreamForm(chunked=False, events=True)
CHUNKED_EVENTS = StreamForm(chunked=True, events=True)
RESPONSE = ResponseForm((), close=False, body_less=False)

DATE = "Tue, 24 Nov 2026 10:00:00 GMT"


def item(content: str | bytes | None = "hé", **more: object) -> Item:
    return Item(channel="c", content=content, date=DATE, **more)  # type: ignore[arg-type]


ENCODED = [
    pytest.param(RAW, item(), b"h\xc3\xa9", id="raw-text"),
    pytest.param(RAW, item(b"\xff"), b"\xff", id="raw-binary"),
    pytest.param(RAW, item(""), None, id="raw-empty"),
    pytest.param(CHUNKED, item("0123456789abcdef"), b"10\r\n0123456789abcdef\r\n", id="chunk"),
    pytest.param(CHUNKED, item(""), None, id="an-empty-chunk-would-end-the-body"),
    pytest.param(EVENTS, item("a\nb"), b"data: a\ndata: b\n\n", id="event-lines"),
    pytest.param(EVENTS, item(""), b"data: \n\n", id="event-empty"),
    pytest.param(EVENTS, item("x", event="tick", id="7"), b"event: tick\nid: 7\ndata: x\n\n", id="event-fields"),
    pytest.param(CHUNKED_EVENTS, item("x"), b"9\r\ndata: x\n\n\r\n", id="event-chunk"),
    pytest.param(RAW, item("x", event="tick", id="7"), b"x", id="raw-has-no-event"),
    pytest.param(WEBSOCKET, item(), b"\x81\x03h\xc3\xa9", id="text-frame"),
    pytest.param(WEBSOCKET, item(b"\xff"), b"\x82\x01\xff", id="binary-frame"),
    pytest.param(WEBSOCKET, item(""), b"\x81\x00", id="empty-message"),
    pytest.param(WEBSOCKET, item("x" * 126), b"\x81\x7e\x00\x7e" + b"x" * 126, id="frame-16-bit-length"),
    pytest.param(RAW, item(formats=Formats(stream=b"S", message="M")), b"S", id="own-stream"),
    pytest.param(EVENTS, item(formats=Formats(stream=b"data: own\n\n")), b"data: own\n\n", id="own-stream-verbatim"),
    pytest.param(WEBSOCKET, item(formats=Formats(stream=b"S", message="M")), b"\x81\x01M", id="own-message"),
    pytest.param(WEBSOCKET, item(formats=Formats(message=b"M")), b"\x82\x01M", id="own-binary-message"),
    pytest.param(RAW, item(None, formats=Formats(message="M")), None, id="nothing-for-streams"),
    pytest.param(EVENTS, item(None, formats=Formats(message="M")), None, id="nothing-for-event-streams"),
    pytest.param(WEBSOCKET, item(None, formats=Formats(stream=b"S")), None, id="nothing-for-websockets"),
    pytest.param(RESPONSE, item(None, formats=Formats(stream=b"S")), None, id="nothing-for-response-holds"),
]


@pytest.mark.parametrize(("form", "published", "data"), ENCODED)
def test_encode(form: Form, published: Item, data: bytes | None) -> None:
    assert form.encode(published) == data


RESPONSES = [
    pytest.param(
        RESPONSE,
        item("hi"),
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nDate: " + DATE.encode() + b"\r\n"
        b"Content-Length: 2\r\n\r\nhi",
        id="from-content",
    ),
    pytest.param(
        ResponseForm((("Content-Type", "text/x"), ("X-A", "b")), close=True, body_less=False),
        item("hi"),
        b"HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nX-A: b\r\nDate: " + DATE.encode() + b"\r\n"
        b"Content-Length: 2\r\nConnection: close\r\n\r\nhi",
        id="the-hold-s-headers-and-close",
    ),
    pytest.param(
        ResponseForm((("X-A", "b"), ("X-B", "1")), close=False, body_less=False),
        item(None, formats=Formats(response=ResponseFormat(404, (("x-a", "c"), ("Content-Length", "9")), b"no"))),
        b"HTTP/1.1 404 Not Found\r\nX-B: 1\r\nx-a: c\r\nDate: " + DATE.encode() + b"\r\nContent-Length: 2\r\n\r\nno",
        id="own-response-replaces-headers-and-its-length-is-not-believed",
    ),
    pytest.param(
        ResponseForm((), close=False, body_less=True),
        item(None, formats=Formats(response=ResponseFormat(200, (), b"four"))),
        b"HTTP/1.1 200 OK\r\nDate: " + DATE.encode() + b"\r\nContent-Length: 4\r\n\r\n",
        id="head",
    ),
    pytest.param(
        RESPONSE,
        item(None, formats=Formats(response=ResponseFormat(204, (), b"gone"))),
        b"HTTP/1.1 204 No Content\r\nDate: " + DATE.encode() + b"\r\n\r\n",
        id="204-has-no-body",
    ),
]


@pytest.mark.parametrize(("form", "published", "data"), RESPONSES)
def test_encode_response(form: Form, published: Item, data: bytes) -> None:
    assert form.encode(published) == data
    assert form.is_final


BAD = [
    pytest.param(EVENTS, item(event="a\nb"), id="event"),
    pytest.param(EVENTS, item(id="a\rb"), id="id"),
    pytest.param(RESPONSE, item(formats=Formats(response=ResponseFormat(200, (("X", "a\r\nb"),), b""))), id="header"),
    pytest.param(RESPONSE, item(formats=Formats(response=ResponseFormat(99, (), b""))), id="status"),
]


@pytest.mark.parametrize(("form", "published"), BAD)
def test_what_cannot_be_expressed_is_a_value_error(form: Form, published: Item) -> None:
    with pytest.raises(ValueError, match=r"event|id|header|status"):
        form.encode(published)


def test_equal_forms_are_one_key() -> None:
    assert len({RAW, StreamForm(chunked=False, events=False), CHUNKED, WEBSOCKET, RESPONSE}) == 4
