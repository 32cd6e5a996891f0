"""What becomes of the sessions of a worker that is gone."""

import logging

from m2gate.gateway import counters as reasons
from m2gate.gateway.dispatch import Dispatcher
from m2gate.gateway.refusals import Verdict
from m2gate.gateway.sessions import Session
from m2gate.gateway.workers import AttachedWorker
from m2gate.link.marks import SENT, UNKNOWN, UNSENT
from m2gate.wire.websocket import CLOSE, build_close, build_frame

logger = logging.getLogger(__name__)

_DIED = Verdict(502, "the worker that had the request has died")
_RESTARTED = build_frame(CLOSE, build_close(1012, "the worker was restarted"))


def bury(dispatcher: Dispatcher, worker: AttachedWorker, *, is_certain: bool) -> int:
    """End what a lost worker had open, so that no client hangs; return how many requests have failed.

    A plain request of which nothing can have been sent gets 502. Anything else is closed: its answer
    may be complete and the worker's report lost, and a second one would be read as the answer to the
    client's next request. A WebSocket gets a close frame, unless one of its frames was cut in two.

    What it had reported as sent may have died with it on its way: where the credits for it do not come,
    the connection is closed as well.

    is_certain: its process has ended. If not, nobody knows what it may still send, so all is closed.
    """
    worker.is_lost = True
    failed = 0
    for session in list(worker.sessions):
        worker.sessions.discard(session)
        failed += _end(dispatcher, session, worker, is_certain=is_certain)
        session.owner = None
    logger.warning(
        "worker lost name=%s pid=%d generation=%d failed=%d", worker.name, worker.pid, worker.generation, failed
    )
    return failed


def _end(dispatcher: Dispatcher, session: Session, worker: AttachedWorker, *, is_certain: bool) -> int:
    opened = list(session.open)
    if session.gone:
        dispatcher.endings.end_gone(session)
        return 0
    if not opened:
        dispatcher.endings.doubt(session)
        return 0
    dispatcher.endings.end_open(session, reasons.WORKER_DIED)
    session.owner = None
    number, frame, since_s = opened[0]
    state = worker.table.look(number) if is_certain and len(opened) == 1 else UNKNOWN
    if state == UNSENT:
        dispatcher.endings.answer(session, frame, _DIED, since_s)
    else:
        if session.is_websocket and state == SENT:
            session.server.reply(session.conn_id, _RESTARTED)
        dispatcher.endings.close(session)
    return len(opened)
