"""Where each message of Mongrel2 goes: to the owner of its session, into the hub, or to wait.

docs/explanation/gateway.md has the rules and their reasons. Invariants:

* one owner writes to a connection at a time; the next request goes out only when nothing is open on
  the session and all that was sent has been written (``balance``), so any owner may have it;
* a request is handed to one owner, once; where that dies, the client gets 502 or a close;
* started = finished + failed + open.
"""

import logging
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

from m2gate.errors import WireError
from m2gate.gateway import counters as reasons
from m2gate.gateway.counters import Counters
from m2gate.gateway.endings import Endings
from m2gate.gateway.linked import LinkedServer
from m2gate.gateway.refusals import HEAD_BYTES_MAX, Verdict
from m2gate.gateway.routing import Router
from m2gate.gateway.sessions import Owner, Session, Upstream, unbind
from m2gate.wire.attach import CONNECTION_CLOSED, EXCHANGE_DETACHED
from m2gate.wire.mongrel2 import CREDITS_END, Credits, Leave, Message, Request, find_credits, parse_message
from m2gate.wire.websocket import CLOSE, build_close, build_frame

logger = logging.getLogger(__name__)

PIPELINE_MAX: Final = 64  # requests a client may send ahead of their answers; then it is cut
NO_WORKER_S: Final = 10.0  # a request waits so long for a worker where there is none at all
IN_FLIGHT_MAX: Final = 64 << 20  # bytes of frames that an owner has not read; then its WebSockets are cut
UNSETTLED_S: Final = 5.0  # without credits for so long, those that are missing are taken for lost
_LOG_EVERY_S: Final = 1.0


class Dispatcher:
    """The sessions of all servers, and the rules by which they are served.

    router: tells which upstream a request is for; another one counts for the requests that follow.
    ``on_settled`` hears that all which was sent before a hold has been written.
    """

    def __init__(self, router: Router, counters: Counters) -> None:
        self.router = router
        self._queued: list[Upstream] = []  # those whose queues are not empty, as far as is known
        self.counters = counters
        self.servers: dict[int, LinkedServer] = {}
        self.is_refusing = False
        self.now_s = monotonic()
        self.on_settled: Callable[[Session], None] | None = None
        self.endings = Endings(counters, self.next, lambda: self.now_s)
        self._unsettled: set[Session] = set()
        self._leaving: deque[Session] = deque()  # their clients have left, what was open is not yet reported
        self._rejection_logged_s = 0.0

    # -- servers --------------------------------------------------------------------------------------

    def add(self, server: LinkedServer) -> None:
        """Take messages of this server from now on."""
        self.servers[server.number] = server

    def lose(self, server: LinkedServer) -> None:
        """Forget a server that is gone, with its clients: whatever was open there has failed."""
        self.servers.pop(server.number, None)
        server.is_closed = True
        for session in list(server.sessions.values()):
            session.gone = True
            self.endings.fail_waiting(session, reasons.SERVER_LOST)
            if session.held is not None:
                session.held.lose()
            else:
                self.endings.end_open(session, reasons.SERVER_LOST)
                self.endings.drop(session)
        server.link.close()

    # -- messages from Mongrel2 -------------------------------------------------------------------------

    def take(self, server: LinkedServer, frame: bytes) -> None:
        """Hand on one message. One that breaks a rule is counted and logged, once a second at most, and lost."""
        # Every message passes through here, twice a request: bytes are looked at, not parsed.
        server.frames_in += 1
        if frame.endswith(CREDITS_END) and (found := find_credits(frame)) is not None:
            session = server.sessions.get(found[0])
            if session is not None:
                self._credit(session, found[1], frame)
            return
        start = len(server.prefix)
        end = frame.find(b" ", start)
        if not frame.startswith(server.prefix) or end < 0 or frame.startswith(b"@* ", end + 1):
            self._take_notice(server, frame)
            return
        conn_id = frame[start:end]
        session = server.sessions.get(int(conn_id)) if conn_id.isdigit() and len(conn_id) <= 10 else None
        if session is None:
            self._take_first(server, frame)
            return
        if session.is_websocket and session.open:
            if session.owner is not None and session.owner.in_flight > IN_FLIGHT_MAX:
                self.endings.cut(session, reasons.WORKER_BEHIND)  # nothing slows a WebSocket client down
            self._forward(session, frame)
            return
        head = frame.find(b" ", end + 1) + 1
        # Mongrel2's own keys take more than 99 bytes in a request; a piece of a body has one or two of them.
        if frame[head + 2 : head + 3] == b":" or frame[head + 1 : head + 2] == b":":
            self._take_piece(session, frame, head)
        else:
            self._request(session, frame)

    def _take_notice(self, server: LinkedServer, frame: bytes) -> None:
        message = self._parse(server, frame)
        session = server.sessions.get(message.conn_id) if message is not None else None
        if session is None or message is None:
            return
        if type(message) is Leave:
            self._leave(session, frame)
        elif type(message) is Credits:
            self._credit(session, message.amount, frame)
        else:
            self._request(session, frame)  # a JSON socket's client named its route "@*"

    def _parse(self, server: LinkedServer, frame: bytes) -> Message | None:
        try:
            message = parse_message(frame)
            if message.send_ident != server.send_ident:
                raise WireError("the message is from another server", 0, frame)
        except WireError as error:
            server.rejected += 1
            self.counters.rejected += 1
            if self.now_s - self._rejection_logged_s >= _LOG_EVERY_S:
                self._rejection_logged_s = self.now_s
                ident = server.send_ident.decode()
                logger.warning("message rejected send_ident=%s rule=%s rejected=%d", ident, error.rule, server.rejected)
            return None
        return message

    def _take_first(self, server: LinkedServer, frame: bytes) -> None:
        """Open a session, or end what belongs to one that nobody knows."""
        message = self._parse(server, frame)
        if type(message) is not Request or self.endings.swallow(server, message):
            return
        if server.was_closed(message.conn_id):
            return
        method = message.headers.get(b"METHOD")
        if method is None:
            server.control((message.conn_id,), cancel=True)
            server.forget(message.conn_id, self.now_s)
            return
        if method == b"WEBSOCKET" and b"FLAGS" in message.headers:
            self._close_websocket(server, message.conn_id)
            return
        if b"DOWNLOAD_CREDITS" in message.headers:
            server.has_credits = True
        session = server.sessions[message.conn_id] = Session(server, message.conn_id, self.now_s)
        session.is_websocket = method == b"WEBSOCKET_HANDSHAKE"
        self._request(session, frame)

    def _close_websocket(self, server: LinkedServer, conn_id: int) -> None:
        server.reply(conn_id, build_frame(CLOSE, build_close(1012, "the service was restarted")))
        server.close_connections((conn_id,), self.now_s)

    def _take_piece(self, session: Session, frame: bytes, head: int) -> None:
        if b"UPLOAD_STREAM_DONE" in frame[head : head + 128]:
            session.is_pieces_done = True
        self._forward(session, frame)

    def _credit(self, session: Session, amount: int, frame: bytes) -> None:
        session.server.has_credits = True
        held = session.held
        if held is not None:
            if session.balance <= 0:
                held.granted(amount)
                return
            session.balance -= amount
            if session.balance <= 0 and self.on_settled is not None:
                self.on_settled(session)
            return
        session.balance -= amount
        if session.open:
            self._forward(session, frame)
        elif session.waiting and session.balance <= 0:
            self.next(session)
        else:
            session.unsettled_since_s = self.now_s

    def _leave(self, session: Session, frame: bytes) -> None:
        self.endings.fail_waiting(session, reasons.CLIENT_LEFT)
        if session.held is not None:
            session.held.lose()
            return
        self._forward(session, frame)
        if not session.open:
            self.endings.drop(session)
        elif not session.gone:
            # Its answer may be complete, and the report of it under way.
            session.gone = True
            session.unsettled_since_s = self.now_s
            self._leaving.append(session)

    def _forward(self, session: Session, frame: bytes) -> None:
        owner = session.owner
        if owner is not None:
            owner.forward(frame)

    # -- requests -----------------------------------------------------------------------------------

    def _request(self, session: Session, frame: bytes) -> None:
        if session.waiting and session.is_stored_body(frame):
            # Behind its own request, if it is none that a client has forged.
            if len(session.waiting) < 2 * PIPELINE_MAX:
                session.waiting.append(frame)
            else:
                self.endings.cut(session, reasons.PIPELINE_FULL)
            return
        if session.open and session.is_stored_body(frame):
            self._forward(session, frame)
            return
        self.counters.started += 1
        session.server.requests += 1
        session.is_pieces_done = False
        if self.is_refusing:
            self.endings.refuse(session, frame, 503, "the service is stopping", reasons.STOPPING)
        elif session.waiting or not self._may_open(session):
            self._wait(session, frame)
        elif session.open:
            self._follow(session, frame)
        elif (upstream := self._upstream(session, frame)) is not None:
            owner = None if len(upstream.queue) else upstream.find(session, self.now_s)
            if owner is None:
                self._wait(session, frame)
            else:
                self._start(session, owner, frame)

    def _upstream(self, session: Session, frame: bytes) -> Upstream | None:
        """Return who is to answer a request; None if nobody is and it has been answered.

        Nothing is open on the session, so it may change from one upstream to another.
        """
        only = self.router.only
        if only is not None and session.upstream is only:
            return only
        found = only or self.router.find(session.server.send_ident, frame)
        if isinstance(found, Verdict):
            self.counters.finished += 1
            self.endings.answer(session, frame, found, self.now_s)
            return None
        if session.upstream is not found:
            if session.owner is not None:
                unbind(session, session.owner)
            session.upstream = found
        return found

    def _follow(self, session: Session, frame: bytes) -> None:
        """Hand over a request behind a detached answer, which it ends: it is for the same owner, or for nobody."""
        router = self.router
        if router.only is None and router.find(session.server.send_ident, frame) is not session.upstream:
            self.counters.failed[reasons.CLOSED] += 1
            self.endings.cut(session, reasons.CLOSED)
        else:
            self._start(session, session.owner, frame)

    def _may_open(self, session: Session) -> bool:
        """Tell whether the session's next request may go out."""
        if session.held is not None or session.is_queued:
            return False
        if session.open:
            return session.is_detached
        # Without flow control nobody knows what has been written; the same owner keeps the order by itself.
        return session.balance <= 0 or not session.server.has_credits

    def _start(self, session: Session, owner: Owner | None, frame: bytes) -> None:
        if owner is None:
            return
        number = owner.forward(frame)
        session.open.append((number, frame if len(frame) <= HEAD_BYTES_MAX else frame[:HEAD_BYTES_MAX], self.now_s))
        owner.outstanding += 1
        if session.waiting and session.is_stored_body(session.waiting[0]):
            owner.forward(session.waiting.popleft())

    def _wait(self, session: Session, frame: bytes) -> None:
        waiting = session.waiting
        if waiting is None:
            waiting = session.waiting = deque()
        if len(waiting) >= PIPELINE_MAX:
            self.counters.failed[reasons.PIPELINE_FULL] += 1
            self.endings.cut(session, reasons.PIPELINE_FULL)
            return
        waiting.append(frame)
        self.next(session)

    def next(self, session: Session) -> None:
        """Let the request that waits longest in a session go out, or wait for an owner, if it may."""
        waiting = session.waiting
        if not waiting or session.gone:
            return
        if not self._may_open(session):
            if not session.open and session.held is None and not session.is_queued:
                session.unsettled_since_s = self.now_s
                self._unsettled.add(session)
            return
        self._unsettled.discard(session)
        frame = waiting.popleft()
        if session.open:
            self._follow(session, frame)
            return
        if self.is_refusing:
            self.endings.refuse(session, frame, 503, "the service is stopping", reasons.STOPPING)
            return
        upstream = self._upstream(session, frame)
        if upstream is None:
            return
        queue = upstream.queue
        owner = None if len(queue) else upstream.find(session, self.now_s)
        if owner is not None:
            self._start(session, owner, frame)
        elif queue.push(session, len(frame), self.now_s):
            waiting.appendleft(frame)
            if upstream not in self._queued:
                self._queued.append(upstream)
        else:
            self.endings.refuse(session, frame, 503, "too many requests wait", reasons.QUEUE_FULL)

    def serve_queue(self) -> None:
        """Let those that wait for an owner go out, the oldest of each upstream first, as far as there is room."""
        for upstream in list(self._queued):
            queue = upstream.queue
            while first := queue.first():
                session = first[0]
                owner = upstream.find(session, self.now_s)
                if owner is None or session.waiting is None:
                    break
                queue.pop()
                self._start(session, owner, session.waiting.popleft())
            if not len(queue):
                self._queued.remove(upstream)

    def refuse_all(self) -> None:
        """Answer with 503 what waits, and from now on what comes: the service stops."""
        self.is_refusing = True
        for upstream in self._queued:
            while (first := upstream.queue.first()) is not None:
                upstream.queue.pop()
                self.next(first[0])

    # -- exchanges that end -------------------------------------------------------------------------------

    def ended(self, owner: Owner, server_number: int, conn_id: int, what: int, sent: int) -> None:
        """Take one record of an owner's report."""
        server = self.servers.get(server_number)
        session = server.sessions.get(conn_id) if server is not None else None
        if session is None or session.owner is not owner:
            return  # its client has left meanwhile, or its Mongrel2
        if what == EXCHANGE_DETACHED:
            session.is_detached = True
            self.next(session)
            return
        if what == CONNECTION_CLOSED:
            self.endings.end_open(session, None if sent else reasons.CLIENT_LEFT if session.gone else reasons.CUT)
            self.endings.fail_waiting(session, reasons.CLOSED)
            self.endings.drop(session)
            session.server.forget(conn_id, self.now_s)
            return
        if not session.open:
            return
        _, frame, _ = session.open.pop(0)
        owner.outstanding -= 1
        owner.served += 1
        self.counters.finished += 1
        session.is_detached = False
        session.balance += sent
        if not frame:
            session.balance = 0  # it was claimed: what was credited before that is not known
        session.idle_since_s = self.now_s
        if session.gone:
            self.endings.drop(session)
        elif session.waiting:
            self.next(session)

    def hold(self, owner: Owner, session: Session) -> None:
        """Take the session of an open request from its owner, which has handed it to the hub."""
        session.open.pop(0)
        owner.outstanding -= 1
        owner.served += 1
        owner.sessions.discard(session)
        session.owner = None
        session.server.held += 1

    def released(self, session: Session, outstanding: int | None, failure: str | None) -> None:
        """Take a session back from the hub.

        outstanding: bytes that it has sent and that are not yet credited; None if the connection is closed.
        failure:     why the request has failed; None if it has not.
        """
        session.held = None
        session.server.held -= 1
        if failure is None:
            self.counters.finished += 1
        else:
            self.counters.failed[failure] += 1
        if outstanding is None:
            self.endings.fail_waiting(session, reasons.CLOSED)
            self.endings.drop(session)
            session.server.forget(session.conn_id, self.now_s)
            return
        session.balance = outstanding
        session.idle_since_s = self.now_s
        self.next(session)

    def close_all(self) -> int:
        """Close the connections on which nothing is open: nobody will serve them. Return how many there were."""
        count = 0
        for server in self.servers.values():
            idle = [one.conn_id for one in server.sessions.values() if not one.open and one.held is None]
            server.close_connections(idle, self.now_s)
            count += len(idle)
        return count

    # -- time -----------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Do what is due; twice a second or so."""
        now_s = self.now_s = monotonic()
        for server in self.servers.values():
            server.tick(now_s)
        self.endings.tick(self.servers)
        while self._leaving and now_s - self._leaving[0].unsettled_since_s >= UNSETTLED_S:
            self.endings.end_gone(self._leaving.popleft())
        for session in [one for one in self._unsettled if one.gone or now_s - one.unsettled_since_s >= UNSETTLED_S]:
            self._unsettled.discard(session)
            session.balance = 0
            self.next(session)
        for upstream in list(self._queued):
            self._refuse_unreachable(upstream)
        self.serve_queue()

    def _refuse_unreachable(self, upstream: Upstream) -> None:
        while (first := upstream.queue.first()) is not None:
            session, since_s = first
            if self.now_s - since_s < NO_WORKER_S or upstream.can_reach(session.server.number) or not session.waiting:
                return
            upstream.queue.pop()
            self.endings.refuse(session, session.waiting.popleft(), 503, "no worker is there", reasons.NO_WORKER)
