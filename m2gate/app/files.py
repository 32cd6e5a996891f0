"""Files with conditions and ranges: 200, 206, 304 and 416."""

import os
from datetime import UTC, datetime

from werkzeug.http import http_date, parse_range_header, quote_etag
from werkzeug.sansio.http import is_resource_modified

from m2gate.app.response import FileBody, Response, read_pieces
from m2gate.app.send import stream, with_type
from m2gate.errors import HTTPError
from m2gate.link.exchange import Exchange


def send_file(exchange: Exchange, response: Response, file: FileBody) -> None:
    """Send a file as conditions and range of the request ask. Blocks the greenlet, see send_response.

    Several ranges at once are answered by the whole file. Raises HTTPError 416.
    """
    stat = file.stat
    changed = datetime.fromtimestamp(int(stat.st_mtime), UTC)
    etag = f"{int(stat.st_mtime_ns):x}-{stat.st_size:x}"
    for name, value in (("Last-Modified", http_date(changed)), ("ETag", quote_etag(etag)), ("Accept-Ranges", "bytes")):
        response.set_header(name, value)
    wanted = _field(exchange, b"range")
    modified = is_resource_modified(
        http_if_modified_since=_field(exchange, b"if-modified-since"),
        http_if_none_match=_field(exchange, b"if-none-match"),
        etag=etag,
        last_modified=changed,
    )
    if exchange.method in (b"GET", b"HEAD") and not modified:
        file.close()
        exchange.respond(304, response.headers, b"")
        return
    start, stop = 0, stat.st_size
    if wanted and exchange.method == b"GET" and response.status == 200 and _is_current(exchange, etag, changed):
        start, stop = _range(wanted, stat, file)
        if (start, stop) != (0, stat.st_size):
            response.status = 206
            response.set_header("Content-Range", f"bytes {start}-{stop - 1}/{stat.st_size}")
    file.seek(start)
    fields = with_type(response, None)
    stream(exchange, response.status, fields, read_pieces(file, stop - start), stop - start)


def _field(exchange: Exchange, name: bytes) -> str | None:
    value = exchange.head.headers.get(name)
    return value.decode("latin-1") if isinstance(value, bytes) else None


def _is_current(exchange: Exchange, etag: str, changed: datetime) -> bool:
    """Tell whether If-Range, if there is one, names what the file is now."""
    condition = _field(exchange, b"if-range")
    return condition is None or condition in (quote_etag(etag), http_date(changed))


def _range(wanted: str, stat: os.stat_result, file: FileBody) -> tuple[int, int]:
    parsed = parse_range_header(wanted)
    if parsed is None or parsed.units != "bytes" or len(parsed.ranges) != 1:
        return 0, stat.st_size
    part = parsed.range_for_length(stat.st_size)
    if part is None:
        file.close()
        raise HTTPError(416, "", {"Content-Range": f"bytes */{stat.st_size}"})
    return part[0], part[1]
