"""Forms: the ways in which an item becomes bytes; who shares a form gets identical bytes.

A form is a value: equal forms are one key, so that an item is encoded once for all of a kind.
"""

from dataclasses import dataclass
from typing import Final, Protocol

from m2gate.hub.item import Fields, Item, ResponseFormat
from m2gate.wire import http, sse, websocket


class Form(Protocol):
    """How an item is wrapped for some kind of subscriber."""

    @property
    def is_final(self) -> bool:
        """True where one item is all that a subscriber gets."""

    def encode(self, item: Item) -> bytes | None:
        """Return the bytes of item in this form, None if it has nothing for subscribers of the kind.

        Raises ValueError for an item that cannot be expressed (CR or LF in a header or an event's name).
        """


@dataclass(frozen=True, slots=True)
class StreamForm:
    """The body of a streamed response.

    chunked: every item is one chunk; else bare bytes (HTTP/1.0).
    events:  content becomes a server-sent event; a given ``http-stream`` format stays verbatim.
    """

    chunked: bool
    events: bool

    @property
    def is_final(self) -> bool:
        """False: a stream takes item after item."""
        return False

    def encode(self, item: Item) -> bytes | None:
        """Return item as a part of the stream; see Form."""
        data = item.formats.stream
        if data is None:
            if item.content is None:
                return None
            data = sse.build_event(item.content, item.event, item.id) if self.events else item.content_bytes()
        return self.wrap(data) if data else None

    def wrap(self, data: bytes) -> bytes:
        """Return data, not empty, as a part of the stream."""
        return http.build_chunk(data) if self.chunked else data


@dataclass(frozen=True, slots=True)
class WebSocketForm:
    """One unmasked frame an item: text for str, binary for bytes."""

    @property
    def is_final(self) -> bool:
        """False: a WebSocket takes item after item."""
        return False

    def encode(self, item: Item) -> bytes | None:
        """Return item as one frame; see Form."""
        message = item.content if item.formats.message is None else item.formats.message
        if message is None:
            return None
        if isinstance(message, str):
            return websocket.build_frame(websocket.TEXT, message.encode())
        return websocket.build_frame(websocket.BINARY, message)


@dataclass(frozen=True, slots=True)
class ResponseForm:
    """A whole response, which ends the hold.

    headers:   the hold's; an item's of the same name replace them.
    close:     the connection ends with this response.
    body_less: the request was HEAD: the length is told, the body is not sent.
    """

    headers: Fields
    close: bool
    body_less: bool

    @property
    def is_final(self) -> bool:
        """True: the first item answers the request."""
        return True

    def encode(self, item: Item) -> bytes | None:
        """Return item as a whole response; see Form."""
        response = item.formats.response
        if response is not None:
            return self.build(response, item.date)
        body = item.content_bytes()
        if body is None:
            return None
        headers: Fields = ()
        if not any(name.lower() == "content-type" for name, _ in self.headers):
            headers = (("Content-Type", item.content_type),)
        return self.build(ResponseFormat(200, headers, body), item.date)

    def build(self, response: ResponseFormat, date: str) -> bytes:
        """Return the bytes of response, with the hold's headers and those that HTTP asks for.

        Content-Length, Transfer-Encoding, Connection and Date are this function's: an item that
        brings them along is not believed.
        """
        replaced = {name.lower() for name, _ in response.headers} | _OURS
        fields = [field for field in self.headers if field[0].lower() not in replaced]
        fields += [field for field in response.headers if field[0].lower() not in _OURS]
        fields.append(("Date", date))
        status = response.status
        if status >= 200 and status not in (204, 304):
            fields.append(("Content-Length", str(len(response.body))))
        if self.close:
            fields.append(("Connection", "close"))
        method = b"HEAD" if self.body_less else b"GET"
        body = response.body if http.has_body(method, status) else b""
        return http.build_status_line(status, response.reason) + http.build_fields(fields) + b"\r\n" + body


_OURS = frozenset({"content-length", "transfer-encoding", "connection", "date"})
WEBSOCKET = WebSocketForm()

# The forms of what members of a channel get whose connections are their worker's, as gateway and workers name them.
MEMBER_FORMS: Final[dict[str, Form]] = {
    "websocket": WEBSOCKET,
    "stream": StreamForm(chunked=True, events=False),
    "stream-raw": StreamForm(chunked=False, events=False),
    "events": StreamForm(chunked=True, events=True),
    "events-raw": StreamForm(chunked=False, events=True),
}
