"""What an attached worker keeps of its exchanges for the gateway: marks as they begin, reports as they end."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from m2gate.link.marks import CUT, SLOT_MASK
from m2gate.wire.attach import CONNECTION_CLOSED, EXCHANGE_DETACHED, EXCHANGE_DONE, RECORD

if TYPE_CHECKING:
    from m2gate.link.journaled import JournaledConnection

SENT_MAX: Final = 2**32 - 1  # of one record; more counts as so much


class Journal:
    """The marks and reports of one server's connections; a server without a gateway has none.

    slots:  of the mark table, or what stands in for it.
    report: takes a record for the next report to the gateway.
    ``number`` of the server, as the gateway counts them; None while it does not know that our answers reach it.
    Bound: what ends while there is no number is kept until it comes; the records of connections that
           were open then, two of each at most.
    """

    def __init__(self, slots: "memoryview[int]", report: Callable[[bytes], None]) -> None:
        self.number: int | None = None
        self._slots = slots
        self._report = report
        self._early: list[tuple[int, int, int]] = []

    def announce(self, number: int) -> None:
        """Take the server's number, and report what has ended since begin()."""
        self.number = number
        early, self._early = self._early, []
        for record in early:
            self._note(*record)

    def begin(self) -> None:
        """Begin anew for another gateway, which is being told what is open now."""
        self.number = None
        self._early.clear()

    # -- marks ----------------------------------------------------------------------------------

    def mark(self, number: int) -> None:
        """Note that bytes of the exchange with this number are about to leave."""
        index = number & SLOT_MASK
        # A newer exchange may have the slot: of that one it must stay true.
        self._slots[index] = max(self._slots[index], number)

    def mark_cut(self, number: int) -> None:
        """Note that a part of a unit is about to leave, and the rest is not."""
        index = number & SLOT_MASK
        if self._slots[index] <= number:
            self._slots[index] = number | CUT

    def mark_whole(self, number: int) -> None:
        """Note that the client's socket has taken all units that were cut."""
        index = number & SLOT_MASK
        if self._slots[index] == number | CUT:
            self._slots[index] = number

    # -- reports --------------------------------------------------------------------------------

    def ended(self, connection: "JournaledConnection", *, is_idle: bool) -> None:
        """Report the end of a connection's exchange; is_idle: nothing follows it.

        The gateway sends the next request when everything is written, so an idle connection starts
        anew; credits that come later are no longer ours.
        """
        sent = connection.outstanding + connection.credited
        if is_idle:
            connection.outstanding = connection.credited = 0
        else:
            connection.credited = -connection.outstanding
        self._note(EXCHANGE_DONE, connection.conn_id, sent)

    def closed(self, conn_id: int, *, is_whole: bool) -> None:
        """Report that a connection is closed or forgotten; is_whole: nothing was missing of its last answer."""
        self._note(CONNECTION_CLOSED, conn_id, int(is_whole))

    def detached(self, conn_id: int) -> None:
        """Report that only the client's next request ends the exchange."""
        self._note(EXCHANGE_DETACHED, conn_id, 0)

    def _note(self, what: int, conn_id: int, sent: int) -> None:
        if self.number is None:
            self._early.append((what, conn_id, sent))
        else:
            self._report(RECORD.pack(self.number, what, conn_id, min(sent, SENT_MAX)))
