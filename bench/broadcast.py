"""(d): items to many held streams, through the App's channel and by a loop that does nothing else."""

from functools import partial
from typing import Final

from bench.machine import cpu_s
from bench.mongrel2 import mongrel2
from bench.process import folder, handler_program
from bench.rounds import Figures, Side
from bench.streams import Streams

APP: Final = "App's channel"
APP_APART: Final = "App's channel, one item a turn"
BARE: Final = "bare loop, 128 ids a message"

STREAMS: Final = 900
ITEMS: Final = 1_000  # published one after the other, to each stream; more than its credits at once
WARM_UP_ITEMS: Final = 20


def broadcast_sides() -> list[Side]:
    """Return the bare loop, the App's channel, and the channel without its merging of items."""
    return [
        Side(BARE, partial(_measure, "bench.programs.bare_broadcast", "/publish")),
        Side(APP, partial(_measure, "m2gate.worker.process", "/publish")),
        Side(APP_APART, partial(_measure, "m2gate.worker.process", "/publish-apart")),
    ]


def _measure(module: str, path: str) -> Figures:
    with folder() as place, mongrel2(place) as server:
        settings = {"target": "bench.programs.channel:app", "servers": [server.worker], "run_dir": str(place)}
        with handler_program(module, settings, place) as pid:
            streams = Streams(server.port, STREAMS)
            try:
                streams.publish(WARM_UP_ITEMS, path)
                pids = [server.pid, pid]
                before_s = cpu_s(pids)
                seconds = streams.publish(ITEMS, path)
                deliveries = ITEMS * STREAMS
                return Figures(deliveries / seconds, (cpu_s(pids) - before_s) / deliveries * 1e6)
            finally:
                streams.close()
