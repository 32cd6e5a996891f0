"""Clients that have left without Mongrel2 saying so, and those that never read on."""

import logging
from typing import Final

from gevent import get_hub

from m2gate.link.connection import Connection
from m2gate.link.server import Server

logger = logging.getLogger(__name__)

PROBE_S: Final = 0.5  # a producer is to end within a second of its client's leaving
# Credits come back for whole messages. Whoever takes less than one of 32,768 bytes within this is
# below the 300 bytes/s at which Mongrel2 itself, but for our keep-alives, would end a connection.
READ_TIMEOUT_S: Final = 120.0


class Prober:
    """Asks a server, every PROBE_S, for connections that are in use and take nothing.

    While Mongrel2 waits for a client to take more it often misses that this client resets its
    connection (half of 20 that did so at once); but it answers a keep-alive for one that is gone.
    One that is there, but has taken nothing for READ_TIMEOUT_S of what waits for it, is cut: else
    as many clients as there are handlers could keep all of them for ever.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._unpaid: dict[int, tuple[tuple[int, ...], float]] = {}  # the state, and since when
        self._timer = get_hub().loop.timer(PROBE_S, PROBE_S)

    def start(self) -> None:
        """Ask from now on."""
        self._timer.start(self.probe)

    def stop(self) -> None:
        """Ask no more."""
        self._timer.stop()
        self._timer.close()

    def probe(self) -> None:
        """Ask for the connections that have taken nothing since the last call, though they could."""
        before, self._unpaid = self._unpaid, {}
        now_s = self._server.now_s
        silent: list[int] = []
        stalled: list[Connection] = []
        for conn_id, connection in self._server.connections.items():
            # An idle connection is not asked for: a keep-alive would keep it.
            if (
                not connection.outstanding
                or connection.window is None
                or (connection.current is None and not connection.units)
            ):
                continue
            written = connection.current.written if connection.current is not None else 0
            state = (connection.outstanding, connection.queued, connection.taken, written)
            old_state, since_s = before.get(conn_id, ((), now_s))
            if old_state != state:
                self._unpaid[conn_id] = state, now_s
            elif now_s - since_s >= READ_TIMEOUT_S and connection.is_awaited:
                stalled.append(connection)
            else:
                self._unpaid[conn_id] = state, since_s
                silent.append(conn_id)
        for connection in stalled:
            logger.info(
                "client cut that takes nothing send_ident=%s conn_id=%d",
                self._server.send_ident.decode(),
                connection.conn_id,
            )
            connection.abort()
        self._server.send_control(silent, keep_alive=True)
