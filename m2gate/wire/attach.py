"""What a gateway and its workers say to each other; one ZeroMQ frame a message: a kind byte and its payload.

The order on this socket is the order of events, both sides rely on it. Numbers are little-endian.
Source of the rules: docs/reference/attach-protocol.md.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import tnetstring

from m2gate.errors import WireError
from m2gate.wire.record import wire_record

VERSION: Final = 1  # of this protocol; a worker of another is not taken

# Gateway to worker.
FRAMES: Final = b"F"
SERVERS: Final = b"S"
RELEASE: Final = b"R"
RECEIPT: Final = b"A"
REFUSAL: Final = b"X"
ITEM: Final = b"I"
BEAT: Final = b"B"
READ: Final = b"Q"
END: Final = b"E"

# Worker to gateway.
ATTACH: Final = b"A"
CONNECTED: Final = b"C"
DONE: Final = b"D"
HOLD: Final = b"H"
FEED: Final = b"W"
JOIN: Final = b"J"
LEAVE: Final = b"L"
PUBLISH: Final = b"P"
POLICY: Final = b"O"
CROWDED: Final = b"K"
BYE: Final = b"Y"

# What a record of DONE says of a connection.
EXCHANGE_DONE: Final = 0  # one exchange has ended, the connection goes on
CONNECTION_CLOSED: Final = 1  # the worker has closed or forgotten it; 1 in place of bytes: its last answer was whole
EXCHANGE_DETACHED: Final = 2  # its end is the client's next request, which must not wait for it

NUMBER_MAX: Final = 65_535  # of a server
COUNT_MAX: Final = 2**62
IDENTITY_MAX: Final = 64  # bytes of a worker's name on the socket
RECORD: Final = struct.Struct("<HBII")
_LENGTH: Final = struct.Struct("<I")
_SEEN: Final = struct.Struct("<cQ")
_RECEIPT: Final = struct.Struct("<cI5I")
_NUMBERED: Final = struct.Struct("<cI")
_SERVER: Final = struct.Struct("<cH")
_BYTES_READ: Final = struct.Struct("<IQ")


@wire_record
class ServerNote:
    """One Mongrel2 that a gateway is linked to now.

    number: of this life of the server; a restarted one gets another.
    """

    number: int
    send_ident: bytes
    recv_spec: str
    upload_store: str


@wire_record
class Claim:
    """An exchange that was open in a worker when it attached.

    number:     of the frame that opened it, as in the mark table.
    is_started: something of its answer may have left.
    """

    send_ident: bytes
    conn_id: int
    number: int
    is_started: bool
    is_websocket: bool


@wire_record
class Attach:
    """How a worker introduces itself, and what it still has open.

    name:       its stable label, such as ``w1``; identity on the socket is another.
    table:      name of its mark table in the gateway's folder.
    capacity:   exchanges that it takes at once.
    base:       frames that it was forwarded before; the next one is base + 1.
    members:    (channel, form, count) of its own subscribers.
    handler:    name of the handler section whose requests it serves, "" for those of a gateway without sites.
    """

    name: str
    pid: int
    generation: int
    table: str
    capacity: int
    base: int
    is_leaving: bool
    claims: list[Claim]
    members: list[tuple[str, str, int]]
    handler: str = ""


# -- frames ----------------------------------------------------------------------------------------


def build_frames(frames: Iterable[bytes]) -> bytes:
    """Pack Mongrel2's frames, as they came, into one message."""
    parts = [FRAMES]
    pack = _LENGTH.pack
    for frame in frames:
        parts += (pack(len(frame)), frame)
    return b"".join(parts)


def split_frames(message: bytes) -> list[bytes]:
    """Take apart what build_frames made. Raises WireError."""
    frames = []
    position, end = 1, len(message)
    unpack = _LENGTH.unpack_from
    try:
        while position < end:
            start = position + 4
            position = start + unpack(message, position)[0]
            frames.append(message[start:position])
    except struct.error:
        position = end + 1
    if position != end:
        raise WireError("frames end with the message", end, message)
    return frames


def build_done(seen: int, records: Iterable[bytes]) -> bytes:
    """Build the report of exchanges that have ended.

    seen:    frames received so far, bases included.
    records: each RECORD.pack(server number, what happened, conn_id, bytes sent since it was idle).
    """
    return _SEEN.pack(DONE, seen) + b"".join(records)


def parse_done(message: bytes) -> tuple[int, Iterator[tuple[int, int, int, int]]]:
    """Return the frames seen, and the records. Raises WireError."""
    try:
        return _SEEN.unpack_from(message)[1], RECORD.iter_unpack(memoryview(message)[_SEEN.size :])
    except struct.error:
        raise WireError("a report is a number and whole records", 0, message) from None


# -- servers and workers ----------------------------------------------------------------------------


def build_servers(servers: Iterable[ServerNote]) -> bytes:
    """Build the list of all servers that are linked now."""
    rows = [[one.number, one.send_ident, one.recv_spec.encode(), one.upload_store.encode()] for one in servers]
    return SERVERS + dump(rows)


def parse_servers(message: bytes) -> list[ServerNote]:
    """Take apart what build_servers made. Raises WireError."""
    rows = load(message[1:], list)
    try:
        return [ServerNote(_whole(a, NUMBER_MAX), _string(b), c.decode(), d.decode()) for a, b, c, d in rows]
    except (TypeError, ValueError, AttributeError):
        raise WireError("a server is its number, ident and specs", 0, message) from None


def build_release(server_number: int, conn_ids: Iterable[int]) -> bytes:
    """Build the notice that connections belong to somebody else from now on."""
    return _SERVER.pack(RELEASE, server_number) + b"".join([_LENGTH.pack(conn_id) for conn_id in conn_ids])


def parse_release(message: bytes) -> tuple[int, list[int]]:
    """Return the server's number and the conn_ids. Raises WireError."""
    try:
        number = _SERVER.unpack_from(message)[1]
        return number, [one[0] for one in _LENGTH.iter_unpack(memoryview(message)[_SERVER.size :])]
    except struct.error:
        raise WireError("a release is a server and its connections", 0, message) from None


def build_read(server_number: int, bytes_read: Mapping[int, int]) -> bytes:
    """Build the notice of how much a server has read from WebSockets so far, by conn_id."""
    return _SERVER.pack(READ, server_number) + b"".join([_BYTES_READ.pack(*one) for one in bytes_read.items()])


def parse_read(message: bytes) -> tuple[int, dict[int, int]]:
    """Return the server's number, and the bytes by conn_id. Raises WireError."""
    try:
        number = _SERVER.unpack_from(message)[1]
        return number, dict(_BYTES_READ.iter_unpack(memoryview(message)[_SERVER.size :]))
    except struct.error:
        raise WireError("what was read is a server, its connections and their bytes", 0, message) from None


def build_connected(server_number: int) -> bytes:
    """Build the notice that the worker's answers reach this server now."""
    return _SERVER.pack(CONNECTED, server_number)


def parse_connected(message: bytes) -> int:
    """Return the server's number. Raises WireError."""
    try:
        return int(_SERVER.unpack(message)[1])
    except struct.error:
        raise WireError("this message is the number of a server", 0, message) from None


def build_attach(attach: Attach) -> bytes:
    """Build a worker's introduction."""
    claims = [[one.send_ident, one.conn_id, one.number, one.is_started, one.is_websocket] for one in attach.claims]
    document = {
        b"version": VERSION,
        b"name": attach.name.encode(),
        b"pid": attach.pid,
        b"generation": attach.generation,
        b"table": attach.table.encode(),
        b"capacity": attach.capacity,
        b"base": attach.base,
        b"is_leaving": attach.is_leaving,
        b"claims": claims,
        b"members": [[channel.encode(), form.encode(), count] for channel, form, count in attach.members],
        b"handler": attach.handler.encode(),
    }
    return ATTACH + dump(document)


def parse_attach(message: bytes) -> Attach:
    """Take apart what build_attach made. Raises WireError."""
    document = load(message[1:], dict)
    if document.get(b"version") != VERSION:
        raise WireError(f"a worker speaks version {VERSION} of the protocol", 0, message)
    try:
        return Attach(
            name=document[b"name"].decode(),
            pid=_whole(document[b"pid"]),
            generation=_whole(document[b"generation"]),
            table=document[b"table"].decode(),
            capacity=_whole(document[b"capacity"]),
            base=_whole(document[b"base"]),
            is_leaving=bool(document[b"is_leaving"]),
            claims=[Claim(_string(a), _whole(b), _whole(c), bool(d), bool(e)) for a, b, c, d, e in document[b"claims"]],
            members=[(a.decode(), b.decode(), _whole(c)) for a, b, c in document[b"members"]],
            # A worker of a release before 0.3 does not say it.
            handler=document.get(b"handler", b"").decode(),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise WireError("an introduction has all of its fields", 0, message) from None


# -- requests of a worker that are acknowledged ------------------------------------------------------


def build_numbered(kind: bytes, sequence: int, payload: bytes) -> bytes:
    """Build JOIN, LEAVE, FEED, PUBLISH, REFUSAL: a number that the answer repeats, and a payload."""
    return _NUMBERED.pack(kind, sequence) + payload


def parse_numbered(message: bytes) -> tuple[int, bytes]:
    """Return the number and the payload. Raises WireError."""
    try:
        return int(_NUMBERED.unpack_from(message)[1]), message[_NUMBERED.size :]
    except struct.error:
        raise WireError("this message has a number", 0, message) from None


def build_receipt(sequence: int, counts: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)) -> bytes:
    """Build the answer to a numbered request: done; for a publish matched, written, queued, filtered, dropped."""
    return _RECEIPT.pack(RECEIPT, sequence, *counts)


def parse_receipt(message: bytes) -> tuple[int, tuple[int, ...]]:
    """Return the number of the request and the counts. Raises WireError."""
    try:
        _, sequence, *counts = _RECEIPT.unpack(message)
    except struct.error:
        raise WireError("a receipt has five counts", 0, message) from None
    return sequence, tuple(counts)


# -- documents ---------------------------------------------------------------------------------------


def dump(document: Any) -> bytes:
    """Return a document of this protocol as bytes: bytes, int, bool, None, lists and dictionaries of them."""
    return bytes(tnetstring.dumps(document))


def load(data: bytes, kind: type) -> Any:
    """Return the document in data, which is of this kind. Raises WireError."""
    try:
        document = tnetstring.loads(data)
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise WireError(f"broken tnetstring: {error}", 0, data) from error
    if type(document) is not kind:
        raise WireError(f"a {kind.__name__} is expected", 0, data)
    return document


def _whole(value: object, most: int = COUNT_MAX) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{value!r} is no number from 0 to {most}")
    return value


def _string(value: object) -> bytes:
    if type(value) is not bytes:
        raise TypeError(f"{value!r} is no string")
    return value
