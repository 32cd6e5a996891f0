"""What is published: one item, and its renderings for each kind of subscriber."""

from dataclasses import dataclass
from typing import Any

from m2gate.errors import WireError
from m2gate.wire.attach import dump, load

Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The ``http-response`` format: what a response hold is answered with.

    status:  100 to 599.
    headers: replace those of the same name that the hold brought along.
    body:    bytes as the client shall see them.
    reason:  of the status line; None for that of the RFC.
    """

    status: int
    headers: Fields
    body: bytes
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Formats:
    """Renderings that the publisher gave by hand; None where the content decides.

    stream:   ``http-stream``, the bytes that streams of either sort get verbatim.
    message:  ``ws-message``, text or binary by its type.
    response: ``http-response``.
    """

    stream: bytes | None = None
    message: str | bytes | None = None
    response: ResponseFormat | None = None


NO_FORMATS = Formats()


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One published thing.

    channel:      the name that it is published to.
    content:      text or binary, from which every format that ``formats`` leaves out is made; None
                  leaves subscribers of those kinds out.
    content_type: of a response made from the content, where the hold names no other.
    event:        the event's type for subscribers that read server-sent events.
    id, prev_id:  name this item and the one before it on the channel; an event carries the id.
    date:         HTTP date of the publish, the Date of responses.
    """

    channel: str
    content: str | bytes | None
    content_type: str = "text/plain; charset=utf-8"
    event: str | None = None
    id: str | None = None
    prev_id: str | None = None
    formats: Formats = NO_FORMATS
    date: str = ""

    def content_bytes(self) -> bytes | None:
        """Return the content as bytes, text in UTF-8."""
        return self.content.encode() if isinstance(self.content, str) else self.content


def dump_item(item: Item) -> bytes:
    """Return item as bytes, for the hub of another process; nothing is lost."""
    stream, message, response = item.formats.stream, item.formats.message, item.formats.response
    return dump(
        [
            item.channel.encode(),
            _dump_content(item.content),
            item.content_type.encode(),
            _dump_text(item.event),
            _dump_text(item.id),
            _dump_text(item.prev_id),
            item.date.encode(),
            stream,
            _dump_content(message),
            None if response is None else _dump_response(response),
        ]
    )


def load_item(data: bytes) -> Item:
    """Take apart what dump_item made. Raises WireError."""
    row = load(data, list)
    try:
        channel, content, content_type, event, name, prev_id, date, stream, message, response = row
        if stream is not None and type(stream) is not bytes:
            raise TypeError("a stream's format is bytes")
        formats = Formats(stream=stream, message=_load_content(message), response=_load_response(response))
        return Item(
            channel=channel.decode(),
            content=_load_content(content),
            content_type=content_type.decode(),
            event=_load_text(event),
            id=_load_text(name),
            prev_id=_load_text(prev_id),
            formats=NO_FORMATS if formats == NO_FORMATS else formats,
            date=date.decode(),
        )
    except (TypeError, ValueError, AttributeError):
        raise WireError("an item has all of its fields", 0, data) from None


def _dump_content(content: str | bytes | None) -> list[Any] | None:
    if content is None:
        return None
    return [True, content.encode()] if isinstance(content, str) else [False, content]


def _load_content(row: Any) -> str | bytes | None:
    if row is None:
        return None
    is_text, data = row
    if type(is_text) is not bool or type(data) is not bytes:
        raise TypeError("content is a flag and bytes")
    return data.decode() if is_text else data


def _dump_text(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _load_text(data: Any) -> str | None:
    return None if data is None else data.decode()


def _dump_fields(fields: Fields) -> list[list[bytes]]:
    return [[name.encode(), value.encode()] for name, value in fields]


def _dump_response(response: ResponseFormat) -> list[Any]:
    return [response.status, _dump_fields(response.headers), response.body, _dump_text(response.reason)]


def _load_response(row: Any) -> ResponseFormat | None:
    if row is None:
        return None
    status, fields, body, reason = row
    if type(status) is not int or type(body) is not bytes:
        raise TypeError("a response is a status, fields and bytes")
    headers = tuple((name.decode(), value.decode()) for name, value in fields)
    return ResponseFormat(status, headers, body, _load_text(reason))
