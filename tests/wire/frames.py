"""Messages as Mongrel2 would send them, for tests that need some it was not asked to send."""

import tnetstring

from m2gate.wire.mongrel2 import HeaderValue, Request


def build_message(request: Request) -> bytes:
    """Write a request with tnetstring headers."""
    return _join(request, tnetstring.dumps(request.headers))


def build_json_message(request: Request) -> bytes:
    """Write a request with JSON headers, which Mongrel2 escapes in no more than two ways."""
    fields = b",".join(_quote(name) + b":" + _json(value) for name, value in request.headers.items())
    return _join(request, tnetstring.dumps(b"{" + fields + b"}"))


def _join(request: Request, headers: bytes) -> bytes:
    return b"%b %d %b %b%d:%b," % (
        request.send_ident,
        request.conn_id,
        request.path,
        headers,
        len(request.body),
        request.body,
    )


def _json(value: HeaderValue) -> bytes:
    if isinstance(value, list):
        return b"[" + b",".join(map(_quote, value)) + b"]"
    return _quote(value)


def _quote(text: bytes) -> bytes:
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
