"""Server-sent events: one event, and the stream of them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from gevent import GreenletExit

from m2gate.app.channel import Channel, Fed
from m2gate.errors import ConnectionGone
from m2gate.hub.building import Data, build_content
from m2gate.hub.form import StreamForm
from m2gate.hub.holding import HoldRequest
from m2gate.hub.item import Fields
from m2gate.link.broadcast import Broadcast, LocalFeeding
from m2gate.link.exchange import Exchange
from m2gate.wire import http, sse

PING_S: Final = 15.0
NEVER_S: Final = 1e9  # 30 years
PING: Final = sse.build_comment()
STREAM_FIELDS: Final[Fields] = (("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache"))


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event.

    data:  str or bytes (UTF-8), or dict or list, sent as JSON.
    event: its type; None for ``message``.
    id:    what the browser says it saw last when it comes back.
    retry: milliseconds that it waits before it does.
    Raises ValueError for a line end in event or id, TypeError for other data.
    """

    data: Data
    event: str | None = None
    id: str | None = None
    retry: int | None = None

    def __post_init__(self) -> None:
        self.encode()

    def encode(self) -> bytes:
        """Return the bytes of the event."""
        return sse.build_event(build_content(self.data)[0], self.event, self.id, self.retry)


class EventStream(Fed):
    """A stream of server-sent events, for a handler to return.

    source: an iterable of Event or str, each sent as soon as it is produced; or a channel, whose
            every item becomes an event: then the handler is done and the stream lives on.
    ping:   seconds of silence after which a comment is sent, so that nobody takes the line for dead.
    Raises ValueError for a ping that is not positive.
    """

    def __init__(self, source: "Iterable[Event | str] | Channel", ping: float = PING_S) -> None:
        super().__init__([source] if isinstance(source, Channel) else [])
        if ping <= 0:
            raise ValueError(f"ping {ping!r}: seconds, more than 0")
        self.ping = ping
        self._events: Iterator[Event | str] | None = None if isinstance(source, Channel) else iter(source)

    def run(self, exchange: Exchange, broadcast: Broadcast, status: int = 200, headers: Fields = ()) -> None:
        """Answer the request with this stream.

        From an iterable it blocks the greenlet until that ends or the client leaves, and closes it
        then. From a channel it returns at once and the exchange is held.
        """
        given = {name.lower() for name, _ in headers}
        fields = tuple(field for field in STREAM_FIELDS if field[0].lower() not in given) + headers
        exchange.start(status, fields, None)
        try:
            if http.has_body(exchange.method, status):
                self._serve(exchange, broadcast)
            else:
                exchange.finish()
        except ConnectionGone:
            exchange.finish()
        finally:
            close = getattr(self._events, "close", None)
            if close is not None:
                close()

    def _serve(self, exchange: Exchange, broadcast: Broadcast) -> None:
        form = StreamForm(chunked=exchange.form == "chunked", events=True)
        if self._events is None:
            self._hold(exchange, broadcast, form)
            return
        exchange.flush()  # joining may take its time, and the items come behind the head
        held = broadcast.hold_stream(exchange, self.names, form, ping=PING, ping_s=self.ping)
        self.held = LocalFeeding(broadcast, held)
        exchange.is_endless = True
        try:
            while data := exchange.advance(self._next):
                exchange.write(data)
                broadcast.touch(held)
        except GreenletExit:
            if exchange.gone:
                raise
            # The service stops: the client is to see a whole stream and to come back.
        finally:
            broadcast.release(held)
        exchange.finish()

    def _hold(self, exchange: Exchange, broadcast: Broadcast, form: StreamForm) -> None:
        request = HoldRequest(
            channels=tuple(self.names),
            form=form,
            status=exchange.status,
            begin=exchange.take_begin(),
            ping=form.wrap(PING),
            ping_ms=milliseconds(self.ping),
            close=exchange.close_after,
            log=exchange.hold_log(),
        )
        self.held = broadcast.hold(exchange, request)

    def _next(self) -> bytes:
        for event in self._events or ():
            if isinstance(event, str):
                return sse.build_event(event)
            if isinstance(event, Event):
                return event.encode()
            raise TypeError(f"an EventStream yields Event or str, not {type(event).__name__}")
        return b""


def milliseconds(seconds: float) -> int:
    """Return a time as a HoldRequest has it: whole milliseconds, one at least."""
    return max(1, round(min(seconds, NEVER_S) * 1e3))
