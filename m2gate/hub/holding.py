"""What a hub needs to hold a connection: one record, and its bytes on the way to the hub of another process."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from m2gate.errors import WireError
from m2gate.hub.form import ResponseForm, StreamForm
from m2gate.hub.item import Fields, ResponseFormat
from m2gate.wire.attach import dump, load


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldLog:
    """What a held request's line in the access log says, besides what becomes of it.

    client:     its address, ``-`` if it is not known.
    started_us: time.monotonic() at the request, in microseconds; 0 without an access log.
    """

    request_id: str
    method: str
    path: str
    client: str
    started_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRequest:
    """A connection that is to be fed from channels from now on, and how.

    channels:   subscribed in this order, each once.
    form:       a StreamForm: every item is appended. A ResponseForm: the first item is the answer.
    status:     of the response that ``begin`` starts; 0 while nothing has been sent.
    begin:      of a stream: the bytes that come first, its head and what its body begins with.
    written:    bytes of body in ``begin``, unwrapped.
    ping:       of a stream: sent after ping_ms without anything else, wrapped already; b"" for none.
    timeout_ms: of a response: when it is answered with ``answer``; 0 for a stream, which has neither.
    close:      the connection ends with the response.
    """

    channels: tuple[str, ...]
    form: StreamForm | ResponseForm
    status: int = 0
    begin: bytes = b""
    written: int = 0
    ping: bytes = b""
    ping_ms: int = 0
    timeout_ms: int = 0
    answer: ResponseFormat | None = None
    close: bool = False
    log: HoldLog


def dump_hold(server_number: int, conn_id: int, request: HoldRequest) -> bytes:
    """Build the payload of a HOLD message: the connection conn_id of that server is the hub's from now on.

    Raises ValueError for a channel whose name has no UTF-8 form.
    """
    log, answer = request.log, request.answer
    return dump(
        {
            b"server": server_number,
            b"conn_id": conn_id,
            b"channels": [channel.encode() for channel in request.channels],
            b"form": _dump_form(request.form),
            b"status": request.status,
            b"begin": request.begin,
            b"written": request.written,
            b"ping": request.ping,
            b"ping_ms": request.ping_ms,
            b"timeout_ms": request.timeout_ms,
            b"answer": None if answer is None else [answer.status, _dump_fields(answer.headers), answer.body],
            b"close": request.close,
            b"log": [
                log.request_id.encode(),
                log.method.encode(),
                log.path.encode(),
                log.client.encode(),
                log.started_us,
            ],
        }
    )


def load_hold(payload: bytes) -> tuple[int, int, HoldRequest]:
    """Take apart what dump_hold made: the server's number, conn_id and the request. Raises WireError."""
    document = load(payload, dict)
    try:
        request_id, method, path, client, started_us = document[b"log"]
        answer = document[b"answer"]
        request = HoldRequest(
            channels=tuple(channel.decode() for channel in _list(document[b"channels"])),
            form=_load_form(document[b"form"]),
            status=_whole(document[b"status"]),
            begin=_bytes(document[b"begin"]),
            written=_whole(document[b"written"]),
            ping=_bytes(document[b"ping"]),
            ping_ms=_whole(document[b"ping_ms"]),
            timeout_ms=_whole(document[b"timeout_ms"]),
            answer=None if answer is None else _load_answer(answer),
            close=_flag(document[b"close"]),
            log=HoldLog(
                request_id=request_id.decode(),
                method=method.decode(),
                path=path.decode(),
                client=client.decode(),
                started_us=_whole(started_us),
            ),
        )
        if (request.answer is None) is isinstance(request.form, ResponseForm):
            raise ValueError("a response has an answer, a stream has none")
        return _whole(document[b"server"]), _whole(document[b"conn_id"]), request
    except (KeyError, TypeError, ValueError, AttributeError):
        raise WireError("a hold has all of its fields", 0, payload) from None


def _dump_form(form: StreamForm | ResponseForm) -> list[Any]:
    if isinstance(form, StreamForm):
        return [b"stream", form.chunked, form.events]
    return [b"response", _dump_fields(form.headers), form.close, form.body_less]


def _load_form(row: Any) -> StreamForm | ResponseForm:
    kind, *fields = row
    if kind == b"stream":
        chunked, events = fields
        return StreamForm(chunked=_flag(chunked), events=_flag(events))
    if kind != b"response":
        raise ValueError(f"form {kind!r}")
    headers, close, body_less = fields
    return ResponseForm(_load_fields(headers), close=_flag(close), body_less=_flag(body_less))


def _load_answer(row: Any) -> ResponseFormat:
    status, headers, body = row
    return ResponseFormat(_whole(status), _load_fields(headers), _bytes(body))


def _dump_fields(fields: Iterable[tuple[str, str]]) -> list[list[bytes]]:
    return [[name.encode(), value.encode()] for name, value in fields]


def _load_fields(rows: Any) -> Fields:
    return tuple((name.decode(), value.decode()) for name, value in rows)


def _list(value: object) -> list[Any]:
    if type(value) is not list:
        raise TypeError(f"{value!r} is no list")
    return value


def _bytes(value: object) -> bytes:
    if type(value) is not bytes:
        raise TypeError(f"{value!r} is no string")
    return value


def _whole(value: object) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r} is no number from 0 upwards")
    return value


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise TypeError(f"{value!r} is neither true nor false")
    return value
