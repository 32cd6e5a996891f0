"""The formats of an item in GRIP's words: one parser for what Python code, JSON and tnetstrings say.

Strings are text, or bytes where they come from a tnetstring. The texts of errors are those of
Pushpin, on which publishers' tests rely; what a format may ask for and the hub has no means for is
refused, never left out. Source: docs/reference/publishing.md.
"""

from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Final

from m2gate.hub.item import Fields, Formats, ResponseFormat
from m2gate.wire import http

FORMATS: Final = ("http-stream", "ws-message", "http-response")
_LATER: Final = ("hint", "close", "refresh")
_ALPHABET: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")

Row = Mapping[str, Any]


def parse_formats(rows: Row) -> Formats:
    """Return what the formats of an item say; kinds that are not known are left out.

    Raises ValueError for what breaks a rule, asks for what is not supported, or must not be sent.
    """
    return Formats(stream=_parse_stream(rows), message=_parse_message(rows), response=_parse_response(rows))


def _parse_stream(rows: Row) -> bytes | None:
    row = _row(rows, "http-stream")
    return None if row is None else _bytes(read_content(row, "http-stream", "content"))


def _parse_message(rows: Row) -> str | bytes | None:
    row = _row(rows, "ws-message")
    if row is None:
        return None
    kind = read_text(row["type"], "'ws-message'", "type") if "type" in row else None
    if kind not in (None, "text", "binary", "ping", "pong"):
        raise ValueError("'ws-message' contains 'type' with unknown value")
    if kind in ("ping", "pong"):
        raise ValueError(f"'ws-message' of type '{kind}' is not supported")
    content = _bytes(read_content(row, "ws-message", "content"))
    is_binary = "content-bin" in row if kind is None else kind == "binary"
    return content if is_binary else read_text(content, "'ws-message'", "content")


def _parse_response(rows: Row) -> ResponseFormat | None:
    row = _row(rows, "http-response")
    if row is None:
        return None
    if "body-patch" in row:
        if not isinstance(row["body-patch"], list):
            raise ValueError("'http-response' contains 'body-patch' with wrong type")
        raise ValueError("'http-response' with 'body-patch' is not supported")
    body = _bytes(read_content(row, "http-response", "body"))
    reason = read_text(row["reason"], "'http-response'", "reason") if "reason" in row else ""
    status = read_number(row.get("code", 200))
    if status is None or not 200 <= status <= 599:
        raise ValueError("'http-response' contains 'code' with invalid value")
    fields = tuple(field for field in _headers(row.get("headers", [])) if not field[0].lower().startswith("grip-"))
    try:
        http.build_status_line(status, reason or None)
        http.build_fields(fields)
    except http.UnsendableError as error:
        raise ValueError(f"'http-response' must not be sent: {error}") from None
    return ResponseFormat(status, fields, body, reason or None)


def _headers(value: object) -> Fields:
    if isinstance(value, Mapping):
        return tuple((name, read_text(one, "headers", name)) for name, one in value.items())
    if not isinstance(value, list):
        raise ValueError("'http-response' contains 'headers' with wrong type")
    fields = []
    for pair in value:
        if not isinstance(pair, list):
            raise ValueError("headers contains element with wrong type")
        if len(pair) != 2:
            raise ValueError("headers contains list with wrong number of elements")
        name = read_text(pair[0], "headers", "name")
        fields.append((name, read_text(pair[1], "headers", name)))
    return tuple(fields)


def _row(rows: Row, kind: str) -> Row | None:
    if kind not in rows:
        return None
    row = rows[kind]
    if not isinstance(row, Mapping):
        raise ValueError(f"'{kind}' is not an object")
    action = read_text(row.get("action", "send"), f"'{kind}'", "action")
    if action in _LATER:
        raise ValueError(f"'{kind}' with action '{action}' is not supported")
    if action != "send":
        raise ValueError(f"'{kind}' contains 'action' with unknown value")
    filters = row.get("content-filters", [])
    if not isinstance(filters, list):
        raise ValueError(f"'{kind}' contains 'content-filters' with wrong type")
    if filters:
        raise ValueError(f"'{kind}' with 'content-filters' is not supported")
    return row


# -- values -------------------------------------------------------------------------------------------


def read_content(row: Row, kind: str, key: str) -> str | bytes:
    """Return what row has under ``KEY-bin`` or key; bytes, or text as it came. Raises ValueError.

    The binary one is base64 where it is text; that is read leniently, as Pushpin does.
    """
    binary = f"{key}-bin"
    if binary in row:
        value = row[binary]
        if isinstance(value, bytes):
            return value  # of a tnetstring, which needs no base64
        if not isinstance(value, str):
            raise ValueError(f"'{kind}' contains '{binary}' with wrong type")
        return _decode_base64(value)
    if key not in row:
        others = ", 'body-bin', or 'body-patch'" if key == "body" else f" or '{binary}'"
        raise ValueError(f"'{kind}' does not contain '{key}'{others}")
    value = row[key]
    return value if isinstance(value, bytes) else read_text(value, f"'{kind}'", key)


def read_text(value: object, where: str, key: str) -> str:
    """Return value as text that has a UTF-8 form. Raises ValueError naming where and key."""
    try:
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, str):
            if not value.isascii():
                value.encode()  # JSON can name halves of characters
            return value
    except UnicodeError:
        pass  # no text, then
    raise ValueError(f"{where} contains '{key}' with wrong type")


def read_number(value: object) -> int | None:
    """Return a whole number from 0 upwards, also one written as text; None for anything else."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
        return int(value)
    return value if type(value) is int and value >= 0 else None


def _decode_base64(text: str) -> bytes:
    letters = [letter for letter in text.replace("-", "+").replace("_", "/") if letter in _ALPHABET]
    if len(letters) % 4 == 1:
        letters.pop()  # six bits make no byte
    return b64decode("".join(letters) + "=" * (-len(letters) % 4))


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
