"""Connections that a former worker left behind: nobody would ever answer them, so they are closed."""

import logging
from collections.abc import Callable
from typing import Final

import gevent

from m2gate.errors import M2GateError
from m2gate.link.control import ControlPort
from m2gate.link.server import Server

logger = logging.getLogger(__name__)

GRACE_S: Final = 1.0  # what waited in Mongrel2 for a worker arrives well within this
CONTROL_TIMEOUT_S: Final = 1.0


def close_orphans(server: Server, control_spec: str, is_behind: Callable[[], bool]) -> None:
    """Close the connections of Mongrel2 that this worker hears nothing of. Blocks the greenlet.

    A request that a dead worker had received is lost, and its client would wait until Mongrel2's
    limits end it, after two minutes. An idle client has to connect again.

    server:    just connected; its connections are those that sent something since.
    is_behind: tells that messages are still queued, so that silence means nothing yet.
    """
    try:
        found = [one.conn_id for one in ControlPort(control_spec, CONTROL_TIMEOUT_S).status_net() if one.conn_id >= 0]
    except M2GateError as error:
        logger.warning("connections of a former worker stay open send_ident=%s error=%s", server.send_ident, error)
        return
    gevent.sleep(GRACE_S)
    while is_behind():
        gevent.sleep(GRACE_S)
    orphans = [conn_id for conn_id in found if conn_id not in server.connections]
    if orphans and not server.is_closed:
        server.send_control(orphans, cancel=True)
        logger.info("closed connections of a former worker count=%d", len(orphans))
