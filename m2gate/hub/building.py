"""From what a publisher says to an Item: plain data, and formats by hand."""

import json
from base64 import b64decode
from collections.abc import Iterable, Mapping
from typing import Any, Final

from m2gate.hub.item import NO_FORMATS, Fields, Formats, Item, ResponseFormat
from m2gate.wire import http, sse

Data = str | bytes | dict[str, Any] | list[Any]

TEXT_TYPE: Final = "text/plain; charset=utf-8"
BINARY_TYPE: Final = "application/octet-stream"
JSON_TYPE: Final = "application/json"


def encode_json(value: Any) -> bytes:
    """Encode as compact UTF-8 JSON. Raises TypeError and ValueError for what JSON has no form for."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def build_item(
    channel: str,
    data: Data | None,
    formats: Mapping[str, Any] | None,
    *,
    event: str | None,
    id: str | None,  # noqa: A002
    prev_id: str | None,
    date: str,
) -> Item:
    """Build the item that Channel.publish describes, with the same exceptions."""
    if event is not None or id is not None:
        sse.build_event("", event, id)
    for key, value in (("event", event), ("id", id), ("prev_id", prev_id)):
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{key} = {value!r}: must be str")
    if data is None and not formats:
        raise TypeError("an item needs data or formats")
    content, content_type = build_content(data) if data is not None else (None, "")
    return Item(
        channel=channel,
        content=content,
        content_type=content_type,
        event=event,
        id=id,
        prev_id=prev_id,
        formats=_parse_formats(formats) if formats else NO_FORMATS,
        date=date,
    )


def build_content(data: Data) -> tuple[str | bytes, str]:
    """Return what data is sent as, and its content type. Raises TypeError."""
    if isinstance(data, str):
        return data, TEXT_TYPE
    if isinstance(data, bytes):
        return data, BINARY_TYPE
    if isinstance(data, dict | list):
        return encode_json(data).decode(), JSON_TYPE
    raise TypeError(f"data is str, bytes, dict or list, not {type(data).__name__}")


def _parse_formats(formats: Mapping[str, Any]) -> Formats:
    _only_known("formats", formats, ("http-stream", "ws-message", "http-response"))
    stream = formats.get("http-stream")
    message = formats.get("ws-message")
    response = formats.get("http-response")
    return Formats(
        stream=None if stream is None else _as_bytes(_parse_content("http-stream", stream, "content")),
        message=None if message is None else _parse_content("ws-message", message, "content"),
        response=None if response is None else _parse_response(response),
    )


def _parse_content(name: str, value: object, key: str) -> str | bytes:
    if isinstance(value, Mapping):
        _only_known(name, value, (key, f"{key}-bin", "action", "code", "headers"))
        if value.get("action", "send") != "send":
            raise ValueError(f"formats {name!r}: action {value['action']!r}: only 'send' is known")
        binary = value.get(f"{key}-bin")
        value = value.get(key, "") if binary is None else b64decode(binary)
    if isinstance(value, str | bytes):
        return value
    raise TypeError(f"formats {name!r}: str, bytes or a mapping, not {type(value).__name__}")


def _parse_response(value: object) -> ResponseFormat:
    content = _parse_content("http-response", value, "body")
    status, headers = 200, ()
    if isinstance(value, Mapping):
        status, headers = int(value.get("code", 200)), value.get("headers", ())
    fields = parse_fields(headers)
    if not any(name.lower() == "content-type" for name, _ in fields) and not isinstance(value, Mapping):
        fields = (("Content-Type", build_content(content)[1]), *fields)
    http.status_line(status)
    return ResponseFormat(status, fields, _as_bytes(content))


def parse_fields(headers: Mapping[str, str] | Iterable[tuple[str, str]] | None) -> Fields:
    """Return headers, a mapping or pairs, as pairs. Raises ValueError for what must not be sent."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    fields = tuple((str(name), str(value)) for name, value in pairs)
    http.build_fields(fields)
    return fields


def _as_bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _only_known(name: str, value: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise ValueError(f"{name}: unknown key {unknown[0]!r}; known are {', '.join(known)}")
