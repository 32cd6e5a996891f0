"""The subscribers of one channel, in groups that receive identical bytes."""

from collections import deque
from collections.abc import Iterable
from typing import Final

from m2gate.hub.form import Form
from m2gate.hub.outlet import Outlet, Server
from m2gate.hub.policy import Policy
from m2gate.wire.mongrel2 import build_targets, split_ids

_NOTHING: Final[deque[bytes]] = deque(maxlen=0)  # 700 bytes less for each subscriber that keeps up
MERGE_BYTES: Final = 16_384  # what waits for one group leaves in writes of at most this size


class Subscriber:
    """One connection on one channel.

    ``backlog``    items, encoded, that wait for credits; ``backlog_bytes`` is their size. Only
                   while it lags: a subscriber that keeps up is served with its group.
    ``progress_s`` when something of the backlog last left, or when it began.
    ``stalled``    no progress for so long that publishers no longer wait for it.
    """

    __slots__ = ("backlog", "backlog_bytes", "channel", "group", "outlet", "progress_s", "stalled", "touched_s")

    def __init__(self, channel: "Channel", group: "Group", outlet: Outlet, now_s: float) -> None:
        self.channel = channel
        self.group = group
        self.outlet = outlet
        self.backlog = _NOTHING
        self.backlog_bytes = 0
        self.progress_s = now_s
        self.touched_s = now_s
        self.stalled = False

    @property
    def lags(self) -> bool:
        """True while it is served apart from its group."""
        return self.outlet in self.group.lagging

    def last_sent_s(self) -> float:
        """Tell when bytes last left for this subscriber on this channel."""
        return self.touched_s if self.lags else max(self.touched_s, self.group.touched_s)

    def take(self, most: int) -> bytes:
        """Take items off the backlog: as many as fit into most bytes, one at least."""
        backlog = self.backlog
        items = [backlog.popleft()]
        size = len(items[0])
        while backlog and size + len(backlog[0]) <= most:
            size += len(backlog[0])
            items.append(backlog.popleft())
        self.backlog_bytes -= size
        return b"".join(items)

    def clear(self) -> int:
        """Forget the backlog; return how many items that were."""
        count = len(self.backlog)
        self.backlog.clear()
        self.backlog_bytes = 0
        return count


class Group:
    """Subscribers of one channel at one server that get identical bytes.

    ``members``   keep up: one message names up to 128 of them. ``lagging`` do not.
    ``pending``   items, encoded, that were published to the members since the last flush.
    ``touched_s`` when bytes last left for the members.
    """

    __slots__ = ("_targets", "form", "lagging", "members", "pending", "pending_bytes", "server", "touched_s")

    def __init__(self, server: Server, form: Form) -> None:
        self.server = server
        self.form = form
        self.members: dict[Outlet, Subscriber] = {}
        self.lagging: dict[Outlet, Subscriber] = {}
        self.pending: list[bytes] = []
        self.pending_bytes = 0
        self.touched_s = 0.0
        self._targets: list[bytes] | None = None

    def join(self, subscriber: Subscriber) -> None:
        """Serve subscriber with the group from the next item on."""
        self.lagging.pop(subscriber.outlet, None)
        subscriber.backlog = _NOTHING
        self.members[subscriber.outlet] = subscriber
        self._targets = None

    def part(self, subscriber: Subscriber) -> None:
        """Serve subscriber apart from the group."""
        self.members.pop(subscriber.outlet, None)
        subscriber.backlog = deque()
        self.lagging[subscriber.outlet] = subscriber
        self._targets = None

    def remove(self, subscriber: Subscriber) -> None:
        """Serve subscriber no more."""
        if self.members.pop(subscriber.outlet, None) is None:
            self.lagging.pop(subscriber.outlet, None)
        else:
            self._targets = None

    def targets(self) -> list[bytes]:
        """Return the beginnings of messages that together name every member; kept until that changes."""
        if self._targets is None:
            self._targets = split_targets(self.server, self.members)
        return self._targets

    def take_writes(self) -> list[tuple[int, bytes]]:
        """Take what is pending: writes of up to MERGE_BYTES, or of one item, and how many items each holds."""
        pending, self.pending = self.pending, []
        total, self.pending_bytes = self.pending_bytes, 0
        if len(pending) == 1 or total <= MERGE_BYTES:
            return [(len(pending), b"".join(pending))]
        writes: list[tuple[int, bytes]] = []
        start = size = 0
        for index, data in enumerate(pending):
            if size and size + len(data) > MERGE_BYTES:
                writes.append((index - start, b"".join(pending[start:index])))
                start, size = index, 0
            size += len(data)
        writes.append((len(pending) - start, b"".join(pending[start:])))
        return writes


class Channel:
    """One channel that has subscribers: ``subscribers`` by outlet, ``groups`` by server and form.

    ``lagging`` counts the subscribers that lag, ``stalled`` those among them that are given up;
    ``published`` the items since the first subscriber came.
    """

    __slots__ = ("groups", "lagging", "name", "policy", "published", "stalled", "subscribers")

    def __init__(self, name: str, policy: Policy) -> None:
        self.name = name
        self.policy = policy
        self.groups: dict[tuple[Server, Form], Group] = {}
        self.subscribers: dict[Outlet, Subscriber] = {}
        self.lagging = 0
        self.stalled = 0
        self.published = 0

    def group(self, server: Server, form: Form) -> Group:
        """Return the group of this server and form, made if it is the first to ask."""
        group = self.groups.get((server, form))
        if group is None:
            group = self.groups[server, form] = Group(server, form)
        return group

    def queued_bytes(self) -> int:
        """Return the bytes that wait for credits of subscribers that lag."""
        return sum(one.backlog_bytes for group in self.groups.values() for one in group.lagging.values())

    def is_crowded(self) -> bool:
        """Tell whether more than half of the subscribers that are not stalled lag."""
        return 2 * (self.lagging - self.stalled) > len(self.subscribers) - self.stalled


def split_targets(server: Server, outlets: Iterable[Outlet]) -> list[bytes]:
    """Return the beginnings of messages that together name every outlet, 128 each."""
    ids = [outlet.conn_id for outlet in outlets]
    ident = server.send_ident
    return [build_targets(ident, some) for some in split_ids(ids)]
