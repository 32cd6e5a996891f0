"""A worker's own connection to one Mongrel2, renewed for as long as the worker lives."""

import logging
from typing import Final, NamedTuple

import gevent
import zmq
from gevent import get_hub
from gevent.event import Event

from m2gate.link.clock import Clock
from m2gate.link.orphans import close_orphans
from m2gate.link.outbox import Outbox
from m2gate.link.probe import Prober
from m2gate.link.server import LinkSettings, Server
from m2gate.link.sockets import RETRY_S, DirectServer, Sockets
from m2gate.link.tally import Tally
from m2gate.worker.pool import Pool, Source

BEHIND: Final = 1_000  # requests under way; more of them may wait unread

logger = logging.getLogger(__name__)


class LinkTotals(NamedTuple):
    """Requests taken in, whole answers that the tally does not know of, and messages that broke a rule."""

    requests: int
    answers: int
    rejected: int


class DirectLink:
    """Keeps one Server attached to the pool while its Mongrel2 is there, and a new one after that."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        address: DirectServer,
        pool: Pool,
        settings: LinkSettings,
        clock: Clock,
        *,
        tally: Tally | None = None,
    ) -> None:
        self._context = context
        self._address = address
        self._pool = pool
        self._settings = settings
        self._clock = clock
        self._tally = tally or Tally()
        self._outbox: Outbox | None = None
        self._totals = LinkTotals(0, 0, 0)  # of lives that are over
        self.epoch = 0  # lives of this Mongrel2 that were seen
        self.orphans_closed = 0
        self._is_stopping = False
        self._sockets: Sockets | None = None
        self._greenlet: gevent.Greenlet[[], None] | None = None
        self.server: Server | None = None
        self.ready = Event()

    def start(self) -> None:
        """Connect, and connect again whenever Mongrel2 comes back."""
        self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        while not self._is_stopping:
            sockets = Sockets(self._context, self._address)
            if sockets.open():
                self._serve(sockets)
            else:
                sockets.close()
                if not self._is_stopping:
                    gevent.sleep(RETRY_S)

    def _serve(self, sockets: Sockets) -> None:
        # The sugar of pyzmq's send costs half a microsecond a message and offers nothing here.
        outbox = Outbox(super(zmq.Socket, sockets.replies).send, get_hub().loop.run_callback)
        server = Server(
            self._address.send_ident.encode(),
            outbox.send,
            self._pool.run,
            self._settings,
            self._clock,
            upload_store=self._address.upload_store,
            send_soon=outbox.send_soon,
            tally=self._tally,
        )
        source = Source.of(sockets.requests, server, outbox)
        self.server, self._outbox = server, outbox
        self.epoch += 1
        self._pool.attach(source)
        self.ready.set()
        logger.info("server connected send_ident=%s", self._address.send_ident)
        self._sockets = sockets
        prober = Prober(server)
        prober.start()
        if self._address.control_spec is not None:
            gevent.spawn(self._close_orphans, server, self._address.control_spec)
        sockets.wait_lost()  # what is read until the next line is the dead server's: it has no id in use
        prober.stop()
        self._pool.detach(source)
        server.close()
        outbox.release()
        sockets.close(deliver=self._is_stopping)
        self._totals = self.totals()
        self.server = self._outbox = None
        if not self._is_stopping:
            logger.warning("server lost send_ident=%s", self._address.send_ident)

    @property
    def send_ident(self) -> str:
        """The name of the server."""
        return self._address.send_ident

    def totals(self) -> "LinkTotals":
        """Return the counts of all lives of this Mongrel2 so far."""
        before, server, outbox = self._totals, self.server, self._outbox
        if server is None or outbox is None:
            return before
        return LinkTotals(
            before.requests + server.requests, before.answers + outbox.answers, before.rejected + server.rejected
        )

    def _close_orphans(self, server: Server, control_spec: str) -> None:
        self.orphans_closed += close_orphans(server, control_spec, self._is_behind)

    def _is_behind(self) -> bool:
        return self._pool.busy >= BEHIND

    def stop(self) -> None:
        """Close the sockets once what was sent is delivered. Blocks the greenlet."""
        self._is_stopping = True
        if self._sockets is not None:
            self._sockets.give_up()
        if self._greenlet is not None:
            self._greenlet.join()

    def tick(self) -> None:
        """Do what is due, once a second."""
        if self.server is not None:
            self.server.tick()
