"""The App: what a handler's module registers, and the life of it in a worker."""

import logging
from collections.abc import Callable, Collection, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, TypeVar

from m2gate.app.answer import handle
from m2gate.app.bounds import DEFAULTS, as_tuple, check_bounds, check_size
from m2gate.app.channel import Channel
from m2gate.app.request import Request
from m2gate.app.response import Response
from m2gate.app.routing import Router
from m2gate.app.tokens import Connection
from m2gate.app.wsgi import WSGIMount
from m2gate.errors import ConfigError
from m2gate.hub.policy import Rule
from m2gate.link.broadcast import Broadcast
from m2gate.link.exchange import Exchange
from m2gate.link.mailbox import Mailbox

logger = logging.getLogger(__name__)

H = TypeVar("H", bound=Callable[..., Any])
Before = Callable[[Request], Any]
After = Callable[[Request, Response], Response]


class App:
    """Handlers by path, and everything that is common to them.

    max_body:    bytes of a request body, however it is read (413).
    max_memory:  bytes of ``body``, ``json`` and ``form`` (413).
    max_message: bytes of one WebSocket message (close code 1009).
    origins:     origins besides the own host that may open WebSockets; ``*`` for all.
    trusted_proxies: addresses or networks whose X-Forwarded-For is believed.
    secret:      signs connection tokens.

    A mounted App has the bounds and origins of the one that it is mounted on, but those it is given
    itself; trusted_proxies and secret are those of the outermost.
    Raises ValueError for a bound that is no number of bytes, ConfigError for what is no address.
    """

    def __init__(
        self,
        *,
        max_body: int | None = None,
        max_memory: int | None = None,
        max_message: int | None = None,
        origins: Collection[str] | None = None,
        trusted_proxies: Collection[str] = (),
        secret: str | bytes | None = None,
    ) -> None:
        self.given = check_bounds(
            {"max_body": max_body, "max_memory": max_memory, "max_message": max_message, "origins": origins}
        )
        bounds = DEFAULTS | self.given
        self.max_body: int = bounds["max_body"]
        self.max_memory: int = bounds["max_memory"]
        self.max_message: int = bounds["max_message"]
        self.origins: tuple[str, ...] = bounds["origins"]
        self.trusted_proxies = parse_networks(as_tuple("trusted_proxies", trusted_proxies))
        self.secret = secret.encode() if isinstance(secret, str) else secret
        self.router = Router()
        self.mailbox: Mailbox | None = None
        self.broadcast = Broadcast()
        self.before_hooks: list[Before] = []
        self.after_hooks: list[After] = []
        self.error_handlers: dict[int | type[BaseException], Callable[[Request, Any], Any]] = {}
        self.on_start_hooks: list[Callable[[], object]] = []
        self.on_stop_hooks: list[Callable[[], object]] = []
        self._mounted: list[App] = []
        self._json_sockets: dict[str, Callable[[Request], Any]] = {}

    # -- what a handler's module calls ------------------------------------------------------------

    def route(self, path: str, methods: Sequence[str] = ("GET",), max_body: int | None = None) -> Callable[[H], H]:
        """Register the decorated handler for path and methods.

        path: ``/a/{x}``, ``/a/{n:int}`` or ``/a/{rest:path}``; parameters go to the handler by keyword.
        methods: in capitals. max_body: bytes, in place of the App's.
        Raises ValueError for a bad or duplicate path, a method or bound that is none.
        """
        if max_body is not None:
            check_size("max_body", max_body)
        spoken = as_tuple("methods", methods)

        def register(handler: H) -> H:
            self.router.add(path, spoken, handler, max_body=max_body)
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
        spoken = as_tuple("subprotocols", subprotocols)
        allowed = None if origins is None else as_tuple("origins", origins)

        def register(handler: H) -> H:
            self.router.add(path, ["WEBSOCKET"], handler, subprotocols=spoken, origins=allowed)
            return handler

        return register

    def json_socket(self, name: str) -> Callable[[H], H]:
        """Register the decorated handler for messages to ``@name``; what it returns is sent back as JSON."""
        if not name.startswith("@") or len(name) < 2:
            raise ValueError(f"JSON socket {name!r}: its name starts with '@'")

        def register(handler: H) -> H:
            if name in self._json_sockets:
                raise ValueError(f"JSON socket {name!r} is registered twice")
            self._json_sockets[name] = handler
            return handler

        return register

    def mount(self, prefix: str, *, wsgi: Any = None, app: "App | None" = None) -> None:
        """Hand everything below prefix to a WSGI application, or to another App.

        It gets all methods. ``/`` takes what no route takes.
        Raises ValueError for neither or both, and for an App that this one is mounted on.
        """
        if (wsgi is None) == (app is None):
            raise ValueError(f"mount {prefix!r}: give either wsgi= or app=")
        if app is not None:
            if self in app.apps():
                raise ValueError(f"mount {prefix!r}: an App cannot be mounted on itself")
            self._mounted.append(app)
            for one in app.apps():
                one.broadcast = self.broadcast
        self.router.mount(prefix, app if app is not None else WSGIMount(wsgi))

    def before(self, hook: Before) -> Before:
        """Register a hook that sees each request first; what it returns, unless None, is the response."""
        self.before_hooks.append(hook)
        return hook

    def after(self, hook: After) -> After:
        """Register a hook that gets each response and returns it, or another."""
        self.after_hooks.append(hook)
        return hook

    def error(self, kind: int | type[BaseException]) -> Callable[[H], H]:
        """Register the decorated handler ``(request, exception)`` for a status or an exception class.

        The nearest class counts, a status more than HTTPError itself; 500 takes what no class does.
        Of an exception with a handler of its own class no traceback is logged; 500, Exception and
        BaseException are for what nobody expects, and it is.
        Raises ValueError for a status that is no error, TypeError for anything else.
        """
        if isinstance(kind, int):
            if not 100 <= kind <= 599:
                raise ValueError(f"error {kind!r}: a status is 100 to 599")
        elif not isinstance(kind, type):
            raise TypeError(f"error {kind!r}: give a status or an exception class")

        def register(handler: H) -> H:
            self.error_handlers[kind] = handler
            return handler

        return register

    def on_start(self, hook: Callable[[], object]) -> Callable[[], object]:
        """Register a function that runs once in each worker before its first request."""
        self.on_start_hooks.append(hook)
        return hook

    def on_stop(self, hook: Callable[[], object]) -> Callable[[], object]:
        """Register a function that runs once in each worker after its last answer."""
        self.on_stop_hooks.append(hook)
        return hook

    def channel(self, name: str, policy: Rule | None = None, limit: int | None = None) -> Channel:
        """Return the channel of that name; the same for all that ask in this worker.

        policy: what becomes of subscribers that do not keep up: ``block``, ``drop-oldest`` or ``latest``.
        limit:  bytes that may wait for one subscriber, 1 MiB if only the policy is given.
        """
        return Channel(self, name, policy, limit)

    # -- what is registered -----------------------------------------------------------------------

    def apps(self) -> "list[App]":
        """Return this App and all that are mounted on it, however deep; each once, outer ones first."""
        return list(dict.fromkeys([self, *(one for app in self._mounted for one in app.apps())]))

    @property
    def json_sockets(self) -> dict[str, Callable[[Request], Any]]:
        """The handlers of JSON sockets by name, those of mounted Apps included; outer ones win."""
        return {name: handler for app in reversed(self.apps()) for name, handler in app._json_sockets.items()}

    def largest_body(self) -> int:
        """Return the bytes that no request body may exceed, whatever its route or App."""
        return max(size for app in self.apps() for size in (app.max_body, *app.router.body_limits()))

    # -- the life of a worker ---------------------------------------------------------------------

    def start(self) -> None:
        """Run the on_start hooks; the worker calls this once, before the first request.

        Raises what a hook raises: then there is nothing to serve.
        """
        self.broadcast.is_draining = False
        for app in reversed(self.apps()):
            for hook in app.on_start_hooks:
                hook()

    def stop(self) -> None:
        """Run the on_stop hooks; the worker calls this once, after the last answer."""
        for app in self.apps():
            for hook in app.on_stop_hooks:
                try:
                    hook()
                except Exception:  # the others have things to close, too
                    logger.exception("on_stop failed hook=%s", getattr(hook, "__name__", hook))

    def tick(self, now_s: float) -> None:
        """Do what is due; the worker calls this once a second."""
        self.broadcast.tick()

    def begin_drain(self) -> None:
        """End what would be held for ever: the worker is about to stop."""
        self.broadcast.begin_drain()

    def handle(self, exchange: Exchange) -> None:
        """Answer one exchange, in the greenlet that calls it. Raises nothing that a handler raises."""
        handle(self, exchange)

    def detach(self, exchange: Exchange) -> Connection:
        """Give up the answer of exchange; whoever has the result's token writes it.

        Raises RuntimeError outside of a worker, or when too many connections are detached.
        """
        if self.mailbox is None:
            raise RuntimeError("detach() works in a worker process or under TestClient only")
        token = self.mailbox.issue(exchange.connection)
        exchange.detach()
        return Connection(token)


def parse_networks(texts: Collection[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    """Parse addresses and networks. Raises ConfigError."""
    networks = []
    for text in texts:
        try:
            networks.append(ip_network(text, strict=False))
        except ValueError:
            remedy = "write an address or a network, as in 10.0.0.0/8"
            raise ConfigError("trusted_proxies", text, "is no address", remedy) from None
    return tuple(networks)
