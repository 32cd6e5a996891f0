"""Connections that a former worker left behind: nobody would ever answer them, so they are closed."""

import logging
from collections.abc import Callable
from typing import Final

import gevent

from m2gate.errors import M2GateError
from m2gate.link.control import ControlPort
from m2gate.link.server import Server
from m2gate.wire.mongrel2 import TARGETS_MAX, build_reply, split_ids

logger = logging.getLogger(__name__)

GRACE_S: Final = 1.0  # what waited in Mongrel2 for a worker arrives well within this
CONTROL_TIMEOUT_S: Final = 1.0


def close_orphans(server: Server, control_spec: str, is_behind: Callable[[], bool]) -> None:
    """Close the connections of Mongrel2 that this worker hears nothing of. Blocks the greenlet.

    A request that a dead worker had received is lost, and its client would wait until Mongrel2's
    limits end it, after two minutes. An idle client has to connect again; but one to which Mongrel2
    is sending a file of its own has not been heard of either, and gets the rest of it.

    server:    just connected; its connections are those that sent something since.
    is_behind: tells that messages are still queued, so that silence means nothing yet.
    """
    try:
        found = _written(control_spec)
        gevent.sleep(GRACE_S)
        while is_behind():
            gevent.sleep(GRACE_S)
        now = _written(control_spec)
    except M2GateError as error:
        logger.warning("connections of a former worker stay open send_ident=%s error=%s", server.send_ident, error)
        return
    orphans = [one for one, written in now.items() if found.get(one) == written and one not in server.connections]
    if orphans and not server.is_closed:
        # No cancel: after one, a client that connects in the same moment may never be read from.
        for some in split_ids(orphans, TARGETS_MAX):
            server.send(build_reply(server.send_ident, some, b""))
        logger.info("closed connections of a former worker count=%d", len(orphans))


def _written(control_spec: str) -> dict[int, int]:
    """Return the bytes that each connection was sent so far. Blocks the greenlet; raises M2GateError."""
    connections = ControlPort(control_spec, CONTROL_TIMEOUT_S).status_net()
    return {one.conn_id: one.bytes_written for one in connections if one.conn_id >= 0}
