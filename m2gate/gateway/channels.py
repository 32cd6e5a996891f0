"""Channels of all workers: an item is accepted once, in one order, for holds here and members there."""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any, Final, Protocol

import gevent
from gevent.event import AsyncResult

from m2gate.errors import ConnectionGone, WireError
from m2gate.hub.form import WEBSOCKET, Form, StreamForm
from m2gate.hub.hub import STALL_S
from m2gate.hub.item import Item, dump_item, load_item
from m2gate.hub.policy import Policy
from m2gate.hub.work import Receipt
from m2gate.inputs.document import CHANNELS_MAX, ChannelsPart, ChannelStatus, describe_channels
from m2gate.link.broadcast import Broadcast, Feeding
from m2gate.wire import attach as wire

logger = logging.getLogger(__name__)

QUEUED_MAX: Final = 10_000  # items that wait for subscribers which cannot take more, of all channels
POLICIES_MAX: Final = 10_000
POLL_S: Final = 0.01  # while a worker says that its subscribers cannot take more

# How workers name the forms of their own subscribers.
FORMS: Final[dict[str, Form]] = {
    "websocket": WEBSOCKET,
    "stream": StreamForm(chunked=True, events=False),
    "stream-raw": StreamForm(chunked=False, events=False),
    "events": StreamForm(chunked=True, events=True),
    "events-raw": StreamForm(chunked=False, events=True),
}


class Worker(Protocol):
    """Where members of channels live."""

    def send(self, message: bytes) -> None:
        """Send one message, behind those that were sent before."""


Done = Callable[[Receipt | Exception], None]
Find = Callable[[int, int], Feeding | None]


class Channels:
    """The gateway's channels.

    broadcast: the hub of what the gateway holds.
    find:      returns what feeds a held connection, by server number and conn_id.
    Bounds: QUEUED_MAX items wait while subscribers cannot take more, further ones are refused;
    POLICIES_MAX channels have a policy of their own, further ones keep the usual one.
    """

    def __init__(self, broadcast: Broadcast, find: Find) -> None:
        self.broadcast = broadcast
        self.rejected = 0
        self._find = find
        self._members: dict[str, dict[Worker, Counter[str]]] = {}
        self._published: Counter[str] = Counter()  # items of channels that have members
        self._deliveries = 0  # to members
        self._items = 0  # for which nobody here has a hold
        self._lines: dict[str, deque[tuple[Item, Done]]] = {}
        self._queued = 0
        self._crowded: dict[str, dict[Worker, float]] = {}
        self._policies: set[str] = set()
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

    def _join(self, worker: Worker, message: bytes) -> None:
        sequence, payload = wire.parse_numbered(message)
        channel, form = _strings(payload, 2)
        if form not in FORMS:
            raise WireError("a member has one of the known forms", 0, message)
        self._members.setdefault(channel, {}).setdefault(worker, Counter())[form] += 1
        worker.send(wire.build_receipt(sequence))

    def _leave(self, worker: Worker, message: bytes) -> None:
        channel, form = _strings(wire.parse_numbered(message)[1], 2)
        forms = self._members.get(channel, {}).get(worker)
        if forms is None or not forms[form]:
            return
        forms[form] -= 1
        if not +forms:
            self._forget(channel, worker)

    def _forget(self, channel: str, worker: Worker) -> None:
        members = self._members[channel]
        del members[worker]
        if not members:
            del self._members[channel]
            self._published.pop(channel, None)

    def attached(self, worker: Worker, members: Iterable[tuple[str, str, int]]) -> None:
        """Take over the members that a worker has; those that it had before are forgotten."""
        self.worker_gone(worker)
        for channel, form, count in members:
            if form in FORMS and count > 0:
                self._members.setdefault(channel, {}).setdefault(worker, Counter())[form] += count

    def worker_gone(self, worker: Worker) -> None:
        """Forget the members of a worker."""
        for channel in [one for one, workers in self._members.items() if worker in workers]:
            self._forget(channel, worker)
        for channel in [one for one, workers in self._crowded.items() if worker in workers]:
            self._uncrowd(channel, worker)

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

    def _policy(self, _worker: Worker, message: bytes) -> None:
        try:
            channel, rule, limit = wire.load(message[1:], list)
            name, policy = channel.decode(), Policy(rule.decode(), int(limit))
        except (ValueError, TypeError, AttributeError):
            raise WireError("a policy is a channel, a rule and a limit", 0, message) from None
        if name not in self._policies and len(self._policies) >= POLICIES_MAX:
            logger.warning("policy ignored, too many channels have one channel=%s", name)
            return
        self._policies.add(name)
        self.broadcast.configure(name, policy)

    def _crowd(self, worker: Worker, message: bytes) -> None:
        try:
            channel, is_crowded = wire.load(message[1:], list)
            name = channel.decode()
        except (ValueError, TypeError, AttributeError):
            raise WireError("a channel is crowded, or no more", 0, message) from None
        if is_crowded is True:
            self._crowded.setdefault(name, {})[worker] = monotonic() + STALL_S
        else:
            self._uncrowd(name, worker)

    def _uncrowd(self, channel: str, worker: Worker) -> None:
        workers = self._crowded.get(channel, {})
        workers.pop(worker, None)
        if not workers:
            self._crowded.pop(channel, None)

    def _publish(self, worker: Worker, message: bytes) -> None:
        sequence, payload = wire.parse_numbered(message)
        item = load_item(payload)

        def done(outcome: Receipt | Exception) -> None:
            if isinstance(outcome, Exception):
                worker.send(wire.build_numbered(wire.REFUSAL, sequence, str(outcome).encode()))
            else:
                worker.send(wire.build_receipt(sequence, counts(outcome)))

        self._submit(item, done)

    # -- publishing ----------------------------------------------------------------------------------------

    def publish(self, item: Item) -> Receipt:
        """Accept an item for all its subscribers. Blocks the greenlet while most of them cannot take more.

        Raises ValueError for an item that has no rendering in some form, BufferError at QUEUED_MAX.
        """
        result: AsyncResult[Receipt] = AsyncResult()

        def done(outcome: Receipt | Exception) -> None:
            if isinstance(outcome, Exception):
                result.set_exception(outcome)
            else:
                result.set(outcome)

        self._submit(item, done)
        receipt = result.get()
        assert receipt is not None  # noqa: S101 - without a timeout there is a result
        return receipt

    def _submit(self, item: Item, done: Done) -> None:
        """Accept item now, or behind those of its channel that wait."""
        channel = item.channel
        line = self._lines.get(channel)
        if line is None and not self._is_congested(channel):
            done(self._try(item))
            return
        if self._queued >= QUEUED_MAX:
            self.rejected += 1
            done(BufferError(f"{QUEUED_MAX} items wait for subscribers that cannot take more"))
            return
        self._queued += 1
        if line is not None:
            line.append((item, done))
            return
        self._lines[channel] = deque([(item, done)])
        gevent.spawn(self._serve, channel)

    def _serve(self, channel: str) -> None:
        line = self._lines[channel]
        while line:
            item, done = line[0]
            self.broadcast.wait_room(channel)
            while self._is_crowded(channel):
                gevent.sleep(POLL_S)
            outcome = self._try(item)
            line.popleft()
            self._queued -= 1
            done(outcome)
        del self._lines[channel]

    def _is_congested(self, channel: str) -> bool:
        return self.broadcast.is_congested(channel) or self._is_crowded(channel)

    def _is_crowded(self, channel: str) -> bool:
        """Tell whether a worker has said within STALL_S that its subscribers cannot take more."""
        workers = self._crowded.get(channel)
        return workers is not None and any(until_s > monotonic() for until_s in workers.values())

    def _try(self, item: Item) -> Receipt | Exception:
        try:
            return self._accept(item)
        except ValueError as error:
            self.rejected += 1
            return error

    def _accept(self, item: Item) -> Receipt:
        members = self._members.get(item.channel)
        if members is None:
            return self.broadcast.publish(item)
        matched = {worker: _matched(item, forms) for worker, forms in members.items()}
        receipt = self.broadcast.publish(item)
        total = sum(matched.values())
        if total:
            message = wire.ITEM + dump_item(item)
            for worker, count in matched.items():
                if count:
                    worker.send(message)
        self._published[item.channel] += 1
        self._deliveries += total
        return add_matched(receipt, total)

    # -- seeing in ----------------------------------------------------------------------------------------

    def part(self) -> ChannelsPart:
        """Return the channels' part of the status document: those held here and those of workers."""
        own = describe_channels(self.broadcast.hub)
        rows = {row["name"]: row for row in own.channels}
        for channel, members in self._members.items():
            count = sum(sum(forms.values()) for forms in members.values())
            row = rows.get(channel)
            if row is not None:
                row["subscribers"] += count
                row["published"] = max(row["published"], self._published[channel])
            else:
                rows[channel] = new_row(channel, count, self._published[channel])
        largest = sorted(rows.values(), key=lambda row: -row["subscribers"])[:CHANNELS_MAX]
        only_members = sum(1 for channel in self._members if not self.broadcast.hub.has(channel))
        return ChannelsPart(
            channels=largest,
            channels_total=own.channels_total + only_members,
            subscribers_total=own.subscribers_total + self.members_total,
            lagging_total=own.lagging_total,
            queued_bytes_total=own.queued_bytes_total,
            items_published=own.items_published,
            deliveries=own.deliveries + self._deliveries,
            drops=own.drops,
        )

    @property
    def members_total(self) -> int:
        """Subscriptions of all workers."""
        return sum(sum(forms.values()) for members in self._members.values() for forms in members.values())


def new_row(name: str, subscribers: int, published: int) -> ChannelStatus:
    """Return the row of a channel that only workers have subscribers of."""
    return {"name": name, "subscribers": subscribers, "lagging": 0, "queued_bytes": 0, "published": published}


def counts(receipt: Receipt) -> tuple[int, int, int, int, int]:
    """Return a receipt as it travels: matched, written, queued, filtered, dropped."""
    written = receipt.matched - receipt.queued - receipt.dropped
    return receipt.matched, written, receipt.queued, 0, receipt.dropped


def add_matched(receipt: Receipt, more: int) -> Receipt:
    """Return receipt with more subscribers that are served elsewhere."""
    return Receipt(receipt.matched + more, receipt.queued, receipt.dropped) if more else receipt


def _matched(item: Item, forms: Counter[str]) -> int:
    """Return how many of these members item has a rendering for. Raises ValueError."""
    return sum(count for form, count in forms.items() if count and FORMS[form].encode(item) is not None)


def _strings(payload: bytes, length: int) -> list[str]:
    row: list[Any] = wire.load(payload, list)
    if len(row) != length or any(type(one) is not bytes for one in row):
        raise WireError(f"{length} strings are expected", 0, payload)
    try:
        return [one.decode() for one in row]
    except UnicodeDecodeError:
        raise WireError("strings are UTF-8", 0, payload) from None
