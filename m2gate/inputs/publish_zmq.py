"""Items by ZeroMQ: PULL, one frame an item, and SUB, a channel and an item. Nothing is ever answered.

A frame is ``J`` and JSON, ``T`` and a tnetstring, or a bare tnetstring. Whatever is none is counted,
logged once a second, and lost; nothing else is. Source: docs/reference/publishing.md.
"""

import json
import logging
import socket as stdlib_socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, Final

import gevent
import tnetstring
import zmq
from gevent import get_hub
from gevent.event import Event

from m2gate.errors import ConfigError
from m2gate.hub.grip import decode_tnetstring, parse_item
from m2gate.hub.item import Item
from m2gate.hub.work import Receipt
from m2gate.inputs.lanes import Lanes
from m2gate.link.wait import READ

logger = logging.getLogger(__name__)

WAITING_MAX: Final = 1_000  # items of a publisher unread in ZeroMQ; then it waits (PULL) or they are lost there (SUB)
ITEM_MAX: Final = 16 << 20  # bytes; who sends more is disconnected
STOP_S: Final = 0.5
QUIET_S: Final = 0.05
POLL_S: Final = 0.005
TURN_ITEMS: Final = 100
TEXT_MAX: Final = 200  # characters of what the log says of an item
RETRY_S: Final = 0.05
PATIENCE_S: Final = 5.0
_LOG_EVERY_S: Final = 1.0

Publish = Callable[[Item], Receipt]
Date = Callable[[], str]


class ZmqInput:
    """One bound socket that items come from; base of both kinds.

    spec:       tcp://ADDR:PORT or ipc:///PATH. One that is taken, also a path where somebody answers, is
                tried again until it is free.
    publish:    accepts one item; may block the greenlet.
    is_crowded: tells whether publishers to a channel have to wait; then other channels do not. By default all do.
    ``rejected`` counts messages that were no items, and items that could not be accepted.
    Bounds: WAITING_MAX messages of each publisher, of ITEM_MAX bytes, and those of Lanes.
    """

    kind = zmq.PULL
    key = "publish_pull"

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        spec: str,
        publish: Publish,
        date: Date,
        is_crowded: Callable[[str], bool] = lambda channel: False,
    ) -> None:
        self.rejected = 0
        self._context = context
        self._spec = spec
        self._date = date
        self._lanes = Lanes(publish, is_crowded, self._reject)
        self._socket: zmq.Socket[bytes] | None = None
        self._arrived = Event()
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self._logged_s = 0.0

    def start(self) -> None:
        """Bind, now or as soon as the address is free. Raises ConfigError for one that cannot be bound."""
        self._socket = self._context.socket(self.kind)
        self._socket.linger = 0
        self._socket.rcvhwm = WAITING_MAX
        self._socket.maxmsgsize = ITEM_MAX
        try:
            is_bound = self._bind()
        except ConfigError:
            self.stop()
            raise
        self._greenlet = gevent.spawn(self._run, self._socket, is_bound)

    def _bind(self) -> bool:
        assert self._socket is not None  # noqa: S101 - start() made it
        path = Path(self._spec.removeprefix("ipc://")) if self._spec.startswith("ipc://") else None
        if path is not None and _is_served(path):
            return False  # libzmq would take it away from whom it belongs to
        try:
            self._socket.bind(self._spec)
            if path is not None:
                # Who may publish is who may enter the folder.
                path.chmod(0o660 if path.parent.stat().st_mode & stat.S_IXGRP else 0o600)
        except zmq.ZMQError as error:
            if error.errno == zmq.EADDRINUSE:
                return False
            remedy = "use an address of this machine, as tcp://127.0.0.1:5560 or ipc:///PATH"
            raise ConfigError(self.key, self._spec, str(error), remedy) from error
        return True

    def _run(self, socket: "zmq.Socket[bytes]", is_bound: bool) -> None:  # noqa: FBT001 - of a greenlet
        waited_s = 0.0
        while not is_bound:
            gevent.sleep(RETRY_S)
            waited_s += RETRY_S
            is_bound = self._bind()
            if PATIENCE_S <= waited_s < PATIENCE_S + RETRY_S:
                logger.warning("address in use, trying again %s=%s", self.key, self._spec)
        watcher = get_hub().loop.io(socket.fileno(), READ)
        watcher.start(self._arrived.set)
        try:
            while True:
                self._arrived.clear()
                self._read(socket)
                self._arrived.wait()
        finally:
            watcher.stop()
            watcher.close()

    def _read(self, socket: "zmq.Socket[bytes]") -> int:
        """Take what is there; return how many messages that was."""
        count = 0
        while True:
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return count
            self._take(frames)
            count += 1
            if count % TURN_ITEMS == 0:
                gevent.sleep(0)

    def _take(self, frames: list[bytes]) -> None:
        try:
            item = self._parse(frames)
        except ValueError as error:
            self._reject(error)
        else:
            self._lanes.put(item, sum(map(len, frames)))

    def _reject(self, error: Exception) -> None:
        self.rejected += 1
        if monotonic() - self._logged_s >= _LOG_EVERY_S:
            self._logged_s = monotonic()
            text = ascii(str(error)[:TEXT_MAX])  # it may name something in the item
            logger.warning("item rejected input=%s error=%s rejected=%d", self.key, text, self.rejected)

    def _parse(self, frames: list[bytes]) -> Item:
        if len(frames) != 1:
            raise ValueError(f"{len(frames)} frames; an item is one")
        return parse_item(parse_payload(frames[0]), self._date())

    def stop(self) -> None:
        """Take no more; what is on its way is published, for three times STOP_S at most. Blocks the greenlet.

        Publishers that go on meanwhile lose what is in flight when their connection ends. Idempotent.
        """
        greenlet, self._greenlet = self._greenlet, None
        socket, self._socket = self._socket, None
        if greenlet is not None:
            greenlet.kill()  # it waits, or gives others their turn, and then has no item in its hands
        if socket is None:
            return
        try:
            if greenlet is not None:
                self._read_rest(socket)  # first: libzmq ends connections, too, when it no longer listens
            with suppress(zmq.ZMQError):  # it was not bound
                socket.unbind(socket.getsockopt_string(zmq.LAST_ENDPOINT))
            if greenlet is not None:
                self._read_rest(socket)
                self._lanes.finish(STOP_S)
        finally:
            socket.close()

    def _read_rest(self, socket: "zmq.Socket[bytes]") -> None:
        """Read until nothing has come for QUIET_S, for STOP_S at most."""
        quiet_s = 0.0
        with suppress(gevent.Timeout), gevent.Timeout(STOP_S):
            while quiet_s < QUIET_S:
                quiet_s = 0.0 if self._read(socket) else quiet_s + POLL_S
                gevent.sleep(POLL_S)


class PullInput(ZmqInput):
    """A PULL socket, such as tcp://127.0.0.1:5560."""


class SubInput(ZmqInput):
    """A SUB socket that is subscribed to the channels which have subscribers, and to no others.

    Call opened and emptied as channels get their first and lose their last subscriber.
    """

    kind = zmq.SUB
    key = "publish_sub"

    def opened(self, channel: str) -> None:
        """Hear that a channel has subscribers."""
        if self._socket is not None:
            self._socket.setsockopt(zmq.SUBSCRIBE, channel.encode())
            self._arrived.set()  # what is there may raise no further event

    def emptied(self, channel: str) -> None:
        """Hear that a channel has none any more."""
        if self._socket is not None:
            self._socket.setsockopt(zmq.UNSUBSCRIBE, channel.encode())
            self._arrived.set()

    def _parse(self, frames: list[bytes]) -> Item:
        if len(frames) != 2:
            raise ValueError(f"{len(frames)} frames; a channel and an item are two")
        # ZeroMQ compares beginnings: an item for "news-2" comes to a subscription of "news" as well,
        # and goes to its own channel, which has no subscribers.
        return parse_item(parse_payload(frames[1]), self._date(), frames[0].decode())


def _is_served(path: Path) -> bool:
    with stdlib_socket.socket(stdlib_socket.AF_UNIX) as client:
        client.setblocking(False)
        try:
            client.connect(str(path))
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True


def parse_payload(frame: bytes) -> Any:
    """Return what a frame says. Raises ValueError."""
    try:
        if frame[:1] == b"J":
            return json.loads(frame[1:])
        return decode_tnetstring(tnetstring.loads(frame[1:] if frame[:1] == b"T" else frame))
    except (TypeError, RecursionError, OverflowError) as error:
        raise ValueError(f"neither JSON behind J nor a tnetstring: {error}") from error
