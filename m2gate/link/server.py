"""One Mongrel2 as its handler sees it: its connections, and where each of its messages belongs.

A Server lives as long as its sockets do: after a disconnect it is closed with all its connections
and a new one takes its place, so that nothing can be sent to an id that the restarted Mongrel2 uses
again.
"""

import itertools
import logging
import re
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from gevent import get_hub

from m2gate.errors import WireError
from m2gate.link.clock import Clock
from m2gate.link.connection import Connection
from m2gate.link.disk_upload import DiskUploads
from m2gate.link.exchange import Exchange
from m2gate.link.journal import Journal
from m2gate.link.journaled import JournaledConnection
from m2gate.link.opening import open_exchange
from m2gate.link.tally import STOPPING, Tally
from m2gate.link.upload import Upload
from m2gate.link.websocket import WebSocketExchange
from m2gate.wire.mongrel2 import (
    CREDITS_INITIAL,
    TARGETS_MAX,
    Credits,
    Request,
    build_control,
    build_reply,
    check_headers,
    check_ident,
    find_credits,
    parse_message,
    split_ids,
)
from m2gate.wire.websocket import CLOSE, build_close, build_frame

logger = logging.getLogger(__name__)

# Without flow control Mongrel2 cuts a client when a 17th message queues for it.
PACE_S: Final = 0.01
PACE_BYTES: Final = 65_536
LINGER_S: Final = 2.0  # an unread upload is swallowed so long, so that the client sees the answer
CLOSED_REMEMBERED_S: Final = 30.0  # messages that were under way when we closed arrive within this
CLOSED_REMEMBERED_MAX: Final = 100_000
IDLE_FORGET_S: Final = 300.0  # Mongrel2 itself closes an idle connection after about 130 s
_BODYLESS: Final = (b"GET", b"HEAD")  # a tuple: a repeated METHOD is a list, which has no hash
_DECIMAL: Final = re.compile(rb"[0-9]{1,20}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSettings:
    """How the connections of a server are treated.

    inbox_messages: unread pieces of an upload, beyond which pieces are joined (its bytes are bounded
                    by the credits it was granted), and unread WebSocket messages (closed with 1013).
    inbox_bytes:    of unread WebSocket messages, likewise.
    keepalive_s:    interval of Mongrel2's keep-alives for connections that are in use.
    body_timeout_s: an upload whose client sends nothing for so long, though it may, is cut.
    max_body:       bytes; a larger body that Mongrel2 stores in a file is refused when it starts.
    """

    inbox_messages: int = 256
    inbox_bytes: int = 1 << 20
    keepalive_s: float = 45.0
    body_timeout_s: float = 60.0
    max_body: int = 100 << 20


class Server:
    """The connections of one running Mongrel2, keyed by conn_id, and its messages' way to them.

    send:   takes one frame for Mongrel2's SUB socket; must not block.
    send_soon: the same for a whole answer, which may wait for others; send if not given.
    run:    takes an exchange that became runnable because the one before it ended.
    tally:  counts how exchanges end, except for those whose answer left by send_soon.
    ``journal`` what the gateway is told of its exchanges; None without a gateway.
    ``frame_number`` of the message that is being filed, with a gateway.
    """

    def __init__(
        self,
        send_ident: bytes,
        send: Callable[[bytes], None],
        run: Callable[[Exchange], None],
        settings: LinkSettings,
        clock: Clock,
        *,
        upload_store: str | None = None,
        send_soon: Callable[[bytes], None] | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.send_ident = check_ident(send_ident)
        self.send = send
        self.send_soon = send_soon or send
        self.runnable = run
        self.settings = settings
        self.clock = clock
        self.inbox_messages = settings.inbox_messages
        self.inbox_bytes = settings.inbox_bytes
        self.connections: dict[int, Connection] = {}
        self.waiting = 0  # greenlets that wait for a message from here
        self.on_wait: Callable[[], None] | None = None
        self.is_closed = False
        self.is_draining = False
        self.is_refusing = False  # and new requests are answered with 503
        self.rejected = 0  # messages that broke a rule
        self.requests = 0  # that were taken in, whatever became of them
        self.tally = tally or Tally()
        self.journal: Journal | None = None
        self.frame_number = 0
        self.request_prefix = secrets.token_hex(4) + "-"
        self.next_request_number = itertools.count(1).__next__
        self._flow_control: bool | None = None
        self._disk = DiskUploads(upload_store, settings.max_body) if upload_store else None
        self._closed: dict[int, float] = {}
        self._deadlines: deque[tuple[float, Connection]] = deque()
        self._lingering: dict[int, tuple[float, Connection, Upload]] = {}
        self._paced: set[Connection] = set()
        self._pacer: object = None  # the loop's timer while it is running
        self._keepalive_due_s = clock.now_s + settings.keepalive_s
        self._rejection_logged_s = -1.0

    @property
    def now_s(self) -> float:
        """Coarse monotonic time."""
        return self.clock.now_s

    # -- messages from Mongrel2 -----------------------------------------------------------------

    def dispatch(self, frame: bytes) -> Exchange | None:
        """File one message; return the exchange that a request opens, if it may run at once.

        A message that breaks a rule is counted and logged, once a second at most, and lost.
        """
        try:
            found = find_credits(frame)
            if found is not None:
                self._flow_control = True
                connection = self.connections.get(found[0])
                if connection is not None:
                    connection.granted(found[1])
                return None
            message = parse_message(frame)
            connection = self.connections.get(message.conn_id)
            if type(message) is Request:
                if message.send_ident != self.send_ident:
                    raise WireError("the message is from another server", 0, frame)
                headers = message.headers
                method = headers.get(b"METHOD")
                if (
                    connection is not None
                    and connection.current is None
                    and not connection.closing
                    and method in _BODYLESS
                    and headers.get(b"VERSION") == b"HTTP/1.1"
                    and headers.get(b"connection", b"keep-alive") == b"keep-alive"
                    and not message.body
                    and b"content-length" not in headers
                    and b"transfer-encoding" not in headers
                    and not self.is_draining
                ):
                    # Nearly every message; whatever else it may be is found out in _file.
                    self.requests += 1
                    connection.current = exchange = Exchange(connection, message)
                    return exchange
                return self._file(connection, message)
        except WireError as error:
            self._reject(error)
            return None
        if type(message) is Credits:
            self._flow_control = True
            if connection is not None:
                connection.granted(message.amount)
        elif connection is not None:
            self._lingering.pop(message.conn_id, None)
            connection.lose()
        return None

    def _file(self, connection: Connection | None, message: Request) -> Exchange | None:
        headers = message.headers
        check_headers(headers)
        method = headers.get(b"METHOD")
        if method is None:
            self._file_piece(connection, message)
            return None
        if type(method) is not bytes:
            raise WireError("METHOD is one string", 0, b"")
        if connection is None:
            if message.conn_id in self._closed:
                return None  # it was on its way when we closed
            if method == b"WEBSOCKET" and b"FLAGS" in headers:
                self._close_orphan(message)
                return None
            connection = self._open(message)
        exchange = open_exchange(connection, method, message, self._disk)
        if exchange is None:
            return None
        exchange.number = self.frame_number
        if not connection.enter(exchange):
            return None
        # A gateway has somebody else to answer the connection's next request.
        return self._part(exchange) if self.is_draining and self.journal is None else exchange

    def _part(self, exchange: Exchange) -> Exchange:
        """Make exchange the last of its connection."""
        exchange.close_after = True
        if self.is_refusing:
            exchange.refuse(503, "the service is stopping", (("Retry-After", "1"),), reason=STOPPING)
        return exchange

    def _open(self, message: Request) -> Connection:
        granted = message.headers.get(b"DOWNLOAD_CREDITS")
        if type(granted) is bytes and _DECIMAL.fullmatch(granted):
            self._flow_control = True
            window: int | None = int(granted)
        else:
            # A connection that was open before this worker was: what the former one sent has been
            # written, or its client would not ask again.
            window = CREDITS_INITIAL if self._flow_control else None
        connection = (Connection if self.journal is None else JournaledConnection)(self, message.conn_id, window)
        self.connections[message.conn_id] = connection
        return connection

    def _file_piece(self, connection: Connection | None, message: Request) -> None:
        offset = message.headers.get(b"UPLOAD_STREAM")
        if type(offset) is not bytes or not _DECIMAL.fullmatch(offset):
            raise WireError("a message without METHOD is a piece of an upload", 0, b"")
        is_last = b"UPLOAD_STREAM_DONE" in message.headers
        lingering = self._lingering.get(message.conn_id)
        if lingering is not None:
            lingering[2].feed(int(offset), message.body, is_last=is_last)
            if is_last:
                self._stop_lingering(lingering[1])
            return
        if connection is None:
            if message.conn_id not in self._closed:
                self._close_orphan(message)
            return
        upload = connection.open_upload()
        if upload is None:
            raise WireError("a piece of an upload that was not begun", 0, b"")
        try:
            upload.feed(int(offset), message.body, is_last=is_last)
        except WireError:
            upload.break_off()
            connection.abort()
            raise

    def _close_orphan(self, message: Request) -> None:
        """End a session that some former worker had: nobody here knows its state."""
        if b"FLAGS" in message.headers:
            frame = build_frame(CLOSE, build_close(1012, "the worker was restarted"))
            self.send(build_reply(self.send_ident, (message.conn_id,), frame))
            self.send(build_reply(self.send_ident, (message.conn_id,), b""))
        else:
            self.send_control((message.conn_id,), cancel=True)
        self._remember_closed(message.conn_id)

    def _reject(self, error: WireError) -> None:
        self.rejected += 1
        if self.now_s - self._rejection_logged_s >= 1.0:
            self._rejection_logged_s = self.now_s
            logger.warning(
                "message rejected send_ident=%s rule=%s rejected=%d",
                self.send_ident.decode(),
                error.rule,
                self.rejected,
            )

    def log_short_body(self, exchange: Exchange, expected: int) -> None:
        """Say that a handler announced more than it sent."""
        logger.error(
            "response cut short request_id=%s written=%d content_length=%d",
            exchange.request_id,
            exchange.written,
            expected,
        )

    # -- messages to Mongrel2 -------------------------------------------------------------------

    def send_control(self, conn_ids: Sequence[int], **entries: int | bool) -> None:
        """Send a control message to any number of connections, as many messages as that takes."""
        for some in split_ids(conn_ids, TARGETS_MAX - 1):  # "X" counts as a target
            self.send(build_control(self.send_ident, some, **entries))

    def pace(self, connection: Connection) -> None:
        """Send what is queued for a connection without credits, one message per PACE_S."""
        if connection in self._paced:
            return
        self._paced.add(connection)
        connection.pace(PACE_BYTES)
        if self._pacer is None:
            self._start_pacer()

    def _start_pacer(self) -> None:
        self._pacer = timer = get_hub().loop.timer(PACE_S)
        timer.start(self._pace_all)

    def _pace_all(self) -> None:
        self._pacer = None
        for connection in tuple(self._paced):
            if connection.gone or not connection.units:
                self._paced.discard(connection)
            elif connection.window is not None:
                self._paced.discard(connection)
                connection.pump()
            else:
                connection.pace(PACE_BYTES)
        if self._paced:
            self._start_pacer()

    # -- connections that end -------------------------------------------------------------------

    def forget(self, connection: Connection) -> None:
        """Drop a connection that is gone; what still comes for its id is ignored."""
        if self.connections.get(connection.conn_id) is connection:
            del self.connections[connection.conn_id]
            self._remember_closed(connection.conn_id)

    def drop(self, connection: Connection) -> None:
        """Drop a connection that somebody else has now: its next request here opens it anew."""
        if self.connections.get(connection.conn_id) is connection:
            del self.connections[connection.conn_id]

    def release(self, conn_ids: Iterable[int]) -> None:
        """Give up connections that the gateway has taken away: idle ones are somebody else's, others are cut."""
        for conn_id in conn_ids:
            connection = self.connections.get(conn_id)
            if connection is None:
                continue
            if connection.current is None:
                connection.hand_over()
            else:
                connection.lose()

    def _remember_closed(self, conn_id: int) -> None:
        if len(self._closed) < CLOSED_REMEMBERED_MAX:
            self._closed[conn_id] = self.now_s

    def linger(self, connection: Connection, upload: Upload) -> None:
        """Close, but swallow the rest of an upload first, at most for LINGER_S.

        A close with unread bytes would reset the client before it has read the answer.
        """
        connection.announce_close()
        connection.closing = True
        self._lingering[connection.conn_id] = (self.now_s + LINGER_S, connection, upload)

    def _stop_lingering(self, connection: Connection) -> None:
        lingering = self._lingering.pop(connection.conn_id, None)
        # With units queued the last of them brings the close.
        if lingering is not None and not connection.gone and not connection.units:
            connection.send_close()

    def expect_close(self, connection: Connection, timeout_s: float) -> None:
        """Close the connection after timeout_s, in case the peer never answers our close frame."""
        self._deadlines.append((self.now_s + timeout_s, connection))

    def close(self) -> None:
        """Give up all connections: the sockets to this Mongrel2 are gone."""
        self.is_closed = True
        self.journal = None
        self.send = self.send_soon = _discard
        for connection in tuple(self.connections.values()):
            connection.lose()

    def begin_drain(self) -> None:
        """Make every answer the last of its connection, and end what would never end by itself."""
        self.is_draining = True
        for connection in tuple(self.connections.values()):
            exchange = connection.current
            if exchange is None:
                continue  # its next request may be here already, unread
            if self.journal is None:
                exchange.close_after = True
            if isinstance(exchange, WebSocketExchange):
                exchange.go_away()
            elif exchange.is_endless:
                exchange.end_producer()

    def end_sessions(self, *, and_idle: bool = True) -> int:
        """Close whatever is still open, as the time to drain is over; return how many connections that were.

        and_idle: also what nobody uses.
        """
        # Without and_idle: Mongrel2 may be sending a file of its own there.
        closing = [one for one in self.connections.values() if and_idle or one.current is not None]
        for connection in closing:
            if isinstance(connection.current, WebSocketExchange):
                connection.current.go_away()
            connection.close()
        return len(closing)

    def cut_sessions(self) -> int:
        """Close at once what waits since end_sessions() for a slow client; return how many connections that were."""
        for _, connection, _ in tuple(self._lingering.values()):
            self._stop_lingering(connection)
        slow = [one for one in self.connections.values() if one.closing]
        for connection in slow:
            connection.abort()
        return len(slow)

    # -- time -----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Do what is due; the owner calls this once a second, after the clock's tick."""
        now_s = self.now_s
        while self._deadlines and self._deadlines[0][0] <= now_s:
            self._deadlines.popleft()[1].close()
        for deadline_s, connection, _ in tuple(self._lingering.values()):
            if deadline_s <= now_s:
                self._stop_lingering(connection)
        old_s = now_s - CLOSED_REMEMBERED_S
        for conn_id in [*itertools.takewhile(lambda one: self._closed[one] < old_s, self._closed)]:
            del self._closed[conn_id]
        if now_s >= self._keepalive_due_s:
            self._keepalive_due_s = now_s + self.settings.keepalive_s
            self._keep_alive()

    def _keep_alive(self) -> None:
        """Reset Mongrel2's kill timer for what is in use; a dead id is answered by a leave."""
        used: list[int] = []
        for connection in tuple(self.connections.values()):
            current = connection.current
            if current is None:
                if self.now_s - connection.idle_since_s <= IDLE_FORGET_S:
                    continue
                if connection.stored_upload:
                    # Mongrel2 is writing a file; or it has killed the connection, and tells so now.
                    connection.idle_since_s = self.now_s
                    used.append(connection.conn_id)
                elif self.journal is not None:
                    connection.hand_over()
                else:
                    connection.lose()
                    self._closed.pop(connection.conn_id, None)  # should it live, its next request counts
            elif current.upload is not None and current.upload.is_stalled(self.now_s - self.settings.body_timeout_s):
                connection.abort()
            else:
                used.append(connection.conn_id)
        self.send_control(used, keep_alive=True)

    # -- greenlets that wait for messages ---------------------------------------------------------

    def begin_wait(self) -> None:
        """Count one greenlet that waits for a message from this server."""
        self.waiting += 1
        if self.on_wait is not None:
            self.on_wait()

    def end_wait(self) -> None:
        """The counterpart of begin_wait."""
        self.waiting -= 1


def _discard(_frame: bytes) -> None:
    """Take the place of send when the sockets are gone: the client's connection is as well."""
