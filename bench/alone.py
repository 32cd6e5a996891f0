"""The handler side alone, fed with the messages Mongrel2 would send it: handler (b), gateway (b)."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from bench.feed import Feed, Recording, record
from bench.fleet import fleet
from bench.machine import cpu_s
from bench.process import folder, handler_program
from bench.rounds import Figures, Side

APP: Final = "App, fed"
APP_WAITING: Final = "App, fed, handlers wait 1 ms"
BARE: Final = "bare NOBLOCK loop, fed"
BARE_MORE: Final = "bare NOBLOCK loop, fed by 200 clients"
GATEWAY: Final = "gateway + 1 worker, fed, CPU of the gateway"

REQUESTS: Final = 200_000  # in a run, with as many credits messages
WARM_UP_REQUESTS: Final = 20_000
CLIENTS: Final = 50  # that ask at once, as wrk's do in (a)
# With 50, handlers that take 1 ms would end at 50 / 1 ms whatever the App costs.
CLIENTS_WAITING: Final = 200

WORKER: Final = "m2gate.worker.process"
BARE_LOOP: Final = "bench.programs.bare_nowait_loop"


def fed_sides() -> list[Side]:
    """Return the bare loop, the App with a handler that answers at once, and with one that waits."""
    with folder() as place:
        hello, wait = record("/hello/friend", place), record("/wait/friend", place)
    return [
        Side(BARE, partial(_measure, BARE_LOOP, hello, CLIENTS)),
        Side(APP, partial(_measure, WORKER, hello, CLIENTS)),
        Side(APP_WAITING, partial(_measure, WORKER, wait, CLIENTS_WAITING)),
        Side(BARE_MORE, partial(_measure, BARE_LOOP, hello, CLIENTS_WAITING)),
    ]


def gateway_sides() -> list[Side]:
    """Return the App directly connected, and behind a gateway."""
    with folder() as place:
        hello = record("/hello/friend", place)
    return [
        Side(APP, partial(_measure, WORKER, hello, CLIENTS)),
        Side(GATEWAY, partial(_measure, "", hello, CLIENTS)),
    ]


@contextmanager
def _running(module: str, feed: Feed, place: Path) -> Iterator[int]:
    """Run a module as the handler side, or a gateway with a worker; provides the pid whose CPU counts."""
    target = "bench.programs.hello:app"
    if module:
        settings = {"target": target, "servers": [feed.worker], "run_dir": str(place)}
        with handler_program(module, settings, place, feed.attend) as pid:
            yield pid
        return
    with fleet(place, [feed.worker], target, workers=1, meanwhile=feed.attend) as running:
        yield running.gateway or 0


def _measure(module: str, recording: Recording, clients: int) -> Figures:
    with folder() as place:
        feed = Feed(recording, place, clients)
        try:
            with _running(module, feed, place) as pid:
                feed.open()
                feed.run(WARM_UP_REQUESTS)
                before_s = cpu_s([pid])
                seconds = feed.run(REQUESTS)
                return Figures(REQUESTS / seconds, (cpu_s([pid]) - before_s) / REQUESTS * 1e6)
        finally:
            feed.close()
