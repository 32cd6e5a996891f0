"""A WSGI application (PEP 3333) on a prefix: Flask, Django and the like, unchanged."""

import io
import sys
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

from gevent import GreenletExit

from m2gate.app.body import BodyFile
from m2gate.app.request import Request
from m2gate.errors import ConnectionGone, HTTPError
from m2gate.link.exchange import Exchange

WSGIApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
ExcInfo = tuple[Any, Any, Any]


class Input(BodyFile):
    """The body as ``wsgi.input``: what goes wrong is an OSError, which is what frameworks expect of it.

    ``refusal``: the 413 that is due because the body is over max_body, whatever the application makes of it.
    """

    refusal: HTTPError | None = None

    def _next_piece(self) -> bytes:
        try:
            return super()._next_piece()
        except ConnectionGone as error:
            raise ConnectionResetError(str(error)) from error
        except HTTPError as error:
            self.refusal = error
            raise OSError(str(error)) from error


class _Answer:
    """start_response, write and the body of one call of a WSGI application."""

    def __init__(self, exchange: Exchange, body: Input) -> None:
        self._exchange = exchange
        self._body = body
        self._status = 0
        self._headers: tuple[tuple[str, str], ...] = ()
        self._length: int | None = None

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None:
            try:
                if self._exchange.started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no cycle with the traceback
        elif self._status:
            raise AssertionError("start_response is called twice without exc_info")
        self._status = int(status[:3])
        self._length = next((int(value) for name, value in headers if name.lower() == "content-length"), None)
        # Framing and the Date are the exchange's.
        ours = ("content-length", "transfer-encoding", "connection", "date")
        self._headers = tuple((name, value) for name, value in headers if name.lower() not in ours)
        return self.write

    def begin(self, known_length: int | None = None) -> None:
        if self._body.refusal is not None:
            raise self._body.refusal
        if not self._status:
            raise AssertionError("the application answered without calling start_response")
        length = self._length if self._length is not None else known_length
        self._exchange.start(self._status, self._headers, length)

    def write(self, data: bytes) -> None:
        if not self._exchange.started:
            self.begin()
        self._exchange.write(data)
        self._exchange.flush()


class WSGIMount:
    """Calls a WSGI application for each request below its prefix."""

    def __init__(self, application: WSGIApplication) -> None:
        self.application = application

    def serve(self, request: Request, prefix: str, rest: str) -> None:
        """Answer request. Blocks the greenlet. Raises what the application raises before it has begun."""
        body = Input(request.exchange, request.max_body)
        try:
            self._serve(request.exchange, build_environ(request, body, prefix, rest), _Answer(request.exchange, body))
        except OSError:
            if body.refusal is None:
                raise
            raise body.refusal from None

    def _serve(self, exchange: Exchange, environ: dict[str, Any], answer: _Answer) -> None:
        result = self.application(environ, answer.start_response)
        try:
            pieces = iter(result)
            single = isinstance(result, list | tuple) and len(result) == 1
            while (piece := exchange.advance(lambda: next(pieces, None))) is not None:
                if not isinstance(piece, bytes):
                    raise TypeError(f"a WSGI application yields bytes, not {type(piece).__name__}")
                if not exchange.started:
                    # A header is due before the first byte, not before the first empty string.
                    if not piece:
                        continue
                    answer.begin(len(piece) if single else None)
                exchange.write(piece)
            if not exchange.started:
                # A body that HEAD leaves out may have any length.
                answer.begin(None if exchange.method == b"HEAD" else 0)
            exchange.finish()
        except (ConnectionGone, GreenletExit):
            exchange.abort()
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()


def build_environ(request: Request, body: Input, prefix: str, rest: str) -> dict[str, Any]:
    """Build the environ of a request; paths are decoded to latin-1 text, as PEP 3333 wants them."""
    name, port = _name_and_port(request)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": _native(prefix),
        "PATH_INFO": _native(rest),
        "QUERY_STRING": request.query_string.decode("latin-1"),
        "SERVER_NAME": name,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{request.http_version}",
        "REMOTE_ADDR": request.client,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.input": io.BufferedReader(body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "m2gate.request": request,
    }
    for name, value in request.headers.items():
        # X_Forwarded_For and X-Forwarded-For would be the same name: who writes '_' means to deceive.
        if "_" in name or name.lower() == "proxy":
            continue
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        joint = "; " if key == "HTTP_COOKIE" else ","
        environ[key] = f"{environ[key]}{joint}{value}" if key in environ else value
    return environ


def _native(path: str) -> str:
    return unquote_to_bytes(path).decode("latin-1")


def _name_and_port(request: Request) -> tuple[str, str]:
    name, colon, port = request.host.rpartition(":")
    if not colon or not port.isdigit():
        name, port = request.host, "443" if request.scheme == "https" else "80"
    return name or "localhost", port
