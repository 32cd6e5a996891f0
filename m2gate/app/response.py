"""Responses: status, headers, cookies and a body of whatever a handler may return."""

import io
import mimetypes
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from urllib.parse import quote

from werkzeug.http import dump_cookie

from m2gate.errors import HTTPError
from m2gate.wire.http import build_fields, status_line

Fields = tuple[tuple[str, str], ...]

FILE_PIECE: Final = 32_768


class Response:
    """What a handler answers, where the value alone does not say it.

    body:         str, bytes, dict or list (JSON), None, or an iterator of str or bytes.
    headers:      a mapping or pairs.
    content_type: instead of the one that the body implies.
    Raises ValueError for a status outside 100..599 and for a header with CR, LF, NUL or no token.
    """

    __slots__ = ("_headers", "body", "content_type", "status")

    def __init__(
        self,
        body: Any = b"",
        status: int = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        content_type: str | None = None,
    ) -> None:
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
        """Append a field. Raises ValueError for what must not be sent."""
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
        """Set a cookie. Raises ValueError for a key or attribute that must not be sent."""
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
        if status not in (301, 302, 303, 307, 308):
            raise ValueError(f"status {status}: a redirect is 301, 302, 303, 307 or 308")
        location = quote(url, safe="!#$%&'()*+,/:;=?@[]~")
        return cls(b"", status, (("Location", location),))

    @classmethod
    def file(cls, path: str | os.PathLike[str], content_type: str | None = None) -> "Response":
        """Send a file, in pieces; answers Range, If-None-Match and If-Modified-Since.

        Raises HTTPError 404 if it is no file that can be read.
        """
        kind = content_type or mimetypes.guess_type(os.fspath(path))[0] or "application/octet-stream"
        return cls(FileBody(path), 200, None, kind)


class FileBody(io.FileIO):
    """An open regular file as a response's body. Raises HTTPError 404 if there is none to be read."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            super().__init__(os.fspath(path))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError, ValueError):
            raise HTTPError(404) from None
        self.stat = os.fstat(self.fileno())


def read_pieces(file: FileBody, count: int) -> Iterator[bytes]:
    """Yield count bytes of an open file in pieces of FILE_PIECE, and close it."""
    with file:
        while count > 0 and (piece := file.read(min(FILE_PIECE, count))):
            count -= len(piece)
            yield piece
