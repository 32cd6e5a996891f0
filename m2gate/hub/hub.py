"""The hub: who is subscribed to which channel, and what leaves for whom when an item is published.

Calls come in, work goes out: ``flush`` returns messages for the owner to send. Whatever is published
to one group between two flushes leaves in writes of up to MERGE_BYTES. Order per channel is that of
the publishes; a subscriber misses an item only where a counter says so (``stats``).
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from heapq import nlargest
from typing import Final

from m2gate.hub.form import Form
from m2gate.hub.group import MERGE_BYTES, Channel, Group, Subscriber, split_targets
from m2gate.hub.item import Item
from m2gate.hub.outlet import Outlet, Server
from m2gate.hub.policy import DEFAULT_POLICY, Policy
from m2gate.hub.work import NOBODY, ChannelStats, Receipt, Stats, Work

STALL_S: Final = 1.0  # without progress for so long, a subscriber no longer slows publishers

# Reasons of drops, as they appear in stats.
OVER_LIMIT: Final = "over-limit"  # block: its queue was full, the subscriber is closed
OLDEST: Final = "drop-oldest"
LATEST: Final = "latest"
GONE: Final = "gone"  # the client left before its queue was sent


class Hub:
    """Channels of one process. Not for use by several threads.

    wake: called when there is something to flush; the owner flushes at the end of the loop's turn.
          It may be called several times before that.
    on_left: called with channel and form when a subscription has ended, however it did.
    on_opened, on_emptied: called with a channel's name when its first subscriber comes and when its last has left.
    ``fullest_bytes``: the most that one group has waiting for the flush. From MERGE_BYTES on there
          is nothing to be won by waiting.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.on_left: Callable[[str, Form], None] | None = None
        self.on_opened: Callable[[str], None] | None = None
        self.on_emptied: Callable[[str], None] | None = None
        self._channels: dict[str, Channel] = {}
        self._policies: dict[str, Policy] = {}
        self._subscribers: dict[Outlet, dict[str, Subscriber]] = {}
        self._dirty: dict[Group, None] = {}
        self._ready: dict[Outlet, None] = {}
        self._work = Work()
        self.fullest_bytes = 0
        self._drops: Counter[str] = Counter()
        self._published = 0
        self._matched = 0

    # -- who listens --------------------------------------------------------------------------

    def configure(self, channel: str, policy: Policy) -> None:
        """Set the policy of channel, also for those that are subscribed. Any but the usual one is kept for ever."""
        if policy == DEFAULT_POLICY:
            self._policies.pop(channel, None)
        else:
            self._policies[channel] = policy
        if channel in self._channels:
            self._channels[channel].policy = policy

    def subscribe(self, channel: str, outlet: Outlet, form: Form, now_s: float) -> Subscriber:
        """Subscribe outlet to channel, from the next item on; a second time changes nothing."""
        state = self._channels.get(channel)
        if state is not None:
            if outlet in state.subscribers:
                return state.subscribers[outlet]
            # What was published before is not for the newcomer.
            self._seal(state.group(outlet.server, form), now_s)
        state = self._channels.get(channel)  # that may have closed the last of its subscribers
        if state is None:
            state = self._channels[channel] = Channel(channel, self._policies.get(channel, DEFAULT_POLICY))
            if self.on_opened is not None:
                self.on_opened(channel)
        group = state.group(outlet.server, form)
        subscriber = state.subscribers[outlet] = Subscriber(state, group, outlet, now_s)
        self._subscribers.setdefault(outlet, {})[state.name] = subscriber  # the same string for all
        is_behind = any(one is outlet for one, _ in self._work.posts)  # by what it was sent when it left before
        if outlet.units or outlet.window is None or is_behind:
            self._part(subscriber, now_s)
        else:
            group.join(subscriber)
        return subscriber

    def unsubscribe(self, subscriber: Subscriber, now_s: float) -> None:
        """End one subscription; what was published before still leaves with the next flush. Idempotent."""
        if not self._is_subscribed(subscriber):
            return
        self._seal(subscriber.group, now_s)
        if not self._is_subscribed(subscriber):
            return  # it was over its limit
        if subscriber.backlog:
            self._work.posts.append((subscriber.outlet, subscriber.take(subscriber.backlog_bytes)))
            self._wake()
        self._remove(subscriber)

    def release(self, outlet: Outlet, now_s: float) -> None:
        """Unsubscribe outlet from all its channels: from now on others write to it."""
        for subscriber in list(self._subscribers.get(outlet, {}).values()):
            self.unsubscribe(subscriber, now_s)

    def discard(self, outlet: Outlet) -> None:
        """End all subscriptions of a connection that is gone; what waited for it is counted as dropped."""
        for subscriber in list(self._subscribers.get(outlet, {}).values()):
            waiting = subscriber.clear() if subscriber.lags else len(subscriber.group.pending)
            if waiting:
                self._drops[GONE] += waiting
            self._remove(subscriber)

    def is_subscribed(self, channel: str, outlet: Outlet) -> bool:
        """Tell whether outlet is subscribed to channel."""
        return channel in self._subscribers.get(outlet, ())

    def has(self, channel: str) -> bool:
        """Tell whether channel has subscribers."""
        return channel in self._channels

    def names(self) -> list[str]:
        """Return the channels that have subscribers."""
        return list(self._channels)

    def stats(self, most: int | None = None) -> Stats:
        """Return the counters since the start, and the channels that have subscribers now.

        most: so many channels, those with the most subscribers; all of them if None.
        """
        channels = self._channels.values()
        named = nlargest(len(channels) if most is None else most, channels, key=lambda one: len(one.subscribers))
        return Stats(
            published=self._published,
            matched=self._matched,
            drops=dict(self._drops),
            channels={
                one.name: ChannelStats(
                    subscribers=len(one.subscribers),
                    lagging=one.lagging,
                    queued_bytes=one.queued_bytes(),
                    published=one.published,
                )
                for one in named
            },
            channels_total=len(channels),
            subscribers_total=sum(len(one.subscribers) for one in channels),
            lagging_total=sum(one.lagging for one in channels),
            queued_bytes_total=sum(one.queued_bytes() for one in channels if one.lagging),
        )

    def _is_subscribed(self, subscriber: Subscriber) -> bool:
        return self._subscribers.get(subscriber.outlet, {}).get(subscriber.channel.name) is subscriber

    def _remove(self, subscriber: Subscriber) -> None:
        outlet, channel, group = subscriber.outlet, subscriber.channel, subscriber.group
        channels = self._subscribers[outlet]
        del channels[channel.name]
        if subscriber.lags:
            self._count_lag(subscriber, -1)
        group.remove(subscriber)
        del channel.subscribers[outlet]
        if not group.members and not group.lagging:
            channel.groups.pop((group.server, group.form), None)
        if not channel.subscribers:
            del self._channels[channel.name]
            if self.on_emptied is not None:
                self.on_emptied(channel.name)
        if not channels:
            del self._subscribers[outlet]
        self._unwatch(outlet)
        if self.on_left is not None:
            self.on_left(channel.name, group.form)

    # -- publishing ---------------------------------------------------------------------------

    def publish(self, item: Item) -> Receipt:
        """Accept item for all subscribers of its channel; the next flush sends it.

        Raises ValueError for an item that has no rendering in some form; then nobody gets it.
        """
        self._published += 1
        channel = self._channels.get(item.channel)
        if channel is None:
            return NOBODY
        channel.published += 1
        encoded: dict[Form, bytes | None] = {}
        for _, form in channel.groups:
            if form not in encoded:
                encoded[form] = form.encode(item)
        matched = queued = dropped = 0
        for group in list(channel.groups.values()):
            data = encoded[group.form]
            if data is not None:
                matched += len(group.members) + len(group.lagging)
                kept, lost = self._answer(group, data) if group.form.is_final else self._append(group, data)
                queued += kept
                dropped += lost
        self._matched += matched
        if matched:
            self._wake()
        return Receipt(matched, queued, dropped)

    def is_congested(self, channel: str, now_s: float) -> bool:
        """Tell whether publishers to channel are too fast: most subscribers lag and still make progress.

        One that has made none for STALL_S is left out, so that nobody waits longer than that for
        clients that have stopped reading.
        """
        state = self._channels.get(channel)
        if state is None or not state.is_crowded():
            return False
        waiting = 0
        for group in state.groups.values():
            for subscriber in group.lagging.values():
                if not subscriber.stalled and now_s - subscriber.progress_s >= STALL_S:
                    subscriber.stalled = True
                    state.stalled += 1
                # Without flow control it is always served apart, also when nothing waits for it.
                waiting += not subscriber.stalled and bool(subscriber.backlog or subscriber.outlet.units)
        return 2 * waiting > len(state.subscribers) - state.stalled

    def drops(self, channel: str) -> bool:
        """Tell whether the policy of channel drops items, so that publishers need not wait."""
        return self._policies.get(channel, DEFAULT_POLICY).rule != "block"

    def laggard(self, channel: str) -> Outlet | None:
        """Return one connection that lags on channel, if any does."""
        state = self._channels.get(channel)
        groups = state.groups.values() if state is not None else ()
        return next((outlet for group in groups for outlet in group.lagging), None)

    def _append(self, group: Group, data: bytes) -> tuple[int, int]:
        """Let data wait for the flush and, for those that lag, for credits; tell how many have it queued and lost."""
        if group.members:
            group.pending.append(data)
            group.pending_bytes += len(data)
            self._dirty[group] = None
            self.fullest_bytes = max(self.fullest_bytes, group.pending_bytes)
        lagging = list(group.lagging.values())
        queued = sum([self._queue(subscriber, data) for subscriber in lagging])
        return queued, len(lagging) - queued

    def _answer(self, group: Group, data: bytes) -> tuple[int, int]:
        """Send a whole response to every subscriber of group and release it from all its channels."""
        outlets = [*group.members, *group.lagging]
        self._send(outlets, data, must=True)
        for outlet in outlets:
            for subscriber in list(self._subscribers[outlet].values()):
                self._remove(subscriber)
        self._work.answered += [(outlet, data) for outlet in outlets]
        return 0, 0

    def _queue(self, subscriber: Subscriber, data: bytes) -> bool:
        """Let data wait for credits, by the channel's policy; False if the subscriber is closed for it."""
        policy, backlog = subscriber.channel.policy, subscriber.backlog
        if backlog and policy.rule == LATEST:
            self._drops[LATEST] += subscriber.clear()
        elif backlog and subscriber.backlog_bytes + len(data) > policy.limit_bytes:
            if policy.rule == "block":
                self._close(subscriber)
                return False
            while backlog and subscriber.backlog_bytes + len(data) > policy.limit_bytes:
                subscriber.backlog_bytes -= len(backlog.popleft())
                self._drops[OLDEST] += 1
        backlog.append(data)
        subscriber.backlog_bytes += len(data)
        outlet = subscriber.outlet
        if not outlet.units and (outlet.window is None or not outlet.outstanding):
            self._ready[outlet] = None  # no credits are under way that would call on_room
        return True

    def _close(self, subscriber: Subscriber) -> None:
        reason = (
            f"channel={subscriber.channel.name} queued_bytes={subscriber.backlog_bytes}"
            f" limit_bytes={subscriber.channel.policy.limit_bytes}"
        )
        self._drops[OVER_LIMIT] += subscriber.clear() + 1
        self.discard(subscriber.outlet)
        self._work.closed.append((subscriber.outlet, reason))

    # -- what leaves --------------------------------------------------------------------------

    def flush(self, now_s: float) -> Work:
        """Return all that is to be sent now. The owner does it before it calls the hub again."""
        for group in list(self._dirty):
            self._seal(group, now_s)
        self.fullest_bytes = 0
        # Behind the groups: a subscriber that comes back to its group has what is pending there
        # in its backlog already.
        ready, self._ready = self._ready, {}
        for outlet in ready:
            self._drain(outlet, now_s)
        work, self._work = self._work, Work()
        return work

    def touch(self, outlets: Iterable[tuple[Outlet, bytes]]) -> None:
        """Send each outlet a few bytes, such as a comment, if it has the credits; else not at all."""
        same: dict[tuple[Server, bytes], list[Outlet]] = defaultdict(list)
        for outlet, data in outlets:
            same[outlet.server, data].append(outlet)
        for (_, data), members in same.items():
            self._send(members, data, must=False)

    def _send(self, outlets: list[Outlet], data: bytes, *, must: bool) -> None:
        """Send data to those that can take it, and post it to the others if it must arrive."""
        size = len(data)
        now: list[Outlet] = []
        for outlet in outlets:
            if outlet.window is not None and not outlet.units and outlet.outstanding + size <= outlet.window:
                outlet.outstanding += size
                now.append(outlet)
            elif must:
                self._work.posts.append((outlet, data))
        if now:
            server = now[0].server
            self._work.sends += [(server, target + data) for target in split_targets(server, now)]
        self._wake()

    def _seal(self, group: Group, now_s: float) -> None:
        """Turn what is pending for the members of group into messages, and part with who lacks credits."""
        self._dirty.pop(group, None)
        if not group.pending:
            return
        group.touched_s = now_s
        items, done = group.pending, 0
        for count, data in group.take_writes():
            size = len(data)
            short: list[Outlet] = []
            # The hot loop of a fan-out, once per subscriber and write: 0.07 us.
            for outlet in group.members:
                total = outlet.outstanding + size
                if total > outlet.window or outlet.units:  # type: ignore[operator]  # members have a window
                    short.append(outlet)
                else:
                    outlet.outstanding = total
            for outlet in short:
                self._fall_behind(group.members[outlet], items[done:], now_s)
            server, sends = group.server, self._work.sends
            for target in group.targets():
                sends.append((server, target + data))
            done += count

    def _fall_behind(self, subscriber: Subscriber, items: list[bytes], now_s: float) -> None:
        self._part(subscriber, now_s)
        for index, data in enumerate(items, 1):
            if not self._queue(subscriber, data):
                self._drops[OVER_LIMIT] += len(items) - index
                return

    def _part(self, subscriber: Subscriber, now_s: float) -> None:
        subscriber.group.part(subscriber)
        subscriber.progress_s = now_s
        subscriber.channel.lagging += 1
        outlet = subscriber.outlet
        outlet.on_room = lambda: self._room(outlet)

    def _count_lag(self, subscriber: Subscriber, step: int) -> None:
        subscriber.channel.lagging += step
        if subscriber.stalled:
            subscriber.stalled = False
            subscriber.channel.stalled -= 1

    def _unwatch(self, outlet: Outlet) -> None:
        if not any(subscriber.lags for subscriber in self._subscribers.get(outlet, {}).values()):
            outlet.on_room = None

    def _room(self, outlet: Outlet) -> None:
        self._ready[outlet] = None
        self._wake()

    def _drain(self, outlet: Outlet, now_s: float) -> None:
        """Post what waits for outlet as far as credits go; back to its group with who has caught up."""
        if outlet.units:
            return
        window = outlet.window
        room = MERGE_BYTES if window is None else window - outlet.outstanding
        enough = MERGE_BYTES if window is None else min(MERGE_BYTES, window)
        lagging = [one for one in self._subscribers.get(outlet, {}).values() if one.lags]
        for subscriber in lagging:
            # Not less than a good write at a time: credits come back in the sizes that were sent.
            while subscriber.backlog and room >= min(subscriber.backlog_bytes, enough):
                data = subscriber.take(MERGE_BYTES)
                self._work.posts.append((outlet, data))
                room -= len(data)
                subscriber.touched_s = now_s
                self._progress(subscriber, now_s)
        if room < 0 or window is None:
            return
        for subscriber in lagging:
            if not subscriber.backlog:
                self._count_lag(subscriber, -1)
                subscriber.group.join(subscriber)
        self._unwatch(outlet)

    def _progress(self, subscriber: Subscriber, now_s: float) -> None:
        subscriber.progress_s = now_s
        if subscriber.stalled:
            subscriber.stalled = False
            subscriber.channel.stalled -= 1
