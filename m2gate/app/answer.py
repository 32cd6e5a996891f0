"""The way of one exchange from its request to its answer: hooks, route, handler, errors."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from gevent import GreenletExit, Timeout
from werkzeug.exceptions import BadRequestKeyError

from m2gate.app.convert import TEXT, convert
from m2gate.app.error_pages import error_response
from m2gate.app.events import EventStream
from m2gate.app.files import send_file
from m2gate.app.hold import Hold
from m2gate.app.request import Request
from m2gate.app.response import FileBody, Response
from m2gate.app.routing import WEBSOCKET
from m2gate.app.send import send_response
from m2gate.app.websocket import WebSocket, check_handshake
from m2gate.app.wsgi import WSGIMount
from m2gate.errors import ConnectionGone, HTTPError
from m2gate.hub.building import encode_json
from m2gate.link.exchange import Exchange
from m2gate.link.json_socket import JsonExchange
from m2gate.link.websocket import WebSocketExchange
from m2gate.wire.http import UnsendableError

if TYPE_CHECKING:
    from m2gate.app.application import App

logger = logging.getLogger(__name__)

ANSWERED: Final = object()  # in place of a handler's value: the answer is sent already
# Whatever a handler raises, and what leaks out of its own timeouts and kills.
FAILURES: Final = (Exception, Timeout, SystemExit, GreenletExit)
# Error handlers for these take what nobody thought of, so it is logged; other classes are expected.
UNFORESEEN: Final = (500, Exception, BaseException)
ErrorHandler = Callable[[Request, Any], Any]


def handle(app: "App", exchange: Exchange) -> None:
    """Answer one exchange; called in a greenlet of its own. Raises nothing that a handler raises."""
    if exchange.refusal is not None:
        exchange.answer_refusal()
    elif type(exchange) is Exchange:
        handle_http(app, exchange)
    elif isinstance(exchange, WebSocketExchange):
        handle_websocket(app, exchange)
    elif isinstance(exchange, JsonExchange):
        handle_json(app, exchange)


def handle_http(app: "App", exchange: Exchange) -> None:
    """Answer a plain HTTP request."""
    request = Request(app, exchange)
    is_hooked = app.before_hooks or app.after_hooks or app.error_handlers
    try:
        value = (call if is_hooked else call_handler)(
            app, request, exchange.method.decode("latin-1"), exchange.head.path.decode("latin-1")
        )
        # The usual answers, without a Response in between.
        kind = type(value)
        if kind is str and not exchange.detached:
            exchange.respond(200, TEXT, value.encode())
        elif value is not ANSWERED and not exchange.detached:
            send(app, exchange, convert(value))
    except FAILURES as error:
        fail(app, exchange, request, error)


def call(app: "App", request: Request, method: str, path: str) -> Any:
    """Return what hooks and handler answer to a request for path, errors included.

    path: raw, below the prefix that this App is mounted on.
    """
    try:
        value = next((value for hook in app.before_hooks if (value := hook(request)) is not None), None)
        if value is None:
            value = call_handler(app, request, method, path)
    except FAILURES as error:
        value = call_error_handler(app, request, error)
    if app.after_hooks and value is not ANSWERED and not request.exchange.detached:
        response = convert(value)
        for after in app.after_hooks:
            response = after(request, response)
            if not isinstance(response, Response):
                raise TypeError(f"the after hook {after!r} returned no Response")
        return response
    return value


def call_handler(app: "App", request: Request, method: str, path: str) -> Any:
    """Call the handler that the path's route names; a mount where no route takes it."""
    found = app.router.find(method, path)
    if found is None:
        return call_mount(app, request, method, path)
    route, parameters = found
    exchange = request.exchange
    if route.max_body is not None:
        request.bounds = {**request.bounds, "max_body": route.max_body}
    if (exchange.upload is not None or exchange.head.body) and not exchange.is_json_socket:
        request.check_declared()
    return route.handler(request, **parameters)


def call_mount(app: "App", request: Request, method: str, path: str) -> Any:
    """Let the mount that has the path answer. Raises HTTPError 404."""
    mount = app.router.find_mount(path)
    if mount is None:
        raise HTTPError(404)
    rest = path[len(mount.prefix) :]
    if isinstance(mount.target, WSGIMount):
        request.check_declared()
        # SCRIPT_NAME counts from the root, also where the App itself is mounted.
        mount.target.serve(request, request.raw_path.removesuffix(rest), rest)
        return ANSWERED
    if not rest:
        query = request.query_string.decode("latin-1")
        return Response.redirect(f"{request.raw_path}/{'?' + query if query else ''}", 308)
    request.enter(mount.target)
    return call(mount.target, request, method, rest)


def call_error_handler(app: "App", request: Request, error: BaseException) -> Any:
    """Return what the handler of this error says, or the plain page of it.

    The App's own handlers count first, then those of the Apps that it is mounted on.
    Raises the error where it is too late for an answer.
    """
    error = as_http_error(error)
    if isinstance(error, ConnectionGone) or request.exchange.started:
        raise error
    chain = (request.app, *request.apps)
    own = chain[: chain.index(app) + 1]
    found = next((found for one in reversed(own) if (found := find_error_handler(one, error)) is not None), None)
    if not isinstance(error, HTTPError) and (found is None or found[0] in UNFORESEEN):
        log_failure(request, error)
    return error_page(request, error) if found is None else found[1](request, error)


def find_error_handler(app: "App", error: BaseException) -> tuple[int | type[BaseException], ErrorHandler] | None:
    """Return what the App handles an error as, and how: the nearest class first; a status is nearer than HTTPError."""
    handlers = app.error_handlers
    kinds: list[int | type[BaseException]] = list(type(error).__mro__)
    if isinstance(error, HTTPError):
        kinds.insert(kinds.index(HTTPError), error.status)
    else:
        kinds.append(500)
    return next(((kind, handlers[kind]) for kind in kinds if kind in handlers), None)


def error_page(request: Request, error: BaseException) -> Response:
    """Return the plain answer to an error; of one that is not meant for the client only its id."""
    if isinstance(error, HTTPError):
        return error_response(error)
    return error_response(HTTPError(500), request.id)


def as_http_error(error: BaseException) -> BaseException:
    """Return the 400 that a missing field of query, form, headers or cookies stands for; else the error."""
    if isinstance(error, BadRequestKeyError) and error.args:
        return HTTPError(400, f"{error.args[0]!r} is missing")
    return error


def fail(app: "App", exchange: Exchange, request: Request, error: BaseException) -> None:
    """Answer what nobody caught; a response that has begun is cut, so that the client notices."""
    error = as_http_error(error)
    if isinstance(error, ConnectionGone) and exchange.gone:
        exchange.abort()
        return
    if exchange.started or not isinstance(error, HTTPError):
        log_failure(request, error)
    if exchange.started:
        exchange.abort()
        return
    try:
        send(app, exchange, error_page(request, error))
    except (ValueError, TypeError) as unsendable:  # what the handler gave the HTTPError for detail or headers
        log_failure(request, unsendable)
        send(app, exchange, error_page(request, unsendable))


def send(app: "App", exchange: Exchange, response: Response) -> None:
    """Send a response of any kind."""
    body = response.body
    if isinstance(body, EventStream):
        body.run(exchange, app.broadcast, response.status, response.headers)
    elif isinstance(body, Hold):
        body.begin(exchange, app.broadcast, response.status, response.headers)
    elif isinstance(body, FileBody):
        send_file(exchange, response, body)
    else:
        send_response(exchange, response)


# -- other kinds of exchanges -------------------------------------------------------------------


def handle_websocket(app: "App", exchange: WebSocketExchange) -> None:
    """Serve a WebSocket until either side closes; before the 101 an error refuses it."""
    request = Request(app, exchange)
    try:
        talk(app, exchange, request)
        if not exchange.accepted and not exchange.started:
            exchange.accept()
        exchange.close(1000)
    except ConnectionGone:
        exchange.close(1000)
    except FAILURES as error:
        if not exchange.started:
            exchange.close_after = True
            fail(app, exchange, request, error)
            return
        log_failure(request, error)
        exchange.close(1011)
    finally:
        exchange.end()


def talk(app: "App", exchange: WebSocketExchange, request: Request) -> None:
    """Run hooks, route and handler of a WebSocket, those of the App that is mounted on its path."""
    path = exchange.head.path.decode("latin-1")
    while True:
        exchange.max_message = request.bounds.get("max_message", request.app.max_message)
        for hook in app.before_hooks:
            value = hook(request)
            if value is not None:
                exchange.close_after = True
                send(app, exchange, convert(value))
                return
        found = app.router.find(WEBSOCKET, path)
        if found is not None:
            break
        mount = app.router.find_mount(path)
        if mount is None or isinstance(mount.target, WSGIMount):
            raise HTTPError(404)
        app, path = mount.target, path[len(mount.prefix) :] or "/"
        request.enter(app)
    route, parameters = found
    origins = request.bounds.get("origins", request.app.origins) if route.origins is None else route.origins
    subprotocol = check_handshake(exchange, request.host, origins, route.subprotocols)
    route.handler(WebSocket(exchange, request, subprotocol), **parameters)


def handle_json(app: "App", exchange: JsonExchange) -> None:
    """Answer a JSON socket's message by what its handler returns; None sends nothing."""
    request = Request(app, exchange)
    try:
        data = call_json_handler(app, request)
    except FAILURES as error:
        if not isinstance(error, HTTPError):
            log_failure(request, error)
        detail = (error.detail or str(error)) if isinstance(error, HTTPError) else "internal error"
        data = encode_json({"error": printable(detail), "request_id": exchange.request_id})
    if data is None:
        exchange.finish()
    else:
        exchange.answer(data)


def call_json_handler(app: "App", request: Request) -> bytes | None:
    """Return what the handler of a JSON socket answers, encoded; None for nothing."""
    handler = app.json_sockets.get(request.raw_path)
    if handler is None:
        raise HTTPError(404, f"no JSON socket {request.raw_path}")
    value = handler(request)
    if isinstance(value, str):
        return value.encode()
    return value if value is None or isinstance(value, bytes) else encode_json(value)


def printable(text: str) -> str:
    """Return text without what UTF-8 has no form for."""
    return text.encode(errors="replace").decode()


def log_failure(request: Request, error: BaseException) -> None:
    """Log the traceback of a handler's exception, and which request it was.

    Of a response that must not be sent one line is enough: any client can cause it.
    """
    if isinstance(error, UnsendableError):
        logger.error("response refused request_id=%s path=%s problem=%s", request.id, request.raw_path, error)
        return
    logger.error(
        "handler failed request_id=%s method=%s path=%s", request.id, request.method, request.raw_path, exc_info=error
    )
