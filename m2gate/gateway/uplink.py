"""The gateway's link to one Mongrel2, renewed for as long as the gateway lives."""

import logging
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import Final

import gevent
import zmq
from gevent import get_hub

from m2gate.gateway.dispatch import Dispatcher
from m2gate.gateway.linked import LinkedServer
from m2gate.link.clock import Clock
from m2gate.link.exchange import Exchange
from m2gate.link.probe import Prober
from m2gate.link.server import LinkSettings, Server
from m2gate.link.sockets import RETRY_S, DirectServer, Sockets
from m2gate.link.wait import READ

logger = logging.getLogger(__name__)

TURN_FRAMES: Final = 128  # received before other sockets and timers get their turn
FRAME_SHIFT: Final = 13  # each 8 KiB of a frame counts as one more
_numbers = count(1).__next__


class Uplink:
    """Keeps one LinkedServer in the dispatcher while its Mongrel2 is there, and a new one after that.

    changed: called when a server has come or gone.
    flush:   sends what was forwarded; called after each turn of receiving.
    ``server`` is None while there is no Mongrel2; ``is_checked`` once it was looked for what a
    former gateway has left. Messages are read from read() on: what comes
    before waits in ZeroMQ and in Mongrel2.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        address: DirectServer,
        dispatcher: Dispatcher,
        *,
        settings: LinkSettings,
        clock: Clock,
        changed: Callable[[], None],
        flush: Callable[[], None],
    ) -> None:
        self.address = address
        self.server: LinkedServer | None = None
        self.epoch = 0
        self.is_checked = False
        self._context = context
        self._dispatcher = dispatcher
        self._settings = settings
        self._clock = clock
        self._changed = changed
        self._flush = flush
        self._past = (0, 0, 0)  # requests, frames and rejected ones of lives before this one
        self._is_stopping = False
        self.is_reading = False
        self._sockets: Sockets | None = None
        self._watcher: object = None
        self._greenlet: gevent.Greenlet[[], None] | None = None

    def start(self) -> None:
        """Connect, and connect again whenever Mongrel2 comes back."""
        self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        while not self._is_stopping:
            sockets = Sockets(self._context, self.address)
            if sockets.open():
                self._serve(sockets)
            else:
                sockets.close()
                if not self._is_stopping:
                    gevent.sleep(RETRY_S)

    def _serve(self, sockets: Sockets) -> None:
        # The sugar of pyzmq's send costs half a microsecond a message and offers nothing here.
        send = super(zmq.Socket, sockets.replies).send
        link = Server(self.address.send_ident.encode(), send, _run_nothing, self._settings, self._clock)
        server = LinkedServer(_numbers() & 0xFFFF, self.address, send, link)
        self.server, self._sockets = server, sockets
        self.epoch += 1
        self._dispatcher.add(server)
        prober = Prober(link)
        prober.start()
        logger.info("server linked send_ident=%s number=%d", self.address.send_ident, server.number)
        self._changed()
        sockets.wait_lost()
        self._stop_reading()
        prober.stop()
        self._dispatcher.now_s = monotonic()
        self._dispatcher.lose(server)
        sockets.close(deliver=self._is_stopping)
        self._past = (self.requests, self.frames_in, self.rejected)
        self.server = self._sockets = None
        if not self._is_stopping:
            logger.warning("server lost send_ident=%s", self.address.send_ident)
            self._changed()

    @property
    def requests(self) -> int:
        """Requests that came over this link, in all lives of its server."""
        return self._past[0] + (self.server.requests if self.server else 0)

    @property
    def frames_in(self) -> int:
        """Messages of any kind, likewise."""
        return self._past[1] + (self.server.frames_in if self.server else 0)

    @property
    def rejected(self) -> int:
        """Messages that broke a rule of the protocol, likewise."""
        return self._past[2] + (self.server.rejected if self.server else 0)

    def read(self) -> None:
        """Receive from now on. Idempotent."""
        sockets, server = self._sockets, self.server
        if sockets is None or server is None or self.is_reading:
            return
        self.is_reading = True
        flush = self._flush
        receive, take, dispatcher = sockets.requests.recv, self._dispatcher.take, self._dispatcher
        noblock, again, run_callback = zmq.NOBLOCK, zmq.Again, get_hub().loop.run_callback

        def drain() -> None:
            # Every message passes through here.
            if not self.is_reading or self.server is not server:
                return
            dispatcher.now_s = monotonic()
            budget = TURN_FRAMES
            try:
                while budget > 0:
                    frame = receive(noblock)
                    budget -= 1 + (len(frame) >> FRAME_SHIFT)
                    take(server, frame)
                run_callback(drain)
            except again:
                pass  # nothing is left; the watcher tells of more
            except Exception:
                logger.exception("message not understood send_ident=%s", self.address.send_ident)
                run_callback(drain)
            flush()

        self._watcher = watcher = get_hub().loop.io(sockets.requests.fileno(), READ)
        watcher.start(drain)
        run_callback(drain)

    def _stop_reading(self) -> None:
        self.is_reading = False
        if self._watcher is not None:
            self._watcher.stop()  # type: ignore[attr-defined]
            self._watcher.close()  # type: ignore[attr-defined]
            self._watcher = None

    def stop(self) -> None:
        """Close the sockets once what was sent is delivered. Blocks the greenlet."""
        self._is_stopping = True
        if self._sockets is not None:
            self._sockets.give_up()
        if self._greenlet is not None:
            self._greenlet.join()


def _run_nothing(_exchange: Exchange) -> None:
    """Take the place of a pool: the gateway runs no handlers."""
