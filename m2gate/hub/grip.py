"""Items as GRIP's publishers write them, in JSON or as a tnetstring dictionary.

The texts of errors are those of Pushpin, on which publishers' tests rely. What an item may ask for
and this hub has no means for is refused, never left out. Source: docs/reference/publishing.md.
"""

from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Final

from m2gate.hub.building import JSON_TYPE, TEXT_TYPE, build_content, parse_fields
from m2gate.hub.item import NO_FORMATS, Fields, Formats, Item, ResponseFormat
from m2gate.wire import http, sse

FORMATS: Final = ("http-response", "http-stream", "ws-message")
OWN: Final = "m2gate"  # the key of what GRIP has no word for: content from which each subscriber's form is made
_MESSAGE_TYPES: Final = ("text", "binary", "ping", "pong")

Json = Mapping[str, Any]


def parse_items(document: object, date: str) -> list[Item]:
    """Return the items of a publish body ``{"items": [...]}``; date: the Date of responses made from them.

    Raises ValueError for anything else, for an empty reason where Pushpin has none.
    """
    if not isinstance(document, Mapping):
        raise ValueError("object is not an object")
    if "items" not in document:
        raise ValueError("object does not contain 'items'")
    rows = document["items"]
    if not isinstance(rows, list):
        raise ValueError("object contains 'items' with wrong type")
    return [parse_item(row, date) for row in rows]


def parse_item(row: object, date: str, channel: str | None = None) -> Item:
    """Return one item. channel: in place of the item's own. Raises ValueError."""
    if not isinstance(row, Mapping):
        raise ValueError("publish item object is not an object")
    where = "publish item object"
    if channel is None:
        if "channel" not in row:
            raise ValueError(f"{where} does not contain 'channel'")
        channel = _text(row["channel"], where, "channel")
    name, prev_id = _optional(row, "id"), _optional(row, "prev-id")
    _check_meta(row)
    formats = row.get("formats")
    if formats is None:
        formats = {kind: row[kind] for kind in (*FORMATS, OWN) if kind in row}
    elif not isinstance(formats, Mapping):
        raise ValueError(f"{where} contains 'formats' with wrong type")
    if not formats:
        raise ValueError("no formats specified")
    parsed = Formats(
        stream=_parse_stream(formats),
        message=_parse_message(formats),
        response=_parse_response(formats),
    )
    content, content_type, event = _parse_own(formats, name)
    return Item(
        channel=channel,
        content=content,
        content_type=content_type,
        event=event,
        id=name,
        prev_id=prev_id,
        formats=NO_FORMATS if parsed == NO_FORMATS else parsed,
        date=date,
    )


def decode_tnetstring(value: Any) -> Any:
    """Return a tnetstring's document with text for keys, as JSON has them. Raises ValueError."""
    if isinstance(value, dict):
        return {_key(name): decode_tnetstring(one) for name, one in value.items()}
    if isinstance(value, list):
        return [decode_tnetstring(one) for one in value]
    return value


def _key(name: Any) -> str:
    if not isinstance(name, bytes):
        raise ValueError("keys are strings")
    return name.decode()


# -- formats ------------------------------------------------------------------------------------------


def _parse_stream(formats: Json) -> bytes | None:
    row = _format(formats, "http-stream")
    if row is None:
        return None
    return _bytes(_content(row, "http-stream", "content"))


def _parse_message(formats: Json) -> str | bytes | None:
    row = _format(formats, "ws-message")
    if row is None:
        return None
    kind = row.get("type")
    if kind is not None:
        kind = _text(kind, "'ws-message'", "type")
        if kind not in _MESSAGE_TYPES:
            raise ValueError("'ws-message' contains 'type' with unknown value")
        if kind in ("ping", "pong"):
            raise ValueError(f"'ws-message' of type '{kind}' is not supported")
    content = _content(row, "ws-message", "content")
    is_binary = "content-bin" in row if kind is None else kind == "binary"
    return _bytes(content) if is_binary else _decode(_bytes(content), "'ws-message'", "content")


def _parse_response(formats: Json) -> ResponseFormat | None:
    row = _format(formats, "http-response")
    if row is None:
        return None
    if "body-patch" in row:
        raise ValueError("'http-response' with 'body-patch' is not supported")
    if "body" not in row and "body-bin" not in row:
        raise ValueError("'http-response' does not contain 'body', 'body-bin', or 'body-patch'")
    body = _bytes(_content(row, "http-response", "body"))
    code = row.get("code", 200)
    if isinstance(code, bool) or not isinstance(code, int) or not 100 <= code <= 599:
        raise ValueError("'http-response' contains 'code' with invalid value")
    if "reason" in row:
        _text(row["reason"], "'http-response'", "reason")  # ours are those of the RFC
    http.status_line(code)
    return ResponseFormat(code, parse_fields(_headers(row.get("headers"))), body)


def _headers(value: object) -> Fields:
    if value is None:
        return ()
    if isinstance(value, Mapping):
        return tuple((name, _text(one, "headers", name)) for name, one in value.items())
    if not isinstance(value, list):
        raise ValueError("'http-response' contains 'headers' with wrong type")
    fields = []
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError("headers contains list with wrong number of elements")
        fields.append((_text(pair[0], "headers", "name"), _text(pair[1], "headers", "value")))
    return tuple(fields)


def _format(formats: Json, kind: str) -> Json | None:
    row = formats.get(kind)
    if row is None:
        return None
    if not isinstance(row, Mapping):
        raise ValueError(f"'{kind}' is not an object")
    action = _text(row.get("action", "send"), f"'{kind}'", "action")
    if action in ("hint", "close", "refresh"):
        raise ValueError(f"'{kind}' with action '{action}' is not supported")
    if action != "send":
        raise ValueError("")
    filters = row.get("content-filters", [])
    if not isinstance(filters, list):
        raise ValueError(f"'{kind}' contains 'content-filters' with wrong type")
    if filters:
        raise ValueError(f"'{kind}' with 'content-filters' is not supported")
    return row


def _content(row: Json, kind: str, key: str) -> str | bytes:
    binary = row.get(f"{key}-bin")
    if binary is not None:
        if isinstance(binary, bytes):
            return binary  # of a tnetstring, which needs no base64
        if not isinstance(binary, str):
            raise ValueError(f"'{kind}' contains '{key}-bin' with wrong type")
        return _decode_base64(binary)
    if key not in row:
        raise ValueError(f"'{kind}' does not contain '{key}' or '{key}-bin'")
    value = row[key]
    if not isinstance(value, str | bytes):
        raise ValueError(f"'{kind}' contains '{key}' with wrong type")
    return value


def _decode_base64(text: str) -> bytes:
    try:
        return b64decode(text + "=" * (-len(text) % 4))
    except ValueError as error:
        raise ValueError("invalid base64") from error


def _parse_own(formats: Json, name: str | None) -> tuple[str | bytes | None, str, str | None]:
    """Return content, content type and event of what was published as plain data."""
    row = formats.get(OWN)
    if row is None:
        return None, TEXT_TYPE, None
    if not isinstance(row, Mapping):
        raise ValueError(f"'{OWN}' is not an object")
    event = row.get("event")
    event = None if event is None else _text(event, f"'{OWN}'", "event")
    if event is not None or name is not None:
        sse.build_event("", event, name)
    if "json" in row:
        content, _ = build_content(row["json"])
        return content, JSON_TYPE, event
    value = _content(row, OWN, "content")
    if isinstance(value, bytes) and "content-bin" not in row:
        value = _decode(value, f"'{OWN}'", "content")
    return value, build_content(value)[1], event


# -- values -------------------------------------------------------------------------------------------


def _check_meta(row: Json) -> None:
    meta = row.get("meta", {})
    if not isinstance(meta, Mapping):
        raise ValueError("publish item object contains 'meta' with wrong type")
    for name, value in meta.items():
        _text(value, "'meta'", name)
    size = row.get("size", 0)
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise ValueError("publish item object contains 'size' with invalid value")
    if not isinstance(row.get("no-seq", False), bool):
        raise ValueError("publish item object contains 'no-seq' with wrong type")


def _optional(row: Json, key: str) -> str | None:
    return _text(row[key], "publish item object", key) if key in row else None


def _text(value: object, where: str, key: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return _decode(value, where, key)
    raise ValueError(f"{where} contains '{key}' with wrong type")


def _decode(value: bytes, where: str, key: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{where} contains '{key}' with wrong type") from None


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
