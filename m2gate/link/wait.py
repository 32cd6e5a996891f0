"""How greenlets wait for messages from Mongrel2."""

from typing import TYPE_CHECKING, Final

import zmq
from gevent import get_hub
from gevent.hub import Waiter

if TYPE_CHECKING:
    from m2gate.link.server import Server

READ: Final = 1  # what an io watcher of the loop waits for
# Plain numbers: pyzmq's enumerations are converted at each call.
_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)


def has_message(socket: "zmq.Socket[bytes]") -> bool:
    """Tell whether something can be received at once; the event of the socket's FD is used up by that.

    1 us; an attempt to receive that finds nothing takes 4, most of it for building pyzmq's exception.
    """
    return bool(int(super(zmq.Socket, socket).get(_EVENTS)) & _POLLIN)


class Turnstile:
    """Greenlets wait until somebody turns it; each turn wakes all that wait now.

    The server counts the waiting, because a worker whose whole pool waits for messages must go on
    receiving (docs/explanation/worker.md).
    """

    __slots__ = ("_server", "_waiters")

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._waiters: list[Waiter[bool]] = []

    @property
    def is_used(self) -> bool:
        """True while somebody waits."""
        return bool(self._waiters)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Blocks the greenlet until the next turn; False if timeout_s seconds passed first."""
        hub = get_hub()
        waiter: Waiter[bool] = Waiter(hub)
        timer = None
        if timeout_s is not None:
            timer = hub.loop.timer(max(timeout_s, 0))
            timer.start(waiter.switch, False)
        self._waiters.append(waiter)
        self._server.begin_wait()
        try:
            return bool(waiter.get())
        finally:
            self._server.end_wait()
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            if timer is not None:
                timer.stop()
                timer.close()

    def turn(self) -> None:
        """Wake all that wait now, from the loop; callable from any greenlet and from callbacks."""
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            run_callback = get_hub().loop.run_callback
            for waiter in waiters:
                run_callback(waiter.switch, True)
