"""What ZeroMQ's own thread tells of a socket: that its peer is there, or is gone."""

from collections.abc import Callable
from typing import Final

import zmq
from gevent import get_hub
from zmq.utils.monitor import parse_monitor_message

from m2gate.link.wait import READ

LOST: Final = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
CONNECTED: Final = zmq.EVENT_HANDSHAKE_SUCCEEDED


class Monitor:
    """Calls on_event in the loop for each LOST and CONNECTED of a socket, until close().

    Closed before its socket is.
    """

    def __init__(self, socket: "zmq.Socket[bytes]", on_event: Callable[[int], None]) -> None:
        self._socket = socket
        self._on_event = on_event
        self._events = socket.get_monitor_socket(LOST | CONNECTED)
        self._watcher = get_hub().loop.io(self._events.fileno(), READ)
        self._watcher.start(self._look)
        self._look()

    def _look(self) -> None:
        while True:
            try:
                event = parse_monitor_message(self._events.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return
            self._on_event(int(event["event"]))

    def close(self) -> None:
        """Watch no more."""
        # Not disable_monitor(): it closes the reading end first, and when libzmq has an event to
        # write in that moment, its thread waits for a reader for ever, and we for its lock.
        self._socket.monitor(None, 0)
        self._watcher.stop()
        self._watcher.close()
        self._events.close(linger=0)
