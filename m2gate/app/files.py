"""Files with conditions and ranges: 200, 206, 304 and 416 (RFC 9110, sections 13 and 14)."""

import os
import secrets
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import BinaryIO, Final

from werkzeug.http import http_date, parse_range_header, quote_etag
from werkzeug.sansio.http import is_resource_modified

from m2gate.app.response import FileBody, Response
from m2gate.app.send import stream, with_type
from m2gate.errors import HTTPError
from m2gate.link.exchange import Exchange

PIECE_BYTES: Final = 32_768
RANGES_MAX: Final = 16  # of one request; who asks for more gets the whole file

Part = tuple[int, int]  # first byte, and the one behind the last


def send_file(exchange: Exchange, response: Response, body: FileBody) -> None:
    """Send a file as conditions and range of the request ask. Blocks the greenlet, see send_response.

    Raises HTTPError: 404 if the file has vanished meanwhile, 416 for a range behind its end.
    """
    with _open(body) as file:
        stat = os.fstat(file.fileno())
        changed = datetime.fromtimestamp(int(stat.st_mtime), UTC)
        etag = f"{stat.st_mtime_ns:x}-{stat.st_size:x}"
        fields = (("Last-Modified", http_date(changed)), ("ETag", quote_etag(etag)), ("Accept-Ranges", "bytes"))
        for name, value in fields:
            response.set_header(name, value)
        if _is_known(exchange, response, etag, changed):
            exchange.respond(304, response.headers, b"")
            return
        _send_parts(exchange, response, file, _wanted(exchange, response, stat.st_size, etag, changed))


def _open(body: FileBody) -> BinaryIO:
    try:
        return open(body.path, "rb")
    except OSError:
        raise HTTPError(404) from None


def _send_parts(exchange: Exchange, response: Response, file: BinaryIO, parts: list[Part] | None) -> None:
    size = os.fstat(file.fileno()).st_size
    if parts is None:
        stream(exchange, response.status, with_type(response, None), _read(file, 0, size), size)
        return
    response.status = 206
    if len(parts) == 1:
        start, stop = parts[0]
        response.set_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        stream(exchange, 206, with_type(response, None), _read(file, start, stop), stop - start)
        return
    boundary = secrets.token_hex(16)
    heads = [_part_head(boundary, response.content_type or "", part, size) for part in parts]
    end = f"\r\n--{boundary}--\r\n".encode()
    length = sum(len(head) for head in heads) + sum(stop - start for start, stop in parts) + len(end)
    response.content_type = f"multipart/byteranges; boundary={boundary}"
    stream(exchange, 206, with_type(response, None), _read_parts(file, zip(heads, parts, strict=True), end), length)


def _part_head(boundary: str, content_type: str, part: Part, size: int) -> bytes:
    lines = (
        f"\r\n--{boundary}",
        f"Content-Type: {content_type}",
        f"Content-Range: bytes {part[0]}-{part[1] - 1}/{size}",
        "\r\n",
    )
    return "\r\n".join(lines).encode("latin-1")


def _read_parts(file: BinaryIO, parts: Iterable[tuple[bytes, Part]], end: bytes) -> Iterator[bytes]:
    for head, (start, stop) in parts:
        yield head
        yield from _read(file, start, stop)
    yield end


def _read(file: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    """Yield the bytes from start to stop; fewer if the file has become shorter."""
    file.seek(start)
    while start < stop and (piece := file.read(min(PIECE_BYTES, stop - start))):
        start += len(piece)
        yield piece


def _is_known(exchange: Exchange, response: Response, etag: str, changed: datetime) -> bool:
    """Tell whether the client has this very file already, and says so."""
    if response.status != 200 or exchange.method not in (b"GET", b"HEAD"):
        return False
    return not is_resource_modified(
        http_if_modified_since=_field(exchange, b"if-modified-since"),
        http_if_none_match=_field(exchange, b"if-none-match"),
        etag=etag,
        last_modified=changed,
    )


def _wanted(exchange: Exchange, response: Response, size: int, etag: str, changed: datetime) -> list[Part] | None:
    """Return the parts of the file that were asked for; None for all of it. Raises HTTPError 416."""
    header = _field(exchange, b"range")
    if header is None or not size or exchange.method != b"GET" or response.status != 200:
        return None
    condition = _field(exchange, b"if-range")
    if condition is not None and condition not in (quote_etag(etag), http_date(changed)):
        return None
    wanted = parse_range_header(header)  # None for overlapping ranges, too
    if wanted is None or wanted.units != "bytes" or len(wanted.ranges) > RANGES_MAX:
        return None
    parts = [part for start, stop in wanted.ranges if (part := _clip(start, stop, size)) is not None]
    if not parts:
        raise HTTPError(416, "", {"Content-Range": f"bytes */{size}"})
    return parts


def _clip(start: int, stop: int | None, size: int) -> Part | None:
    if start < 0:  # the last bytes
        return max(0, size + start), size
    stop = size if stop is None else min(stop, size)
    return (start, stop) if start < stop else None


def _field(exchange: Exchange, name: bytes) -> str | None:
    value = exchange.head.headers.get(name)
    return value.decode("latin-1") if isinstance(value, bytes) else None
