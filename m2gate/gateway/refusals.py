"""Answers of the gateway itself: 502 for a worker that died, 503 where there is no room, 421 and 404 for nobody."""

from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

import tnetstring

from m2gate.errors import WireError
from m2gate.wire.http import REASONS, build_fields, has_body, status_line, wants_close
from m2gate.wire.mongrel2 import HeaderValue, Request, parse_message

HEAD_BYTES_MAX: Final = 32_768  # of a frame that are kept while its exchange is open; a head is smaller
RETRY_STATUS: Final = 503
RETRY_AFTER_S: Final = 1  # there is room again, most likely


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer without a worker. location: where the client is sent to, for a redirect."""

    status: int
    detail: str
    location: str | None = None


class Asked:
    """What is to be known of a request to answer it in a worker's place; from the beginning of its frame.

    ``keeps_open``: the connection may go on after a whole answer.
    ``has_pieces``: its body comes in pieces.
    """

    __slots__ = ("client", "has_pieces", "is_websocket", "keeps_open", "method", "path")

    def __init__(self, frame: bytes) -> None:
        headers, self.path = parse_head(frame)
        method = headers.get(b"METHOD")
        self.method = method if type(method) is bytes else b"GET"
        client = headers.get(b"REMOTE_ADDR")
        self.client = client if type(client) is bytes else b"-"
        self.is_websocket = self.method == b"WEBSOCKET_HANDSHAKE"
        self.has_pieces = b"UPLOAD_STREAM" in headers and b"UPLOAD_STREAM_DONE" not in headers
        self.keeps_open = (
            headers.get(b"VERSION") == b"HTTP/1.1"
            and not wants_close(b"HTTP/1.1", headers.get(b"connection"))
            and not self.is_websocket
            and not self.has_pieces
        )


def parse_head(frame: bytes) -> tuple[dict[bytes, HeaderValue], bytes]:
    """Return headers and path of a frame that may lack its end; nothing where even the headers are not whole."""
    try:
        message = parse_message(frame)
        if type(message) is Request:
            return message.headers, message.path
    except WireError:
        pass  # its body was cut off
    parts = frame.split(b" ", 3)
    if len(parts) < 4:
        return {}, b"-"
    try:
        headers, _ = tnetstring.pop(parts[3])
    except (ValueError, TypeError, RecursionError, OverflowError):
        return {}, parts[2]
    return (headers if type(headers) is dict else {}), parts[2]


def build_refusal(asked: Asked, verdict: Verdict, request_id: str) -> bytes:
    """Return a whole response; it says that the connection ends unless the request allows it to go on."""
    status, detail = verdict.status, verdict.detail
    body = f"{status} {REASONS[status]}: {detail}\nrequest id: {request_id}\n".encode()
    fields = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("X-Request-Id", request_id),
        ("Date", formatdate(usegmt=True)),
        ("Content-Length", str(len(body))),
    ]
    if verdict.location is not None:
        fields.append(("Location", verdict.location))
    if status == RETRY_STATUS:
        fields.append(("Retry-After", str(RETRY_AFTER_S)))
    if not asked.keeps_open:
        fields.append(("Connection", "close"))
    head = status_line(status) + build_fields(fields) + b"\r\n"
    return head + body if has_body(asked.method, status) else head
