"""Many held streams in one process, which reads them all and counts what arrives."""

import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

from bench.process import ROOT, BenchError
from bench.programs.items import MARK

TIMEOUT_S: Final = 60.0
READ_BYTES: Final = 65_536


class Streams:
    """Clients of GET /stream/CHANNEL; the same reader for every side, so its cost is the same too."""

    def __init__(self, port: int, count: int, channels: int = 1) -> None:
        """Open so many streams, spread over so many channels. Raises BenchError if one is not answered with 200."""
        self._port = port
        self._channels = channels
        self._sockets: dict[int, socket.socket] = {}
        self._poll = select.epoll()
        self._marks: dict[int, int] = {}
        for number in range(count):
            client = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
            self._sockets[client.fileno()] = client
            client.sendall(b"GET /stream/%d HTTP/1.1\r\nHost: bench\r\n\r\n" % (number % channels))
            self._poll.register(client, select.EPOLLIN)
        for client in self._sockets.values():
            self._skip_head(client)

    def close(self) -> None:
        """Close all of them."""
        self._poll.close()
        for client in self._sockets.values():
            client.close()

    def publish(self, items: int, path: str) -> float:
        """Have items published by GET path/items/channels; return the seconds until they are everywhere.

        items: to all channels together, a multiple of their number.
        Raises BenchError if a stream ends, gets too much, or nothing arrives any more.
        """
        with socket.create_connection(("127.0.0.1", self._port), TIMEOUT_S) as publisher:
            request = f"GET {path}/{items}/{self._channels} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
            seconds = self._receive(items, lambda: publisher.sendall(request))
            self._skip_head(publisher)
        return seconds

    def push(self, items: int, spec: str) -> float:
        """Have items published by a process that pushes them to spec; otherwise as publish()."""
        command = [sys.executable, "-m", "bench.programs.push_items", spec, str(items), str(self._channels)]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as publisher:
            assert publisher.stdin is not None  # noqa: S101 - it is a pipe
            assert publisher.stdout is not None  # noqa: S101
            publisher.stdout.readline()
            pipe = publisher.stdin
            try:
                return self._receive(items, lambda: (pipe.write(b"go\n"), pipe.flush()))
            finally:
                publisher.terminate()

    def _receive(self, items: int, begin: Callable[[], object]) -> float:
        each = items // self._channels
        self._marks = dict.fromkeys(self._sockets, 0)
        begin_s = time.perf_counter()
        begin()
        self._count(each * len(self._sockets))
        seconds = time.perf_counter() - begin_s
        wrong = {count for count in self._marks.values() if count != each}
        if wrong:
            raise BenchError(f"streams with {sorted(wrong)} items instead of {each}")
        return seconds

    def _count(self, left: int) -> None:
        buffer = bytearray(READ_BYTES)
        while left > 0:
            ready = self._poll.poll(TIMEOUT_S)
            if not ready:
                raise BenchError(f"{left} deliveries are missing after {TIMEOUT_S:g} s of silence")
            for descriptor, _events in ready:
                size = self._sockets[descriptor].recv_into(buffer)
                if not size:
                    raise BenchError(f"a stream ended; {left} deliveries are missing")
                marks = buffer.count(MARK, 0, size)
                self._marks[descriptor] += marks
                left -= marks

    @staticmethod
    def _skip_head(client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = client.recv(READ_BYTES)
            if not piece:
                raise BenchError(f"closed after {head!r}")
            head += piece
        if not head.startswith(b"HTTP/1.1 200 "):
            raise BenchError(f"answered {head!r}")
