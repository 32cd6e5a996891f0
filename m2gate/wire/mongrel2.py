"""Mongrel2's handler protocol: the messages it sends, and the messages it takes.

Every message is one ZeroMQ frame. Source of each rule: docs/reference/mongrel2-wire.md.
"""

import json
import re
from collections.abc import Sequence
from typing import Final

import tnetstring

from m2gate.errors import WireError
from m2gate.wire.record import wire_record

TARGETS_MAX: Final = 128  # conn_ids in one message; given 129, Mongrel2 drops the whole message
CREDITS_INITIAL: Final = 102_400  # bytes; hard-coded in Mongrel2's download.flow_control
CONN_ID_MASK: Final = 0xFFFF_FFFF  # leaves and credits print ids above 2^31 as negative numbers

HeaderValue = bytes | list[bytes]

# "@*" is in the grammar of JSON sockets, so a client can ask for it; a notice is only what has
# exactly these bytes, and a client's message always carries PATTERN, which they lack.
_NOTICE: Final = re.compile(
    rb"([A-Za-z0-9-]+) (-?[0-9]{1,10}) @\* (?:"
    rb'(?:16:6:METHOD,4:JSON,\}|17:\{"METHOD":"JSON"\},)21:\{"type":"disconnect"\},'
    rb"|(?:[0-9]+:(?:16:DOWNLOAD_CREDITS,[0-9]+:([0-9]{1,10}),6:METHOD,4:JSON,|6:METHOD,4:JSON,16:DOWNLOAD_CREDITS,[0-9]+:([0-9]{1,10}),)\}"
    rb'|[0-9]+:\{"METHOD":"JSON","DOWNLOAD_CREDITS":"([0-9]{1,10})"\},)18:\{"type":"credits"\},'
    rb")"
)
_IDENT: Final = re.compile(rb"[A-Za-z0-9-]+")


@wire_record
class Request:
    """A request, a WebSocket handshake or frame, a piece of an upload, or a JSON socket's message.

    send_ident: the label of the server that sent it.
    conn_id:    unsigned 32 bit; one TCP connection, not one request.
    path:       raw, still percent-encoded; ``@route`` for a JSON socket.
    headers:    client headers in lower case, Mongrel2's own keys in upper case; a repeated
                header is a list. Latin-1 bytes as the client sent them.
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
    Raises WireError for anything else.
    Source: docs/reference/mongrel2-wire.md, "Requests" and "Notices".
    """
    parts = frame.split(b" ", 3)
    if len(parts) != 4:
        raise WireError("a message has four parts separated by blanks", 0, frame)
    ident, conn_id, path, rest = parts
    if path == b"@*":
        notice = _parse_notice(frame)
        if notice is not None:
            return notice
    try:
        # Unsigned and without sign or underscores, which int() alone would take.
        if not conn_id.isdigit() or len(conn_id) > 10:
            raise WireError("the connection id is a number", len(ident) + 1, frame)
        digits = rest[: rest.index(b":", 0, 11)]
        if not digits.isdigit():
            raise WireError("the header block starts with its length", 0, frame)
        start = len(digits) + 1
        end = start + int(digits)
        kind = rest[end : end + 1]
        if kind == b"}":
            headers = tnetstring.loads(rest)
        elif kind == b",":
            headers = _parse_json_headers(rest[start:end])
        else:
            raise WireError("the header block is a tnetstring string or dictionary", 0, frame)
        # BODY = N ":" bytes ",", and nothing behind it.
        colon = rest.index(b":", end + 1, end + 12)
        length = rest[end + 1 : colon]
        body = rest[colon + 1 : -1]
        if not length.isdigit() or int(length) != len(body) or rest[-1] != 44:
            raise WireError("the body's length is right and nothing follows it", 0, frame)
    except WireError:
        raise
    except (ValueError, RecursionError) as error:
        raise WireError(f"broken tnetstring or JSON: {error}", 0, frame) from error
    return Request(ident, int(conn_id) & CONN_ID_MASK, path, headers, body)


def _parse_notice(frame: bytes) -> Leave | Credits | None:
    match = _NOTICE.fullmatch(frame)
    if match is None:
        return None
    ident, conn_id, tnet_first, tnet_last, as_json = match.groups()
    amount = tnet_first or tnet_last or as_json
    if amount is None:
        return Leave(ident, int(conn_id) & CONN_ID_MASK)
    return Credits(ident, int(conn_id) & CONN_ID_MASK, int(amount))


def _parse_json_headers(raw: bytes) -> dict[bytes, HeaderValue]:
    # Mongrel2 escapes only '"' and '\': raw tabs and bytes that are no UTF-8 come through, so
    # a strict or a UTF-8 decoder would let any client stop the loop.
    decoded = json.loads(raw.decode("latin-1"), strict=False)
    if not isinstance(decoded, dict):
        raise ValueError("headers are no JSON object")
    headers: dict[bytes, HeaderValue] = {}
    for name, value in decoded.items():
        if isinstance(value, str):
            headers[name.encode("latin-1")] = value.encode("latin-1")
        elif isinstance(value, list) and all(isinstance(one, str) for one in value):
            headers[name.encode("latin-1")] = [one.encode("latin-1") for one in value]
        else:
            raise ValueError("a header value is a string or a list of strings")
    return headers


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
    return b"%s %d:%s, %s" % (send_ident, len(ids), ids, tnetstring.dumps([b"ctl", args]))
