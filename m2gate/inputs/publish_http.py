"""Items by HTTP: ``POST /publish/`` with GRIP's body; with ``?receipt=1`` it tells what became of each.

There is no authentication: it listens on loopback unless told otherwise. A page in a browser on this
machine must not publish either, so requests with an Origin or for a name are refused.
Source: docs/reference/publishing.md.
"""

import ipaddress
import json
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qs

import gevent

from m2gate.errors import LimitReached
from m2gate.hub.grip import parse_items
from m2gate.hub.item import Item
from m2gate.hub.work import Receipt
from m2gate.inputs.listener import Listener, Patience

HEADER_MAX: Final = 10_000  # bytes, of all fields together
BODY_MAX: Final = 1_000_000  # bytes
TEXT_MAX: Final = 500  # characters of what is said of a bad item, which may name something in it
TURN_ITEMS: Final = 100  # published until others have their turn
TEXT: Final = "text/plain"
JSON: Final = "application/json"
Answer = tuple[int, str, str]  # status, content type, body

REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    411: "Length Required",
    503: "Service Unavailable",
}


class Refused(Exception):
    """A request that is answered with status and text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class HttpInput:
    """The HTTP input at ``HOST:PORT``.

    publish: accepts one item; may block the greenlet.
    date:    returns the time as HTTP writes it.
    ``rejected`` counts requests with items that were none.
    Bounds: those of Listener, HEADER_MAX bytes of a head and BODY_MAX of a body (400).
    """

    def __init__(self, address: str, publish: Callable[[Item], Receipt], date: Callable[[], str]) -> None:
        self.rejected = 0
        self._publish = publish
        self._date = date
        self._listener = Listener("publish_http", address, self._serve)

    @property
    def port(self) -> int | None:
        """The port that it listens on; None while that is not so."""
        return self._listener.port

    def start(self) -> None:
        """Listen, now or as soon as the port is free. Raises ConfigError if that cannot become true."""
        self._listener.start()

    def stop(self) -> None:
        """Listen no more. Blocks the greenlet. Idempotent."""
        self._listener.stop()

    def _serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        try:
            status, kind, text = self._answer(environ)
        except Refused as refused:
            status, kind, text = refused.status, TEXT, refused.text
        body = text.encode(errors="replace")
        headers = [("Content-Type", kind), ("Connection", "close"), ("Content-Length", str(len(body)))]
        if status == 405:
            headers.append(("Allow", "POST"))
        start_response(f"{status} {REASONS[status]}", headers)
        return [body]

    def _answer(self, environ: dict[str, Any]) -> Answer:
        _check_origin(environ)
        path, method = environ["PATH_INFO"].rstrip("/"), environ["REQUEST_METHOD"]
        if sum(len(name) + len(str(environ[name])) for name in environ if name.startswith("HTTP_")) > HEADER_MAX:
            raise Refused(400, "Request header too large.\n")
        if path == "":
            return 200, TEXT, "m2gate publish input\n"
        if path != "/publish":
            raise Refused(404, "Not Found\n")
        if method != "POST":
            raise Refused(405, f"Method not allowed: {method}.\n")
        kind = _accepted(environ.get("HTTP_ACCEPT", "*/*"))
        receipts = self._accept(_read(environ), environ["m2gate.patience"])
        if parse_qs(environ.get("QUERY_STRING", "")).get("receipt") == ["1"]:
            return 200, JSON, json.dumps({"message": "Published", "receipt": receipts}) + "\n"
        return 200, kind, "Published\n" if kind == TEXT else '{"message":"Published"}\n'

    def _accept(self, body: bytes, patience: Patience) -> list[dict[str, Any]]:
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            self.rejected += 1
            raise Refused(400, "Body is not valid JSON.\n") from None
        if not isinstance(document, dict):
            self.rejected += 1
            raise Refused(400, "Invalid format.\n")
        receipts: list[dict[str, Any]] = []
        try:
            items = parse_items(document, self._date())
            with patience.suspended():  # the subscribers are slow then, not this client
                for item in items:
                    receipts.append({"channel": item.channel, **_counts(self._publish(item))})
                    if len(receipts) % TURN_ITEMS == 0:
                        gevent.sleep(0)
        except ValueError as error:
            self.rejected += 1
            raise Refused(400, f"Invalid format: {str(error)[:TEXT_MAX]}\n") from None
        except LimitReached as error:
            raise Refused(503, f"{error}; {len(receipts)} of {len(items)} items were published\n") from None
        return receipts


def _counts(receipt: Receipt) -> dict[str, int]:
    return {
        "matched": receipt.matched,
        "written": receipt.written,
        "queued": receipt.queued,
        "filtered": receipt.filtered,
        "dropped": receipt.dropped,
    }


def _check_origin(environ: dict[str, Any]) -> None:
    if "HTTP_ORIGIN" in environ:
        raise Refused(403, "Browsers may not publish here.\n")
    host = environ.get("HTTP_HOST", "")
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name in ("", "localhost"):
        return
    try:
        ipaddress.ip_address(name)
    except ValueError:
        # A name that an attacker's DNS lets point to this machine.
        raise Refused(403, "Use an IP address or localhost in the URL.\n") from None


def _accepted(accept: str) -> str:
    kinds = [one.partition(";")[0].strip().lower() for one in accept.split(",")]
    if any(one in ("*/*", "text/*", TEXT, "") for one in kinds):
        return JSON if kinds[0] == JSON else TEXT
    if any(one in ("application/*", JSON) for one in kinds):
        return JSON
    raise Refused(406, "Not Acceptable. Supported formats are text/plain and application/json.\n")


def _read(environ: dict[str, Any]) -> bytes:
    length = environ.get("CONTENT_LENGTH", "")
    if environ.get("HTTP_TRANSFER_ENCODING") or not (length.isascii() and length.isdigit()):
        raise Refused(411, "Request requires Content-Length.\n")
    if len(length) > 10 or int(length) > BODY_MAX:
        raise Refused(400, "Request body too large.\n")
    try:
        body: bytes = environ["wsgi.input"].read(int(length))
    except OSError:
        raise Refused(400, "Request body incomplete.\n") from None
    return body
