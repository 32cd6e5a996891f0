"""Every recorded message, and what is known of it independently of the parser that wrote the ``.json`` files."""

import pytest

from m2gate.errors import WireError
from m2gate.wire.mongrel2 import Credits, HeaderValue, Leave, Request, parse_message
from m2gate.wire.websocket import accept_key, parse_flags
from tests.corpus import describe, expectation, frames

FRAMES = frames()
PROTOCOLS = ("json", "tnetstring")
NAMES = sorted({name.rpartition("-")[0] for name in FRAMES})
# These differ from one recording to the next.
VARYING = {b"x-mongrel2-upload-start", b"x-mongrel2-upload-done", b"PEER_CERT_SHA1"}

# What the client sent, or what Mongrel2 is known to say: name of the message, header, value or None for none.
FACTS: list[tuple[str, bytes, HeaderValue | None]] = [
    ("get", b"METHOD", b"GET"),
    ("get", b"PATH", b"/a%20b/c"),
    ("get", b"QUERY", None),
    ("get", b"DOWNLOAD_CREDITS", b"102400"),
    ("http10-without-host", b"VERSION", b"HTTP/1.0"),
    ("http10-without-host", b"host", None),
    ("query", b"QUERY", b"x=1&y=%20z"),
    ("query", b"URI", b"/find?x=1&y=%20z"),
    ("query-empty", b"QUERY", b""),
    ("fragment", b"FRAGMENT", b"part"),
    ("repeated-headers", b"x-one", [b"a", b"b", b"d"]),
    ("repeated-headers", b"x-two", b"c"),
    ("not-utf8", b"x-raw", b"\xff\xfe"),
    ("utf8", b"x-text", "Grüße 世界".encode()),
    ("raw-tab", b"x-tab", b"a\tb"),
    ("quotes", b"x-quoted", b'"a\\b" \\u00e9 \\'),
    ("quotes", b"x-'`|", b"odd"),
    ("forged-keys", b"METHOD", b"GET"),
    ("forged-keys", b"method", b"POST"),
    ("forged-keys", b"REMOTE_ADDR", b"127.0.0.1"),
    ("forged-keys", b"x-forwarded-for", b"127.0.0.1"),
    ("forged-upload", b"x-mongrel2-upload-done", b"/etc/passwd"),
    ("length-repeated", b"content-length", [b"5", b"3"]),
    ("length-and-chunked", b"transfer-encoding", b"chunked"),
    ("json-socket", b"PATTERN", b"@chat"),
    ("json-socket-star", b"PATTERN", b"@"),
    ("second-request", b"DOWNLOAD_CREDITS", None),
    ("upload-first", b"UPLOAD_STREAM", b"0"),
    ("upload-piece", b"METHOD", None),
    ("upload-last", b"UPLOAD_STREAM_DONE", b"1"),
    ("chunked-first", b"UPLOAD_STREAM", b"0"),
    ("chunked-piece", b"UPLOAD_STREAM", b"0"),
    ("chunked-last", b"UPLOAD_STREAM", b"12"),
    ("websocket-handshake", b"METHOD", b"WEBSOCKET_HANDSHAKE"),
    ("websocket-text", b"FLAGS", b"0x81"),
    ("websocket-rsv1", b"FLAGS", b"0xC1"),
    ("disk-start-forged", b"x-mongrel2-upload-done", b"/etc/passwd"),
    ("tls", b"URL_SCHEME", b"https"),
]
BODIES = [
    ("post-binary", bytes(range(256))),
    ("post-like-a-message", b"3:a, 0:,}],"),
    ("length-and-chunked", b"3\r\n"),
    ("json-socket", b'{"text": "hi, \xff"}'),
    ("json-socket-star", b'{"type":"disconnect"}'),
    ("chunked-piece", b"hello"),
    ("websocket-handshake", accept_key(b"dGhlIHNhbXBsZSBub25jZQ==")),
    ("websocket-text", "Grüße".encode()),
    ("websocket-ping", b"are you there"),
    ("disk-done", b""),
]


def request(name: str, protocol: str) -> Request:
    """Return the recorded request of that name, without its number."""
    (frame,) = [frame for stem, frame in FRAMES.items() if stem[4:] == f"{name}-{protocol}"]
    message = parse_message(frame)
    assert isinstance(message, Request)
    return message


@pytest.mark.checklist("mongrel2", 1)
@pytest.mark.parametrize("name", FRAMES)
def test_recorded_message(name: str) -> None:
    assert describe(parse_message(FRAMES[name])) == expectation(name)


def test_the_corpus_is_whole() -> None:
    assert len(NAMES) >= 30
    assert sorted(FRAMES) == sorted(f"{name}-{protocol}" for name in NAMES for protocol in PROTOCOLS)


@pytest.mark.checklist("mongrel2", 1)
@pytest.mark.parametrize("name", NAMES)
def test_both_protocols_say_the_same(name: str) -> None:
    one, other = (parse_message(FRAMES[f"{name}-{protocol}"]) for protocol in PROTOCOLS)
    for message in (one, other):
        if isinstance(message, Request):
            for key in VARYING & message.headers.keys():
                message.headers[key] = b"varies"
    assert one == other


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("name", "header", "value"), FACTS)
def test_header(name: str, header: bytes, value: HeaderValue | None, protocol: str) -> None:
    assert request(name, protocol).headers.get(header) == value


@pytest.mark.checklist("mongrel2", 2)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("name", "body"), BODIES)
def test_body(name: str, body: bytes, protocol: str) -> None:
    assert request(name, protocol).body == body


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pieces_follow_each_other(protocol: str) -> None:
    pieces = [request(f"upload-{name}", protocol) for name in ("first", "piece", "last")]
    body = b""
    for piece in pieces:
        assert piece.headers[b"UPLOAD_STREAM"] == b"%d" % len(body)
        assert piece.conn_id == pieces[0].conn_id
        body += piece.body
    assert body == bytes(range(250)) * 36


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_notices(protocol: str) -> None:
    found = {name[4:]: parse_message(frame) for name, frame in FRAMES.items() if name.endswith(protocol)}
    assert isinstance(found[f"leave-{protocol}"], Leave)
    assert found[f"leave-negative-id-{protocol}"] == Leave(b"corpus-1", 0xFFFF_FFFF)
    notice = found[f"credits-{protocol}"]
    assert isinstance(notice, Credits)
    assert notice.amount == len(b"HTTP/1.1 204 No Content\r\nServer: corpus\r\n\r\n")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_opcodes_of_recorded_frames(protocol: str) -> None:
    names = {"text": 1, "binary": 2, "unknown-opcode": 3, "ping": 9, "close": 8}
    assert {name: parse_flags(request(f"websocket-{name}", protocol).headers[b"FLAGS"]) for name in names} == names


@pytest.mark.parametrize("name", FRAMES)
def test_every_prefix_is_a_wire_error(name: str) -> None:
    frame = FRAMES[name]
    for cut in range(len(frame)):
        with pytest.raises(WireError):
            parse_message(frame[:cut])
