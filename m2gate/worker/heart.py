"""The heart of a worker: a thread that shows the gateway that this process is not stopped."""

from typing import Final

from gevent.monkey import get_original

from m2gate.link.marks import MarkTable

BEAT_S: Final = 1.0


class Heart:
    """Beats every BEAT_S in a mark table, from a native thread, until stop().

    Not a greenlet: it must beat while a handler computes, and while the loop waits for something.
    It does not where a library computes for seconds without letting go of Python's lock.
    """

    def __init__(self, table: MarkTable) -> None:
        self._table = table
        # The real ones, as the standard library may be patched.
        allocate_lock = get_original("_thread", "allocate_lock")
        start_new_thread = get_original("_thread", "start_new_thread")
        self._stop = allocate_lock()
        self._ended = allocate_lock()
        self._stop.acquire()
        self._ended.acquire()
        start_new_thread(self._run, ())

    def _run(self) -> None:
        while not self._stop.acquire(timeout=BEAT_S):
            self._table.beat()
        self._ended.release()

    def stop(self) -> None:
        """Beat no more; the table may be closed then. Blocks the thread for a moment."""
        self._stop.release()
        self._ended.acquire()
