"""Connections that a former worker or gateway left behind: nobody would ever answer them, so they are closed."""

import logging
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Final, Protocol

import gevent

from m2gate.errors import M2GateError
from m2gate.link.control import ControlPort
from m2gate.link.upload import CHUNK_BYTES
from m2gate.wire.mongrel2 import TARGETS_MAX, build_control, build_reply, split_ids

logger = logging.getLogger(__name__)

GRACE_S: Final = 1.0  # what waited in Mongrel2 for a worker arrives well within this
PIECE_S: Final = 0.5  # for the next piece of a body, once it may come
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
        silent = _silent(server, control_spec, found)
        if not silent:
            return 0
        _let_uploads_speak(server, silent)
        gevent.sleep(PIECE_S)
        orphans = _silent(server, control_spec, silent)
    except M2GateError as error:
        logger.warning("connections left behind stay open send_ident=%s error=%s", server.send_ident, error)
        return 0
    if server.is_closed:
        return 0
    # No cancel: after one, a client that connects in the same moment may never be read from.
    for some in split_ids([*orphans], TARGETS_MAX):
        server.send(build_reply(server.send_ident, some, b""))
    count = sum(one not in server.connections for one in silent)
    logger.warning("closed connections that were left behind count=%d", count)
    return count


def _silent(server: ServerLife, control_spec: str, found: Mapping[int, int]) -> dict[int, int]:
    """Return those of found that have neither sent anything that was heard of, nor been sent anything."""
    now = _written(control_spec)
    return {one: written for one, written in found.items() if now.get(one) == written and one not in server.connections}


def _let_uploads_speak(server: ServerLife, conn_ids: Iterable[int]) -> None:
    """Let the next piece through of those that are sending a body; whoever gets it cancels them.

    Closed by an empty body they would go on sending and never see it: Mongrel2 only shuts its own side
    then, and reads no further (seen on 1.12.2).
    """
    for some in split_ids([*conn_ids], TARGETS_MAX - 1) if not server.is_closed else ():
        server.send(build_control(server.send_ident, some, credits=CHUNK_BYTES))


def _written(control_spec: str) -> dict[int, int]:
    """Return the bytes that each connection was sent so far. Blocks the greenlet; raises M2GateError."""
    connections = ControlPort(control_spec, CONTROL_TIMEOUT_S).status_net()
    return {one.conn_id: one.bytes_written for one in connections if one.conn_id >= 0}
