"""WebSocket frames as they go out, and the rules for what comes in that Mongrel2 does not check.

Mongrel2 unmasks and reassembles; it knows no UTF-8, no opcodes and no close codes.
Source: RFC 6455, sections 5 and 7; docs/reference/mongrel2-wire.md, "WebSocket".
"""

import hashlib
from base64 import b64encode
from typing import Final

from m2gate.errors import WireError
from m2gate.wire.mongrel2 import HeaderValue

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

CONTROL_MAX: Final = 125  # bytes of payload of a close, ping or pong
REASON_MAX: Final = CONTROL_MAX - 2  # bytes of UTF-8 behind the close code

PROTOCOL_ERROR: Final = 1002
INVALID_DATA: Final = 1007
TOO_BIG: Final = 1009

_OPCODES: Final = (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG)
# Mongrel2 has put fragments together, so FIN is always set; "%X" is how it prints the byte.
_FLAGS: Final = {b"0x%X" % (0x80 | opcode): opcode for opcode in range(16)}
# First two bytes of whole frames of up to 125 bytes: 160 ns a frame instead of 260.
_SMALL: Final = {opcode: [bytes((0x80 | opcode, size)) for size in range(126)] for opcode in _OPCODES}
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Violation(WireError):
    """The client broke a rule of RFC 6455; ``close_code`` is what the connection is closed with."""

    def __init__(self, close_code: int, rule: str, payload: bytes) -> None:
        super().__init__(rule, 0, payload)
        self.close_code = close_code


def build_frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """Build one unmasked frame, as a server sends it.

    fin: False for a fragment that another one follows.
    Raises ValueError for an unknown opcode, and for a control frame that is long or a fragment.
    """
    size = len(payload)
    if size < 126 and fin and opcode in _SMALL:
        return _SMALL[opcode][size] + payload
    if opcode not in _SMALL:
        raise ValueError(f"opcode {opcode!r}: one of {_OPCODES}")
    if opcode >= CLOSE and (size > CONTROL_MAX or not fin):
        raise ValueError(f"a control frame is whole and has at most {CONTROL_MAX} bytes, not {size}")
    first = opcode | 0x80 if fin else opcode
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65_536:
        return b"%c\x7e%b%b" % (first, size.to_bytes(2, "big"), payload)
    return b"%c\x7f%b%b" % (first, size.to_bytes(8, "big"), payload)


def client_frame_bytes(size: int) -> int:
    """Return how long a client's frame of size bytes of payload is: masked, and its length in the shortest form."""
    return size + (6 if size < 126 else 8 if size < 65_536 else 14)


def build_close(code: int | None, reason: str = "") -> bytes:
    """Build the payload of a close frame; None for one without code, which has no reason either.

    reason: cut to REASON_MAX bytes of UTF-8, between characters.
    Raises ValueError for a code that may not be sent.
    """
    if code is None:
        return b""
    if not is_sendable_code(code):
        raise ValueError(f"close code {code!r}: may not be sent (RFC 6455, section 7.4)")
    text = reason.encode()
    if len(text) > REASON_MAX:
        text = text[:REASON_MAX].decode(errors="ignore").encode()
    return code.to_bytes(2, "big") + text


def parse_flags(flags: HeaderValue) -> int:
    """Return the opcode from the FLAGS of a message, such as ``0x81``; it may be an unknown one.

    Raises Violation (1002) where reserved bits are set or the frame is a fragment, WireError where
    flags is no hexadecimal byte: then it is not from Mongrel2.
    """
    if isinstance(flags, list):
        raise WireError("FLAGS is given once", 0, b",".join(flags))
    opcode = _FLAGS.get(flags)
    if opcode is not None:
        return opcode
    digits = flags[2:]
    if flags[:2] != b"0x" or len(digits) not in (1, 2) or digits.strip(b"0123456789abcdefABCDEF"):
        raise WireError("FLAGS is one byte in hexadecimal", 0, flags)
    byte = int(digits, 16)
    if byte & 0xF0 != 0x80:
        raise Violation(PROTOCOL_ERROR, "a frame has no reserved bits and is whole", flags)
    return byte & 0x0F


def check_message(opcode: int, payload: bytes, max_message: int) -> str | bytes:
    """Return a data message: str for text, bytes for binary.

    max_message: bytes of payload, inclusive.
    Raises Violation: 1009 for a longer one, 1007 for text that is no UTF-8, 1002 for any opcode
    but text and binary.
    """
    if len(payload) > max_message:
        raise Violation(TOO_BIG, f"a message has at most {max_message} bytes", b"")
    if opcode == TEXT:
        try:
            return payload.decode()
        except UnicodeDecodeError as error:
            raise Violation(INVALID_DATA, "text is UTF-8", payload) from error
    if opcode == BINARY:
        return payload
    raise Violation(PROTOCOL_ERROR, f"opcode {opcode:#x} is no data message", payload)


def parse_close(payload: bytes) -> tuple[int | None, str]:
    """Return code and reason from the payload of a close frame; None and ``""`` from an empty one.

    Raises Violation: 1002 for half a code, a code that may not be sent and for more than
    CONTROL_MAX bytes, 1007 for a reason that is no UTF-8.
    """
    if not payload:
        return None, ""
    if not 2 <= len(payload) <= CONTROL_MAX:
        raise Violation(PROTOCOL_ERROR, "a close frame has no payload, or a code and a short reason", payload)
    code = int.from_bytes(payload[:2], "big")
    if not is_sendable_code(code):
        raise Violation(PROTOCOL_ERROR, f"close code {code} may not be sent", payload)
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError as error:
        raise Violation(INVALID_DATA, "the reason of a close frame is UTF-8", payload) from error


def is_sendable_code(code: int) -> bool:
    """Tell whether a close frame may carry code: 1000-1003, 1007-1014, 3000-4999.

    The others below 3000 are reserved or, like 1005 and 1006, stand for the lack of a close frame.
    """
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def accept_key(key: bytes) -> bytes:
    """Return the Sec-WebSocket-Accept that answers a Sec-WebSocket-Key."""
    return b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
