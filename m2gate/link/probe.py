"""Clients that have left without Mongrel2 saying so."""

from typing import Final

from gevent import get_hub

from m2gate.link.server import Server

PROBE_S: Final = 0.5  # a producer is to end within a second of its client's leaving


class Prober:
    """Asks a server, every PROBE_S, for connections that are in use and take nothing.

    While Mongrel2 waits for a client to take more it often misses that this client resets its
    connection (half of 20 that did so at once); but it answers a keep-alive for one that is gone.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._unpaid: dict[int, tuple[int, int, int]] = {}
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
        silent: list[int] = []
        for conn_id, connection in self._server.connections.items():
            # An idle connection is not asked for: a keep-alive would keep it.
            if (
                not connection.outstanding
                or connection.window is None
                or (connection.current is None and not connection.units)
            ):
                continue
            self._unpaid[conn_id] = unpaid = (connection.outstanding, connection.queued, connection.taken)
            if before.get(conn_id) == unpaid:
                silent.append(conn_id)
        self._server.send_control(silent, keep_alive=True)
