"""From what a handler returns to a Response."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from m2gate.app.response import Fields, Response
from m2gate.hub.building import encode_json

TEXT: Final[Fields] = (("Content-Type", "text/plain; charset=utf-8"),)
OCTETS: Final[Fields] = (("Content-Type", "application/octet-stream"),)
JSON: Final[Fields] = (("Content-Type", "application/json"),)


def convert(value: Any) -> Any:
    """Return a Response, or the EventStream or Hold that value is or contains.

    value: as in the contract of handlers: str, bytes, dict, list, None, an iterator, a Response, or
           ``(value, status[, headers])``.
    Raises TypeError for anything else.
    """
    if isinstance(value, Response) or hasattr(value, "answer"):
        return value
    if isinstance(value, tuple):
        if len(value) not in (2, 3):
            raise TypeError("a handler's tuple is (value, status) or (value, status, headers)")
        inner = value[0]
        if isinstance(inner, Response):
            inner.status = value[1]
            for name, field in Response(b"", 200, value[2] if len(value) == 3 else None).headers:
                inner.set_header(name, field)
            return inner
        return Response(inner, value[1], value[2] if len(value) == 3 else None)
    if value is None:
        return Response(b"", 204)
    return Response(value)


def body_of(response: Response) -> tuple[bytes | Iterator[Any], str | None]:
    """Return a response's body as bytes or as an iterator, and the content type that it implies."""
    body = response.body
    if isinstance(body, str):
        return body.encode(), TEXT[0][1]
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body), OCTETS[0][1] if len(body) else None
    if isinstance(body, dict | list):
        return encode_json(body), JSON[0][1]
    if body is None:
        return b"", None
    if isinstance(body, Iterable):
        return iter(body), OCTETS[0][1]
    raise TypeError(f"a handler returned {type(body).__name__}; return str, bytes, dict, list, an iterator or Response")
