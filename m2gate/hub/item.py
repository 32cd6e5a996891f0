"""What is published: one item, and its renderings for each kind of subscriber."""

from dataclasses import dataclass

Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The ``http-response`` format: what a response hold is answered with.

    status:  100 to 599.
    headers: replace those of the same name that the hold brought along.
    body:    bytes as the client shall see them.
    """

    status: int
    headers: Fields
    body: bytes


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
