"""What a worker says to its gateway, and what it asks: each request has a number that the answer repeats."""

from collections.abc import Callable
from typing import Final

from gevent.event import AsyncResult, Event

from m2gate.errors import BackendError
from m2gate.wire.attach import REFUSAL, build_numbered, parse_numbered, parse_receipt

GATEWAY_WAIT_S: Final = 5.0  # for a gateway that is not there; then whoever needs it is told
LOST: Final = "gateway lost"

Counts = tuple[int, ...]
Receive = Callable[[Counts], object]


class Refused(Exception):
    """The gateway has refused a request; the text says why."""


class Dialogue:
    """The worker's side of one conversation after another, as gateways come and go.

    What is asked and not answered when a gateway goes raises BackendError: it may have been done.
    Bound: as many open requests as there are greenlets that wait for one.
    """

    def __init__(self) -> None:
        self._send: Callable[[bytes], None] | None = None
        self._opened = Event()
        self._sequence = 0
        self._pending: dict[int, tuple[AsyncResult[Counts], Receive | None, Receive | None]] = {}

    @property
    def is_open(self) -> bool:
        """True while a gateway listens."""
        return self._send is not None

    def open(self, send: Callable[[bytes], None]) -> None:
        """Begin a conversation. send: takes one message; must not block."""
        self._send = send
        self._opened.set()

    def close(self) -> None:
        """End it: the gateway is gone. Idempotent."""
        self._send = None
        self._opened.clear()
        pending, self._pending = self._pending, {}
        for result, _, on_lost in pending.values():
            if on_lost is not None:
                on_lost(())
                result.set(())
            else:
                result.set_exception(BackendError(LOST))

    def wait_open(self) -> None:
        """Blocks the greenlet until a gateway listens. Raises BackendError after GATEWAY_WAIT_S."""
        if not self._opened.wait(GATEWAY_WAIT_S):
            raise BackendError(LOST)

    def say(self, message: bytes) -> None:
        """Send one message; lost if nobody listens."""
        if self._send is not None:
            self._send(message)

    def say_numbered(self, kind: bytes, payload: bytes) -> int:
        """Send a request whose answer nobody waits for; return its number."""
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        self.say(build_numbered(kind, self._sequence, payload))
        return self._sequence

    def ask(
        self, kind: bytes, payload: bytes, on_receipt: Receive | None = None, on_lost: Receive | None = None
    ) -> Counts:
        """Send a request and return the counts of its receipt. Blocks the greenlet.

        on_receipt: called with them as soon as they come: in the order of what the gateway says.
        on_lost:    called in its place when the gateway is lost meanwhile; there are no counts then.
        Raises Refused, and BackendError if the gateway is lost and there is no on_lost.
        """
        if not self._opened.is_set():
            self.wait_open()
        result: AsyncResult[Counts] = AsyncResult()
        self._pending[self.say_numbered(kind, payload)] = result, on_receipt, on_lost
        return result.get() or ()

    def answered(self, message: bytes) -> None:
        """Take a RECEIPT or a REFUSAL. Raises WireError."""
        if message[:1] == REFUSAL:
            sequence, text = parse_numbered(message)
            found = self._pending.pop(sequence, None)
            if found is not None:
                found[0].set_exception(Refused(text.decode(errors="replace")))
            return
        sequence, counts = parse_receipt(message)
        found = self._pending.pop(sequence, None)
        if found is not None:
            result, on_receipt, _ = found
            if on_receipt is not None:
                on_receipt(counts)
            result.set(counts)
