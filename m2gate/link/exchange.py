"""One request on one connection, and its answer: HTTP/1.1 as Mongrel2 leaves it to its handlers.

Mongrel2 adds nothing to a response and closes nothing by itself, so framing, keep-alive, HEAD and
the like are decided here. Source: docs/reference/mongrel2-wire.md, "Replies".
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, TypeVar

from gevent import GreenletExit, get_hub, getcurrent
from greenlet import greenlet

from m2gate.errors import ConnectionGone
from m2gate.hub.holding import HoldLog
from m2gate.link.disk_upload import StoredUpload
from m2gate.link.tally import CLIENT_LEFT, CUT, REFUSED
from m2gate.link.upload import Upload
from m2gate.wire import http
from m2gate.wire.mongrel2 import Request

if TYPE_CHECKING:
    from m2gate.link.connection import Connection

T = TypeVar("T")
Headers = tuple[tuple[str, str], ...]

TEXT_HEADERS: Final[Headers] = (("Content-Type", "text/plain; charset=utf-8"),)
NOT_STARTED: Final = 0
STARTED: Final = 1
FINISHED: Final = 2


class ProducerExit(GeneratorExit, GreenletExit):
    """What a waiting producer is ended with: the same to a generator, wherever it is at that time."""


class Exchange:
    """What an App sees of one request: read the body, then respond, or start, write and finish.

    ``head``        the request as Mongrel2 sent it.
    ``status``      of the response, 0 before it is started; ``written`` counts its body's bytes.
    ``close_after`` the connection ends with this response (HTTP/1.0, Connection: close, an
                    upload that nobody read to its end).
    ``is_cut``      the connection was closed before the response was complete.
    ``failure``     why it did not end as the App wanted it, one of the reasons in link/tally; ``""`` if it did.
    ``number``      of the frame that opened it, behind a gateway; 0 else.
    ``on_end``      called once with the exchange when it is over (access log).
    """

    # Class attributes are the defaults: an instance of the usual kind sets only what differs,
    # 0.3 us a request less than __slots__ with all of them.
    is_websocket = False
    is_json_socket = False
    close_after = False
    upload: "Upload | StoredUpload | None" = None
    refusal: tuple[int, Headers, bytes] | None = None
    state = NOT_STARTED
    status = 0
    written = 0
    started_s = 0.0
    detached = False
    is_held = False
    is_endless = False
    number = 0
    is_cut = False
    failure = ""
    on_end: "Callable[[Exchange], None] | None" = None
    _at_end: tuple[Callable[[], object], ...] = ()
    _request_id = ""
    _head_bytes = b""
    _is_read = False
    _chunked = False
    _expected: int | None = None
    _producer: greenlet | None = None

    def __init__(self, connection: "Connection", head: Request, upload: "Upload | StoredUpload | None" = None) -> None:
        self.connection = connection
        self.head = head
        self.method: bytes = head.headers[b"METHOD"]  # type: ignore[assignment]  # checked where messages are filed
        if upload is not None:
            self.upload = upload

    def __repr__(self) -> str:
        return f"<Exchange {self.method.decode('latin-1')} of {self.connection!r} status={self.status}>"

    # -- what was asked -----------------------------------------------------------------------

    @property
    def gone(self) -> bool:
        """True once the client has left."""
        return self.connection.gone

    @property
    def started(self) -> bool:
        """True once a byte of the response may have been sent."""
        return self.state != NOT_STARTED

    @property
    def ended(self) -> bool:
        """True once the response is complete or given up."""
        return self.state == FINISHED

    @property
    def is_whole(self) -> bool:
        """True if nothing is missing should the client leave now: the answer is complete, or has no end of its own."""
        return (
            self.state == FINISHED or self.is_endless or self.is_websocket or (self.is_held and self.state == STARTED)
        )

    @property
    def request_id(self) -> str:
        """A name for this request that is unique among all workers and restarts."""
        if not self._request_id:
            server = self.connection.server
            self._request_id = f"{server.request_prefix}{server.next_request_number():x}"
        return self._request_id

    @property
    def version_10(self) -> bool:
        """True for a client that speaks HTTP/1.0: no chunks, no keep-alive."""
        return self.head.headers.get(b"VERSION") == b"HTTP/1.0"

    @property
    def form(self) -> str:
        """How the body of a stream is wrapped on this connection: ``chunked`` or ``raw``."""
        return "raw" if self.version_10 else "chunked"

    @property
    def declared_length(self) -> int | None:
        """Content-Length of the request, 0 without a body, None for a chunked one."""
        return http.check_framing(self.head.headers)

    def read(self, timeout_s: float | None = None) -> bytes:
        """Return the next piece of the body as the client sends it, ``b""`` at its end.

        Blocks the greenlet. Reading grants the client credits for as many bytes again.
        Raises ConnectionGone if the client left before the end, TimeoutError.
        """
        if self.upload is not None:
            return self.upload.read(timeout_s)
        if self._is_read:
            return b""
        self._is_read = True
        return self.head.body

    # -- the answer ---------------------------------------------------------------------------

    def refuse(self, status: int, detail: str, headers: Headers = (), *, reason: str = REFUSED) -> None:
        """Note that this request must not reach a handler; answer_refusal() is its answer.

        reason: as which it counts among those that failed.
        """
        request_id = self.request_id
        body = f"{status} {http.REASONS[status]}: {detail}\nrequest id: {request_id}\n".encode()
        self.refusal = (status, (*TEXT_HEADERS, *headers, ("X-Request-Id", request_id)), body)
        self.failure = reason

    def answer_refusal(self) -> None:
        """Answer a refused request and close, as its framing cannot be trusted. Does not block."""
        if self.refusal is None:
            raise ValueError("the request was not refused")
        self.close_after = True
        status, headers, body = self.refusal
        self.connection.post(self._whole(status, headers, body))
        self.state = STARTED
        self.status = status
        self.written = len(body)
        self._end()

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Send the whole response and end the exchange. Blocks the greenlet only without credits.

        headers: fields besides Date, Content-Length and Connection, which are added here.
        A client that has left meanwhile is no error: there is nobody to tell.
        Raises ValueError for a header that must not be sent (CR, LF, NUL).
        """
        connection = self.connection
        if self.upload is not None and not self.upload.is_done:
            self.close_after = True
        if status == 200 and self.method != b"HEAD" and not self.close_after:
            data = b"%s%d\r\n\r\n%s" % (connection.server.clock.head(headers), len(body), body)
            if (
                self.upload is None
                and self.on_end is None
                and not self._at_end
                and connection.close_exchange(self, data)
            ):
                self.state = FINISHED
                return
        else:
            data = self._whole(status, headers, body)
        self.state = STARTED
        self.status = status
        self.written = len(body)
        if not connection.gone:
            try:
                connection.write(data)
            except ConnectionGone:
                self.close_after = True
        self._end()

    def _whole(self, status: int, headers: Headers, body: bytes) -> bytes:
        parts = [_head_prefix(status, headers), self.connection.server.clock.date_line]
        if status not in (204, 304) and status >= 200 and not _names(headers, "content-length"):
            parts.append(b"Content-Length: %d\r\n" % len(body))
        if self.close_after:
            parts.append(b"Connection: close\r\n")
        parts.append(b"\r\n")
        if http.has_body(self.method, status):
            parts.append(body)
        return b"".join(parts)

    def start(self, status: int, headers: Headers, length: int | None) -> None:
        """Begin a response of length bytes, or of unknown length (None); writes follow.

        The head leaves with the first write. Raises ValueError for a header that must not be sent.
        """
        if self.upload is not None and not self.upload.is_done:
            self.close_after = True
        parts = [_head_prefix(status, headers), self.connection.server.clock.date_line]
        bodyless = not http.has_body(self.method, status)
        self._expected = length
        if length is not None:
            if status not in (204, 304) and status >= 200:
                parts.append(b"Content-Length: %d\r\n" % length)
        elif not bodyless or self.method == b"HEAD":
            if self.version_10:
                self.close_after = True
            elif status not in (204, 304):
                self._chunked = not bodyless
                parts.append(b"Transfer-Encoding: chunked\r\n")
        if self.close_after:
            parts.append(b"Connection: close\r\n")
        parts.append(b"\r\n")
        self._head_bytes = b"".join(parts)
        self.state = STARTED
        self.status = status

    def write(self, data: bytes) -> None:
        """Send data as the next part of the body. Blocks the greenlet while there are no credits.

        For a response without body (HEAD, 204, 304) the data is dropped.
        Raises ConnectionGone if the client has left; ValueError for more than the announced length.
        """
        if not http.has_body(self.method, self.status) or not data:
            if self.connection.gone:
                raise self.connection.error()
            return
        self.written += len(data)
        if self._expected is not None and self.written > self._expected:
            raise ValueError(f"{self.written} bytes written where Content-Length is {self._expected}")
        if self._chunked:
            data = http.build_chunk(data)
        if self._head_bytes:
            data, self._head_bytes = self._head_bytes + data, b""
        self.connection.write(data)

    def flush(self) -> None:
        """Send the head now, if it still waits for the first write. Blocks the greenlet."""
        if self._head_bytes:
            data, self._head_bytes = self._head_bytes, b""
            self.connection.write(data)

    def take_begin(self, data: bytes = b"") -> bytes:
        """Return the head of the started response and data as the first part of its body, for a hub to send."""
        self.written += len(data)
        if data and self._chunked:
            data = http.build_chunk(data)
        begin, self._head_bytes = self._head_bytes + data, b""
        return begin

    def hold_log(self) -> HoldLog:
        """Return what the access log says of this request, for whoever sees its end."""
        client = self.head.headers.get(b"REMOTE_ADDR", b"-")
        return HoldLog(
            request_id=self.request_id,
            method=self.method.decode("latin-1"),
            path=self.head.path.decode("latin-1"),
            client=client.decode("latin-1") if isinstance(client, bytes) else "-",
            started_us=int(self.started_s * 1e6),
        )

    def finish(self) -> None:
        """Complete the started response. Blocks the greenlet without credits.

        A body shorter than announced cuts the connection, which is how the client learns of it.
        """
        if self.state == FINISHED:
            return
        if (
            self._expected is not None
            and self.written < self._expected
            and http.has_body(self.method, self.status)
            and not self.connection.gone
        ):
            self.connection.server.log_short_body(self, self._expected)
            self.abort()
            return
        if not self.connection.gone:
            tail = http.LAST_CHUNK if self._chunked else b""
            data, self._head_bytes = self._head_bytes + tail, b""
            if data:
                self._write(data)
        self._end()

    def complete(self, status: int, size: int) -> None:
        """Note that a hub has sent the rest of the response, size bytes. Does not block."""
        if self.state == NOT_STARTED:
            self.status = status
        self.written += size
        self._end()

    def abort(self) -> None:
        """Cut the connection: the client sees that the response is broken."""
        if not self.failure and not self.connection.gone:
            self.failure = CUT
        self.connection.abort()
        self._end()

    def detach(self) -> None:
        """Let the handler return without a response; whoever has the connection's token answers."""
        self.is_held = True
        if not self.detached:
            self.detached = True
            journal = self.connection.server.journal
            if journal is not None and not self.connection.gone:
                journal.detached(self.connection.conn_id)

    def take_over(self) -> None:
        """Hear that a holder of the connection's token writes to it now: the answer is no longer ours."""
        if self.state == NOT_STARTED:
            self.state = STARTED
            self.detach()

    def hand_over(self) -> None:
        """End here what another process goes on with: the connection is its own from now on."""
        self.connection.hand_over()
        self.state = FINISHED
        self.connection.server.tally.finished += 1
        for callback in self._at_end:
            callback()

    def _write(self, data: bytes) -> None:
        try:
            self.connection.write(data)
        except ConnectionGone:
            self.close_after = True  # the client left while the answer was under way; no error of anybody

    def _end(self) -> None:
        if self.state == FINISHED:
            return
        connection = self.connection
        self._count(connection)
        self.state = FINISHED
        upload = self.upload
        if upload is not None:
            upload.abandon()
        if self.close_after and not connection.gone:
            if isinstance(upload, Upload) and not upload.is_done:
                connection.server.linger(connection, upload)
            else:
                connection.close()
        connection.leave(self)
        if self._at_end:
            for callback in self._at_end:
                callback()
        if self.on_end is not None:
            self.on_end(self)

    def _count(self, connection: "Connection") -> None:
        if connection.gone:
            self.is_cut = True
            if not self.failure and not self.is_whole:
                self.failure = CLIENT_LEFT
        tally = connection.server.tally
        if self.failure:
            tally.failed[self.failure] += 1
        else:
            tally.finished += 1

    def call_at_end(self, callbacks: Iterable[Callable[[], object]]) -> None:
        """Call callbacks when the exchange is over: what the request opened is closed then."""
        self._at_end += tuple(callbacks)

    # -- a producer that is to stop when the client leaves --------------------------------------

    def advance(self, produce: Callable[[], T]) -> T:
        """Call produce() once there are credits; a client that leaves meanwhile ends it.

        Blocks the greenlet. A producer blocked in its own wait is ended there by ProducerExit, so
        its ``finally`` blocks run. Raises ConnectionGone then.
        """
        self.flush()
        self.connection.wait_credits()
        self._producer = getcurrent()
        try:
            return produce()
        except GreenletExit:
            if self.connection.gone:
                raise self.connection.error() from None
            raise
        finally:
            self._producer = None

    def end_producer(self) -> None:
        """End a producer that waits, as if the client had left, but with its connection intact."""
        if self._producer is not None:
            get_hub().loop.run_callback(self._end_producer)

    def _end_producer(self) -> None:
        # In the loop, where nobody else runs: it may have come back by itself meanwhile, and its
        # greenlet may rest or have another exchange.
        if self._producer is not None:
            self._producer.throw(ProducerExit)

    def connection_lost(self) -> None:
        """Hear from the connection that its client is gone."""
        if self.upload is not None:
            self.upload.turn()
        self.end_producer()
        if self.is_held:
            self._end()


def _names(headers: Headers, name: str) -> bool:
    return any(field.lower() == name for field, _ in headers)


_head_prefix = http.head_prefix
