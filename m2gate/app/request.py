"""What a handler knows of its request; everything is parsed on first use."""

import inspect
import io
import json
from collections.abc import Mapping
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_address
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from werkzeug.datastructures import Headers, MultiDict
from werkzeug.exceptions import HTTPException
from werkzeug.formparser import FormDataParser
from werkzeug.http import parse_options_header
from werkzeug.sansio.http import parse_cookie

from m2gate.app.body import BodyFile
from m2gate.app.routing import decode_path
from m2gate.errors import HTTPError
from m2gate.link.exchange import Exchange
from m2gate.wire.mongrel2 import check_headers

if TYPE_CHECKING:
    from m2gate.app.application import App
    from m2gate.app.tokens import Connection

Network = IPv4Network | IPv6Network

FORM_PARTS_MAX: Final = 1_000  # fields and files of one form; more is a bomb (413)
# Werkzeug before 2.3 (Debian 12 has 2.2) takes the text of a WSGI environ and decodes it itself.
_COOKIES_ARE_LATIN1: Final = "charset" in inspect.signature(parse_cookie).parameters
_FORGEABLE: Final = b"x-mongrel2-upload-"


class Request:
    """One HTTP request or WebSocket handshake.

    ``exchange`` is what it came by. Parsing errors are HTTPErrors of the right status.
    """

    def __init__(self, app: "App", exchange: Exchange) -> None:
        self.app = app
        self.exchange = exchange

    # ``app`` is the outermost App, ``apps`` those below it on whose paths the request lies, and
    # ``bounds`` what they and the route have in place of the outermost's.
    apps: "tuple[App, ...]" = ()
    bounds: Mapping[str, Any] = MappingProxyType({})

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.raw_path}>"

    # -- the request line and where it came from --------------------------------------------------

    @property
    def method(self) -> str:
        """The method in capitals; GET for a WebSocket handshake."""
        return "GET" if self.exchange.is_websocket else self.exchange.method.decode("latin-1")

    @property
    def raw_path(self) -> str:
        """The path as sent, percent-encoded, without the query."""
        return self.exchange.head.path.decode("latin-1")

    @cached_property
    def path(self) -> str:
        """The path, decoded. Raises HTTPError 400 if it is no UTF-8 or has a NUL."""
        return decode_path(self.raw_path)

    @property
    def query_string(self) -> bytes:
        """The raw query, b"" without one."""
        return self._special(b"QUERY")

    @cached_property
    def query(self) -> "MultiDict[str, str]":
        """The query's fields; bytes that are no UTF-8 become U+FFFD."""
        return parse_query(self.query_string)

    @property
    def http_version(self) -> str:
        """``1.1`` or ``1.0``."""
        return "1.0" if self.exchange.version_10 else "1.1"

    @cached_property
    def _is_forwarded(self) -> bool:
        """Whether a trusted proxy sent this, so that its X-Forwarded-For and -Proto count."""
        trusted = self.app.trusted_proxies
        return bool(trusted) and _is_in(self._special(b"REMOTE_ADDR").decode("latin-1"), trusted)

    @cached_property
    def client(self) -> str:
        """Address of the peer; X-Forwarded-For counts only as far as trusted proxies wrote it."""
        address = self._special(b"REMOTE_ADDR").decode("latin-1")
        if not self._is_forwarded:
            return address
        hops = [hop.strip() for line in self.headers.getlist("X-Forwarded-For") for hop in line.split(",")]
        for hop in reversed(hops):
            if not _is_address(hop):
                return address
            address = hop
            if not _is_in(hop, self.app.trusted_proxies):
                break
        return address

    @cached_property
    def scheme(self) -> str:
        """``http`` or ``https``; X-Forwarded-Proto counts from trusted proxies."""
        forwarded = self.headers.get("X-Forwarded-Proto")
        if forwarded in ("http", "https") and self._is_forwarded:
            return str(forwarded)
        return self._special(b"URL_SCHEME").decode("latin-1") or "http"

    @property
    def host(self) -> str:
        """The Host header, "" if there is none."""
        return self.headers.get("Host", "")

    @property
    def url(self) -> str:
        """The URL as the client may have typed it."""
        query = self.query_string.decode("latin-1")
        return f"{self.scheme}://{self.host}{self.raw_path}{'?' + query if query else ''}"

    def _special(self, key: bytes) -> bytes:
        value = self.exchange.head.headers.get(key, b"")
        return value if isinstance(value, bytes) else b""

    # -- header fields ----------------------------------------------------------------------------

    @cached_property
    def headers(self) -> Headers:
        """The client's fields, case-insensitive; getlist() for repeated ones.

        X-Forwarded-For is only there if a trusted proxy sent it: anybody else may write into it what he likes.
        """
        check_headers(self.exchange.head.headers)
        headers = Headers()
        for name, value in self.exchange.head.headers.items():
            # Mongrel2's own keys are in capitals; what it announces of uploads any client can send.
            if name.isupper() or name.startswith(_FORGEABLE):
                continue
            if name == b"x-forwarded-for" and not self._is_forwarded:
                continue
            text = name.decode("latin-1")
            for one in value if isinstance(value, list) else (value,):
                headers.add_header(text, one.decode("latin-1"))
        return headers

    @cached_property
    def cookies(self) -> "MultiDict[str, str]":
        """The cookies by name; bytes that are no UTF-8 become U+FFFD."""
        raw = self.exchange.head.headers.get(b"cookie", b"")
        whole = b"; ".join(raw) if isinstance(raw, list) else raw
        return parse_cookie(whole.decode("latin-1" if _COOKIES_ARE_LATIN1 else "utf-8", "replace"))

    @property
    def content_type(self) -> str:
        """The media type of the body in lower case, without parameters."""
        return parse_options_header(self.headers.get("Content-Type", ""))[0].lower()

    # -- the body ---------------------------------------------------------------------------------

    @property
    def max_body(self) -> int:
        """Bytes that this request's body may have."""
        bound: int = self.bounds.get("max_body", self.app.max_body)
        return bound

    @property
    def max_memory(self) -> int:
        """Bytes of it that ``body``, ``json`` and ``form`` keep in memory."""
        bound: int = self.bounds.get("max_memory", self.app.max_memory)
        return bound

    def enter(self, app: "App") -> None:
        """Note that a mounted App has the request: its own bounds hold from now on."""
        self.apps += (app,)
        self.bounds = {**self.bounds, **app.given}

    def check_declared(self) -> None:
        """Raise HTTPError 413 if the declared length of the body is over max_body."""
        declared = self.exchange.declared_length
        if declared is not None and declared > self.max_body:
            raise too_large(self.max_body)

    @cached_property
    def stream(self) -> BodyFile:
        """The body as it comes: iterate for pieces as the client sends them, or read(n).

        What is not read makes the client wait. Raises HTTPError 413 beyond max_body, ConnectionGone.
        """
        return BodyFile(self.exchange, self.max_body)

    @cached_property
    def body(self) -> bytes:
        """The whole body. Blocks the greenlet. Raises HTTPError 413 beyond max_memory."""
        limit = self.max_memory
        declared = self.exchange.declared_length
        if declared is not None and declared > limit:
            raise too_large(limit)
        pieces: list[bytes] = []
        total = 0
        for piece in self.stream:
            total += len(piece)
            if total > limit:
                raise too_large(limit)
            pieces.append(piece)
        return b"".join(pieces)

    @property
    def text(self) -> str:
        """The body as text, in the charset that Content-Type names, else UTF-8. Raises HTTPError 400, 415."""
        charset = parse_options_header(self.headers.get("Content-Type", ""))[1].get("charset", "utf-8")
        try:
            return self.body.decode(charset)
        except LookupError:
            raise HTTPError(415, f"unknown charset {charset[:40]!r}") from None
        except ValueError:  # not only UnicodeDecodeError: some codecs have errors of their own
            raise HTTPError(400, f"the body is no {charset[:40]}") from None

    @cached_property
    def json(self) -> Any:
        """The body as JSON. Raises HTTPError: 415 for another type, 400 for what is no JSON."""
        kind = self.content_type
        is_json = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
        if not self.exchange.is_json_socket and not is_json:
            raise HTTPError(415, "send application/json")
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise HTTPError(400, "the body is no JSON") from None

    @cached_property
    def _form(self) -> "tuple[MultiDict[str, str], MultiDict[str, Any]]":
        kind, parameters = parse_options_header(self.headers.get("Content-Type", ""))
        if kind.lower() == "application/x-www-form-urlencoded":
            return self._parse_urlencoded(), MultiDict()
        if kind.lower() != "multipart/form-data":
            raise HTTPError(415, "send a form")
        return self._parse_multipart(parameters)

    def _parse_urlencoded(self) -> "MultiDict[str, str]":
        try:
            return parse_query(self.body, FORM_PARTS_MAX)
        except ValueError:
            raise HTTPError(413, f"a form has at most {FORM_PARTS_MAX} fields") from None

    def _parse_multipart(self, parameters: dict[str, str]) -> "tuple[MultiDict[str, str], MultiDict[str, Any]]":
        parser = FormDataParser(
            max_form_memory_size=self.max_memory,
            max_content_length=None,
            max_form_parts=FORM_PARTS_MAX,
            silent=False,
        )
        stream, length = io.BufferedReader(self.stream), self.exchange.declared_length
        try:
            _, form, files = parser.parse(stream, "multipart/form-data", length, parameters)
        except HTTPException as error:
            raise HTTPError(error.code or 400, "this form is too large") from None
        except ValueError:
            raise HTTPError(400, "the form is broken") from None
        self.exchange.call_at_end([file.close for _, file in files.items(multi=True)])
        return form, files

    @property
    def form(self) -> "MultiDict[str, str]":
        """The fields of a form. Raises HTTPError: 415 for no form, 400, 413 beyond max_memory."""
        return self._form[0]

    @property
    def files(self) -> "MultiDict[str, Any]":
        """The files of a multipart form, as werkzeug's FileStorage; closed when the request ends."""
        return self._form[1]

    # -- the connection ---------------------------------------------------------------------------

    @property
    def server(self) -> str:
        """The send_ident of the Mongrel2 that has the connection."""
        return self.exchange.head.send_ident.decode()

    @property
    def conn_id(self) -> int:
        """The number of the TCP connection at its server; not unique over time."""
        return self.exchange.head.conn_id

    @property
    def id(self) -> str:
        """Names this request, also in the log."""
        return self.exchange.request_id

    @property
    def connected(self) -> bool:
        """False once the client is known to have left."""
        return not self.exchange.gone

    @cached_property
    def state(self) -> SimpleNamespace:
        """A place for hooks and handlers to leave things for each other."""
        return SimpleNamespace()

    def detach(self) -> "Connection":
        """Take the answer into your own hands: the result's token writes to this connection from anywhere.

        The handler's return value is ignored. Raises RuntimeError if too many are detached.
        """
        return self.app.detach(self.exchange)


def parse_query(raw: bytes, fields_max: int | None = None) -> "MultiDict[str, str]":
    """Parse ``a=1&b=2`` into a MultiDict; bytes that are no UTF-8 become U+FFFD.

    Raises ValueError for more than fields_max fields.
    """
    text = raw.decode("utf-8", "replace")
    return MultiDict(parse_qsl(text, keep_blank_values=True, errors="replace", max_num_fields=fields_max))


def too_large(limit: int) -> HTTPError:
    """Build the 413 that names its limit."""
    return HTTPError(413, f"the limit is {limit} bytes")


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_in(text: str, networks: "tuple[Network, ...]") -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)
