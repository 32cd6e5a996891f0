"""Record the corpus from a real Mongrel2; run by ``scripts/record-corpus``."""

import json
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, get_args

import zmq

from m2gate.site.records import Protocol
from m2gate.wire.mongrel2 import Leave, build_control, build_reply, parse_message
from tests.corpus import FOLDER, describe
from tests.system.support import Mongrel2, make_pair, mongrel2, short_directory

IDENT: Final = b"corpus-1"
TIMEOUT_MS: Final = 5_000
UNKNOWN_ID: Final = 0xFFFF_FFFF
HOST: Final = b"Host: example.test\r\n"

# One request on a connection of its own, and the one message it causes.
REQUESTS: Final[dict[str, bytes]] = {
    "get": b"GET /a%20b/c HTTP/1.1\r\n" + HOST + b"User-Agent: corpus\r\nAccept: */*\r\n\r\n",
    "http10-without-host": b"GET / HTTP/1.0\r\n\r\n",
    "query": b"GET /find?x=1&y=%20z HTTP/1.1\r\n" + HOST + b"\r\n",
    "query-empty": b"GET /find? HTTP/1.1\r\n" + HOST + b"\r\n",
    "fragment": b"GET /page?x=1#part HTTP/1.1\r\n" + HOST + b"\r\n",
    "head": b"HEAD / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
    "repeated-headers": b"GET / HTTP/1.1\r\n" + HOST + b"X-One: a\r\nX-One: b\r\nX-Two: c\r\nX-One: d\r\n\r\n",
    "not-utf8": b"GET / HTTP/1.1\r\n" + HOST + b"X-Raw: \xff\xfe\r\n\r\n",
    "utf8": b"GET / HTTP/1.1\r\n" + HOST + "X-Text: Grüße 世界\r\n\r\n".encode(),
    "raw-tab": b"GET / HTTP/1.1\r\n" + HOST + b"X-Tab: a\tb\r\n\r\n",
    "quotes": b"GET / HTTP/1.1\r\n" + HOST + b'X-Quoted: "a\\b" \\u00e9 \\\r\nX-\'`|: odd\r\n\r\n',
    "forged-keys": b"GET / HTTP/1.1\r\n" + HOST
    + b"METHOD: POST\r\nRemote_Addr: 1.2.3.4\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
    "forged-upload": b"POST / HTTP/1.1\r\n" + HOST
    + b"X-Mongrel2-Upload-Done: /etc/passwd\r\nContent-Length: 2\r\n\r\nhi",
    "post-binary": b"POST /in HTTP/1.1\r\n" + HOST + b"Content-Length: 256\r\n\r\n" + bytes(range(256)),
    "post-like-a-message": b"POST /in HTTP/1.1\r\n" + HOST + b"Content-Length: 11\r\n\r\n3:a, 0:,}],",
    "length-repeated": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 3\r\n\r\nhello",
    "length-and-chunked": b"POST / HTTP/1.1\r\n" + HOST
    + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n",
    "expect": b"PUT / HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
    "json-socket": b'@chat {"text": "hi, \xff"}\0',
    "json-socket-star": b'@* {"type":"disconnect"}\0',
}  # fmt: skip
HANDSHAKE: Final = (
    b"GET /ws HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
FRAMES: Final[dict[str, tuple[int, bytes]]] = {
    "websocket-text": (0x81, "Grüße".encode()),
    "websocket-binary": (0x82, bytes(range(0, 256, 5))),
    "websocket-rsv1": (0xC1, b"compressed?"),
    "websocket-unknown-opcode": (0x83, b""),
    "websocket-ping": (0x89, b"are you there"),
    "websocket-close": (0x88, struct.pack("!H", 1000) + b"bye"),
}


class Recorder:
    """A handler of one server, which keeps the messages that are wanted: name to what a client sent, and the frame."""

    def __init__(self, server: Mongrel2, kept: dict[str, tuple[bytes, bytes]]) -> None:
        self.server = server
        self.kept = kept
        self.context = zmq.Context()
        self.pull = self.context.socket(zmq.PULL)
        self.pull.connect(server.send_spec)
        self.pub = self.context.socket(zmq.PUB)
        self.pub.connect(server.recv_spec)
        self._settle()

    def _settle(self) -> None:
        """Wait until replies arrive: a message for an unknown id comes back as a leave."""
        for _ in range(TIMEOUT_MS // 50):
            self.pub.send(build_control(IDENT, [UNKNOWN_ID], keep_alive=True))
            if self.pull.poll(50):
                break
        while self.pull.poll(200):
            self.pull.recv()

    def close(self) -> None:
        """Close the sockets; nothing lingers."""
        self.context.destroy(linger=0)

    def receive(self) -> bytes:
        """Return the next message. Raises TimeoutError."""
        if not self.pull.poll(TIMEOUT_MS):
            raise TimeoutError(f"no message\n{self.server.logs()}")
        return self.pull.recv()

    def keep(self, name: str, client: bytes, left: int | None = None) -> bytes:
        """Keep the next message that is no leave, or the leave of the connection that left, under a name."""
        while True:
            frame = self.receive()
            message = parse_message(frame)
            if (message.conn_id if isinstance(message, Leave) else None) == left:
                self.kept[name] = (client, frame)
                return frame

    def await_leave(self) -> None:
        """Receive until a leave; credits and last pieces may come before it."""
        while not isinstance(parse_message(self.receive()), Leave):
            pass

    def control(self, conn_id: int, amount: int) -> None:
        """Grant credits for an upload."""
        self.pub.send(build_control(IDENT, [conn_id], credits=amount))

    @contextmanager
    def client(self, data: bytes) -> Iterator[socket.socket]:
        """Connect and send data; at the end close, and receive until the leave."""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=5) as connection:
            connection.sendall(data)
            yield connection
        self.await_leave()


def record_requests(recorder: Recorder) -> None:
    """Keep what one message each causes."""
    for name, data in REQUESTS.items():
        with recorder.client(data):
            recorder.keep(name, data)


def record_notices(recorder: Recorder) -> None:
    """Keep the second request of a connection, credits, and leaves."""
    data = REQUESTS["get"] + REQUESTS["query"]
    with recorder.client(data):
        recorder.receive()
        recorder.keep("second-request", data)
    data = REQUESTS["get"]
    with recorder.client(data):
        conn_id = parse_message(recorder.receive()).conn_id
        recorder.pub.send(build_reply(IDENT, [conn_id], b"HTTP/1.1 204 No Content\r\nServer: corpus\r\n\r\n"))
        recorder.keep("credits", data)
    with socket.create_connection(("127.0.0.1", recorder.server.port), timeout=5) as connection:
        connection.sendall(data)
        conn_id = parse_message(recorder.receive()).conn_id
    recorder.keep("leave", b"", left=conn_id)
    recorder.pub.send(build_control(IDENT, [UNKNOWN_ID], keep_alive=True))
    recorder.keep("leave-negative-id", b"", left=UNKNOWN_ID)


def record_uploads(recorder: Recorder) -> None:
    """Keep first, middle and last pieces, with a length and in chunks."""
    body = bytes(range(250)) * 36
    heads = {
        "upload": b"POST /up HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(body),
        "chunked": b"POST /up HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n",
    }
    bodies = {"upload": body, "chunked": b"5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\n\r\n"}
    for name, head in heads.items():
        with recorder.client(head + bodies[name]):
            conn_id = parse_message(recorder.keep(f"{name}-first", head)).conn_id
            recorder.control(conn_id, 1_000)
            recorder.keep(f"{name}-piece", b"")
            recorder.control(conn_id, 200_000)
            while b"UPLOAD_STREAM_DONE" not in recorder.keep(f"{name}-last", b""):
                pass


def record_websocket(recorder: Recorder) -> None:
    """Keep a handshake and frames of each kind."""
    with recorder.client(HANDSHAKE) as connection:
        recorder.keep("websocket-handshake", HANDSHAKE)
        for name, (first, payload) in FRAMES.items():
            frame = bytes((first, 0x80 | len(payload), 0, 0, 0, 0)) + payload  # a mask of zeros
            connection.sendall(frame)
            recorder.keep(name, frame)


def record_disk_upload(recorder: Recorder) -> None:
    """Keep both messages of an upload to a file, whose client has forged the end."""
    body = b"0123456789" * 500
    head = b"POST /up HTTP/1.1\r\n" + HOST + b"X-Mongrel2-Upload-Done: /etc/passwd\r\nContent-Length: 5000\r\n\r\n"
    with recorder.client(head) as connection:
        recorder.keep("disk-start-forged", head)
        connection.sendall(body)
        recorder.keep("disk-done", b"")


def record_tls(recorder: Recorder, pair: Path) -> None:
    """Keep a request over TLS without, and one with the client's certificate."""
    data = REQUESTS["get"]
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for name in ("tls", "tls-client-certificate"):
        with (
            socket.create_connection(("127.0.0.1", recorder.server.port), timeout=5) as plain,
            context.wrap_socket(plain) as connection,
        ):
            connection.sendall(data)
            recorder.keep(name, data)
        recorder.await_leave()
        context.load_cert_chain(pair, pair.with_suffix(".key"))


@contextmanager
def recording(protocol: Protocol, kept: dict[str, tuple[bytes, bytes]], **options: Any) -> Iterator[Recorder]:
    """Run a Mongrel2 and a recorder behind it."""
    settings = {"limits.buffer_size": 4096, "limits.content_length": 4096, **options.pop("settings", {})}
    with mongrel2(
        protocol=protocol, uuid=IDENT.decode(), routes=("/", "@chat", "@"), settings=settings, **options
    ) as server:
        recorder = Recorder(server, kept)
        try:
            yield recorder
        finally:
            recorder.close()


def record(protocol: Protocol) -> dict[str, tuple[bytes, bytes]]:
    """Return all messages of the corpus in one header protocol."""
    kept: dict[str, tuple[bytes, bytes]] = {}
    with recording(protocol, kept) as recorder:
        record_requests(recorder)
        record_notices(recorder)
        record_uploads(recorder)
        record_websocket(recorder)
    with recording(protocol, kept, upload_store=True) as recorder:
        record_disk_upload(recorder)
    with short_directory() as folder:
        pair = make_pair(folder, "a.test", ["a.test"], key="rsa")
        tls = {"ssl.verify_optional": 1, "ssl.ca_chain": str(pair)}
        with recording(protocol, kept, certificates=folder, settings=tls) as recorder:
            record_tls(recorder, pair)
    return kept


def main() -> None:
    """Replace the files in FOLDER."""
    recorded = {protocol: record(protocol) for protocol in get_args(Protocol)}
    FOLDER.mkdir(exist_ok=True)
    for file in FOLDER.iterdir():
        file.unlink()
    for protocol, kept in recorded.items():
        for number, (name, (client, frame)) in enumerate(kept.items(), 1):
            document = {"client": client.decode("latin-1"), "message": describe(parse_message(frame))}
            file = FOLDER / f"{number:03}-{name}-{protocol}"
            file.with_suffix(".frame").write_bytes(frame)
            file.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
        print(f"{len(kept)} messages, {protocol}")


if __name__ == "__main__":
    main()
