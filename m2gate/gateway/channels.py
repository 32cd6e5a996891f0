"""Channels of all workers: an item is accepted once, in one order, for holds here and members there."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from time import monotonic
from typing import Any, Final

from gevent import get_hub, getcurrent
from gevent.event import AsyncResult

from m2gate.errors import ConnectionGone, LimitReached, WireError
from m2gate.gateway.lines import Lines, Offer
from m2gate.gateway.members import Members, Worker
from m2gate.hub.form import MEMBER_FORMS
from m2gate.hub.hub import STALL_S
from m2gate.hub.item import Item, dump_item, load_item
from m2gate.hub.policy import DEFAULT_POLICY, Policy
from m2gate.hub.work import Receipt
from m2gate.inputs.document import CHANNELS_MAX, ChannelsPart, ChannelStatus, describe_channels
from m2gate.link.broadcast import Broadcast, Feeding
from m2gate.wire import attach as wire

logger = logging.getLogger(__name__)

POLICIES_MAX: Final = 10_000
_LOG_EVERY_S: Final = 1.0

Find = Callable[[int, int], Feeding | None]


class Channels:
    """The gateway's channels.

    broadcast: the hub of what the gateway holds.
    find:      returns what feeds a held connection, by server number and conn_id.
    ``on_opened``, ``on_emptied``: called with a channel's name when its first subscriber comes, here or at a
               worker, and when its last has left; for whoever listens to channels elsewhere.
    Bounds: those of Lines; POLICIES_MAX channels have a policy of their own, at a further one the
    oldest that nobody is subscribed to is forgotten, or, where there is none, the new one ignored.
    """

    def __init__(self, broadcast: Broadcast, find: Find) -> None:
        self.broadcast = broadcast
        self.rejected = 0
        self.on_opened: Callable[[str], None] | None = None
        self.on_emptied: Callable[[str], None] | None = None
        self._find = find
        self._hub = broadcast.hub
        self._members = Members()
        self._lines = Lines(self._wait_room, self._accept_offer)
        self._deliveries = 0  # to members
        self._policies: dict[str, None] = {}  # in the order in which they were last set
        self._policy_logged_s = 0.0
        self._hub.on_opened, self._hub.on_emptied = self._opened_here, self._emptied_here
        self._members.on_opened, self._members.on_emptied = self._opened_there, self._emptied_there
        self._kinds: dict[bytes, Callable[[Worker, bytes], None]] = {
            wire.JOIN: self._join,
            wire.LEAVE: self._leave,
            wire.FEED: self._feed,
            wire.PUBLISH: self._publish,
            wire.POLICY: self._policy,
            wire.CROWDED: self._crowd,
        }

    # -- what workers say -----------------------------------------------------------------------------

    def handle(self, worker: Worker, message: bytes) -> None:
        """Take one message about channels. Raises WireError."""
        self._kinds[message[:1]](worker, message)

    def attached(self, worker: Worker, members: Iterable[tuple[str, str, int]]) -> None:
        """Take over the members that a worker has; those that it had before are forgotten."""
        self._members.replace(worker, members)

    def worker_gone(self, worker: Worker) -> None:
        """Forget the members of a worker; what it has published and waits still goes out."""
        self._members.forget(worker)

    def _join(self, worker: Worker, message: bytes) -> None:
        sequence, payload = wire.parse_numbered(message)
        channel, form = _strings(payload, 2)
        if form not in MEMBER_FORMS:
            raise WireError("a member has one of the known forms", 0, message)
        self._members.add(channel, worker, form)
        worker.send(wire.build_receipt(sequence))

    def _leave(self, worker: Worker, message: bytes) -> None:
        channel, form = _strings(wire.parse_numbered(message)[1], 2)
        self._members.remove(channel, worker, form)

    def _feed(self, worker: Worker, message: bytes) -> None:
        sequence, payload = wire.parse_numbered(message)
        row = wire.load(payload, list)
        try:
            number, conn_id, name, is_joining = row
            feeding, channel = self._find(int(number), int(conn_id)), name.decode()
        except (ValueError, TypeError, AttributeError):
            raise WireError("a held connection is fed from a channel, or no more", 0, message) from None
        try:
            if feeding is None:
                raise ConnectionGone("", conn_id)
            if is_joining:
                feeding.join(channel)
            else:
                feeding.leave(channel)
        except ConnectionGone:
            worker.send(wire.build_numbered(wire.REFUSAL, sequence, b"gone"))
        else:
            worker.send(wire.build_receipt(sequence))

    def _publish(self, worker: Worker, message: bytes) -> None:
        sequence, payload = wire.parse_numbered(message)

        def done(outcome: Receipt | Exception) -> None:
            if isinstance(outcome, Exception):
                worker.send(wire.build_numbered(wire.REFUSAL, sequence, str(outcome).encode()))
            else:
                worker.send(wire.build_receipt(sequence, counts(outcome)))

        offer = Offer(load_item(payload), payload, done)
        if not self.must_wait(offer.item.channel):
            self._accept_offer(offer)
            return
        try:
            self._line_up(offer)
        except LimitReached as error:
            done(error)

    def _policy(self, _worker: Worker, message: bytes) -> None:
        try:
            channel, rule, limit = wire.load(message[1:], list)
            name, policy = channel.decode(), Policy(rule.decode(), int(limit))
        except (ValueError, TypeError, AttributeError):
            raise WireError("a policy is a channel, a rule and a limit", 0, message) from None
        self._policies.pop(name, None)
        if policy != DEFAULT_POLICY:
            if len(self._policies) >= POLICIES_MAX and not self._forget_policy(name):
                return
            self._policies[name] = None
        self.broadcast.configure(name, policy)

    def _forget_policy(self, name: str) -> bool:
        """Make room for the policy of name, at the cost of the oldest one without subscribers; False without any."""
        oldest = next((one for one in self._policies if not self._is_open(one) and one not in self._lines), None)
        now_s = monotonic()
        if now_s - self._policy_logged_s >= _LOG_EVERY_S:
            self._policy_logged_s = now_s
            logger.warning("policy forgotten channel=%s limit=%d", name if oldest is None else oldest, POLICIES_MAX)
        if oldest is None:
            return False
        del self._policies[oldest]
        self.broadcast.configure(oldest, DEFAULT_POLICY)
        return True

    def _crowd(self, worker: Worker, message: bytes) -> None:
        try:
            channel, is_crowded = wire.load(message[1:], list)
            name = channel.decode()
        except (ValueError, TypeError, AttributeError):
            raise WireError("a channel is crowded, or no more", 0, message) from None
        self._members.crowd(name, worker, is_crowded=is_crowded is True)

    # -- publishing -----------------------------------------------------------------------------------

    def publish(self, item: Item) -> Receipt:
        """Accept an item for all its subscribers. Blocks the greenlet while most of them cannot take more.

        Behind those of its channel that wait, each for STALL_S after the last progress. In a callback
        of the loop it never waits: those before it are accepted with it.
        Raises ValueError for an item that has no rendering in some form, LimitReached if too many wait.
        """
        if self.must_wait(item.channel):
            if getcurrent() is not get_hub():
                return self._wait_accepted(item)
            self._lines.hasten(item.channel)
        try:
            return self._accept(item, None)
        except ValueError:
            self.rejected += 1
            raise

    def _wait_accepted(self, item: Item) -> Receipt:
        result: AsyncResult[Receipt] = AsyncResult()

        def done(outcome: Receipt | Exception) -> None:
            if isinstance(outcome, Exception):
                result.set_exception(outcome)
            else:
                result.set(outcome)

        self._line_up(Offer(item, None, done))
        receipt = result.get()
        assert receipt is not None  # noqa: S101 - without a timeout there is a result
        return receipt

    def must_wait(self, channel: str) -> bool:
        """Tell whether a publish to channel would wait."""
        if channel in self._lines:
            return True
        is_crowded = self._members.is_crowded(channel) and not self._hub.drops(channel)
        return is_crowded or self.broadcast.is_congested(channel)

    def _line_up(self, offer: Offer) -> None:
        try:
            self._lines.push(offer)
        except LimitReached:
            self.rejected += 1
            raise

    def _wait_room(self, channel: str) -> None:
        """Blocks the greenlet until the subscribers of channel can take an item, or have had their time."""
        self.broadcast.wait_room(channel)
        if not self._hub.drops(channel):
            self._members.wait_room(channel, STALL_S)

    def _accept_offer(self, offer: Offer) -> None:
        try:
            receipt = self._accept(offer.item, offer.payload)
        except ValueError as error:
            self.rejected += 1
            offer.done(error)
        else:
            offer.done(receipt)

    def _accept(self, item: Item, payload: bytes | None) -> Receipt:
        """Let an item go out to all, in the order of these calls. Raises ValueError; then nobody gets it."""
        there = self._members.match(item)
        receipt = self.broadcast.accept(item)
        self._members.count_item(item.channel)
        if not there:
            return receipt
        message = wire.ITEM + (dump_item(item) if payload is None else payload)
        total = 0
        for worker, count in there:
            worker.send(message)
            total += count
        self._deliveries += total
        return replace(receipt, matched=receipt.matched + total)

    # -- which channels there are -----------------------------------------------------------------------

    def names(self) -> list[str]:
        """Return the channels that have subscribers, here or at workers."""
        return list(dict.fromkeys(self._hub.names() + self._members.names()))

    def _is_open(self, channel: str) -> bool:
        return self._hub.has(channel) or channel in self._members

    def _opened_here(self, channel: str) -> None:
        if self.on_opened is not None and channel not in self._members:
            self.on_opened(channel)

    def _opened_there(self, channel: str) -> None:
        if self.on_opened is not None and not self._hub.has(channel):
            self.on_opened(channel)

    def _emptied_here(self, channel: str) -> None:
        if self.on_emptied is not None and channel not in self._members:
            self.on_emptied(channel)

    def _emptied_there(self, channel: str) -> None:
        if self.on_emptied is not None and not self._hub.has(channel):
            self.on_emptied(channel)

    # -- seeing in ------------------------------------------------------------------------------------

    def part(self) -> ChannelsPart:
        """Return the channels' part of the status document: those held here and those of workers."""
        own, members = describe_channels(self._hub), self._members
        rows = {row["name"]: row for row in own.channels}
        only_there = 0
        for channel in members.names():
            only_there += not self._hub.has(channel)
            row = rows.get(channel)
            if row is None:
                rows[channel] = new_row(channel, members.count(channel), members.published(channel))
            else:
                row["subscribers"] += members.count(channel)
                row["published"] = max(row["published"], members.published(channel))
        largest = sorted(rows.values(), key=lambda row: -row["subscribers"])[:CHANNELS_MAX]
        return replace(
            own,
            channels=largest,
            channels_total=own.channels_total + only_there,
            subscribers_total=own.subscribers_total + members.total,
            deliveries=own.deliveries + self._deliveries,
        )


def new_row(name: str, subscribers: int, published: int) -> ChannelStatus:
    """Return the row of a channel that only workers have subscribers of."""
    return {"name": name, "subscribers": subscribers, "lagging": 0, "queued_bytes": 0, "published": published}


def counts(receipt: Receipt) -> tuple[int, int, int, int, int]:
    """Return a receipt as it travels: matched, written, queued, filtered, dropped."""
    return receipt.matched, receipt.written, receipt.queued, receipt.filtered, receipt.dropped


def _strings(payload: bytes, length: int) -> list[str]:
    row: list[Any] = wire.load(payload, list)
    if len(row) != length or any(type(one) is not bytes for one in row):
        raise WireError(f"{length} strings are expected", 0, payload)
    try:
        return [one.decode() for one in row]
    except UnicodeDecodeError:
        raise WireError("strings are UTF-8", 0, payload) from None
