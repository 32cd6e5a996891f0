"""Holds in time: which of them have expired, and which need a sign of life. The clock is the owner's."""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

from m2gate.hub.group import Subscriber
from m2gate.hub.outlet import Outlet

NEVER: Final = float("inf")


class Hold:
    """One held response or stream.

    expires_s:   when it ends by itself; NEVER for a stream.
    ping:        bytes that keep the line alive, wrapped for this connection; b"" for none.
    ping_s:      seconds without anything sent after which ping goes out.
    ``touched_s`` when something was sent that no subscriber knows of.
    ``ended``     for good; Holds.end says so.
    """

    __slots__ = ("ended", "expires_s", "outlet", "ping", "ping_s", "subscribers", "touched_s")

    def __init__(self, outlet: Outlet, *, expires_s: float = NEVER, ping: bytes = b"", ping_s: float = NEVER) -> None:
        self.outlet = outlet
        self.expires_s = expires_s
        self.ping = ping
        self.ping_s = ping_s if ping else NEVER
        self.subscribers: list[Subscriber] = []
        self.touched_s = 0.0
        self.ended = False

    def quiet_since_s(self) -> float:
        """Tell when bytes last left for this hold."""
        return max([self.touched_s, *(subscriber.last_sent_s() for subscriber in self.subscribers)])

    def due_s(self) -> float:
        """Tell when it wants to be looked at next."""
        return min(self.expires_s, self.quiet_since_s() + self.ping_s)


H = TypeVar("H", bound=Hold)


class Holds(Generic[H]):
    """All holds of one process, by when they are due: a look at one costs O(log n), the rest nothing."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, H]] = []
        self._count = 0
        self._ended = 0

    def __len__(self) -> int:
        return len(self._heap) - self._ended

    def __iter__(self) -> Iterator[H]:
        return iter([hold for _, _, hold in self._heap if not hold.ended])

    def add(self, hold: H, now_s: float) -> None:
        """Watch hold from now on, until it has ended."""
        hold.touched_s = now_s
        self._push(hold)

    def end(self, hold: H) -> None:
        """Watch hold no more. Idempotent."""
        if hold.ended:
            return
        hold.ended = True
        self._ended += 1
        if 2 * self._ended > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].ended]
            heapify(self._heap)
            self._ended = 0

    def tick(self, now_s: float) -> tuple[list[H], list[H]]:
        """Return the holds that have expired, which are forgotten, and those to be pinged now.

        Call it about once a second; nothing is due earlier than it says, and no later than one
        interval after.
        """
        expired: list[H] = []
        idle: list[H] = []
        heap = self._heap
        while heap and heap[0][0] <= now_s:
            hold = heappop(heap)[2]
            if hold.ended:
                self._ended -= 1
                continue
            if hold.expires_s <= now_s:
                hold.ended = True
                expired.append(hold)
                continue
            if hold.due_s() <= now_s:
                hold.touched_s = now_s
                idle.append(hold)
            self._push(hold)
        return expired, idle

    def _push(self, hold: H) -> None:
        self._count += 1  # holds that are due at once leave in the order in which they came
        heappush(self._heap, (hold.due_s(), self._count, hold))
