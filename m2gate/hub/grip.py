"""Items as GRIP's publishers write them, in JSON or as a tnetstring dictionary.

The texts of errors are those of Pushpin. Source: docs/reference/publishing.md.
"""

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final

from m2gate.hub.building import JSON_TYPE, TEXT_TYPE, build_content, encode_json
from m2gate.hub.formats import FORMATS, Row, parse_formats, read_content, read_number, read_text
from m2gate.hub.item import NO_FORMATS, Formats, Item
from m2gate.wire import sse

OWN: Final = "m2gate"  # the format that GRIP has no word for: content from which each subscriber's form is made
_ITEM: Final = "publish item object"


def parse_items(document: Row, date: str) -> list[Item]:
    """Return the items of a publish body ``{"items": [...]}``; date: the Date of responses made from them.

    Raises ValueError for anything else.
    """
    if "items" not in document:
        raise ValueError("object does not contain 'items'")
    rows = document["items"]
    if not isinstance(rows, list):
        raise ValueError("object contains 'items' with wrong type")
    return [parse_item(row, date) for row in rows]


def parse_item(row: object, date: str, channel: str | None = None) -> Item:
    """Return one item. channel: in place of the item's own. Raises ValueError."""
    if not isinstance(row, Mapping):
        raise ValueError(f"{_ITEM} is not an object")
    if channel is None:
        if "channel" not in row:
            raise ValueError(f"{_ITEM} does not contain 'channel'")
        channel = read_text(row["channel"], _ITEM, "channel")
    name, prev_id = _optional(row, "id"), _optional(row, "prev-id")
    _check_rest(row)
    formats = row["formats"] if "formats" in row else {kind: row[kind] for kind in (*FORMATS, OWN) if kind in row}
    if not isinstance(formats, Mapping):
        raise ValueError(f"{_ITEM} contains 'formats' with wrong type")
    if not formats:
        raise ValueError("no formats specified")
    parsed = parse_formats(formats)
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


def dump_item(item: Item) -> dict[str, Any]:
    """Return item as parse_item takes it, for JSON; its date is not part of that."""
    formats = _dump_formats(item.formats)
    if item.content is not None:
        own = _dump_content("content", item.content)
        if item.content_type == JSON_TYPE and isinstance(item.content, str):
            own = {"json": json.loads(item.content)}
        if item.event is not None:
            own["event"] = item.event
        formats[OWN] = own
    names = {key: value for key, value in (("id", item.id), ("prev-id", item.prev_id)) if value is not None}
    return {"channel": item.channel, "formats": formats, **names}


def _dump_formats(formats: Formats) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    if formats.stream is not None:
        rows["http-stream"] = _dump_content("content", formats.stream)
    if formats.message is not None:
        rows["ws-message"] = _dump_content("content", formats.message)
    response = formats.response
    if response is not None:
        headers = [list(field) for field in response.headers]
        row = {"code": response.status, "headers": headers, **_dump_content("body", response.body)}
        rows["http-response"] = row if response.reason is None else {**row, "reason": response.reason}
    return rows


def _dump_content(key: str, content: str | bytes) -> dict[str, Any]:
    return {key: content} if isinstance(content, str) else {f"{key}-bin": b64encode(content).decode()}


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


def _parse_own(formats: Row, name: str | None) -> tuple[str | bytes | None, str, str | None]:
    """Return content, content type and event of what was published as plain data."""
    if OWN not in formats:
        return None, TEXT_TYPE, None
    row = formats[OWN]
    if not isinstance(row, Mapping):
        raise ValueError(f"'{OWN}' is not an object")
    event = read_text(row["event"], f"'{OWN}'", "event") if "event" in row else None
    if event is not None or name is not None:
        sse.build_event("", event, name)
    if "json" in row:
        try:
            content = encode_json(row["json"]).decode()
        except (TypeError, ValueError, RecursionError):
            raise ValueError(f"'{OWN}' contains 'json' with wrong type") from None
        return content, JSON_TYPE, event
    value = read_content(row, OWN, "content")
    if "content-bin" not in row:
        value = read_text(value, f"'{OWN}'", "content")
    return value, build_content(value)[1], event


def _check_rest(row: Row) -> None:
    """Check what has no effect where no subscriber has a filter."""
    meta = row.get("meta", {})
    if not isinstance(meta, Mapping):
        raise ValueError(f"{_ITEM} contains 'meta' with wrong type")
    for name, value in meta.items():
        read_text(value, "'meta'", name)
    if read_number(row.get("size", 0)) is None:
        raise ValueError(f"{_ITEM} contains 'size' with invalid value")
    if not isinstance(row.get("no-seq", False), bool):
        raise ValueError(f"{_ITEM} contains 'no-seq' with wrong type")


def _optional(row: Row, key: str) -> str | None:
    return read_text(row[key], _ITEM, key) if key in row else None
