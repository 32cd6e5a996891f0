"""Server-sent events: the text of one event, and of a comment that keeps a stream alive.

Source: HTML Living Standard, "Server-sent events", section "Parsing an event stream".
"""

import re
from typing import Final

_BREAKS: Final = re.compile(r"[\r\n\0]")


def build_event(
    data: str | bytes,
    event: str | None = None,
    id: str | None = None,  # noqa: A002 - the field's name
    retry: int | None = None,
) -> bytes:
    """Build one event with the empty line that dispatches it.

    data:  text, or its UTF-8; CRLF, CR and LF all end a line, and reach the browser as LF.
    event: type of the event; None for ``message``.
    id:    what the browser sends back as Last-Event-ID; ``""`` makes it forget the last one.
    retry: milliseconds to wait before reconnecting, >= 0.
    Raises ValueError for a line end or NUL in event or id, and for a negative retry.
    """
    text = data.encode() if isinstance(data, str) else data
    head = b""
    if event is not None:
        head = b"event: %b\n" % _one_line("event", event)
    if id is not None:
        head += b"id: %b\n" % _one_line("id", id)
    if retry is not None:
        if retry < 0:
            raise ValueError(f"retry = {retry}: milliseconds, not negative")
        head += b"retry: %d\n" % retry
    return b"%bdata: %b\n\n" % (head, _join_lines(text, b"\ndata: "))


def build_comment(text: str = "") -> bytes:
    """Build a comment, which browsers ignore; each line of text becomes one."""
    return b": %b\n\n" % _join_lines(text.encode(), b"\n: ")


def _one_line(key: str, value: str) -> bytes:
    if _BREAKS.search(value):
        raise ValueError(f"{key} = {value!r}: must not have a line end or NUL")
    return value.encode()


def _join_lines(text: bytes, start: bytes) -> bytes:
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return text.replace(b"\n", start)
