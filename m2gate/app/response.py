"""Responses: status, headers, cookies and a body of whatever a handler may return."""

import mimetypes
import os
import re
import stat
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from urllib.parse import quote

from werkzeug.http import dump_cookie

from m2gate.errors import HTTPError
from m2gate.wire.http import build_fields, status_line

Fields = tuple[tuple[str, str], ...]

REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
# RFC 6265, section 4.1.1: a name is a token, an attribute ends at a semicolon.
_COOKIE_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class Response:
    """What a handler answers, where the value alone does not say it.

    body:         str, bytes, dict or list (JSON), None, or an iterator of str or bytes.
    headers:      a mapping or pairs.
    content_type: instead of the one that the body implies.
    Raises ValueError for a status outside 100..599 and for a header with CR, LF, NUL or no token,
    TypeError for a status that is no number and for a header that is no text.
    """

    __slots__ = ("_headers", "body", "content_type", "status")

    def __init__(
        self,
        body: Any = b"",
        status: int = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        content_type: str | None = None,
    ) -> None:
        if not isinstance(status, int):
            raise TypeError(f"status {status!r}: an HTTP status is a number, as in 404")
        status_line(status)
        self.body = body
        self.status = status
        self.content_type = content_type
        pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
        self._headers: list[tuple[str, str]] = []
        for name, value in pairs:
            self.add_header(name, value)

    @property
    def headers(self) -> Fields:
        """The fields as pairs, besides those that are added when it is sent."""
        return tuple(self._headers)

    def add_header(self, name: str, value: str) -> None:
        """Append a field. Raises ValueError for what must not be sent, TypeError for what is no text."""
        if not isinstance(value, str):
            raise TypeError(f"header {name!r}: its value {value!r} must be str")
        build_fields(((name, value),))
        self._headers.append((name, value))

    def set_header(self, name: str, value: str) -> None:
        """Replace all fields of the name by one."""
        self._headers = [pair for pair in self._headers if pair[0].lower() != name.lower()]
        self.add_header(name, value)

    def set_cookie(
        self,
        key: str,
        value: str = "",
        *,
        max_age: timedelta | int | None = None,
        expires: datetime | str | float | None = None,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: Literal["Lax", "Strict", "None"] | None = None,
    ) -> None:
        """Set a cookie; its value may be any text.

        Raises ValueError for a key that is no token, or an attribute that would end early.
        """
        if not _COOKIE_NAME.fullmatch(key):
            raise ValueError(f"cookie name {key!r}: use letters, digits and !#$%&'*+-.^_`|~ only")
        for attribute in (domain, expires, path):
            if isinstance(attribute, str) and ";" in attribute:
                raise ValueError(f"cookie attribute {attribute!r}: a ';' would end it")
        cookie = dump_cookie(key, value, max_age, expires, path, domain, secure, httponly, samesite=samesite)
        self.add_header("Set-Cookie", cookie)

    def delete_cookie(self, key: str, *, path: str | None = "/", domain: str | None = None) -> None:
        """Have the client forget a cookie."""
        self.set_cookie(key, max_age=0, expires=0, path=path, domain=domain)

    @classmethod
    def redirect(cls, url: str, status: int = 302) -> "Response":
        """Send the client to url; what may not stand in a header is percent-encoded.

        Raises ValueError for a status that is no redirect.
        """
        if status not in REDIRECTS:
            raise ValueError(f"status {status}: a redirect is 301, 302, 303, 307 or 308")
        location = quote(url, safe="!#$%&'()*+,/:;=?@[]~")
        return cls(b"", status, (("Location", location),))

    @classmethod
    def file(
        cls,
        path: str | os.PathLike[str],
        content_type: str | None = None,
        *,
        root: str | os.PathLike[str] | None = None,
    ) -> "Response":
        """Send a file, in pieces; answers Range, If-None-Match and If-Modified-Since.

        root: the folder that path is relative to and must not leave, by ``..`` or by links; give it
              where the path comes from the client.
        Raises HTTPError 404 if it is no file that can be read, or not below root.
        """
        whole = os.fspath(path) if root is None else _below(os.fspath(root), os.fspath(path))
        return cls(FileBody(whole), 200, None, content_type or _guess_type(whole))


def _below(root: str, path: str) -> str:
    """Return the real path of a file below root. Raises HTTPError 404 if it is elsewhere."""
    try:
        base, whole = os.path.realpath(root), os.path.realpath(os.path.join(root, path))
    except ValueError:  # a NUL in the path
        raise HTTPError(404) from None
    if not whole.startswith(os.path.join(base, "")):
        raise HTTPError(404)
    return whole


def _guess_type(path: str) -> str:
    kind, encoding = mimetypes.guess_type(path)
    if encoding:
        return f"application/{encoding}"  # the file as it is: no client is to unpack it on the way
    if kind and kind.startswith("text/"):
        return f"{kind}; charset=utf-8"
    return kind or "application/octet-stream"


class FileBody:
    """A regular file as the body of a response; it is opened when it is sent.

    Raises HTTPError 404 if there is none, or none that may be read.
    """

    __slots__ = ("path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        try:
            is_file = stat.S_ISREG(os.stat(self.path).st_mode) and os.access(self.path, os.R_OK)
        except (OSError, ValueError):  # ValueError: a NUL in the path
            is_file = False
        if not is_file:
            raise HTTPError(404)
