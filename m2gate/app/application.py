"""The App: routes, hooks, and the way of one exchange from its request to its answer."""

import logging
from collections.abc import Callable, Collection, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final, TypeVar

from gevent import GreenletExit, Timeout

from m2gate.app.broadcast import Broadcast
from m2gate.app.channel import Channel
from m2gate.app.convert import JSON, TEXT, convert, encode_json
from m2gate.app.error_pages import error_response
from m2gate.app.events import EventStream
from m2gate.app.files import send_file
from m2gate.app.hold import Hold
from m2gate.app.request import Request
from m2gate.app.response import FileBody, Response
from m2gate.app.routing import Router
from m2gate.app.send import send_response
from m2gate.app.tokens import Connection
from m2gate.app.websocket import WebSocket, check_handshake
from m2gate.app.wsgi import WSGIMount
from m2gate.errors import ConfigError, ConnectionGone, HTTPError
from m2gate.hub.policy import Rule
from m2gate.link.exchange import Exchange, JsonExchange
from m2gate.link.mailbox import Mailbox
from m2gate.link.websocket import WebSocketExchange

logger = logging.getLogger(__name__)

H = TypeVar("H", bound=Callable[..., Any])
Before = Callable[[Request], Any]
After = Callable[[Request, Response], Response]

MIB: Final = 1 << 20
# Whatever a handler raises, and what leaks out of its own timeouts and kills.
FAILURES: Final = (Exception, Timeout, SystemExit, GreenletExit)


class App:
    """Handlers by path, and everything that is common to them.

    max_body:    bytes of a request body, however it is read (413).
    max_memory:  bytes of ``body``, ``json`` and ``form`` (413).
    max_message: bytes of one WebSocket message (close code 1009).
    origins:     origins besides the own host that may open WebSockets; ``*`` for all.
    trusted_proxies: addresses or networks whose X-Forwarded-For is believed.
    secret:      signs connection tokens.
    """

    def __init__(
        self,
        *,
        max_body: int = 100 * MIB,
        max_memory: int = 16 * MIB,
        max_message: int = 4 * MIB,
        origins: Collection[str] = (),
        trusted_proxies: Collection[str] = (),
        secret: str | bytes | None = None,
    ) -> None:
        self.max_body = max_body
        self.max_memory = max_memory
        self.max_message = max_message
        self.origins = tuple(origins)
        self.trusted_proxies = parse_networks(trusted_proxies)
        self.secret = secret.encode() if isinstance(secret, str) else secret
        self.router = Router()
        self.mailbox: Mailbox | None = None
        self.broadcast = Broadcast()
        self._before: list[Before] = []
        self._after: list[After] = []
        self._errors: dict[int | type[BaseException], Callable[[Request, Any], Any]] = {}
        self._on_start: list[Callable[[], object]] = []
        self._on_stop: list[Callable[[], object]] = []
        self._mounted: list[App] = []
        self.json_sockets: dict[str, Callable[[Request], Any]] = {}

    # -- what a handler's module calls ------------------------------------------------------------

    def route(self, path: str, methods: Sequence[str] = ("GET",), max_body: int | None = None) -> Callable[[H], H]:
        """Register the decorated handler for path and methods.

        path: ``/a/{x}``, ``/a/{n:int}`` or ``/a/{rest:path}``; parameters go to the handler by keyword.
        Raises ValueError for a bad or duplicate path.
        """

        def register(handler: H) -> H:
            self.router.add(path, methods, handler, max_body=max_body)
            return handler

        return register

    def get(self, path: str) -> Callable[[H], H]:
        """Register the decorated handler for GET (and with it HEAD)."""
        return self.route(path, ["GET"])

    def post(self, path: str) -> Callable[[H], H]:
        """Register the decorated handler for POST."""
        return self.route(path, ["POST"])

    def put(self, path: str) -> Callable[[H], H]:
        """Register the decorated handler for PUT."""
        return self.route(path, ["PUT"])

    def patch(self, path: str) -> Callable[[H], H]:
        """Register the decorated handler for PATCH."""
        return self.route(path, ["PATCH"])

    def delete(self, path: str) -> Callable[[H], H]:
        """Register the decorated handler for DELETE."""
        return self.route(path, ["DELETE"])

    def head(self, path: str) -> Callable[[H], H]:
        """Register the decorated handler for HEAD, where GET's own is too expensive for it."""
        return self.route(path, ["HEAD"])

    def options(self, path: str) -> Callable[[H], H]:
        """Register the decorated handler for OPTIONS, in place of the automatic answer."""
        return self.route(path, ["OPTIONS"])

    def websocket(
        self, path: str, subprotocols: Sequence[str] = (), origins: Collection[str] | None = None
    ) -> Callable[[H], H]:
        """Register the decorated handler for WebSockets on path; it gets (ws, **parameters).

        subprotocols: those that the handler speaks, the preferred one first.
        origins:      instead of the App's: who may connect besides pages of the same host.
        """

        def register(handler: H) -> H:
            allowed = self.origins if origins is None else tuple(origins)
            self.router.add(path, ["WEBSOCKET"], handler, subprotocols=tuple(subprotocols), origins=allowed)
            return handler

        return register

    def json_socket(self, name: str) -> Callable[[H], H]:
        """Register the decorated handler for messages to ``@name``; what it returns is sent back as JSON."""
        if not name.startswith("@") or len(name) < 2:
            raise ValueError(f"JSON socket {name!r}: its name starts with '@'")

        def register(handler: H) -> H:
            if name in self.json_sockets:
                raise ValueError(f"JSON socket {name!r} is registered twice")
            self.json_sockets[name] = handler
            return handler

        return register

    def mount(self, prefix: str, *, wsgi: Any = None, app: "App | None" = None) -> None:
        """Hand everything below prefix to a WSGI application, or to another App.

        It gets all methods. ``/`` takes what no route takes. Raises ValueError for neither or both.
        """
        if (wsgi is None) == (app is None):
            raise ValueError(f"mount {prefix!r}: give either wsgi= or app=")
        if app is not None:
            self._mounted.append(app)
            self.json_sockets.update(app.json_sockets)
            app.broadcast = self.broadcast
        self.router.mount(prefix, app if app is not None else WSGIMount(wsgi))

    def before(self, hook: Before) -> Before:
        """Register a hook that sees each request first; what it returns, unless None, is the response."""
        self._before.append(hook)
        return hook

    def after(self, hook: After) -> After:
        """Register a hook that gets each response and returns it, or another."""
        self._after.append(hook)
        return hook

    def error(self, kind: int | type[Exception]) -> Callable[[H], H]:
        """Register the decorated handler ``(request, exception)`` for a status or an exception class."""

        def register(handler: H) -> H:
            self._errors[kind] = handler
            return handler

        return register

    def on_start(self, hook: Callable[[], object]) -> Callable[[], object]:
        """Register a function that runs once in each worker before its first request."""
        self._on_start.append(hook)
        return hook

    def on_stop(self, hook: Callable[[], object]) -> Callable[[], object]:
        """Register a function that runs once in each worker after its last answer."""
        self._on_stop.append(hook)
        return hook

    def channel(self, name: str, policy: Rule | None = None, limit: int | None = None) -> Channel:
        """Return the channel of that name; the same for all that ask in this worker.

        policy: what becomes of subscribers that do not keep up: ``block``, ``drop-oldest`` or ``latest``.
        limit:  bytes that may wait for one subscriber, 1 MiB if only the policy is given.
        """
        return Channel(self, name, policy, limit)

    # -- the life of a worker ---------------------------------------------------------------------

    def start(self) -> None:
        """Run the on_start hooks; the worker calls this once, before the first request."""
        for app in (*self._mounted, self):
            for hook in app._on_start:
                hook()

    def stop(self) -> None:
        """Run the on_stop hooks; the worker calls this once, after the last answer."""
        for app in (self, *self._mounted):
            for hook in app._on_stop:
                hook()

    def tick(self, now_s: float) -> None:
        """Do what is due; the worker calls this once a second."""
        self.broadcast.tick()

    def begin_drain(self) -> None:
        """End what would be held for ever: the worker is about to stop."""
        self.broadcast.begin_drain()

    # -- one exchange -------------------------------------------------------------------------------

    def handle(self, exchange: Exchange) -> None:
        """Answer one exchange; called in a greenlet of its own. Raises nothing that a handler raises."""
        if exchange.refusal is not None:
            exchange.answer_refusal()
        elif isinstance(exchange, WebSocketExchange):
            self._handle_websocket(exchange)
        elif isinstance(exchange, JsonExchange):
            self._handle_json(exchange)
        else:
            self._handle_http(exchange)

    def _handle_http(self, exchange: Exchange) -> None:
        request = Request(self, exchange)
        try:
            value = self.call(request, exchange.method.decode("latin-1"), exchange.head.path.decode("latin-1"))
            # The usual answers, without a Response in between.
            kind = type(value)
            if exchange.is_held:
                return
            if kind is str:
                exchange.respond(200, TEXT, value.encode())
            elif kind is dict or kind is list:
                exchange.respond(200, JSON, encode_json(value))
            else:
                self._send(exchange, convert(value))
        except FAILURES as error:
            self._fail(exchange, request, error)

    def call(self, request: Request, method: str, path: str) -> Any:
        """Return what hooks and handler answer to a request for path, errors included.

        path: raw, below the prefix that this App is mounted on.
        """
        if not (self._before or self._after or self._errors):
            return self._call_handler(request, method, path)
        try:
            value = next((value for hook in self._before if (value := hook(request)) is not None), None)
            if value is None:
                value = self._call_handler(request, method, path)
        except FAILURES as error:
            value = self._call_error_handler(request, error)
        if self._after and not request.exchange.is_held:
            response = convert(value)
            for after in self._after:
                response = after(request, response)
                if not isinstance(response, Response):
                    raise TypeError(f"the after hook {after!r} returned no Response")
            return response
        return value

    def _call_handler(self, request: Request, method: str, path: str) -> Any:
        found = self.router.find(method, path)
        if found is None:
            return self._call_mount(request, method, path)
        route, parameters = found
        exchange = request.exchange
        if route.max_body is not None:
            request.max_body_override = route.max_body
        if (exchange.upload is not None or exchange.head.body) and not exchange.is_json_socket:
            request.check_declared()
        return route.handler(request, **parameters)

    def _call_mount(self, request: Request, method: str, path: str) -> Any:
        mount = self.router.find_mount(path)
        if mount is None:
            raise HTTPError(404)
        rest = path[len(mount.prefix) :]
        if isinstance(mount.target, WSGIMount):
            request.check_declared()
            mount.target.serve(request, mount.prefix, rest)
            request.exchange.is_held = True
            return None
        if not rest:
            query = request.query_string.decode("latin-1")
            return Response.redirect(f"{request.raw_path}/{'?' + query if query else ''}", 308)
        return mount.target.call(request, method, rest)

    def _call_error_handler(self, request: Request, error: BaseException) -> Any:
        handler = next((self._errors[kind] for kind in type(error).__mro__ if kind in self._errors), None)
        if handler is None:
            status = error.status if isinstance(error, HTTPError) else 500
            handler = self._errors.get(status)
        if handler is None or isinstance(error, ConnectionGone) or request.exchange.started:
            raise error
        if not isinstance(error, HTTPError):
            log_failure(request, error)
        return handler(request, error)

    def _fail(self, exchange: Exchange, request: Request, error: BaseException) -> None:
        """Answer what nobody caught; a response that has begun is cut, so that the client notices."""
        if isinstance(error, ConnectionGone) and exchange.gone:
            exchange.abort()
            return
        if isinstance(error, HTTPError) and not exchange.started:
            response = error_response(error)
        else:
            log_failure(request, error)
            response = error_response(HTTPError(500), exchange.request_id)
        if exchange.started:
            exchange.abort()
        else:
            self._send(exchange, response)

    def _send(self, exchange: Exchange, response: Response) -> None:
        body = response.body
        if isinstance(body, EventStream):
            body.run(exchange, self.broadcast, response.status, response.headers)
        elif isinstance(body, Hold):
            body.headers += response.headers
            body.begin(exchange, self.broadcast)
        elif isinstance(body, FileBody):
            send_file(exchange, response, body)
        else:
            send_response(exchange, response)

    # -- other kinds of exchanges -------------------------------------------------------------------

    def _handle_websocket(self, exchange: WebSocketExchange) -> None:
        request = Request(self, exchange)
        exchange.max_message = self.max_message
        try:
            self._talk(exchange, request)
            if not exchange.accepted and not exchange.started:
                exchange.accept()
            exchange.close(1000)
        except ConnectionGone:
            exchange.close(1000)
        except FAILURES as error:
            if not exchange.started:
                exchange.close_after = True
                self._fail(exchange, request, error)
                return
            log_failure(request, error)
            exchange.close(1011)
        finally:
            exchange.end()

    def _talk(self, exchange: WebSocketExchange, request: Request) -> None:
        for hook in self._before:
            value = hook(request)
            if value is not None:
                exchange.close_after = True
                self._send(exchange, convert(value))
                return
        app, path = self, exchange.head.path.decode("latin-1")
        while (found := app.router.find("WEBSOCKET", path)) is None:
            mount = app.router.find_mount(path)
            if mount is None or not isinstance(mount.target, App):
                raise HTTPError(404)
            app, path = mount.target, path[len(mount.prefix) :] or "/"
        route, parameters = found
        subprotocol = check_handshake(exchange, request.host, route.origins, route.subprotocols)
        route.handler(WebSocket(exchange, request, subprotocol), **parameters)

    def _handle_json(self, exchange: JsonExchange) -> None:
        request = Request(self, exchange)
        try:
            handler = self.json_sockets.get(request.raw_path)
            if handler is None:
                raise HTTPError(404, f"no JSON socket {request.raw_path}")
            value = handler(request)
        except FAILURES as error:
            if not isinstance(error, HTTPError):
                log_failure(request, error)
            detail = (error.detail or str(error)) if isinstance(error, HTTPError) else "internal error"
            value = {"error": detail, "request_id": exchange.request_id}
        if value is None:
            exchange.finish()
            return
        if isinstance(value, str):
            value = value.encode()
        exchange.answer(value if isinstance(value, bytes) else encode_json(value))

    def detach(self, exchange: Exchange) -> Connection:
        """Give up the answer of exchange; whoever has the result's token writes it.

        Raises RuntimeError outside of a worker, or when too many connections are detached.
        """
        if self.mailbox is None:
            raise RuntimeError("detach() works in a worker process or under TestClient only")
        token = self.mailbox.issue(exchange.connection)
        exchange.detach()
        return Connection(token)


def log_failure(request: Request, error: BaseException) -> None:
    """Log the traceback of a handler's exception, and which request it was."""
    logger.error(
        "handler failed request_id=%s method=%s path=%s", request.id, request.method, request.raw_path, exc_info=error
    )


def parse_networks(texts: Collection[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    """Parse addresses and networks. Raises ConfigError."""
    networks = []
    for text in texts:
        try:
            networks.append(ip_network(text, strict=False))
        except ValueError:
            remedy = "write an address or a network, as in 10.0.0.0/8"
            raise ConfigError("trusted_proxies", text, "is no address", remedy, "App") from None
    return tuple(networks)
