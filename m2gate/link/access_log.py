"""One line a request, as JSON: Mongrel2's own log says status 200 for whatever a handler answers."""

import json
import logging
import sys
import time
from typing import TextIO

from m2gate.link.exchange import Exchange

logger = logging.getLogger(__name__)


class AccessLog:
    """Writes a line when an exchange ends: never a query, a header value, a body or a token.

    path: "-" for stderr, or a file that is appended to; a restart opens it anew. Raises OSError.
    worker, generation: which process writes, as the status document names it.
    ``lost`` counts the lines that could not be written; the first one is an error in the log.
    """

    def __init__(self, path: str, worker: str, generation: int) -> None:
        self._path = path
        self._worker = worker
        self._generation = generation
        self.lost = 0
        self._file: TextIO = sys.stderr
        if path != "-":
            self._file = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 - lives as long as the worker

    def begin(self, exchange: Exchange) -> None:
        """Note that the exchange's handler starts now; its line is written at its end."""
        exchange.started_s = time.monotonic()
        exchange.on_end = self.write

    def write(self, exchange: Exchange) -> None:
        """Write the line of an exchange that has ended."""
        head = exchange.head
        remote = head.headers.get(b"REMOTE_ADDR", b"-")
        self.write_line(
            request_id=exchange.request_id,
            client=remote.decode("latin-1") if isinstance(remote, bytes) else "-",
            method=exchange.method.decode("latin-1"),
            path=head.path.decode("latin-1"),
            status=exchange.status,
            size=exchange.written,
            started_s=exchange.started_s,
            gone=exchange.is_cut,
        )

    def write_line(
        self,
        *,
        request_id: str,
        client: str,
        method: str,
        path: str,
        status: int,
        size: int,
        started_s: float,
        gone: bool,
    ) -> None:
        """Write the line of a request that has ended. size: bytes of body; started_s: of the monotonic clock."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request_id": request_id,
            "client": client,
            "method": method,
            "path": path,
            "status": status,
            "bytes": size,
            "duration_ms": round((time.monotonic() - started_s) * 1e3, 3),
            "gone": gone,
            "worker": self._worker,
            "generation": self._generation,
        }
        try:
            self._file.write(json.dumps(line) + "\n")
        except OSError as error:
            # Who waits for the end of this exchange is not to suffer from a full disk.
            self.lost += 1
            if self.lost == 1:
                logger.error("access log not written path=%s error=%s", self._path, error)
