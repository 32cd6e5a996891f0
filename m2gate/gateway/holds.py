"""Connections that workers have handed over: the gateway's hub feeds them, no worker is needed meanwhile."""

from collections.abc import Callable, Hashable
from dataclasses import replace
from time import monotonic
from typing import Final, TypeVar

from m2gate.errors import ConnectionGone
from m2gate.gateway import counters as reasons
from m2gate.gateway.sessions import Session
from m2gate.hub.form import StreamForm
from m2gate.hub.holding import HoldLog, HoldRequest
from m2gate.link.access_log import AccessLog
from m2gate.link.broadcast import Broadcast, Feeding
from m2gate.link.connection import Connection
from m2gate.link.exchange import FINISHED, STARTED, Exchange
from m2gate.wire.mongrel2 import CREDITS_INITIAL

UNSETTLED_S: Final = 5.0  # without the credits for what a worker had sent, they are taken for lost
SHARED_MAX: Final = 1_000  # values of each kind that holds have in common
SHARED_BYTES_MAX: Final = 16_384  # a larger body is not looked for among them

# Takes a session back: the bytes that are not credited yet, None if its connection is closed; why it has failed.
Released = Callable[[Session, int | None, str | None], None]
T = TypeVar("T", bound=Hashable)


class HeldExchange(Exchange):
    """The request of a held connection, as far as a hub and a server look at it; see sessions.Held."""

    # Class attributes are the defaults: an instance sets only what differs.
    is_held = True
    is_left = False
    is_stream = False
    state = STARTED
    method = b"HELD"  # for its repr; a hub does not ask
    log: HoldLog | None = None
    feeding: Feeding | None = None
    _is_chunked = False

    def __init__(self, holds: "Holds", session: Session, connection: Connection, request: HoldRequest) -> None:
        # Not the request itself: it has the bytes that the stream began with.
        self._holds = holds
        self.connection = connection
        self.session = session
        if isinstance(request.form, StreamForm):
            self.is_stream = True
            self._is_chunked = request.form.chunked
            self.status = request.status
            self.written = request.written
        if request.close:
            self.close_after = True

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
            connection = self.connection
            if self.close_after:
                connection.close()
            if connection.units:
                connection.on_room = self._sent  # the hub has nothing for it any more
            else:
                self._sent()

    def _sent(self) -> None:
        self._holds.release(self)

    def connection_lost(self) -> None:
        """Hear that the connection is closed: by its client, by the hub, or by ourselves at the end."""
        self._holds.release(self)

    # -- as the dispatcher sees it --------------------------------------------------------------------

    def granted(self, amount: int) -> None:
        """Take amount bytes of credits that came back."""
        self.connection.granted(amount)

    def lose(self) -> None:
        """Hear that the client has left."""
        self.is_left = True
        self.connection.lose()

    def cut(self) -> None:
        """Hear that the connection is cut, as its client breaks a rule."""
        self.lose()


class Unsettled:
    """A hold that waits until what its worker had sent is written: see sessions.Held and Feeding."""

    def __init__(self, holds: "Holds", session: Session, request: HoldRequest) -> None:
        self._holds = holds
        self.session = session
        self.request = request
        self.since_s = monotonic()

    def granted(self, amount: int) -> None:
        """Nothing was sent by the hub: see Holds.settled."""

    def lose(self) -> None:
        """Hear that the client has left."""
        self._holds.give_up(self.session, self.request)

    cut = lose

    def join(self, channel: str) -> None:
        """Feed it from one more channel, once it begins."""
        if channel not in self.request.channels:
            self.request = replace(self.request, channels=(*self.request.channels, channel))

    def leave(self, channel: str) -> None:
        """Feed it from one channel less."""
        self.request = replace(self.request, channels=tuple(one for one in self.request.channels if one != channel))


class Shared:
    """Equal values as one object: what comes from workers is a new one for each hold.

    Bound: SHARED_MAX values; then it begins anew.
    """

    def __init__(self) -> None:
        self._values: dict[Hashable, Hashable] = {}

    def __call__(self, value: T) -> T:
        """Return the first of those that are equal to value."""
        values = self._values
        if len(values) >= SHARED_MAX and value not in values:
            values.clear()
        return values.setdefault(value, value)  # type: ignore[return-value]  # an equal one is of the same type


class Holds:
    """All held connections of one gateway.

    released: takes a session back when its hold has ended.
    """

    def __init__(self, broadcast: Broadcast, released: Released) -> None:
        self.released: Final = released
        self.access_log: AccessLog | None = None
        self._broadcast = broadcast
        self._shared_forms = Shared()
        self._shared_answers = Shared()
        self._shared_pings = Shared()
        self._unsettled: dict[Session, Unsettled] = {}

    def hold(self, session: Session, request: HoldRequest) -> None:
        """Feed the connection of session from now on, or as soon as all that was sent on it is written."""
        if session.gone:
            self.give_up(session, request)  # it left while the worker's message was under way
        elif session.balance > 0 and session.server.has_credits:
            session.held = self._unsettled[session] = Unsettled(self, session, request)
        else:
            self._begin(session, request)

    def settled(self, session: Session) -> None:
        """Hear that all which was sent on a session is written."""
        waiting = self._unsettled.pop(session, None)
        if waiting is not None:
            self._begin(session, waiting.request)

    def tick(self) -> None:
        """Begin what has waited for credits that must have been lost; once a second."""
        old_s = monotonic() - UNSETTLED_S
        for session in [one for one, waiting in self._unsettled.items() if waiting.since_s <= old_s]:
            self.settled(session)

    def _begin(self, session: Session, request: HoldRequest) -> None:
        server = session.server
        window = CREDITS_INITIAL if server.has_credits else None
        connection = Connection(server.link, session.conn_id, window)
        server.link.connections[session.conn_id] = connection
        session.balance = 0
        exchange = HeldExchange(self, session, connection, request)
        if self.access_log is not None:
            exchange.log = request.log
        session.held = exchange
        connection.current = exchange
        try:
            exchange.feeding = self._broadcast.hold(exchange, self._share(request))
        except ConnectionGone:
            self.release(exchange)

    def _share(self, request: HoldRequest) -> HoldRequest:
        """Return the same request made of values that it shares with others: 700 bytes less for each."""
        answer = request.answer
        if answer is not None and len(answer.body) <= SHARED_BYTES_MAX:
            answer = self._shared_answers(answer)
        ping = self._shared_pings(request.ping) if len(request.ping) <= SHARED_BYTES_MAX else request.ping
        return replace(request, form=self._shared_forms(request.form), answer=answer, ping=ping)

    def feeding(self, session: Session) -> Feeding | None:
        """Return what feeds a held session; None if it is not held."""
        held = session.held
        if isinstance(held, Unsettled):
            return held
        return held.feeding if isinstance(held, HeldExchange) else None

    # -- ends -----------------------------------------------------------------------------------------

    def release(self, exchange: HeldExchange) -> None:
        """Give back the session of a hold that is over. Idempotent."""
        session, connection = exchange.session, exchange.connection
        if session.held is not exchange:
            return
        is_whole = exchange.state == FINISHED
        if exchange.log is not None:
            self._log(exchange.log, exchange.status, exchange.written, gone=not is_whole)
        if connection.gone:
            failure = None if is_whole else _failure(session, is_left=exchange.is_left, is_stream=exchange.is_stream)
            self.released(session, None, failure)
            return
        outstanding = connection.outstanding
        connection.current = None
        connection.hand_over()
        self.released(session, outstanding, None)

    def give_up(self, session: Session, request: HoldRequest) -> None:
        """Give back the session of a hold whose client has left before it began."""
        self._unsettled.pop(session, None)
        self._log(request.log, request.status, 0, gone=True)
        is_stream = isinstance(request.form, StreamForm)
        self.released(session, None, _failure(session, is_left=True, is_stream=is_stream))

    def _log(self, about: HoldLog, status: int, size: int, *, gone: bool) -> None:
        if self.access_log is not None:
            self.access_log.write_line(
                request_id=about.request_id,
                client=about.client,
                method=about.method,
                path=about.path,
                status=status,
                size=size,
                started_s=about.started_us / 1e6 if about.started_us else monotonic(),
                gone=gone,
            )


def _failure(session: Session, *, is_left: bool, is_stream: bool) -> str | None:
    """Return why a hold has failed that ended before its response did; None if that is how such a one ends."""
    if session.server.is_closed:
        return reasons.SERVER_LOST
    if not is_left:
        return reasons.SUBSCRIBER_SLOW
    # A stream has no end of its own: leaving it is how a client ends it.
    return None if is_stream else reasons.CLIENT_LEFT
