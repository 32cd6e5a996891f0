"""A small HTTP server for tools on the operator's side, hardened: it shares a process with all clients."""

import errno
import ipaddress
import logging
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any, Final

import gevent
from gevent import get_hub
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer

from m2gate.errors import ConfigError

logger = logging.getLogger(__name__)

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

CONNECTIONS_MAX: Final = 200  # at once; further ones wait in the kernel
CONNECTION_S: Final = 10.0  # from accept to the last byte; then it is cut, whatever is under way
RETRY_S: Final = 0.05  # between attempts to get a port that a predecessor is about to leave
PATIENCE_S: Final = 5.0  # then the log says that it is still taken
STOP_S: Final = 0.5  # for answers under way


def parse_address(key: str, text: str) -> tuple[str, int]:
    """Parse HOST:PORT or [HOST]:PORT, where HOST is an IP address. Raises ConfigError naming key."""
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    host = "127.0.0.1" if host in ("", "localhost") else host
    if not separator or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ConfigError(key, text, "no port from 0 to 65535 in it", "write e.g. 127.0.0.1:9090")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ConfigError(key, text, f"{host!r} is no IP address", "write e.g. 127.0.0.1:9090") from None
    return host, int(port)


class Listener:
    """Serves a WSGI application at an address of this machine.

    key, address: the setting, such as ``metrics``, and its value ``HOST:PORT``.
    Bounds: connections_max at once, each for CONNECTION_S at most besides what the application itself has to
    wait, so that clients that send or read slowly keep others waiting no longer than that; a head of 100
    lines, each of 64 KiB at most (400).
    A port that is taken is tried again until it is free: of two workers the successor gets it as soon
    as its predecessor has stopped.
    """

    def __init__(
        self, key: str, address: str, application: Application, *, connections_max: int = CONNECTIONS_MAX
    ) -> None:
        self._key = key
        self._address = address
        self._application = application
        self._connections_max = connections_max
        self._server: WSGIServer | None = None
        self._binder: gevent.Greenlet[[], None] | None = None
        self.host, self._wanted_port = parse_address(key, address)

    @property
    def port(self) -> int | None:
        """The port that it listens on; None while that is not so."""
        return None if self._server is None else self._server.server_port

    def start(self) -> None:
        """Listen, now or as soon as the port is free. Raises ConfigError if that cannot become true."""
        if not self._bind():
            self._binder = gevent.spawn(self._bind_later)

    def stop(self) -> None:
        """Listen no more; answers under way have STOP_S. Blocks the greenlet. Idempotent."""
        if self._binder is not None:
            self._binder.kill()
        server, self._server = self._server, None
        if server is not None:
            server.stop(timeout=STOP_S)

    def _bind(self) -> bool:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = gevent.socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self._wanted_port))
            listener.listen(64)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE:
                return False
            remedy = "use an address of this machine and a port that is allowed"
            raise ConfigError(self._key, self._address, error.strerror or str(error), remedy) from error
        self._server = WSGIServer(
            listener,
            self._application,
            log=None,
            error_log=None,
            handler_class=_Handler,
            spawn=Pool(self._connections_max),
        )
        self._server.start()
        return True

    def _bind_later(self) -> None:
        waited_s = 0.0
        while not self._bind():
            gevent.sleep(RETRY_S)
            waited_s += RETRY_S
            if PATIENCE_S <= waited_s < PATIENCE_S + RETRY_S:
                logger.warning("address in use, trying again %s=%s", self._key, self._address)


class Patience:
    """Cuts a connection after CONNECTION_S; the application has it as ``environ["m2gate.patience"]``."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._timer = get_hub().loop.timer(CONNECTION_S)
        # An end of the stream is what a reader or writer expects of a client; an exception is not.
        self._timer.start(_cut, connection)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Let it last while the application itself has to wait; then its time begins anew."""
        self._timer.stop()
        try:
            yield
        finally:
            self._timer.start(_cut, self._connection)

    def close(self) -> None:
        """Cut it no more."""
        self._timer.stop()
        self._timer.close()


class _Handler(WSGIHandler):
    """One connection: bounded in time, and silent about what clients do."""

    def handle(self) -> None:
        self._patience = Patience(self.socket)
        try:
            super().handle()
        finally:
            self._patience.close()

    def get_environ(self) -> dict[str, Any]:
        return {**super().get_environ(), "m2gate.patience": self._patience}

    def read_request(self, raw_requestline: str) -> Any:
        try:
            return super().read_request(raw_requestline)
        except HTTPException as error:  # more headers than the library takes
            raise ValueError(str(error)) from None  # which is answered with 400; anything else leaves a traceback

    def handle_error(self, t: Any, v: Any, tb: Any) -> None:
        logger.error("request of a tool failed", exc_info=(t, v, tb))
        self.close_connection = True


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the client was quicker
