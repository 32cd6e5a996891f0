"""Connections that workers have handed over: the gateway's hub feeds them, no worker is needed meanwhile."""

from collections.abc import Callable
from time import monotonic
from typing import Final

from m2gate.errors import ConnectionGone
from m2gate.gateway import counters as reasons
from m2gate.gateway.sessions import Session
from m2gate.hub.form import StreamForm
from m2gate.hub.holding import HoldRequest
from m2gate.link.access_log import AccessLog
from m2gate.link.broadcast import Broadcast, Feeding
from m2gate.link.connection import Connection
from m2gate.link.exchange import FINISHED, STARTED, Exchange
from m2gate.wire.mongrel2 import CREDITS_INITIAL

# Takes a session back: the bytes that are not credited yet, None if its connection is closed; why it has failed.
Released = Callable[[Session, int | None, str | None], None]


class HeldExchange(Exchange):
    """The request of a held connection, as far as a hub and a server look at it; see sessions.Held."""

    is_held = True
    is_left = False

    def __init__(self, holds: "Holds", session: Session, connection: Connection, request: HoldRequest) -> None:
        # Not the request itself: it has the bytes that the stream began with.
        self._holds = holds
        self.connection = connection
        self.session = session
        self.method = request.log.method.encode()
        self.state = STARTED
        self.status = request.status
        self.written = request.written
        self.log = request.log
        self.is_stream = isinstance(request.form, StreamForm)
        self._is_chunked = isinstance(request.form, StreamForm) and request.form.chunked
        if request.close:
            self.close_after = True
        self.feeding: Feeding | None = None

    @property
    def form(self) -> str:
        """How the body of a stream is wrapped on this connection."""
        return "chunked" if self._is_chunked else "raw"

    # -- as the hub sees it ---------------------------------------------------------------------------

    def complete(self, status: int, size: int) -> None:
        """Hear that the whole response has been sent, or waits for credits."""
        if self.state != FINISHED:
            self.state = FINISHED
            self.status = status
            self.written += size
            if self.close_after:
                self.connection.close()
            if not self.connection.units:
                self._holds.release(self)

    def connection_lost(self) -> None:
        """Hear that the connection is closed: by its client, by the hub, or by ourselves at the end."""
        self._holds.release(self)

    # -- as the dispatcher sees it --------------------------------------------------------------------

    def granted(self, amount: int) -> None:
        """Take amount bytes of credits that came back."""
        self.connection.granted(amount)
        if self.state == FINISHED and not self.connection.units:
            self._holds.release(self)

    def lose(self) -> None:
        """Hear that the client has left."""
        self.is_left = True
        self.connection.lose()

    def cut(self) -> None:
        """Hear that the connection is cut, as its client breaks a rule."""
        self.lose()


class Unsettled:
    """A hold that waits until what its worker had sent is written."""

    def __init__(self, holds: "Holds", session: Session, request: HoldRequest) -> None:
        self._holds = holds
        self._session = session
        self.request = request

    def granted(self, amount: int) -> None:
        """Nothing was sent by the hub: see Holds.settled."""

    def lose(self) -> None:
        """Hear that the client has left."""
        self._holds.released(self._session, None, reasons.CLIENT_LEFT)

    cut = lose


class Holds:
    """All held connections of one gateway.

    released: takes a session back when its hold has ended.
    """

    def __init__(self, broadcast: Broadcast, released: Released) -> None:
        self.released: Final = released
        self.access_log: AccessLog | None = None
        self._broadcast = broadcast

    def hold(self, session: Session, request: HoldRequest) -> None:
        """Feed the connection of session from now on, or as soon as all that was sent on it is written."""
        if session.balance > 0 and session.server.has_credits:
            session.held = Unsettled(self, session, request)
        else:
            self._begin(session, request)

    def settled(self, session: Session) -> None:
        """Hear that all which was sent on a session is written."""
        if isinstance(session.held, Unsettled):
            self._begin(session, session.held.request)

    def _begin(self, session: Session, request: HoldRequest) -> None:
        server = session.server
        window = CREDITS_INITIAL if server.has_credits else None
        connection = Connection(server.link, session.conn_id, window)
        server.link.connections[session.conn_id] = connection
        session.balance = 0
        exchange = HeldExchange(self, session, connection, request)
        session.held = exchange
        connection.current = exchange
        try:
            exchange.feeding = self._broadcast.hold(exchange, request)
        except ConnectionGone:
            self.release(exchange)

    def feeding(self, session: Session) -> Feeding | None:
        """Return what feeds a held session; None if it is not held."""
        held = session.held
        return held.feeding if isinstance(held, HeldExchange) else None

    def release(self, exchange: HeldExchange) -> None:
        """Give back the session of a hold that is over. Idempotent."""
        session, connection = exchange.session, exchange.connection
        if session.held is not exchange:
            return
        self._log(exchange)
        if connection.gone:
            failure = None
            if exchange.state != FINISHED:
                failure = reasons.SERVER_LOST if session.gone else reasons.SUBSCRIBER_SLOW
            if exchange.is_left:
                # A stream has no end of its own: leaving it is how a client ends it.
                failure = None if exchange.is_stream else reasons.CLIENT_LEFT
            self.released(session, None, failure)
            return
        outstanding = connection.outstanding
        connection.current = None
        connection.hand_over()
        self.released(session, outstanding, None)

    def _log(self, exchange: HeldExchange) -> None:
        log = self.access_log
        if log is not None:
            about = exchange.log
            log.write_line(
                request_id=about.request_id,
                client=about.client,
                method=about.method,
                path=about.path,
                status=exchange.status,
                size=exchange.written,
                started_s=about.started_us / 1e6 if about.started_us else monotonic(),
                gone=exchange.state != FINISHED,
            )
