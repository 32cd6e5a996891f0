"""HTTP/1.1 framing that Mongrel2 leaves to its handlers: heads, chunks, what a request may declare.

Source: RFC 9110 (fields, statuses), RFC 9112 (message framing).
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from m2gate.errors import WireError
from m2gate.wire.mongrel2 import HeaderValue

LAST_CHUNK: Final = b"0\r\n\r\n"
LENGTH_MAX: Final = 2**31 - 1  # bytes; Mongrel2 keeps lengths in an int and takes larger ones for 0
HEADS_CACHED: Final = 512  # heads of responses; an application has few that differ
NAMES_CACHED: Final = 512

# The standard library's table, with the names of RFC 9110 that it only has from Python 3.13 on.
REASONS: Final[dict[int, str]] = {status.value: status.phrase for status in HTTPStatus} | {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}

# A name as DNS and browsers write it, an IPv4 address, or an IPv6 address in brackets; then perhaps a port.
_HOST: Final = re.compile(rb"([A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?")
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# Latin-1 without the control characters; TAB, which RFC 9110 would allow, is refused as in WSGI.
_VALUE: Final = re.compile(r"[\x20-\x7e\x80-\xff]*")


class UnsendableError(ValueError):
    """A status or header field that must not be sent: most likely a client's data got into it.

    The text names the field, never its value, which may be secret or hostile.
    """


@lru_cache(maxsize=600)
def status_line(status: int) -> bytes:
    """Build ``HTTP/1.1 200 OK`` with its line end; a status without a name has an empty reason.

    Raises UnsendableError outside 100..599.
    """
    if not 100 <= status <= 599:
        raise UnsendableError(f"status {status!r}: an HTTP status is a number from 100 to 599")
    return b"HTTP/1.1 %d %s\r\n" % (status, REASONS.get(status, "").encode())


def build_status_line(status: int, reason: str | None = None) -> bytes:
    """Build a status line with a reason of one's own, None for the usual one; see status_line.

    Raises UnsendableError also for a reason with control or non-latin-1 characters.
    """
    if reason is None:
        return status_line(status)
    if not _VALUE.fullmatch(reason):
        raise UnsendableError("reason: it has a control or non-latin-1 character")
    return b"%b %b\r\n" % (status_line(status)[:12], reason.encode("latin-1"))


@lru_cache(maxsize=HEADS_CACHED)
def head_prefix(status: int, fields: tuple[tuple[str, str], ...]) -> bytes:
    """Build the status line and fields of a response; more fields and an empty line follow.

    The last HEADS_CACHED results are kept: 0.14 us instead of 1.1 for three fields.
    Raises UnsendableError as status_line and build_fields do.
    """
    return status_line(status) + build_fields(fields)


def build_fields(pairs: Iterable[tuple[str, str]]) -> bytes:
    """Build field lines, each with its line end, in the order given.

    pairs: name (a token) and value (latin-1 without control characters, TAB included).
    Raises UnsendableError for anything else: it could end the head early or add fields to it.
    """
    lines: list[str] = []
    for name, value in pairs:
        if not (value.isascii() and value.isprintable()) and not _VALUE.fullmatch(value):
            raise UnsendableError(f"header {name!r}: its value has a control or non-latin-1 character")
        lines.append(_line_start(name))
        lines.append(value)
        lines.append("\r\n")
    return "".join(lines).encode("latin-1")


@lru_cache(maxsize=NAMES_CACHED)
def _line_start(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise UnsendableError(f"header name {name!r}: use letters, digits and !#$%&'*+-.^_`|~ only")
    return f"{name}: "


def build_chunk(data: bytes) -> bytes:
    """Build one chunk of a chunked body.

    Raises ValueError for no data: that chunk would end the body; send LAST_CHUNK for it.
    """
    if not data:
        raise ValueError("an empty chunk ends the body; use LAST_CHUNK")
    return b"%x\r\n%b\r\n" % (len(data), data)


def has_body(method: bytes, status: int) -> bool:
    """Tell whether a response may carry body bytes: not to HEAD, nor with 1xx, 204 and 304."""
    return method != b"HEAD" and status >= 200 and status not in (204, 304)


def check_framing(headers: Mapping[bytes, HeaderValue]) -> int | None:
    """Return the bytes of body a request declares; 0 if it declares none, None if it is chunked.

    headers: names in lower case, as in wire.mongrel2.Request.
    Raises WireError where another reader of the same bytes could see a different body: both kinds
    of framing, a transfer coding other than exactly ``chunked``, a length that is repeated, is not
    all digits, or is over LENGTH_MAX. Mongrel2 lets all of these through.
    """
    length = headers.get(b"content-length")
    coding = headers.get(b"transfer-encoding")
    if coding is not None:
        if length is not None:
            raise WireError("Transfer-Encoding excludes Content-Length", 0, _flat(length))
        if coding != b"chunked":
            raise WireError("the only Transfer-Encoding is 'chunked'", 0, _flat(coding))
        return None
    if length is None:
        return 0
    if isinstance(length, list):
        raise WireError("Content-Length is given once", 0, _flat(length))
    # isdigit() as int() takes signs, blanks and underscores; ten digits as it refuses very long ones.
    if not length.isdigit() or len(length) > 10 or int(length) > LENGTH_MAX:
        raise WireError(f"Content-Length is a number up to {LENGTH_MAX}", 0, length)
    return int(length)


def parse_host(value: HeaderValue | None) -> str | None:
    """Return the name in a Host header: lower case, without port and final dot; "" without the header.

    None for what is no host, and where it is given more than once: nobody knows which one counts.
    """
    if value is None:
        return ""
    found = _HOST.fullmatch(value) if type(value) is bytes else None
    return None if found is None else found[1].decode("latin-1").lower().removesuffix(".")


def wants_close(version: bytes, connection: HeaderValue | None) -> bool:
    """Tell whether the connection ends with the response to this request.

    version:    value of VERSION. Keep-alive of HTTP/1.0 is not supported: it always closes.
    connection: the request's Connection header, None without one.
    """
    if version != b"HTTP/1.1":
        return True
    if connection is None or connection == b"keep-alive":  # what browsers send: 70 ns instead of 600
        return False
    return any(option.strip(b" \t") == b"close" for option in _flat(connection).lower().split(b","))


def _flat(value: HeaderValue) -> bytes:
    return b",".join(value) if isinstance(value, list) else value
