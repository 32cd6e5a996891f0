"""Bodies that Mongrel2 stored in a file (upload.temp_store), and how a client may not forge one.

Mongrel2 announces the file by the headers x-mongrel2-upload-start and -done, which any client can
send as well. Source: docs/reference/mongrel2-wire.md, "Uploads".
"""

import logging
import os
import re
from typing import TYPE_CHECKING, Final

from m2gate.errors import WireError
from m2gate.wire.http import check_framing
from m2gate.wire.mongrel2 import Request
from m2gate.wire.record import wire_record

if TYPE_CHECKING:
    from m2gate.link.connection import Connection

logger = logging.getLogger(__name__)

PIECE_BYTES: Final = 65_536
_START: Final = b"x-mongrel2-upload-start"
_DONE: Final = b"x-mongrel2-upload-done"


@wire_record
class Refusal:
    """Why an upload must not be used: the status and text of its answer."""

    status: int
    detail: str


class StoredUpload:
    """A body that lies in a file; deleted when its exchange ends."""

    is_done = True

    def __init__(self, path: bytes, length: int) -> None:
        self.path = path
        self.length = length
        # O_NOFOLLOW: the directory may be writable for others.
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW), "r+b")
        # Bytes that a client pipelined behind the body are written to the file as well.
        self._file.truncate(length)

    def read(self, timeout_s: float | None = None) -> bytes:
        """Return the next piece, at most PIECE_BYTES, ``b""`` at the end. timeout_s is of no account."""
        return b"" if self._file.closed else self._file.read(PIECE_BYTES)

    def abandon(self) -> None:
        """Delete the file."""
        if self._file.closed:
            return
        self._file.close()
        try:
            os.unlink(self.path)
        except OSError as error:
            # Its exchange is about to end, and must: others wait behind it on the connection.
            logger.warning("stored body not deleted path=%r error=%s", self.path, error.strerror)

    def turn(self) -> None:
        """There is nobody to wake: a file does not wait for its client."""

    def is_stalled(self, since_s: float) -> bool:
        """A file is complete."""
        return False


class DiskUploads:
    """Matches the announcements of stored bodies with each other.

    template: Mongrel2's upload.temp_store, a path ending in XXXXXX.
    max_body: bytes; a longer declared body is refused when it starts, a chunked one at its end.
    """

    def __init__(self, template: str, max_body: int) -> None:
        directory, name = os.path.split(os.fsencode(template))
        stem = re.escape(name[: -len("XXXXXX")])
        self._path = re.compile(re.escape(directory) + b"/" + stem + rb"[A-Za-z0-9]{6}")
        self._max_body = max_body

    def is_announcement(self, message: Request) -> bool:
        """Tell Mongrel2's announcement, whose body is elsewhere, from a client's own headers."""
        if _START not in message.headers or message.body:
            return False
        return b"transfer-encoding" in message.headers or message.headers.get(b"content-length", b"0") != b"0"

    def file(self, connection: "Connection", message: Request) -> "StoredUpload | Refusal | None":
        """Take an announcement: None when the upload starts, the body when it is complete.

        A refusal for a forged announcement, bad framing or a body over max_body; the connection is
        to be closed with it, which makes Mongrel2 delete an unfinished file.
        """
        start, done = message.headers.get(_START), message.headers.get(_DONE)
        try:
            length = check_framing(message.headers)
        except WireError as error:
            return Refusal(400, error.rule)
        expected, connection.stored_upload = connection.stored_upload, b""
        if type(start) is not bytes or not self._path.fullmatch(start) or length == 0:
            return Refusal(400, "these upload headers are Mongrel2's own")
        if not expected:
            # A client's own -done may come with a genuine start: it is not looked at.
            if length is not None and length > self._max_body:
                return Refusal(413, f"the limit is {self._max_body} bytes")
            connection.stored_upload = start
            return None
        if start != expected or done != expected:
            return Refusal(400, "these upload headers are Mongrel2's own")
        return self._open(start, length)

    def _open(self, path: bytes, length: int | None) -> StoredUpload | Refusal:
        try:
            size = os.stat(path, follow_symlinks=False).st_size
            stored = StoredUpload(path, size if length is None else length)
        except OSError as error:
            return Refusal(500, f"the stored body cannot be read: {error.strerror}")
        if size < stored.length or stored.length > self._max_body:
            stored.abandon()
            return Refusal(413 if size >= stored.length else 400, f"the limit is {self._max_body} bytes")
        return stored
