"""Items on their way to the hub: in order within a channel, and no channel waits for another one."""

from collections import deque
from collections.abc import Callable
from typing import Final

import gevent
from gevent.event import Event

from m2gate.errors import LimitReached
from m2gate.hub.item import Item
from m2gate.hub.work import Receipt

WAITING_MAX: Final = 1_000  # items
WAITING_BYTES_MAX: Final = 16 << 20  # as they came

Lane = deque[tuple[Item, int]]


class Lanes:
    """Publishes what one socket brings; what is for a channel that cannot take more waits apart from the rest.

    publish:    accepts one item; may block the greenlet where is_crowded says so.
    is_crowded: tells whether most subscribers of a channel cannot take more.
    refused:    called for an item that could not be accepted.
    Bounds: WAITING_MAX items or WAITING_BYTES_MAX bytes wait; then put() blocks, and so all channels wait.
    """

    def __init__(
        self,
        publish: Callable[[Item], Receipt],
        is_crowded: Callable[[str], bool],
        refused: Callable[[Exception], None],
    ) -> None:
        self._publish = publish
        self._is_crowded = is_crowded
        self._refused = refused
        self._lanes: dict[str, Lane] = {}
        self._greenlets: dict[str, gevent.Greenlet[..., None]] = {}
        self._waiting = 0
        self._waiting_bytes = 0
        self._room = Event()

    def put(self, item: Item, size: int) -> None:
        """Publish item, which came as so many bytes, at once or behind those of its channel that wait."""
        channel = item.channel
        lane = self._lanes.get(channel)
        if lane is None:
            if not self._is_crowded(channel):
                self._accept(item)
                return
            lane = self._lanes[channel] = deque()
            self._greenlets[channel] = gevent.spawn(self._run, channel, lane)
        lane.append((item, size))
        self._waiting += 1
        self._waiting_bytes += size
        while self._waiting >= WAITING_MAX or self._waiting_bytes >= WAITING_BYTES_MAX:
            self._room.clear()
            self._room.wait()

    def _run(self, channel: str, lane: Lane) -> None:
        try:
            while lane:
                item, size = lane[0]  # it counts as waiting while it is
                self._accept(item)
                lane.popleft()
                self._forget(1, size)
        finally:
            # Only a bug of ours or a stop leaves something in it; the channel goes on with what comes next.
            self._forget(len(lane), sum(size for _, size in lane))
            del self._lanes[channel], self._greenlets[channel]

    def _forget(self, count: int, size: int) -> None:
        self._waiting -= count
        self._waiting_bytes -= size
        self._room.set()

    def _accept(self, item: Item) -> None:
        try:
            self._publish(item)
        except (ValueError, LimitReached) as error:
            self._refused(error)

    def finish(self, timeout_s: float) -> None:
        """Let what waits be published for so long, then forget it. Blocks the greenlet. No put() may come after it."""
        greenlets = list(self._greenlets.values())
        gevent.joinall(greenlets, timeout=timeout_s)
        gevent.killall(greenlets)
