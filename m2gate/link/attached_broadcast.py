"""Channels and holds of a worker behind a gateway, whose hub is the one that counts.

The hub here serves the worker's own members: WebSockets and streams with a producer. Who is
published to, and in which order, the gateway says.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import gevent
from gevent import get_hub, getcurrent

from m2gate.errors import BackendError, ConnectionGone
from m2gate.hub.form import MEMBER_FORMS, Form
from m2gate.hub.group import MERGE_BYTES, Subscriber
from m2gate.hub.holding import HoldRequest, dump_hold
from m2gate.hub.item import Item, dump_item
from m2gate.hub.policy import Policy
from m2gate.hub.work import NOBODY, Receipt
from m2gate.link.broadcast import Broadcast, Feeding
from m2gate.link.connection import Connection
from m2gate.link.dialogue import GATEWAY_WAIT_S, LOST, Counts, Dialogue, Refused
from m2gate.link.exchange import Exchange
from m2gate.wire.attach import CROWDED, FEED, HOLD, JOIN, LEAVE, POLICY, PUBLISH, dump

logger = logging.getLogger(__name__)

FORM_NAMES: Final[dict[Form, str]] = {form: name for name, form in MEMBER_FORMS.items()}
CROWDED_AGAIN_S: Final = 0.25  # the gateway forgets it when the last member there has left
POLL_S: Final = 0.02


class RemoteFeeding:
    """A connection that the gateway holds."""

    def __init__(self, dialogue: Dialogue, send_ident: bytes, number: int, conn_id: int) -> None:
        self._dialogue = dialogue
        self._send_ident = send_ident
        self._number = number
        self._conn_id = conn_id

    def join(self, channel: str) -> None:
        """Feed it from one more channel; see Feeding."""
        try:
            self._dialogue.ask(FEED, self._payload(channel, is_joining=True))
        except Refused:
            raise ConnectionGone(self._send_ident.decode(), self._conn_id) from None

    def leave(self, channel: str) -> None:
        """Feed it from one channel less; see Feeding."""
        self._dialogue.say_numbered(FEED, self._payload(channel, is_joining=False))

    def _payload(self, channel: str, *, is_joining: bool) -> bytes:
        return dump([self._number, self._conn_id, channel.encode(), is_joining])


class AttachedBroadcast(Broadcast):
    """The broadcast of a worker that is attached to a gateway."""

    def __init__(self, dialogue: Dialogue, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._dialogue = dialogue
        self._members: Counter[tuple[str, str]] = Counter()
        self._policies: dict[str, Policy] = {}
        self._crowded: dict[str, float] = {}  # channels, and when that was last said
        self.hub.on_left = self._left

    # -- for the link to the gateway ----------------------------------------------------------------

    def members(self) -> list[tuple[str, str, int]]:
        """Return channel, form and count of the members here, for a gateway that knows of none."""
        return [(channel, form, count) for (channel, form), count in self._members.items()]

    def attached(self) -> None:
        """Tell a new gateway what it cannot know."""
        self._crowded.clear()
        for channel, policy in self._policies.items():
            self._say_policy(channel, policy)

    def deliver(self, item: Item) -> None:
        """Take an item that the gateway has accepted. Never blocks."""
        hub = self.hub
        try:
            hub.publish(item)
        except ValueError as error:
            logger.error("item not rendered channel=%s error=%s", item.channel, error)
            return
        if hub.fullest_bytes >= MERGE_BYTES:
            self.flush()
        now_s = self._clock()
        if hub.is_congested(item.channel, now_s):
            said_s = self._crowded.get(item.channel)
            if said_s is None or now_s - said_s >= CROWDED_AGAIN_S:
                self._crowded[item.channel] = now_s
                self._dialogue.say(CROWDED + dump([item.channel.encode(), True]))

    # -- what the App calls ---------------------------------------------------------------------------

    def publish(self, item: Item) -> Receipt:
        """Let the gateway accept item. Blocks the greenlet until it has, as long as most subscribers need.

        In a callback of the loop it does not wait, and the receipt is empty.
        Raises ValueError for an item that has no rendering in some form, BackendError without a
        gateway: one that is lost meanwhile may have accepted it.
        """
        payload = dump_item(item)
        if getcurrent() is get_hub():
            self._dialogue.say_numbered(PUBLISH, payload)
            return NOBODY
        try:
            counts = self._dialogue.ask(PUBLISH, payload)
        except Refused as refused:
            raise ValueError(str(refused)) from None
        return Receipt(matched=counts[0], queued=counts[2], dropped=counts[4], filtered=counts[3])

    def configure(self, channel: str, policy: Policy) -> None:
        """Set what becomes of subscribers of channel that do not keep up, here and in the gateway."""
        if self._policies.get(channel) != policy:
            self._policies[channel] = policy
            super().configure(channel, policy)
            self._say_policy(channel, policy)

    def _say_policy(self, channel: str, policy: Policy) -> None:
        self._dialogue.say(POLICY + dump([channel.encode(), policy.rule.encode(), policy.limit_bytes]))

    def join(self, channel: str, connection: Connection, form: Form) -> Subscriber:
        """Subscribe connection from the next item on that the gateway accepts. Blocks the greenlet.

        Without a gateway the next one is told. Raises ConnectionGone if it is closed.
        """
        if connection.gone or connection.closing:
            raise connection.error()
        if not self.hub.is_subscribed(channel, connection):
            self._ask_to_join(channel, connection, form)
            if not self.hub.is_subscribed(channel, connection):
                raise connection.error()
        return super().join(channel, connection, form)

    def _ask_to_join(self, channel: str, connection: Connection, form: Form) -> None:
        payload = dump([channel.encode(), FORM_NAMES[form].encode()])

        def accepted(_counts: Counts) -> None:
            if not self._subscribe(channel, connection, form):
                self._say_left(payload)

        def lost(_counts: Counts) -> None:
            self._subscribe(channel, connection, form)

        if self._dialogue.is_open:
            self._dialogue.ask(JOIN, payload, accepted, lost)
        else:
            lost(())

    def _subscribe(self, channel: str, connection: Connection, form: Form) -> bool:
        """Subscribe connection; False if it is not to be counted: it is gone, or is subscribed by now."""
        if connection.gone or connection.closing or self.hub.is_subscribed(channel, connection):
            return False
        super().join(channel, connection, form)
        self._members[channel, FORM_NAMES[form]] += 1
        return True

    def _left(self, channel: str, form: Form) -> None:
        name = FORM_NAMES[form]
        left = self._members[channel, name] - 1
        if left > 0:
            self._members[channel, name] = left
        else:
            del self._members[channel, name]
        self._say_left(dump([channel.encode(), name.encode()]))

    def _say_left(self, payload: bytes) -> None:
        self._dialogue.say_numbered(LEAVE, payload)

    def hold(self, exchange: Exchange, request: HoldRequest) -> Feeding:
        """Hand the connection of exchange over to the gateway. Blocks the greenlet while there is none.

        What is left of the request's body is read first. Raises ConnectionGone if the client has
        left, BackendError if no gateway comes.
        """
        connection, server = exchange.connection, exchange.connection.server
        while exchange.read():
            pass
        number = self._wait_number(connection)
        if connection.pipeline:
            # Requests behind an answer by token: they are here already, and their connection would not be.
            connection.abort()
        if connection.gone or connection.closing:
            raise connection.error()
        self._dialogue.say(HOLD + dump_hold(number, connection.conn_id, request))
        exchange.hand_over()
        return RemoteFeeding(self._dialogue, server.send_ident, number, connection.conn_id)

    def _wait_number(self, connection: Connection) -> int:
        deadline_s = time.monotonic() + GATEWAY_WAIT_S
        while time.monotonic() < deadline_s:
            journal = connection.server.journal
            if connection.gone or journal is None:
                raise connection.error()
            if journal.number is not None and self._dialogue.is_open:
                return journal.number
            gevent.sleep(POLL_S)
        raise BackendError(LOST)

    # -- what leaves ----------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what was published; see Broadcast. Tells the gateway where there is room again."""
        super().flush()
        if self._crowded:
            now_s = self._clock()
            for channel in [one for one in self._crowded if not self.hub.is_congested(one, now_s)]:
                del self._crowded[channel]
                self._dialogue.say(CROWDED + dump([channel.encode(), False]))
