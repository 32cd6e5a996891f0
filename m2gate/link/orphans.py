"""Connections that a former worker or gateway left behind: nobody would ever answer them, so they are closed."""

import logging
from collections.abc import Callable, Container
from typing import Final, Protocol

import gevent

from m2gate.errors import M2GateError
from m2gate.link.control import ControlPort
from m2gate.wire.mongrel2 import TARGETS_MAX, build_reply, split_ids

logger = logging.getLogger(__name__)

GRACE_S: Final = 1.0  # what waited in Mongrel2 for a worker arrives well within this
CONTROL_TIMEOUT_S: Final = 1.0


class ServerLife(Protocol):
    """One Mongrel2 for as long as the sockets to it are up; ``connections`` by conn_id are those that are known."""

    send_ident: bytes
    is_closed: bool

    @property
    def connections(self) -> Container[int]:
        """The conn_ids that were heard of."""

    @property
    def send(self) -> Callable[[bytes], object]:
        """What takes one frame for it."""


def close_orphans(
    server: ServerLife, control_spec: str, is_behind: Callable[[], bool], grace_s: float | None = None
) -> int:
    """Close the connections of Mongrel2 that nobody here hears of; return how many. Blocks the greenlet.

    A request that a dead process had received is lost, and its client would wait until Mongrel2's
    limits end it, after two minutes. An idle client has to connect again; but one to which Mongrel2
    is sending a file of its own has not been heard of either, and gets the rest of it.

    server:    just connected; its connections are those that sent something since.
    is_behind: tells that messages are still queued, so that silence means nothing yet.
    grace_s:   how long they have to be heard of; GRACE_S if not given.
    """
    grace_s = GRACE_S if grace_s is None else grace_s
    try:
        found = _written(control_spec)
        gevent.sleep(grace_s)
        while is_behind():
            gevent.sleep(grace_s)
        now = _written(control_spec)
    except M2GateError as error:
        logger.warning("connections left behind stay open send_ident=%s error=%s", server.send_ident, error)
        return 0
    orphans = [one for one, written in now.items() if found.get(one) == written and one not in server.connections]
    if not orphans or server.is_closed:
        return 0
    # No cancel: after one, a client that connects in the same moment may never be read from.
    for some in split_ids(orphans, TARGETS_MAX):
        server.send(build_reply(server.send_ident, some, b""))
    logger.warning("closed connections that were left behind count=%d", len(orphans))
    return len(orphans)


def _written(control_spec: str) -> dict[int, int]:
    """Return the bytes that each connection was sent so far. Blocks the greenlet; raises M2GateError."""
    connections = ControlPort(control_spec, CONTROL_TIMEOUT_S).status_net()
    return {one.conn_id: one.bytes_written for one in connections if one.conn_id >= 0}
