"""TestClient: requests to an App without Mongrel2, sockets or other processes."""

import io
import json as jsonlib
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

import gevent
from gevent.event import Event
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.test import encode_multipart

from m2gate.app.application import App
from m2gate.app.client_side import Line, TestResponse, TestSocket, TestStream
from m2gate.app.memory_server import Fields, MemoryServer
from m2gate.link import mailbox
from m2gate.link.exchange import Exchange
from m2gate.link.mailbox import Mailbox
from m2gate.link.server import LinkSettings
from m2gate.wire.mongrel2 import CREDITS_INITIAL
from m2gate.wire.websocket import accept_key

TICK_S: Final = 1.0
END_S: Final = 2.0  # for handlers that still run when the client is closed
BOUNDARY: Final = "m2gate-test-client"
WEBSOCKET_KEY: Final = b"dGhlIHNhbXBsZSBub25jZQ=="

Pairs = Mapping[str, Any] | Iterable[tuple[str, Any]]
Data = bytes | str | Mapping[str, Any] | Iterable[bytes] | None
Body = bytes | Iterator[bytes]


class TestClient:
    """Sends requests to an App through everything that a worker has, and plays Mongrel2 and client.

    credits: bytes that may be on their way to the client before it reads; fewer play a slow client.
    client:  its address.
    timeout: seconds without news from the App after which waiting raises TimeoutError.

    The App's on_start runs at once, its on_stop at close(), or at the end of a ``with`` block.
    A connection is used again for the next request, if both sides let it.
    """

    __test__ = False

    def __init__(
        self,
        app: App,
        *,
        credits: int = CREDITS_INITIAL,  # noqa: A002 - the word of the contract
        client: str = "127.0.0.1",
        host: str = "testserver",
        scheme: str = "http",
        timeout: float = 10.0,
    ) -> None:
        self.app = app
        self._credits = credits
        self._special = {b"REMOTE_ADDR": client.encode(), b"URL_SCHEME": scheme.encode(), b"PATTERN": b"/"}
        self._host = host
        self._timeout_s = timeout
        self._news = Event()
        self._greenlets: set[gevent.Greenlet[..., None]] = set()
        self._failure: BaseException | None = None
        self._idle: list[Line] = []
        self._lines: list[Line] = []
        self._ticked_s = time.monotonic()
        self.server = MemoryServer(self._run, self._news.set, LinkSettings(max_body=app.largest_body()))
        self._mailbox = app.mailbox = MemoryMailbox(app.secret)
        app.start()

    # -- requests -----------------------------------------------------------------------------------

    def get(self, path: str, **options: Any) -> TestResponse:
        """Send GET; options are those of request()."""
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> TestResponse:
        """Send POST; options are those of request()."""
        return self.request("POST", path, **options)

    def put(self, path: str, **options: Any) -> TestResponse:
        """Send PUT; options are those of request()."""
        return self.request("PUT", path, **options)

    def patch(self, path: str, **options: Any) -> TestResponse:
        """Send PATCH; options are those of request()."""
        return self.request("PATCH", path, **options)

    def delete(self, path: str, **options: Any) -> TestResponse:
        """Send DELETE; options are those of request()."""
        return self.request("DELETE", path, **options)

    def head(self, path: str, **options: Any) -> TestResponse:
        """Send HEAD; options are those of request()."""
        return self.request("HEAD", path, **options)

    def options(self, path: str, **options: Any) -> TestResponse:
        """Send OPTIONS; options are those of request()."""
        return self.request("OPTIONS", path, **options)

    def request(self, method: str, path: str, **options: Any) -> TestResponse:
        """Send a request and return its whole response. Blocks the greenlet.

        params:  of the query, a mapping or pairs.
        headers: a mapping or pairs.
        data:    the body: bytes, str, a mapping (a form), or an iterable of bytes (sent in chunks,
                 as the App reads them).
        json:    the body, as JSON.
        files:   of a multipart form: name to bytes, or to (filename, bytes[, content type]).
        version: "1.1" or "1.0".
        Raises EOFError if the connection was cut in the middle, TimeoutError.
        """
        with self.stream(method, path, **options) as stream:
            return TestResponse(stream.status, stream.headers, stream.read())

    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Pairs | None = None,
        headers: Pairs | None = None,
        data: Data = None,
        json: Any = None,
        files: Mapping[str, Any] | None = None,
        version: str = "1.1",
    ) -> TestStream:
        """Send a request and return its response as soon as the head is there; see request()."""
        body, implied = _build_body(data, json, files)
        raw_path, special = _split(path, params)
        fields = _build_fields([("Host", self._host), *implied, *_pairs(headers)])
        special |= {b"METHOD": method.encode(), b"VERSION": f"HTTP/{version}".encode()}
        line = self._reuse() or self._connect()
        line.peer.ask(raw_path, {**self._special, **special, **fields}, body)
        return TestStream(line, method.encode(), self._idle.append)

    def websocket(
        self, path: str, *, params: Pairs | None = None, headers: Pairs | None = None, subprotocols: Iterable[str] = ()
    ) -> TestSocket:
        """Open a WebSocket; returns once the App has accepted. Blocks the greenlet.

        Raises HTTPError if the handshake is refused, TimeoutError.
        """
        raw_path, special = _split(path, params)
        handshake: list[tuple[str, Any]] = [
            ("Host", self._host),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", WEBSOCKET_KEY.decode()),
        ]
        if subprotocols:
            handshake.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
        replaced = {name.lower() for name, _ in _pairs(headers)}
        handshake = [pair for pair in handshake if pair[0].lower() not in replaced]
        special |= {b"METHOD": b"WEBSOCKET_HANDSHAKE", b"VERSION": b"HTTP/1.1"}
        fields = {**self._special, **special, **_build_fields([*handshake, *_pairs(headers)])}
        line = self._connect()  # an upgrade is only possible on a new connection
        line.peer.ask(raw_path, fields, accept_key(WEBSOCKET_KEY))
        return TestSocket(line, raw_path, fields)

    def json_socket(self, name: str, message: Any) -> Any:
        """Send message to the JSON socket ``@name`` and return its answer, decoded. Blocks the greenlet."""
        line = self._connect()
        fields = {**self._special, b"METHOD": b"JSON", b"PATH": name.encode(), b"PATTERN": name.encode()}
        line.peer.ask(name.encode(), fields, jsonlib.dumps(message).encode())
        answer = line.receive()
        line.peer.disconnect()
        return jsonlib.loads(answer.removesuffix(b"\0"))

    def disconnect(self) -> None:
        """Close all connections from the client's side, as a browser does that is shut."""
        for line in self._lines:
            line.peer.disconnect()
        self._lines.clear()
        self._idle.clear()

    # -- the life of the client ---------------------------------------------------------------------

    def close(self) -> None:
        """Disconnect, run the App's on_stop, and end handlers that still run. Blocks the greenlet."""
        self.disconnect()
        self.app.begin_drain()
        running = list(self._greenlets)
        gevent.joinall(running, END_S)
        gevent.killall(running)
        self.server.close()
        self.app.stop()
        self._mailbox.close()
        self.app.mailbox = None

    def __enter__(self) -> "TestClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, timeout_s: float | None = None) -> None:
        """Blocks the greenlet until the App has sent something; meanwhile its clock ticks.

        Raises TimeoutError after timeout_s, or the client's own timeout.
        """
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        deadline_s = time.monotonic() + limit_s
        while True:
            self._tick()
            left_s = deadline_s - time.monotonic()
            if self._news.wait(max(0.0, min(left_s, TICK_S))):
                self._news.clear()
                break
            if left_s <= 0:
                raise TimeoutError(f"nothing from the App within {limit_s:g} s")
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _tick(self) -> None:
        now_s = time.monotonic()
        if now_s - self._ticked_s >= TICK_S:
            self._ticked_s = now_s
            self.server.clock.tick()
            self.server.link.tick()
            self.app.tick(self.server.clock.now_s)

    # -- connections --------------------------------------------------------------------------------

    def _connect(self) -> Line:
        line = Line(self.server.connect(self._credits), self.wait)
        self._lines = [one for one in self._lines if not one.peer.is_closed]
        self._lines.append(line)
        return line

    def _reuse(self) -> Line | None:
        while self._idle:
            line = self._idle.pop()
            if not line.peer.is_closed:
                return line
        return None

    def _run(self, exchange: Exchange) -> None:
        greenlet = gevent.spawn(self.app.handle, exchange)
        self._greenlets.add(greenlet)
        greenlet.link(self._ended)

    def _ended(self, greenlet: "gevent.Greenlet[..., None]") -> None:
        self._greenlets.discard(greenlet)
        self._failure = self._failure or greenlet.exception
        self._news.set()


class MemoryMailbox(Mailbox):
    """The tokens of one TestClient; they work in this process only, so there is no socket."""

    def __init__(self, secret: bytes | None) -> None:
        self.address = f"ipc:///{secrets.token_hex(8)}"  # names nothing in the file system
        self._secret = secret
        self._open = {}
        self._nonces = {}
        mailbox._OWN[self.address] = self

    def close(self) -> None:
        """Void all tokens."""
        mailbox._OWN.pop(self.address, None)


def _pairs(given: Pairs | None) -> list[tuple[str, Any]]:
    if given is None:
        return []
    return list(given.items() if isinstance(given, Mapping) else given)


def _build_fields(pairs: Iterable[tuple[str, Any]]) -> Fields:
    """Build header fields as Mongrel2 hands them over: lower case, repeated ones as lists."""
    fields: dict[bytes, bytes | list[bytes]] = {}
    for name, value in pairs:
        key, text = name.lower().encode("latin-1"), str(value).encode("latin-1")
        known = fields.get(key)
        if known is None:
            fields[key] = text
        else:
            fields[key] = [*(known if isinstance(known, list) else [known]), text]
    return fields


def _split(path: str, params: Pairs | None) -> tuple[bytes, dict[bytes, bytes]]:
    """Return the raw path, and it with the query as Mongrel2's special keys."""
    raw, question, query = quote(path, safe="/?%:@!$&'()*+,;=~").partition("?")
    if params is not None:
        extra = urlencode(_pairs(params), doseq=True)
        query = f"{query}&{extra}" if query else extra
        question = "?"
    special = {b"PATH": raw.encode(), b"URI": f"{raw}{question}{query}".encode()}
    if question:
        special[b"QUERY"] = query.encode()
    return raw.encode(), special


def _build_body(data: Data, json: Any, files: Mapping[str, Any] | None) -> tuple[Body, list[tuple[str, Any]]]:
    """Return the body and the header fields that it implies."""
    if files is not None:
        fields = [
            *_pairs(data if isinstance(data, Mapping) else None),
            *((name, _file(one)) for name, one in files.items()),
        ]
        _, body = encode_multipart(MultiDict(fields), BOUNDARY)
        return _sized(body, f"multipart/form-data; boundary={BOUNDARY}")
    if json is not None:
        return _sized(jsonlib.dumps(json).encode(), "application/json")
    if isinstance(data, Mapping):
        return _sized(urlencode(_pairs(data), doseq=True).encode(), "application/x-www-form-urlencoded")
    if isinstance(data, str | bytes):
        return _sized(data.encode() if isinstance(data, str) else data, None)
    if data is None:
        return b"", []
    return iter(data), [("Transfer-Encoding", "chunked")]


def _sized(body: bytes, content_type: str | None) -> tuple[bytes, list[tuple[str, Any]]]:
    fields: list[tuple[str, Any]] = [("Content-Length", len(body))]
    return body, [("Content-Type", content_type), *fields] if content_type else fields


def _file(given: Any) -> FileStorage:
    filename, content, *kind = given if isinstance(given, tuple) else ("file", given)
    return FileStorage(io.BytesIO(content), filename, content_type=kind[0] if kind else "application/octet-stream")
