"""How an attached worker goes: nothing new comes, what is open ends, the gateway says when that is all."""

import logging
import time
from collections.abc import Callable
from typing import Final

from gevent.event import Event

from m2gate.app.application import App
from m2gate.worker.attached import AttachLink
from m2gate.worker.pool import Pool

logger = logging.getLogger(__name__)

POLL_S: Final = 0.02
CLOSE_S: Final = 2.0  # for close frames and last chunks to be taken, and for the gateway's last word


class Departure:
    """Ends one attached worker within drain_timeout_s and a few seconds.

    stop_now: set when nobody wants to wait any longer.
    """

    def __init__(self, link: AttachLink, app: App, pool: Pool, drain_timeout_s: float, stop_now: Event) -> None:
        self._link = link
        self._app = app
        self._pool = pool
        self._timeout_s = drain_timeout_s
        self._stop_now = stop_now

    def hand_over(self, is_to_stop: Callable[[], bool]) -> None:
        """Let what is open go on until it has ended or the timeout is over, then stop. Blocks the greenlet.

        is_to_stop: tells that the stop is wanted earlier.
        """
        logger.info("leaving open=%d", self._link.open_count)
        self._link.say_bye()
        if self._wait(self._timeout_s, is_to_stop):
            return
        self._end_endless()
        self._wait(CLOSE_S)
        self._close()

    def stop(self) -> None:
        """End what would never end by itself, wait for the rest, and close that at the timeout. Blocks the greenlet."""
        logger.info("draining busy=%d", self._pool.busy)
        self._link.say_bye()
        self._end_endless()
        if self._wait(self._timeout_s):
            return
        if not self._stop_now.is_set():
            logger.warning("drain timeout busy=%d", self._pool.busy)
        self._close()

    def _end_endless(self) -> None:
        self._app.begin_drain()
        for server in self._link.servers:
            server.begin_drain()

    def _close(self) -> None:
        for server in self._link.servers:
            server.end_sessions(and_idle=False)
        if not self._wait(CLOSE_S):
            for server in self._link.servers:
                server.cut_sessions()

    def _wait(self, timeout_s: float, is_enough: Callable[[], bool] = lambda: False) -> bool:
        """Wait until nothing is open and the gateway, if it is there, has had its last word; False at the timeout."""
        deadline_s = time.monotonic() + timeout_s
        while self._pool.busy or self._link.open_count or (self._link.is_attached and not self._link.ended):
            if self._stop_now.is_set() or is_enough() or time.monotonic() >= deadline_s:
                return False
            self._stop_now.wait(POLL_S)
        return True
