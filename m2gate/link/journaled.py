"""A connection of an attached worker: it keeps the journal that the gateway relies on.

A class of its own, so that a direct worker pays nothing: in Connection the same would cost 0.15 us
a request, of 4.0 for the link's part of it.
"""

from typing import TYPE_CHECKING

from m2gate.link.connection import Connection

if TYPE_CHECKING:
    from m2gate.link.exchange import Exchange
    from m2gate.link.server import Server


class JournaledConnection(Connection):
    """Marks an exchange before its first byte leaves, and reports its end.

    The gateway sends the next request once all that was sent is written, so each exchange finds a
    full window; what it has to know for that is how much was sent.
    ``credited`` bytes of credits that came back since the last report.
    """

    __slots__ = ("credited", "is_cut", "is_unreported")

    def __init__(self, server: "Server", conn_id: int, window: int | None) -> None:
        super().__init__(server, conn_id, window)
        self.credited = 0
        self.is_cut = False  # a part of a unit was sent, and not yet credited
        self.is_unreported = False  # its exchange has ended, what it sent is still queued

    # -- marks ----------------------------------------------------------------------------------

    def mark(self) -> None:
        """Note that bytes of the current exchange are about to leave."""
        journal = self.server.journal
        if journal is not None and self.current is not None:
            journal.mark(self.current.number)

    def write(self, data: bytes) -> None:
        """See Connection. Blocks the greenlet."""
        self.mark()
        super().write(data)

    def post(self, data: bytes) -> None:
        """See Connection."""
        self.mark()
        super().post(data)

    def close_exchange(self, exchange: "Exchange", data: bytes) -> bool:
        """See Connection."""
        journal = self.server.journal
        if journal is None:
            return super().close_exchange(exchange, data)
        journal.mark(exchange.number)
        if not super().close_exchange(exchange, data):
            return False
        journal.ended(self, is_idle=True)
        return True

    def take(self) -> bytes | memoryview:
        """See Outflow."""
        piece = super().take()
        if self.units and type(self.units[0]) is memoryview:  # what is left of a unit is a view
            self._mark_cut()
        return piece

    def pace(self, size: int) -> bool:
        """See Connection."""
        if self.queued > size:
            self._mark_cut()
        return super().pace(size)

    def _mark_cut(self) -> None:
        journal = self.server.journal
        if journal is not None and self.current is not None:
            self.is_cut = True
            journal.mark_cut(self.current.number)

    # -- credits --------------------------------------------------------------------------------

    def granted(self, amount: int) -> None:
        """See Connection. Credits of an exchange that was reported are not ours: the gateway counts them."""
        if self.current is not None or self.is_unreported:
            self.credited += amount
            # Only then is it sure that the last piece has left: what ZeroMQ has queued dies with the process.
            if self.is_cut and self.outstanding <= amount and not self.units:
                self._mark_whole()
        super().granted(amount)

    def _mark_whole(self) -> None:
        journal = self.server.journal
        self.is_cut = False
        if journal is not None and self.current is not None:
            journal.mark_whole(self.current.number)

    # -- reports --------------------------------------------------------------------------------

    def leave(self, exchange: "Exchange", *, is_followed: bool = False) -> None:
        """See Connection."""
        if self.current is exchange:
            is_idle = not self.pipeline and not is_followed
            super().leave(exchange)
            self._report_end(is_idle=is_idle)

    def _report_end(self, *, is_idle: bool) -> None:
        journal = self.server.journal
        if journal is None or self.gone or self.closing:
            return  # the end of the connection says it all
        self.is_unreported = is_idle and bool(self.units)
        if not self.is_unreported:
            journal.ended(self, is_idle=is_idle)

    def _moved(self, whole: int) -> None:
        super()._moved(whole)
        if self.is_unreported and not self.units:
            self._report_end(is_idle=True)

    def lose(self) -> None:
        """See Connection."""
        if not self.gone:
            is_whole = self.current is None or self.current.is_whole
            super().lose()
            if self.server.journal is not None:
                self.server.journal.closed(self.conn_id, is_whole=is_whole)
