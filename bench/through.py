"""Requests through a real server, with wrk as the client: handler (a) and (c), gateway (a) to (c).

Every run starts its servers anew, warms them up and stops them, so no side idles beside another.
"""

import http.client
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Final

from bench.fleet import fleet
from bench.machine import cpu_s
from bench.mongrel2 import mongrel2
from bench.process import BenchError, folder, free_port, handler_program, program, wait_listening
from bench.rounds import Figures, Side
from bench.wrk import load

APP: Final = "App behind Mongrel2"
BARE: Final = "bare pyzmq loop behind Mongrel2"
UVICORN: Final = "uvicorn + Starlette"
GRANIAN: Final = "granian + Starlette"
GUNICORN: Final = "gunicorn -k gevent + Flask"
GATEWAY_1: Final = "gateway + 1 worker"
GATEWAY_2: Final = "gateway + 2 workers"
GATEWAY_ONLY: Final = "gateway + 1 worker, CPU of the gateway"
COMPUTE_1: Final = "gateway + 1 worker, handlers compute 1 ms"
COMPUTE_2: Final = "gateway + 2 workers, handlers compute 1 ms"

HELLO: Final = "/hello/friend"
COMPUTE: Final = "/compute/friend"
ANSWER: Final = b"Hello friend\n"
WARM_UP_S: Final = 1

Running = tuple[int, list[int]]  # port, pids of the processes that serve


@contextmanager
def _behind_mongrel2(module: str) -> Iterator[Running]:
    with folder() as place, mongrel2(place) as server:
        settings = {"target": "bench.programs.hello:app", "servers": [server.worker], "run_dir": str(place)}
        with handler_program(module, settings, place) as pid:
            yield server.port, [server.pid, pid]


@contextmanager
def _behind_gateway(workers: int, *, gateway_only: bool = False) -> Iterator[Running]:
    with (
        folder() as place,
        mongrel2(place) as server,
        fleet(place, [server.worker], "bench.programs.hello:app", workers=workers) as running,
    ):
        if gateway_only and running.gateway is not None:
            yield server.port, [running.gateway]
        else:
            yield server.port, [server.pid, *running.pids]


@contextmanager
def _alone(arguments: str) -> Iterator[Running]:
    port = free_port()
    command = [sys.executable, "-m", *shlex.split(arguments.format(port=port))]
    with folder() as place, program(command, place / "server.log") as pid:
        wait_listening(port, pid, place / "server.log")
        yield port, [pid]


_UVICORN_COMMAND: Final = (
    "uvicorn bench.programs.starlette_hello:app --host 127.0.0.1 --port {port} --loop uvloop --http httptools"
    " --no-access-log --log-level warning"
)
_GRANIAN_COMMAND: Final = (
    "granian bench.programs.starlette_hello:app --interface asgi --host 127.0.0.1 --port {port} --loop uvloop"
    " --no-ws --log-level warning --workers 1"
)
_GUNICORN_COMMAND: Final = (
    "gunicorn bench.programs.flask_hello:app --worker-class gevent --workers 1 --bind 127.0.0.1:{port}"
    " --log-level warning"
)

_SIDES: Final[dict[str, tuple[str, Callable[[], AbstractContextManager[Running]]]]] = {
    BARE: (HELLO, lambda: _behind_mongrel2("bench.programs.bare_loop")),
    APP: (HELLO, lambda: _behind_mongrel2("m2gate.worker.process")),
    UVICORN: (HELLO, lambda: _alone(_UVICORN_COMMAND)),
    GRANIAN: (HELLO, lambda: _alone(_GRANIAN_COMMAND)),
    GUNICORN: (HELLO, lambda: _alone(_GUNICORN_COMMAND)),
    GATEWAY_1: (HELLO, lambda: _behind_gateway(1)),
    GATEWAY_2: (HELLO, lambda: _behind_gateway(2)),
    GATEWAY_ONLY: (HELLO, lambda: _behind_gateway(1, gateway_only=True)),
    COMPUTE_1: (COMPUTE, lambda: _behind_gateway(1)),
    COMPUTE_2: (COMPUTE, lambda: _behind_gateway(2)),
}


def through_sides(names: list[str], seconds: int) -> list[Side]:
    """Return the sides of these names; each run loads its server for so many seconds."""
    return [Side(name, partial(_measure, *_SIDES[name], seconds)) for name in names]


def answer_bytes(name: str) -> int:
    """Return how many bytes one answer of a side has on the wire, head and body."""
    path, start = _SIDES[name]
    with start() as (port, _pids):
        return _probe(port, path)


def _measure(path: str, start: Callable[[], AbstractContextManager[Running]], seconds: int) -> Figures:
    with start() as (port, pids):
        _probe(port, path)
        url = f"http://127.0.0.1:{port}{path}"
        load(url, WARM_UP_S)
        before_s = cpu_s(pids)
        done = load(url, seconds)
        return Figures(done.requests / done.seconds, (cpu_s(pids) - before_s) / done.requests * 1e6)


def _probe(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200 or body != ANSWER:
        raise BenchError(f"port {port} answered {response.status} {body!r}, not 200 {ANSWER!r}")
    head = f"HTTP/1.1 {response.status} {response.reason}\r\n"
    return len(head) + sum(len(f"{name}: {value}\r\n") for name, value in response.getheaders()) + 2 + len(body)
