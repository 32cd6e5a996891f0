"""From what a publisher says to an Item: plain data, and formats by hand."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from m2gate.hub.formats import FORMATS, parse_formats
from m2gate.hub.item import NO_FORMATS, Fields, Formats, Item
from m2gate.wire import http, sse

Data = str | bytes | dict[str, Any] | list[Any]

TEXT_TYPE: Final = "text/plain; charset=utf-8"
BINARY_TYPE: Final = "application/octet-stream"
JSON_TYPE: Final = "application/json"
_KEYS: Final = {"http-response": ("code", "reason", "headers"), "ws-message": ("type",)}


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
    for key, value in (("event", event), ("id", id), ("prev_id", prev_id)):
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{key} = {value!r}: must be str")
    if event is not None or id is not None:
        sse.build_event("", event, id)
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
    _only_known("formats", formats, FORMATS)
    return parse_formats({kind: _row(kind, value) for kind, value in formats.items() if value is not None})


def _row(kind: str, value: object) -> dict[str, Any]:
    """Return one format as JSON would have it: shorter forms are written out, and bytes may stand for text."""
    key = "body" if kind == "http-response" else "content"
    if isinstance(value, Mapping):
        _only_known(kind, value, (key, f"{key}-bin", "action", *_KEYS.get(kind, ())))
        row: dict[str, Any] = dict(value)
    elif isinstance(value, str | bytes):
        row = {key: value}
        if kind == "http-response":
            row["headers"] = {"Content-Type": build_content(value)[1]}
    else:
        raise TypeError(f"formats {kind!r}: str, bytes or a mapping, not {type(value).__name__}")
    binary = row.get(f"{key}-bin")
    if binary is None:
        row.pop(f"{key}-bin", None)
        row.setdefault(key, "")
        if kind == "ws-message" and isinstance(row[key], bytes):
            row.setdefault("type", "binary")
    elif isinstance(binary, bytes):
        row[f"{key}-bin"] = binary.decode("latin-1")  # base64 all the same
    if kind == "http-response":
        row["headers"] = [list(field) for field in parse_fields(row.get("headers"))]
        if type(row.get("code")) is int:
            http.status_line(row["code"])
    return row


def parse_fields(headers: Mapping[str, str] | Iterable[tuple[str, str]] | None) -> Fields:
    """Return headers, a mapping or pairs, as pairs. Raises ValueError for what must not be sent."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    fields = tuple((str(name), str(value)) for name, value in pairs)
    http.build_fields(fields)
    return fields


def _only_known(name: str, value: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise ValueError(f"{name}: unknown key {unknown[0]!r}; known are {', '.join(known)}")
