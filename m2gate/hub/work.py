"""What the hub answers: what became of an item, what is to be sent, and its counters."""

from dataclasses import dataclass, field
from typing import Final

from m2gate.hub.outlet import Outlet, Server


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one item at its publish.

    matched: subscribers whose kind the item has a format for.
    queued:  of these, how many have it waiting for credits.
    dropped: of these, how many lost it: they were over the channel's limit and are closed.
    filtered: of these, for how many a filter left it out.
    """

    matched: int
    queued: int
    dropped: int
    filtered: int = 0

    @property
    def written(self) -> int:
        """Of those matched, how many it was sent to at once."""
        return self.matched - self.queued - self.dropped - self.filtered


NOBODY: Final = Receipt(0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStats:
    """One channel now: its subscribers, those of them that lag, and what waits for these.

    published: items since the first subscriber came.
    """

    subscribers: int
    lagging: int
    queued_bytes: int
    published: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Items published, how many subscribers they matched, and deliveries dropped by reason.

    channels: those with the most subscribers first, as many as were asked for; the totals are of all.
    """

    published: int
    matched: int
    drops: dict[str, int]
    channels: dict[str, ChannelStats]
    channels_total: int
    subscribers_total: int
    lagging_total: int
    queued_bytes_total: int


@dataclass(slots=True)
class Work:
    """What the owner of the hub has to do, in this order.

    sends:    whole messages, each for one server; their credits are already spent.
    posts:    bytes to put at the end of one connection's queue.
    answered: connections whose request has its whole response, these bytes, with what is sent;
              nothing is subscribed any more.
    closed:   connections to be cut, and why; nothing is subscribed any more.
    """

    sends: list[tuple[Server, bytes]] = field(default_factory=list)
    posts: list[tuple[Outlet, bytes]] = field(default_factory=list)
    answered: list[tuple[Outlet, bytes]] = field(default_factory=list)
    closed: list[tuple[Outlet, str]] = field(default_factory=list)
