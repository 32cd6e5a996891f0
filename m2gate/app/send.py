"""Sending a Response over its exchange: whole, in pieces, or the part of a file that was asked for."""

from collections.abc import Iterator
from typing import Any, Final

from gevent import GreenletExit

from m2gate.app.convert import body_of
from m2gate.app.response import Fields, Response
from m2gate.errors import ConnectionGone
from m2gate.link.exchange import Exchange
from m2gate.wire.http import has_body

FRAMING: Final = ("content-length", "transfer-encoding")  # the exchange's own: twice is an attack on proxies


def send_response(exchange: Exchange, response: Response) -> None:
    """Send response. Blocks the greenlet while the client is slow; a client that leaves is no error.

    Raises whatever a producer raises before its first piece, and TypeError for a body of no known
    type; later the connection is cut.
    """
    body, implied = body_of(response)
    fields = with_type(response, implied)
    if isinstance(body, bytes):
        # A handler of HEAD may name the length of the body that it has not made.
        exchange.respond(response.status, fields if exchange.method == b"HEAD" else split_length(fields)[0], body)
    else:
        fields, length = split_length(fields)
        stream(exchange, response.status, fields, body, length)


def with_type(response: Response, implied: str | None) -> Fields:
    """Return the response's fields with a Content-Type in front, unless they have one."""
    kind = response.content_type or implied
    if kind is None or any(name.lower() == "content-type" for name, _ in response.headers):
        return response.headers
    return (("Content-Type", kind), *response.headers)


def split_length(fields: Fields) -> tuple[Fields, int | None]:
    """Return the fields without those that frame the body, and the length that they announced.

    Raises ValueError for a Content-Length that is no number.
    """
    length = None
    for name, value in fields:
        if name.lower() == "content-length":
            if not value.isascii() or not value.isdigit():
                raise ValueError(f"Content-Length {value!r} is no number")
            length = int(value)
    return tuple(field for field in fields if field[0].lower() not in FRAMING), length


def stream(exchange: Exchange, status: int, fields: Fields, pieces: Iterator[Any], length: int | None = None) -> None:
    """Send pieces, str or bytes, as the client takes them; the producer is closed in any case.

    It runs only while there are credits, and not at all for HEAD. Raises as send_response does.
    """
    try:
        if not has_body(exchange.method, status):
            exchange.start(status, fields, length)
            exchange.finish()
            return
        # Before the head, so that a producer which fails at once still gets a clean 500.
        first = exchange.advance(lambda: _next(pieces))
        exchange.start(status, fields, length)
        piece = first
        while piece is not None:
            exchange.write(piece)
            piece = exchange.advance(lambda: _next(pieces))
        exchange.finish()
    except (ConnectionGone, GreenletExit):
        exchange.abort()
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()


def _next(pieces: Iterator[Any]) -> bytes | None:
    for piece in pieces:
        if isinstance(piece, str):
            return piece.encode()
        if isinstance(piece, bytes | bytearray | memoryview):
            return bytes(piece)
        raise TypeError(f"a streamed body yields str or bytes, not {type(piece).__name__}")
    return None
