"""Items that wait because most subscribers of their channel cannot take more, in one line for each channel."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import gevent

from m2gate.errors import LimitReached
from m2gate.hub.item import Item
from m2gate.hub.work import Receipt

QUEUED_MAX: Final = 10_000  # items
QUEUED_BYTES_MAX: Final = 64 << 20  # of their contents

Done = Callable[[Receipt | Exception], None]


@dataclass(frozen=True, slots=True)
class Offer:
    """An item that is to be accepted, and who wants to hear of it.

    payload: the item as dump_item made it, where it came so.
    done:    takes its receipt, or why it was refused; must not block.
    """

    item: Item
    payload: bytes | None
    done: Done

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        formats = self.item.formats
        parts = (self.item.content, formats.stream, formats.message, formats.response and formats.response.body)
        return sum(len(part) for part in parts if part)


class Lines:
    """The lines of all channels; each is served in its order by a greenlet of its own, which ends with it.

    wait_room: blocks the greenlet until a channel's next item may be accepted.
    accept:    accepts an offer now; must neither block nor raise.
    Bounds: QUEUED_MAX items and QUEUED_BYTES_MAX bytes, of all channels; push() refuses what comes then.
    """

    def __init__(self, wait_room: Callable[[str], None], accept: Callable[[Offer], None]) -> None:
        self._wait_room = wait_room
        self._accept = accept
        self._lines: dict[str, deque[Offer]] = {}
        self._queued = 0
        self._queued_bytes = 0

    def __contains__(self, channel: str) -> bool:
        return channel in self._lines

    def push(self, offer: Offer) -> None:
        """Let an offer wait behind those of its channel. Raises LimitReached at a bound."""
        size = offer.size
        if self._queued >= QUEUED_MAX:
            raise LimitReached(QUEUED_MAX, self._queued + 1, "items that wait for subscribers")
        if self._queued and self._queued_bytes + size > QUEUED_BYTES_MAX:
            raise LimitReached(QUEUED_BYTES_MAX, self._queued_bytes + size, "bytes of items that wait for subscribers")
        self._queued += 1
        self._queued_bytes += size
        channel = offer.item.channel
        line = self._lines.get(channel)
        if line is None:
            line = self._lines[channel] = deque()
            gevent.spawn(self._serve, channel, line)
        line.append(offer)

    def hasten(self, channel: str) -> None:
        """Accept at once what waits on channel: somebody who must not block comes behind it."""
        line = self._lines.get(channel)
        while line:
            self._shift(line)

    def _serve(self, channel: str, line: deque[Offer]) -> None:
        while line:
            self._wait_room(channel)
            if line:  # else it was hastened meanwhile
                self._shift(line)
        del self._lines[channel]

    def _shift(self, line: deque[Offer]) -> None:
        offer = line.popleft()
        self._queued -= 1
        self._queued_bytes -= offer.size
        self._accept(offer)
