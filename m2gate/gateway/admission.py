"""The requests for which no owner has room now, in the order in which they came."""

from collections import deque
from typing import Final

from m2gate.gateway.sessions import Session

WAITING_MAX: Final = 10_000  # requests
WAITING_BYTES_MAX: Final = 64 << 20  # of their frames


class Admission:
    """A bounded queue of sessions whose next request waits for an owner.

    Bound: waiting_max requests and WAITING_BYTES_MAX bytes of them; push() refuses what comes then.
    """

    def __init__(self, waiting_max: int = WAITING_MAX) -> None:
        self.waiting_max = waiting_max
        self.bytes = 0
        self._queue: deque[tuple[Session, int, float]] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def push(self, session: Session, size: int, now_s: float) -> bool:
        """Let a session wait whose next request has size bytes; False at the bound."""
        if len(self._queue) >= self.waiting_max or self.bytes + size > WAITING_BYTES_MAX:
            return False
        session.is_queued = True
        self.bytes += size
        self._queue.append((session, size, now_s))
        return True

    def first(self) -> tuple[Session, float] | None:
        """Return the session that waits longest, and since when; one that is gone is passed over."""
        while self._queue:
            session, _, since_s = self._queue[0]
            if not session.gone and session.waiting:
                return session, since_s
            self.pop()
        return None

    def pop(self) -> None:
        """Take out the session that waits longest."""
        session, size, _ = self._queue.popleft()
        session.is_queued = False
        self.bytes -= size
