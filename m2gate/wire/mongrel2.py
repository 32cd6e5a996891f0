"""Mongrel2's handler protocol: the messages it sends, and the messages it takes.

Every message is one ZeroMQ frame. Source of each rule: docs/reference/mongrel2-wire.md.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from tnetstring import dumps, pop

from m2gate.errors import WireError
from m2gate.wire.record import wire_record

TARGETS_MAX: Final = 128  # conn_ids in one message; given 129, Mongrel2 drops the whole message
CREDITS_INITIAL: Final = 102_400  # bytes; hard-coded in Mongrel2's download.flow_control
CONN_ID_MASK: Final = 0xFFFF_FFFF  # leaves and credits print ids above 2^31 as negative numbers

HeaderValue = bytes | list[bytes]

# "@*" is in the grammar of JSON sockets, so a client can ask for it; but a client's message always
# carries PATTERN, which notices lack.
_NOTICES: Final = b"@*"
_DISCONNECT: Final = b'{"type":"disconnect"}'
_CREDITS: Final = b'{"type":"credits"}'
CREDITS_END: Final = b'18:{"type":"credits"},'
_KNOWN_BYTES_MAX: Final = 96  # longer than any notice of Mongrel2
_KNOWN_MAX: Final = 1_024
_IDENT: Final = re.compile(rb"[A-Za-z0-9-]+")
# Mongrel2 escapes only '"' and '\\': raw tabs and bytes that are no UTF-8 come through, so a strict or
# a UTF-8 decoder would let any client stop the loop. One decoder for all: json.loads makes one a call.
_decode_json: Final = json.JSONDecoder(strict=False).decode
_NO_BODY: Final = b"0:,"


@wire_record
class Request:
    """A request, a WebSocket handshake or frame, a piece of an upload, or a JSON socket's message.

    send_ident: the label of the server that sent it.
    conn_id:    unsigned 32 bit; one TCP connection, not one request.
    path:       raw, still percent-encoded; ``@route`` for a JSON socket.
    headers:    client headers in lower case, Mongrel2's own keys in upper case; a repeated
                header is a list. Latin-1 bytes as the client sent them. See check_headers.
    body:       the bytes of this message, which may be a part of the request's body.
    """

    send_ident: bytes
    conn_id: int
    path: bytes
    headers: dict[bytes, HeaderValue]
    body: bytes


@wire_record
class Leave:
    """The client of this connection is gone; the same leave may come several times."""

    send_ident: bytes
    conn_id: int


@wire_record
class Credits:
    """The client's socket took more bytes: as many may be sent again.

    amount: bytes, > 0.
    """

    send_ident: bytes
    conn_id: int
    amount: int


Message = Request | Leave | Credits


def check_ident(ident: bytes) -> bytes:
    """Return ident if Mongrel2's response parser takes it: letters, digits and ``-`` only.

    Raises ValueError: any other character makes every response with it invalid.
    """
    if not _IDENT.fullmatch(ident):
        raise ValueError(f"send_ident {ident!r}: use letters, digits and '-' only")
    return ident


def parse_message(frame: bytes) -> Message:
    """Parse one frame from Mongrel2's PUSH socket, in either header protocol.

    frame: ``IDENT SP ID SP PATH SP N:headers BODY`` where the type byte behind the headers tells
           JSON (``,``) from tnetstring (``}``).
    Raises WireError for anything else; the types of tnetstring headers are left to check_headers.
    Source: docs/reference/mongrel2-wire.md, "Requests" and "Notices".
    """
    try:
        ident, conn_id, path, rest = frame.split(b" ", 3)
    except ValueError:
        raise WireError("a message has four parts separated by blanks", 0, frame) from None
    # isdigit() as int() alone would take signs, blanks and underscores.
    if conn_id.isdigit() and len(conn_id) <= 10 and path:
        number = int(conn_id)
        if number > CONN_ID_MASK:
            raise WireError("the connection id has 32 bits", len(ident) + 1, frame)
    else:
        number = _parse_negative_id(ident, conn_id, path, frame)
    # With flow control there is a notice of credits for every response, and few different ones.
    if path == _NOTICES and len(rest) <= _KNOWN_BYTES_MAX:
        amount = _parse_credits(rest)
        if amount:
            return Credits(ident, number, amount)
    if path != _NOTICES:
        # _parse_blocks without the call, for what nearly every frame looks like: 0.3 us less.
        try:
            headers, tail = pop(rest)
        except (ValueError, TypeError, RecursionError, OverflowError):
            headers, tail = None, rest
        if tail == _NO_BODY and type(headers) is dict:
            return Request(ident, number, path, headers, b"")
    headers, body = _parse_blocks(rest, frame)
    if path == _NOTICES and b"PATTERN" not in headers:
        return _build_notice(ident, number, headers, body, frame)
    return Request(ident, number, path, headers, body)


def find_credits(frame: bytes) -> tuple[int, int] | None:
    """Return connection id and amount if frame is a usual notice of credits; else parse_message decides.

    Every response is followed by one: 0.5 us instead of 0.9 for the record of parse_message.
    """
    if not frame.endswith(CREDITS_END):
        return None
    try:
        _, conn_id, path, rest = frame.split(b" ", 3)
    except ValueError:
        return None
    if path != _NOTICES or not conn_id.isdigit() or len(conn_id) > 9 or len(rest) > _KNOWN_BYTES_MAX:
        return None
    amount = _parse_credits(rest)
    return (int(conn_id), amount) if amount else None


@lru_cache(_KNOWN_MAX)
def _parse_credits(rest: bytes) -> int:
    """Return the amount if rest is all of a notice of credits behind its path, else 0.

    Looked up instead of parsed: 0.8 instead of 2.2 us.
    """
    try:
        headers, body = _parse_blocks(rest, rest)
        notice = _build_notice(b"", 0, headers, body, rest)
    except WireError:
        return 0
    return notice.amount if type(notice) is Credits and b"PATTERN" not in headers else 0


def request_bytes(head: Request) -> int:
    """Return how long the head of a WebSocket's handshake was, if it was written as clients write it.

    A GET with one space between words and behind colons. Mongrel2's own keys are in upper case.
    """
    size = len(b"GET  HTTP/1.1\r\n\r\n")
    for name, value in head.headers.items():
        if name == b"URI":
            size += sum(map(len, _each(value)))
        elif not name.isupper():
            size += sum(len(name) + len(b": \r\n") + len(one) for one in _each(value))
    return size


def _each(value: HeaderValue) -> list[bytes]:
    return [value] if isinstance(value, bytes) else value


def _parse_blocks(rest: bytes, frame: bytes) -> tuple[dict[bytes, HeaderValue], bytes]:
    try:
        headers, rest = pop(rest)
        if rest == _NO_BODY:
            body, rest = b"", b""
        else:
            body, rest = pop(rest)
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        # TypeError: a list as a key. OverflowError: tnetstring3 0.4 stumbles over its own message
        # when the type byte is above 0x7f.
        raise WireError(f"broken tnetstring: {error}", len(frame) - len(rest), frame) from error
    if type(body) is not bytes or rest:
        raise WireError("a message ends with its body", len(frame) - len(rest), frame)
    if type(headers) is not dict:
        headers = _parse_json_headers(headers, frame)
    return headers, body


def _parse_negative_id(ident: bytes, conn_id: bytes, path: bytes, frame: bytes) -> int:
    digits = conn_id[1:]
    if path != _NOTICES or conn_id[:1] != b"-" or not digits.isdigit() or len(digits) > 10 or int(digits) > 1 << 31:
        raise WireError("a connection id is a number, and a path follows", len(ident) + 1, frame)
    return int(conn_id) & CONN_ID_MASK


def _build_notice(
    ident: bytes, conn_id: int, headers: Mapping[bytes, HeaderValue], body: bytes, frame: bytes
) -> Leave | Credits:
    if headers.get(b"METHOD") == b"JSON":
        if body == _DISCONNECT:
            return Leave(ident, conn_id)
        amount = headers.get(b"DOWNLOAD_CREDITS")
        if body == _CREDITS and type(amount) is bytes and amount.isdigit() and len(amount) <= 10 and int(amount):
            return Credits(ident, conn_id, int(amount))
    raise WireError("a notice is a disconnect, or a positive number of credits", 0, frame)


def check_headers(headers: Mapping[Any, object]) -> None:
    """Make sure that headers are what they are typed to be, before they are all used.

    Mongrel2 sends nothing else, and a look at each costs half a microsecond a request.
    Raises WireError.
    """
    for name, value in headers.items():
        values = value if type(value) is list and value else [value]
        if type(name) is not bytes or any(type(one) is not bytes for one in values):
            raise WireError("a header is a string or a list of strings", 0, b"")


def _parse_json_headers(raw: object, frame: bytes) -> dict[bytes, HeaderValue]:
    if type(raw) is not bytes:
        raise WireError("the header block is a tnetstring string or dictionary", 0, frame)
    try:
        decoded = _decode_json(raw.decode("latin-1"))
        if type(decoded) is dict:
            return {name.encode("latin-1"): _encode(value) for name, value in decoded.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise WireError(f"broken JSON headers: {error}", 0, frame) from error
    raise WireError("JSON headers are an object", 0, frame)


def _encode(value: str | list[str]) -> HeaderValue:
    if type(value) is str:
        return value.encode("latin-1")
    if type(value) is list and value:
        return [one.encode("latin-1") for one in value]
    raise ValueError("a header is a string or a list of strings")


def build_reply(send_ident: bytes, conn_ids: Sequence[int], body: bytes) -> bytes:
    """Build one reply for up to 128 connections of one Mongrel2: ``IDENT SP N:IDS, SP BODY``.

    send_ident: echoed from the request; checked with check_ident where it enters.
    conn_ids:   1 to TARGETS_MAX; longer lists are split by the caller.
    body:       bytes as the client shall see them; ``b""`` closes once all before it is written.
    Raises ValueError on a wrong count: our bug, never a peer's.
    """
    return build_targets(send_ident, conn_ids) + body


def build_targets(send_ident: bytes, conn_ids: Sequence[int]) -> bytes:
    """Build the part of a reply before its body, which a fan-out sends again and again.

    Raises ValueError for no target and for more than TARGETS_MAX.
    """
    if not 0 < len(conn_ids) <= TARGETS_MAX:
        raise ValueError(f"{len(conn_ids)} targets; a message takes 1 to {TARGETS_MAX}")
    ids = b" ".join([b"%d" % conn_id for conn_id in conn_ids])
    return b"%s %d:%s, " % (send_ident, len(ids), ids)


def split_ids(conn_ids: Sequence[int], limit: int = TARGETS_MAX) -> Iterator[Sequence[int]]:
    """Split conn_ids, in order, into groups of at most limit: one message each.

    limit: TARGETS_MAX - 1 for control messages, where the ``X`` counts as a target.
    """
    for start in range(0, len(conn_ids), limit):
        yield conn_ids[start : start + limit]


def build_control(send_ident: bytes, conn_ids: Sequence[int], **entries: int | bool) -> bytes:
    """Build an extended message ``["ctl", {...}]`` for up to 127 connections.

    entries: ``keep_alive=True`` resets the server's kill timer, ``credits=n`` lets n more bytes of
             an upload through, ``cancel=True`` closes at once and drops what is queued.
    Raises ValueError on a wrong count or an unknown entry, TypeError when credits is no int: a
    string there wedges the upload for good.
    """
    # "X" counts as one of the targets; with one too many the *next* message would be lost as well.
    if not 0 < len(conn_ids) < TARGETS_MAX:
        raise ValueError(f"{len(conn_ids)} targets; a control message takes 1 to {TARGETS_MAX - 1}")
    unknown = entries.keys() - {"keep_alive", "credits", "cancel"}
    if unknown:
        raise ValueError(f"unknown control entries: {sorted(unknown)}")
    if type(entries.get("credits", 0)) is not int:
        raise TypeError(f"credits = {entries['credits']!r}: must be an int")
    ids = b" ".join([b"X", *[b"%d" % conn_id for conn_id in conn_ids]])
    args = {key.replace("_", "-").encode(): value for key, value in entries.items()}
    return b"%s %d:%s, %s" % (send_ident, len(ids), ids, dumps([b"ctl", args]))
