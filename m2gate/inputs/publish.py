"""All publish inputs of one process: a new kind is one more module with start(), stop() and ``rejected``."""

from collections.abc import Callable
from typing import Protocol

import zmq

from m2gate.errors import ConfigError
from m2gate.hub.item import Item
from m2gate.hub.work import Receipt
from m2gate.inputs.publish_http import HttpInput
from m2gate.inputs.publish_zmq import PullInput, SubInput


class Input(Protocol):
    """One way in which items come from outside."""

    rejected: int

    def start(self) -> None:
        """Listen. Raises ConfigError for an address that cannot be used."""

    def stop(self) -> None:
        """Listen no more. Blocks the greenlet. Idempotent."""


class Addresses(Protocol):
    """Where the inputs are, None for none; settings of gateways and workers are such."""

    @property
    def publish_http(self) -> str | None:
        """HOST:PORT."""

    @property
    def publish_pull(self) -> str | None:
        """A ZeroMQ address."""

    @property
    def publish_sub(self) -> str | None:
        """A ZeroMQ address."""


class Inputs:
    """The inputs that the settings ask for.

    publish:    accepts one item; may block the greenlet, where is_crowded(channel) says so.
    date:       the time as HTTP writes it.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        addresses: Addresses,
        publish: Callable[[Item], Receipt],
        date: Callable[[], str],
        is_crowded: Callable[[str], bool],
    ) -> None:
        self._inputs: list[Input] = []
        self._sub: SubInput | None = None
        if addresses.publish_http:
            self._inputs.append(HttpInput(addresses.publish_http, publish, date))
        if addresses.publish_pull:
            self._inputs.append(PullInput(context, addresses.publish_pull, publish, date, is_crowded))
        if addresses.publish_sub:
            self._sub = SubInput(context, addresses.publish_sub, publish, date, is_crowded)
            self._inputs.append(self._sub)

    @property
    def rejected(self) -> int:
        """Messages that were no items."""
        return sum(one.rejected for one in self._inputs)

    def start(self) -> None:
        """Listen on all. Raises ConfigError for an address that cannot be used."""
        try:
            for one in self._inputs:
                one.start()
        except ConfigError:
            self.stop()
            raise

    def stop(self) -> None:
        """Listen no more. Blocks the greenlet. Idempotent."""
        for one in self._inputs:
            one.stop()

    def opened(self, channel: str) -> None:
        """Hear that a channel has its first subscriber."""
        if self._sub is not None:
            self._sub.opened(channel)

    def emptied(self, channel: str) -> None:
        """Hear that a channel has lost its last subscriber."""
        if self._sub is not None:
            self._sub.emptied(channel)
