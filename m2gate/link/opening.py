"""Which exchange a message opens, and which requests must not reach a handler.

Mongrel2 lets requests through whose framing cannot be trusted; they are refused here.
Source: docs/reference/mongrel2-wire.md, "Requests" and "Uploads".
"""

import re
from collections.abc import Mapping
from typing import Final

from m2gate.errors import WireError
from m2gate.link.connection import Connection
from m2gate.link.disk_upload import DiskUploads, StoredUpload
from m2gate.link.exchange import Exchange
from m2gate.link.json_socket import JsonExchange
from m2gate.link.upload import Upload
from m2gate.link.websocket import WebSocketExchange
from m2gate.wire.http import check_framing, wants_close
from m2gate.wire.mongrel2 import HeaderValue, Request

_NOT_HTTP: Final = frozenset((b"WEBSOCKET", b"WEBSOCKET_HANDSHAKE", b"JSON", b"XML"))
_DECIMAL: Final = re.compile(rb"[0-9]{1,20}")


def open_exchange(connection: Connection, method: bytes, message: Request, disk: DiskUploads | None) -> Exchange | None:
    """Return the exchange that message opens on connection; None if it belongs to one that is open.

    Raises WireError for a WebSocket frame outside of a WebSocket.
    """
    if method in _NOT_HTTP:
        if method == b"WEBSOCKET" and b"FLAGS" in message.headers:
            session = connection.current
            if not isinstance(session, WebSocketExchange):
                raise WireError("a WebSocket frame outside of a WebSocket", 0, b"")
            session.feed(message)
            return None
        if method == b"WEBSOCKET_HANDSHAKE":
            return WebSocketExchange(connection, message)
        if method == b"JSON" and message.path.startswith(b"@"):
            return JsonExchange(connection, message)
        if method == b"XML" and message.path.startswith(b"<"):
            connection.abort()  # nobody can have configured a handler of ours for it on purpose
            return None
        # Any client may use these words as the method of an HTTP request.
    exchange = _open_http(connection, message, disk)
    if exchange is not None:
        exchange.close_after = _ends_connection(message.headers)
    return exchange


def _open_http(connection: Connection, message: Request, disk: DiskUploads | None) -> Exchange | None:
    headers = message.headers
    if b"UPLOAD_STREAM" in headers:
        return _open_upload(connection, message)
    if disk is not None and disk.is_announcement(message):
        stored = disk.file(connection, message)
        if stored is None:
            return None
        if isinstance(stored, StoredUpload):
            return Exchange(connection, message, stored)
        exchange = Exchange(connection, message)
        exchange.refuse(stored.status, stored.detail)
        return exchange
    exchange = Exchange(connection, message)
    if message.body or b"content-length" in headers or b"transfer-encoding" in headers:
        try:
            _check_request(message, is_streamed=False)
        except WireError as error:
            exchange.refuse(400, error.rule)
    return exchange


def _open_upload(connection: Connection, message: Request) -> Exchange:
    declared = message.headers.get(b"content-length")
    length = int(declared) if type(declared) is bytes and _DECIMAL.fullmatch(declared) else None
    upload = Upload(connection, length)
    exchange = Exchange(connection, message, upload)
    try:
        _check_request(message, is_streamed=True)
        upload.feed(0, message.body, is_last=b"UPLOAD_STREAM_DONE" in message.headers)
    except WireError as error:
        exchange.refuse(400, error.rule)
    return exchange


def _ends_connection(headers: Mapping[bytes, HeaderValue]) -> bool:
    """Tell whether the answer to a request with these headers is the last of its connection."""
    token = headers.get(b"connection")
    # HTTP/1.0 without keep-alive, and whatever Mongrel2 may call it.
    return headers.get(b"VERSION") != b"HTTP/1.1" or wants_close(b"HTTP/1.1", token)


def _check_request(head: Request, *, is_streamed: bool) -> None:
    """Refuse what Mongrel2 lets through but must not be answered as if it were sound.

    Raises WireError: both Transfer-Encoding and Content-Length, a length that is no number, is
    repeated, or is not that of the body that was delivered.
    """
    headers = head.headers
    if b"content-length" not in headers and b"transfer-encoding" not in headers:
        if head.body:
            raise WireError("a body needs a Content-Length", 0, b"")
        return
    length = check_framing(headers)
    if not is_streamed and length != len(head.body):
        raise WireError("Content-Length is not that of the body", 0, b"")
