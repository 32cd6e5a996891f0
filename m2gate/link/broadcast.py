"""The hub of one process at work: it sends what the hub says, keeps the time and ends holds."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from email.utils import formatdate
from typing import Protocol

import gevent
from gevent import get_hub, getcurrent

from m2gate.hub.form import Form, ResponseForm, StreamForm
from m2gate.hub.group import MERGE_BYTES, Subscriber
from m2gate.hub.holding import HoldRequest
from m2gate.hub.holds import NEVER, Hold, Holds
from m2gate.hub.hub import STALL_S, Hub
from m2gate.hub.item import Item, ResponseFormat
from m2gate.hub.outlet import Outlet
from m2gate.hub.policy import Policy
from m2gate.hub.work import Receipt
from m2gate.link.connection import Connection
from m2gate.link.exchange import Exchange
from m2gate.link.server import Server
from m2gate.link.tally import SUBSCRIBER_SLOW
from m2gate.link.wait import Turnstile
from m2gate.wire.http import LAST_CHUNK

logger = logging.getLogger(__name__)


class Held(Hold):
    """An exchange that the broadcast feeds instead of a handler.

    answer: what a response hold gets when it expires; None for a stream.
    """

    __slots__ = ("answer", "connection", "exchange", "form")

    def __init__(
        self, exchange: Exchange, form: Form, *, expires_s: float = NEVER, ping: bytes = b"", ping_s: float = NEVER
    ) -> None:
        self.connection: Connection = exchange.connection
        super().__init__(self.connection, expires_s=expires_s, ping=ping, ping_s=ping_s)
        self.exchange = exchange
        self.form = form
        self.answer: ResponseFormat | None = None


class Feeding(Protocol):
    """A response that channels feed, wherever the hub is that does it."""

    def join(self, channel: str) -> None:
        """Feed it from one more channel. Blocks the greenlet until that is so; joining twice changes nothing.

        Raises ConnectionGone if its client has left.
        """

    def leave(self, channel: str) -> None:
        """Feed it from one channel less. Idempotent."""


class LocalFeeding:
    """A response that the hub of this process feeds."""

    def __init__(self, broadcast: "Broadcast", held: Held) -> None:
        self._broadcast = broadcast
        self._held = held

    def join(self, channel: str) -> None:
        """Feed it from one more channel; see Feeding."""
        self._broadcast.feed(self._held, channel)

    def leave(self, channel: str) -> None:
        """Feed it from one channel less; see Feeding."""
        self._broadcast.unfeed(self._held, channel)


class Broadcast:
    """Owns the hub of a process: everything here runs in the loop or in greenlets of one thread.

    The App calls ``tick`` once a second and ``begin_drain`` when it is to stop.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.hub = Hub(self._wake)
        self.is_draining = False
        self._clock = clock
        self._holds: Holds[Held] = Holds()
        self._held: dict[Outlet, Held] = {}
        self._waits: dict[str, Turnstile] = {}
        self._on_closing = self._closing  # one object for all connections
        self._is_scheduled = False
        self._date_s = 0
        self._date = ""

    # -- publishing ---------------------------------------------------------------------------

    def publish(self, item: Item) -> Receipt:
        """Accept item. Blocks the greenlet while most subscribers of the channel cannot take more.

        It waits at most STALL_S for those that make no progress; on a channel that drops, only as
        long as it takes to read what credits have come. In a callback of the loop it never waits.
        Raises ValueError for an item that has no rendering in some form.
        """
        if self.is_congested(item.channel) and getcurrent() is not get_hub():
            self.wait_room(item.channel)
        return self.accept(item)

    def accept(self, item: Item) -> Receipt:
        """Accept item at once, whether or not its subscribers can take more; see publish."""
        receipt = self.hub.publish(item)
        if self.hub.fullest_bytes >= MERGE_BYTES:
            self.flush()
        return receipt

    def configure(self, channel: str, policy: Policy) -> None:
        """Set what becomes of subscribers of channel that do not keep up."""
        self.hub.configure(channel, policy)

    def date(self) -> str:
        """Return the time as HTTP writes it."""
        now_s = int(time.time())
        if now_s != self._date_s:
            self._date_s, self._date = now_s, formatdate(now_s, usegmt=True)
        return self._date

    def is_congested(self, channel: str) -> bool:
        """Tell whether publishers to channel are too fast for most of its subscribers."""
        return self.hub.is_congested(channel, self._clock())

    def wait_room(self, channel: str) -> None:
        """Blocks the greenlet while publishers to channel are too fast, as publish says."""
        if self.hub.drops(channel):
            gevent.sleep(0)
            return
        while self.hub.is_congested(channel, self._clock()):
            turnstile = self._waits.get(channel)
            if turnstile is None:
                laggard = self.hub.laggard(channel)
                if not isinstance(laggard, Connection):
                    return
                turnstile = self._waits[channel] = Turnstile(laggard.server)
            turnstile.wait(STALL_S / 4)

    # -- what the hub wants sent --------------------------------------------------------------

    def _wake(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            get_hub().loop.run_callback(self._end_of_turn)

    def _end_of_turn(self) -> None:
        self._is_scheduled = False
        self.flush()

    def flush(self) -> None:
        """Send what was published. Called by itself at the end of the loop's turn; does not block."""
        work = self.hub.flush(self._clock())
        for server, frame in work.sends:
            server.send(frame)
        for outlet, data in work.posts:
            outlet.post(data)
        for outlet, data in work.answered:
            self._answered(outlet, data)
        for outlet, reason in work.closed:
            self._cut(outlet, reason)
        if self._waits:
            self._let_publishers_go()

    def _let_publishers_go(self) -> None:
        now_s = self._clock()
        for channel in [one for one in self._waits if not self.hub.is_congested(one, now_s)]:
            self._waits.pop(channel).turn()

    def _answered(self, outlet: Outlet, data: bytes) -> None:
        held = self._held.get(outlet)
        if held is not None:  # else its client has left meanwhile
            self._forget(held)
            held.exchange.complete(int(data[9:12]), len(data))

    def _cut(self, outlet: Outlet, reason: str) -> None:
        logger.warning(
            "subscriber dropped send_ident=%s conn_id=%d %s", outlet.server.send_ident.decode(), outlet.conn_id, reason
        )
        if isinstance(outlet, Connection):
            if outlet.current is not None:
                outlet.current.failure = SUBSCRIBER_SLOW
            outlet.abort()

    # -- subscriptions ------------------------------------------------------------------------

    def join(self, channel: str, connection: Connection, form: Form) -> Subscriber:
        """Subscribe connection to channel until leave() or until it closes.

        Raises ConnectionGone if it is closed already.
        """
        if connection.gone or connection.closing:
            raise connection.error()
        self._watch(connection)
        return self.hub.subscribe(channel, connection, form, self._clock())

    def leave(self, subscriber: Subscriber) -> None:
        """End a subscription; what was published before is sent first. Idempotent."""
        self.hub.unsubscribe(subscriber, self._clock())
        self.flush()

    def _watch(self, connection: Connection) -> None:
        if connection.on_closing is None:
            connection.on_closing = self._on_closing

    def _closing(self, connection: Connection) -> None:
        """Hear that connection has gone or is about to send its last bytes: ours come before them."""
        held = self._held.get(connection)
        if held is not None:
            self._forget(held)
        if connection.gone:
            self.hub.discard(connection)
        else:
            self.hub.release(connection, self._clock())
            self.flush()

    # -- holds --------------------------------------------------------------------------------

    def hold(self, exchange: Exchange, request: HoldRequest) -> Feeding:
        """Feed the connection of exchange from now on, as request says. Does not block.

        Raises ConnectionGone if the client has left.
        """
        expires_s = self._clock() + request.timeout_ms / 1e3 if request.timeout_ms else NEVER
        held = Held(exchange, request.form, expires_s=expires_s, ping=request.ping, ping_s=request.ping_ms / 1e3)
        held.answer = request.answer
        self._hold(held, request.channels)
        exchange.is_held = True
        # Nothing can be published between these lines: the items follow what the stream begins with.
        held.connection.post(request.begin)
        if self.is_draining:
            self.end(held)
        return LocalFeeding(self, held)

    def hold_stream(
        self, exchange: Exchange, channels: Iterable[str], form: StreamForm, *, ping: bytes = b"", ping_s: float = NEVER
    ) -> Held:
        """Feed the response that exchange has started from channels, until its client leaves.

        ping: sent, wrapped by form, after ping_s seconds in which nothing else was.
        Raises ConnectionGone if the client has left.
        """
        return self._hold(Held(exchange, form, ping=form.wrap(ping) if ping else b"", ping_s=ping_s), channels)

    def feed(self, held: Held, channel: str) -> Subscriber:
        """Feed held from one more channel. Raises ConnectionGone if its client has left or it has ended."""
        if held.ended:
            raise held.connection.error()
        subscriber = self.join(channel, held.connection, held.form)
        if subscriber not in held.subscribers:
            held.subscribers.append(subscriber)
        return subscriber

    def unfeed(self, held: Held, channel: str) -> None:
        """Feed held from one channel less. Idempotent."""
        for subscriber in [one for one in held.subscribers if one.channel.name == channel]:
            held.subscribers.remove(subscriber)
            self.leave(subscriber)

    def touch(self, held: Held) -> None:
        """Note that somebody else has just written to held."""
        held.touched_s = self._clock()

    def release(self, held: Held) -> None:
        """Feed held no more; its exchange goes on."""
        self._forget(held)
        self.hub.release(held.outlet, self._clock())
        self.flush()

    def _hold(self, held: Held, channels: Iterable[str]) -> Held:
        connection = held.connection
        if connection.gone or connection.closing:
            raise connection.error()
        self._watch(connection)
        self._held[connection] = held
        self._holds.add(held, self._clock())
        for channel in channels:
            self.feed(held, channel)
        return held

    def _forget(self, held: Held) -> None:
        self._held.pop(held.outlet, None)
        self._holds.end(held)

    def end(self, held: Held) -> None:
        """End held as its client expects: a response hold gets its answer, a stream its end."""
        self.release(held)
        exchange = held.exchange
        if isinstance(held.form, ResponseForm) and held.answer is not None:
            data = held.form.build(held.answer, self.date())
            held.connection.post(data)
            exchange.complete(held.answer.status, len(data))
        else:
            if exchange.form == "chunked":
                held.connection.post(LAST_CHUNK)
            exchange.complete(exchange.status, 0)

    def held_servers(self) -> "Iterator[Server]":
        """Yield the server of each exchange that is held, as often as there are such."""
        for held in self._held.values():
            yield held.connection.server

    # -- time ---------------------------------------------------------------------------------

    def tick(self) -> None:
        """End holds that have expired and keep quiet ones alive; once a second."""
        self.flush()
        expired, quiet = self._holds.tick(self._clock())
        for held in expired:
            self.end(held)
        self.hub.touch([(held.outlet, held.ping) for held in quiet])

    def begin_drain(self) -> None:
        """End all holds, and from now on each new one at once: their clients come back to a successor."""
        self.is_draining = True
        self.flush()
        for held in list(self._held.values()):
            if held.exchange.is_held:
                self.end(held)
