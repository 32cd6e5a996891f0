"""Hold: the handler returns, the connection stays and is fed by publishes."""

from collections.abc import Iterable, Mapping
from typing import Final, Literal

from m2gate.app.channel import Channel, Fed
from m2gate.app.events import PING, PING_S, STREAM_FIELDS, milliseconds
from m2gate.errors import ConnectionGone
from m2gate.hub.building import TEXT_TYPE, Data, build_content, parse_fields
from m2gate.hub.form import ResponseForm, StreamForm
from m2gate.hub.holding import HoldRequest
from m2gate.hub.item import Fields, ResponseFormat
from m2gate.link.broadcast import Broadcast
from m2gate.link.exchange import Exchange
from m2gate.wire import http

TIMEOUT_S: Final = 55.0
KEEP_ALIVE_S: Final = 55.0


class Hold(Fed):
    """Keep this request's connection and feed it from channels, for a handler to return.

    channels:   a channel or its name, or several.
    mode:       ``stream``: the response begins now and every item is appended to it, until the
                client leaves. ``response``: nothing is sent until the first item, which is the
                whole response.
    sse:        of a stream: items are server-sent events, and comments keep the line alive.
    timeout:    of a response hold: seconds until it is answered with status, headers and body.
    body:       what the stream begins with, or what the timeout answers: str, bytes, dict or list.
    status, headers: of the stream, or of the timeout's answer; a published response has its own
                status, and takes over the headers that it does not name itself.
    keep_alive: of a stream: what is sent after 55 s of silence, or a pair of that and the seconds.
    Raises ValueError for another mode, a timeout that is not positive, a status that is none, or a
    header that must not be sent.
    """

    def __init__(
        self,
        channels: "Channel | str | Iterable[Channel | str]",
        mode: Literal["stream", "response"] = "stream",
        *,
        sse: bool = False,
        timeout: float = TIMEOUT_S,
        body: Data = "",
        status: int = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        keep_alive: str | bytes | tuple[str | bytes, float] | None = None,
    ) -> None:
        super().__init__([channels] if isinstance(channels, Channel | str) else channels)
        if mode not in ("stream", "response"):
            raise ValueError(f"mode {mode!r}: must be 'stream' or 'response'")
        if timeout <= 0:
            raise ValueError(f"timeout {timeout!r}: seconds, more than 0")
        http.status_line(status)
        self.mode = mode
        self.sse = sse
        self.timeout = timeout
        self.status = status
        content, content_type = build_content(body)
        self.body = content.encode() if isinstance(content, str) else content
        self.headers = parse_fields(headers)
        self._content_type = content_type if body else ""
        self._ping, self._ping_s = _parse_keep_alive(keep_alive, sse=sse)

    def begin(self, exchange: Exchange, broadcast: Broadcast, status: int = 200, headers: Fields = ()) -> None:
        """Hold the request of exchange.

        status, headers: in place of and besides the Hold's own, as they were returned along with it.
        """
        status = self.status if status == 200 else status
        headers = self.headers + headers
        if self.mode == "response":
            request = self._response(exchange, status, headers)
        else:
            defaults = STREAM_FIELDS if self.sse else (("Content-Type", self._content_type or TEXT_TYPE),)
            exchange.start(status, _with_defaults(headers, defaults), None)
            if not http.has_body(exchange.method, status):
                exchange.finish()
                return
            request = self._stream(exchange)
        try:
            self.held = broadcast.hold(exchange, request)
        except ConnectionGone:
            exchange.finish()

    def _stream(self, exchange: Exchange) -> HoldRequest:
        form = StreamForm(chunked=exchange.form == "chunked", events=self.sse)
        return HoldRequest(
            channels=tuple(self.names),
            form=form,
            status=exchange.status,
            begin=exchange.take_begin(self.body),
            written=exchange.written,
            ping=form.wrap(self._ping) if self._ping else b"",
            ping_ms=milliseconds(self._ping_s),
            close=exchange.close_after,
            log=exchange.hold_log(),
        )

    def _response(self, exchange: Exchange, status: int, headers: Fields) -> HoldRequest:
        if exchange.upload is not None and not exchange.upload.is_done:
            exchange.close_after = True
        defaults = (("Content-Type", self._content_type),) if self._content_type else ()
        return HoldRequest(
            channels=tuple(self.names),
            form=ResponseForm(headers, close=exchange.close_after, body_less=exchange.method == b"HEAD"),
            timeout_ms=milliseconds(self.timeout),
            answer=ResponseFormat(status, _with_defaults(headers, defaults), self.body),
            close=exchange.close_after,
            log=exchange.hold_log(),
        )


def _with_defaults(headers: Fields, defaults: Fields) -> Fields:
    given = {name.lower() for name, _ in headers}
    return tuple(field for field in defaults if field[0].lower() not in given) + headers


def _parse_keep_alive(keep_alive: str | bytes | tuple[str | bytes, float] | None, *, sse: bool) -> tuple[bytes, float]:
    if keep_alive is None:
        return (PING, PING_S) if sse else (b"", KEEP_ALIVE_S)
    content, seconds = keep_alive if isinstance(keep_alive, tuple) else (keep_alive, KEEP_ALIVE_S)
    if seconds <= 0:
        raise ValueError(f"keep_alive {keep_alive!r}: seconds, more than 0")
    return content.encode() if isinstance(content, str) else content, seconds
