"""Memory for each connection that is kept open, by kind of connection and by process: gateway (e)."""

import os
import resource
import socket
import time
from functools import partial
from pathlib import Path
from typing import Final

from bench.fleet import fleet
from bench.mongrel2 import mongrel2
from bench.process import BenchError, folder
from bench.rounds import Figures, Side

HELD: Final = "held stream, in the gateway"
HELD_DIRECT: Final = "held stream, in a worker without gateway"
HELD_MONGREL2: Final = "held stream, in Mongrel2"
IDLE: Final = "idle connection, in the gateway"
IDLE_WORKER: Final = "idle connection, in the worker behind it"
IDLE_DIRECT: Final = "idle connection, in a worker without gateway"
WEBSOCKET: Final = "WebSocket, in a worker behind the gateway"
WEBSOCKET_GATEWAY: Final = "WebSocket, in the gateway"

CONNECTIONS: Final = 10_000
WEBSOCKETS: Final = 2_000
WARM_UP: Final = 500  # before, so that what the first ones need is not counted
BATCH: Final = 100  # opened at once: more than the backlog of the listening socket would wait for a second
SPARE_DESCRIPTORS: Final = 1_500
TIMEOUT_S: Final = 30.0

_UPGRADE: Final = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
_GATEWAY, _WORKER, _MONGREL2 = "gateway", "worker", "mongrel2"


def memory_sides() -> list[Side]:
    """Return what is measured. Raises BenchError if this process may not open so many connections."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit < CONNECTIONS + SPARE_DESCRIPTORS:
        raise BenchError(f"{limit} open files are too few: ulimit -n {CONNECTIONS + SPARE_DESCRIPTORS}")
    return [
        Side(HELD, partial(_measure, "/held", 1, _GATEWAY)),
        Side(HELD_DIRECT, partial(_measure, "/held", 0, _WORKER)),
        Side(HELD_MONGREL2, partial(_measure, "/held", 1, _MONGREL2)),
        Side(IDLE, partial(_measure, "/idle", 1, _GATEWAY)),
        Side(IDLE_WORKER, partial(_measure, "/idle", 1, _WORKER)),
        Side(IDLE_DIRECT, partial(_measure, "/idle", 0, _WORKER)),
        Side(WEBSOCKET, partial(_measure, "/talk", 1, _WORKER)),
        Side(WEBSOCKET_GATEWAY, partial(_measure, "/talk", 1, _GATEWAY)),
    ]


def _measure(path: str, workers: int, process: str) -> Figures:
    count = WEBSOCKETS if path == "/talk" else CONNECTIONS
    most = {"superpoll.max_fd": CONNECTIONS + SPARE_DESCRIPTORS}
    target, capacity = "bench.programs.memory:app", 2 * CONNECTIONS
    with (
        folder() as place,
        mongrel2(place, most) as server,
        fleet(place, [server.worker], target, workers=workers, capacity=capacity) as running,
    ):
        pid = {_GATEWAY: running.gateway, _WORKER: running.workers[0], _MONGREL2: server.pid}[process]
        assert pid is not None  # noqa: S101 - sides without a gateway do not ask for it
        clients: list[socket.socket] = []
        try:
            _open(clients, server.port, path, WARM_UP)
            before = _resident(pid)
            begin_s = time.perf_counter()
            _open(clients, server.port, path, count)
            seconds = time.perf_counter() - begin_s
            return Figures(count / seconds, (_resident(pid) - before) / count)
        finally:
            for client in clients:
                client.close()


def _open(clients: list[socket.socket], port: int, path: str, count: int) -> None:
    """Open so many connections, each until its response has begun; they are added to clients."""
    fields = _UPGRADE if path == "/talk" else ""
    request = f"GET {path} HTTP/1.1\r\nHost: bench\r\n{fields}\r\n".encode()
    for at in range(0, count, BATCH):
        batch = []
        for _ in range(min(BATCH, count - at)):
            client = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
            clients.append(client)
            batch.append(client)
            client.sendall(request)
        for client in batch:
            head = client.recv(4096)
            if not head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 101 ")):
                raise BenchError(f"connection {len(clients)} was answered {head!r}")


def _resident(pid: int) -> int:
    """Return the bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
