"""How requests and sessions end without their owner: 502, 503, a close; and how that is counted."""

import logging
import secrets
from collections.abc import Callable, Container
from itertools import count
from typing import Final

from m2gate.gateway import counters as reasons
from m2gate.gateway.counters import Counters
from m2gate.gateway.linked import LinkedServer
from m2gate.gateway.refusals import Asked, Verdict, build_refusal
from m2gate.gateway.sessions import Session
from m2gate.gateway.swallow import Swallower
from m2gate.wire.mongrel2 import Request

logger = logging.getLogger(__name__)

DOUBT_S: Final = 0.3  # without credits for what a dead owner has sent: it died with it


class Endings:
    """Ends sessions, answers in place of owners, and keeps the counts: started = finished + failed + open.

    serve_next: lets the next request of a session go out, if one waits. now: the time of this turn.
    ``on_refusal`` hears of each answer of our own: what was asked, status, request id, since when it was open.
    """

    def __init__(self, counters: Counters, serve_next: Callable[[Session], None], now: Callable[[], float]) -> None:
        self.counters = counters
        self.on_refusal: Callable[[Asked, int, str, float], None] | None = None
        self._next = serve_next
        self._now = now
        self._swallower = Swallower()
        self._doubted: set[Session] = set()
        self._request_prefix = secrets.token_hex(4) + "-"
        self._next_request_number = count(1).__next__

    def swallow(self, server: LinkedServer, message: Request) -> bool:
        """Take the rest of a body that nobody will read; False if it is none."""
        return self._swallower.take(server, message, self._now())

    def refuse(self, session: Session, frame: bytes, status: int, detail: str, reason: str) -> None:
        """Answer a request that no owner was given; it counts as failed for this reason."""
        self.counters.failed[reason] += 1
        self.answer(session, frame, Verdict(status, detail), self._now())

    def answer(self, session: Session, frame: bytes, verdict: Verdict, since_s: float) -> None:
        """Answer a request in place of an owner; the connection goes on only if the request allows it."""
        server, asked = session.server, Asked(frame)
        if asked.method == b"JSON":
            self.cut(session, reasons.CLOSED)
            return
        request_id = f"{self._request_prefix}{self._next_request_number():x}"
        data = build_refusal(asked, verdict, request_id)
        server.reply(session.conn_id, data)
        if self.on_refusal is not None:
            self.on_refusal(asked, verdict.status, request_id, since_s)
        if asked.keeps_open:
            session.balance += len(data)
            self._next(session)
            return
        if not asked.has_pieces or session.is_pieces_done:
            self.close(session)
            return
        self.fail_waiting(session, reasons.CLOSED)
        self.drop(session)
        self._swallower.begin(server, session.conn_id, self._now())

    def close(self, session: Session) -> None:
        """Close a connection on which nothing is open, once what was sent is written."""
        self.fail_waiting(session, reasons.CLOSED)
        self.drop(session)
        session.server.close_connections((session.conn_id,), self._now())

    def cut(self, session: Session, reason: str) -> None:
        """Close a connection at once, as its client breaks a rule or nobody can answer it."""
        if session.held is not None:
            session.held.cut()
        owner = session.owner
        self.end_open(session, reason)
        self.fail_waiting(session, reason)
        self.drop(session)
        if owner is not None:
            owner.release(session)
        session.server.control((session.conn_id,), cancel=True)
        session.server.forget(session.conn_id, self._now())

    def end_open(self, session: Session, reason: str | None) -> None:
        """Count what is open on a session as ended; as failed if there is a reason."""
        count, owner = len(session.open), session.owner
        if not count or owner is None:
            return
        session.open.clear()
        owner.outstanding -= count
        if reason is None:
            owner.served += count
            self.counters.finished += count
        else:
            owner.failed += count
            self.counters.failed[reason] += count

    def end_gone(self, session: Session) -> None:
        """Count what was open for a client that has left, and forget the session. Idempotent."""
        self.end_open(session, reasons.CLIENT_LEFT)
        self.drop(session)

    def fail_waiting(self, session: Session, reason: str) -> None:
        """Count what waits in a session as failed."""
        if session.waiting:
            self.counters.failed[reason] += session.requests_waiting()
            session.waiting.clear()

    def drop(self, session: Session) -> None:
        """Forget a session: it has no owner any more, and its server has no such connection."""
        session.gone = True
        if session.owner is not None:
            session.owner.sessions.discard(session)
            session.owner = None
        if session.server.sessions.get(session.conn_id) is session:
            del session.server.sessions[session.conn_id]

    def doubt(self, session: Session) -> None:
        """Close a session unless all that its dead owner has reported as sent turns out to be written."""
        if session.balance > 0 and session.server.has_credits:
            session.unsettled_since_s = self._now()
            self._doubted.add(session)

    def tick(self, servers: Container[int]) -> None:
        """Do what is due; twice a second or so. servers: the numbers of those that are there."""
        self._swallower.tick(self._now(), is_known=lambda server: server.number in servers)
        for session in list(self._doubted):
            if session.gone or session.balance <= 0:
                self._doubted.discard(session)
            elif self._now() - session.unsettled_since_s >= DOUBT_S:
                # It is closed behind what Mongrel2 has of the answer: a client that reads slowly gets that.
                self._doubted.discard(session)
                logger.warning(
                    "connection closed, its answer may have died with its worker send_ident=%s conn_id=%d",
                    session.server.send_ident.decode(),
                    session.conn_id,
                )
                self.close(session)
