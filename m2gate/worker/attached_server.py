"""One Mongrel2 that an attached worker answers: its requests come from the gateway, answers go straight."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import gevent
import zmq
from gevent import get_hub
from gevent.event import Event

from m2gate.link.clock import Clock
from m2gate.link.connection import Connection
from m2gate.link.exchange import Exchange
from m2gate.link.journal import Journal
from m2gate.link.outbox import Outbox
from m2gate.link.probe import Prober
from m2gate.link.server import LinkSettings, Server
from m2gate.link.sockets import RETRY_S, Replies
from m2gate.link.tally import CUT, Tally
from m2gate.link.upload import Upload
from m2gate.link.websocket import SERVICE_RESTART, WebSocketExchange
from m2gate.wire.attach import Claim, ServerNote

logger = logging.getLogger(__name__)

RESYNC_S: Final = 2.0  # credits that do not come back within it went down with the former gateway
READ_S: Final = 1.5  # what Mongrel2 had read before arrives well within this
SILENT_S: Final = 4.0  # for the next piece of a body, once it was asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all servers of a worker have in common.

    run:       takes an exchange that became runnable.
    may_serve: set once the App has started.
    """

    context: "zmq.Context[zmq.Socket[bytes]]"
    run: Callable[[Exchange], None]
    settings: LinkSettings
    clock: Clock
    tally: Tally
    may_serve: Event


class AttachedServer:
    """One life of one Mongrel2, from the gateway's naming it to the loss of it.

    on_change: called when ``server`` has come or gone.
    ``note``   what the gateway says of it; a new gateway gives it another number.
    ``server`` while answers reach it.
    """

    def __init__(
        self, note: ServerNote, journal: Journal, shared: Shared, on_change: Callable[["AttachedServer"], None]
    ) -> None:
        self.note = note
        self.journal = journal
        self.server: Server | None = None
        self.outbox: Outbox | None = None
        self._shared = shared
        self._on_change = on_change
        self._is_wanted = True
        self._replies: Replies | None = None
        self._greenlet = gevent.spawn(self._run)

    def is_same(self, note: ServerNote) -> bool:
        """Tell whether note is of this Mongrel2, as another gateway names it."""
        mine = self.note
        return (mine.send_ident, mine.recv_spec) == (note.send_ident, note.recv_spec)

    def _run(self) -> None:
        shared, note = self._shared, self.note
        shared.may_serve.wait()
        while self._is_wanted:
            replies = self._replies = Replies(shared.context, note.send_ident.decode(), note.recv_spec)
            if replies.open() and self._is_wanted:
                self._serve(replies)
                return
            replies.close()
            if self._is_wanted:
                gevent.sleep(RETRY_S)

    def _serve(self, replies: Replies) -> None:
        shared = self._shared
        outbox = Outbox(super(zmq.Socket, replies.replies).send, get_hub().loop.run_callback)
        server = Server(
            self.note.send_ident,
            outbox.send,
            shared.run,
            shared.settings,
            shared.clock,
            upload_store=self.note.upload_store or None,
            send_soon=outbox.send_soon,
            tally=shared.tally,
        )
        server.journal = self.journal
        self.server, self.outbox = server, outbox
        logger.info("server connected send_ident=%s", self.note.send_ident.decode())
        prober = Prober(server)
        prober.start()
        self._on_change(self)
        replies.wait_lost()
        prober.stop()
        server.close()
        outbox.release()
        is_wanted = self._is_wanted
        self.server = None
        self._on_change(self)
        replies.close(deliver=not is_wanted)
        if is_wanted:
            logger.warning("server lost send_ident=%s", self.note.send_ident.decode())

    def stop(self) -> None:
        """Close it, with all its connections; what was sent is still delivered."""
        self._is_wanted = False
        if self.server is not None:
            self.server.close()  # now: frames of its successor must not find its connections
        if self._replies is not None:
            self._replies.give_up()
        if not self._shared.may_serve.is_set():
            self._greenlet.kill(block=False)

    def join(self) -> None:
        """Blocks the greenlet until a stopped one is closed."""
        self._greenlet.join()

    # -- for a gateway that is new ------------------------------------------------------------------

    def claims(self) -> list[Claim]:
        """Return what is open here, and give up the connections on which nothing is."""
        if self.server is None:
            return []
        self.server.release([one.conn_id for one in self.server.connections.values() if one.current is None])
        return [
            Claim(self.note.send_ident, conn_id, current.number, current.started, current.is_websocket)
            for conn_id, connection in self.server.connections.items()
            if (current := connection.current) is not None
        ]

    def announce(self, number: int) -> None:
        """Report to the new gateway, which counts this server as number."""
        self.journal.announce(number)
        if self.server is not None:
            for conn_id, connection in self.server.connections.items():
                if connection.current is not None and connection.current.detached:
                    self.journal.detached(conn_id)

    @staticmethod
    def _resync_uploads(server: Server) -> None:
        """Ask for the next pieces of bodies; where none comes, the last one was lost: that client is cut.

        Also where pieces wait to be read: lost ones may have used up more credits than these will bring back.
        """
        uploads = {
            one: (one.current.upload, one.current.upload.received)
            for one in server.connections.values()
            if one.current is not None and isinstance(one.current.upload, Upload) and one.current.upload.is_incomplete
        }
        for upload, _ in uploads.values():
            upload.ask_again()
        if uploads:
            gevent.spawn_later(SILENT_S, _cut_silent, uploads)

    def resync(self) -> None:
        """Wait RESYNC_S for credits that may be under way, then take all that was sent for written.

        Until then nothing is sent on connections that wait for credits. One whose client really
        does not read may be cut by Mongrel2 after it.
        """
        server = self.server
        if server is None:
            return
        self._resync_uploads(server)
        unpaid = [one for one in server.connections.values() if one.outstanding and one.window is not None]
        for connection in unpaid:
            connection.outstanding = connection.window or 0
        if unpaid:
            logger.info("credits awaited send_ident=%s connections=%d", server.send_ident.decode(), len(unpaid))
            gevent.spawn_later(RESYNC_S, _take_for_written, unpaid)

    def compare_read(self, bytes_read: Mapping[int, int]) -> None:
        """Close, READ_S from now, the WebSockets of which Mongrel2 had read more than has arrived by then."""
        if self.server is not None:
            gevent.spawn_later(READ_S, _close_incomplete, self.server, bytes_read)


def _close_incomplete(server: Server, bytes_read: Mapping[int, int]) -> None:
    """Close WebSockets whose messages were lost: their peers may wait for answers to them, and would for ever."""
    count = 0
    if server.is_closed:
        return
    for conn_id, size in bytes_read.items():
        connection = server.connections.get(conn_id)
        current = connection.current if connection is not None else None
        if isinstance(current, WebSocketExchange) and current.accepted and current.bytes_received < size:
            current.failure = CUT
            current.fail(SERVICE_RESTART, "a message was lost")
            count += 1
    if count:
        logger.warning("websockets closed, messages of theirs were lost with the former gateway count=%d", count)


def _cut_silent(uploads: dict[Connection, tuple[Upload, int]]) -> None:
    unread = {}
    for connection, (upload, received) in uploads.items():
        if connection.gone or not upload.is_incomplete or upload.received != received:
            continue
        if upload.is_waiting:
            connection.abort()
        else:
            unread[connection] = (upload, received)  # its handler has something to do, and asks for more later
    if unread:
        gevent.spawn_later(SILENT_S, _cut_silent, unread)


def _take_for_written(connections: list[Connection]) -> None:
    for connection in connections:
        if not connection.gone and connection.outstanding:
            connection.granted(connection.outstanding)
