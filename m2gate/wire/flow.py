"""Mongrel2's download flow control: what may be sent to one connection, and what waits.

With ``download.flow_control`` a connection may have CREDITS_INITIAL bytes outstanding; each
message's length comes back as credits once it was written to the client's socket. More than that
cuts the client at once. Without it there are no credits and at most 16 messages may queue.
"""

from collections import deque
from typing import Final

from m2gate.wire.mongrel2 import CREDITS_INITIAL

PIECE_BYTES: Final = 32_768  # credits come back per whole message: small pieces keep the window moving
# A unit is cut only where this much of it goes: each grant has the size of one earlier piece, so
# small pieces would beget small pieces for the rest of a long stream.
PIECE_MIN_BYTES: Final = 16_384
_NOTHING: Final[deque[bytes | memoryview]] = deque(maxlen=0)  # 760 bytes less for each connection where nothing waits


class Outflow:
    """The bytes on their way to one connection; accounting only, no I/O.

    ``window``      bytes that may be outstanding; None while it is not known whether this server
                    does flow control (no credits were ever seen from it).
    ``outstanding`` bytes sent whose credits have not come back.
    ``queued``      bytes waiting in ``units``, which go out in order, whole or in pieces; one unit
                    is never interleaved with another.
    """

    __slots__ = ("outstanding", "queued", "units", "window")

    def __init__(self, window: int | None) -> None:
        self.window = window
        self.outstanding = 0
        self.queued = 0
        self.units = _NOTHING

    def fits(self, size: int) -> bool:
        """Tell whether size bytes may go out now, ahead of nothing else."""
        return not self.units and self.window is not None and self.outstanding + size <= self.window

    def spend(self, size: int) -> None:
        """Account for size bytes that were sent."""
        self.outstanding += size

    def grant(self, amount: int) -> None:
        """Account for amount bytes of credits that came back; the first ones reveal the window."""
        self.outstanding = max(0, self.outstanding - amount)
        if self.window is None:
            self.window = CREDITS_INITIAL

    def push(self, data: bytes) -> None:
        """Queue one unit behind all others; without bytes it is none. The caller bounds ``queued``."""
        if data:
            if self.units is _NOTHING:
                self.units = deque()
            self.units.append(data)
            self.queued += len(data)

    def pop(self) -> bytes | memoryview:
        """Take the first unit off the queue; ``queued`` is the caller's to correct."""
        unit = self.units.popleft()
        if not self.units:
            self.units = _NOTHING
        return unit

    def take(self) -> bytes | memoryview:
        """Return the next piece that credits allow, at most PIECE_BYTES, already spent; b"" if none.

        A piece is a whole unit or a part of one, never more.
        """
        if self.window is None or not self.units:
            return b""
        room = min(PIECE_BYTES, self.window - self.outstanding)
        unit = self.units[0]
        piece: bytes | memoryview
        if len(unit) <= room:
            piece = self.pop()
        elif room < PIECE_MIN_BYTES and self.outstanding:
            return b""  # credits are on their way
        else:
            # A view, as cutting bytes would copy the rest of the unit for each piece of it.
            view = memoryview(unit)
            piece, self.units[0] = view[:room], view[room:]
        self.queued -= len(piece)
        self.outstanding += len(piece)
        return piece
