"""Items to many held streams, through channels and by a loop that does nothing else: handler (d), gateway (d)."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from bench.fleet import fleet
from bench.machine import cpu_s
from bench.mongrel2 import RunningServer, mongrel2
from bench.process import folder, handler_program
from bench.rounds import Figures, Side
from bench.streams import Streams

APP: Final = "App's channel"
APP_APART: Final = "App's channel, one item a turn"
BARE: Final = "bare loop, 128 ids a message"
GATEWAY: Final = "gateway's channel, items one by one"
GATEWAY_TOGETHER: Final = "gateway's channel, 16 publishers"
GATEWAY_PUSHED: Final = "gateway's channel, pushed by ZeroMQ"

STREAMS: Final = 900
ITEMS: Final = 1_000  # published one after the other, to each stream; more than its credits at once
ITEMS_MAX: Final = 20_000  # over all channels
WARM_UP_ITEMS: Final = 20
CHANNELS: Final = (10, 100, 1_000)

_BARE_LOOP: Final = "bench.programs.bare_broadcast"
_WORKER: Final = "m2gate.worker.process"
_GATEWAY: Final = "m2gate.gateway.process"
_PUSH: Final = "push"  # in place of a path: a process publishes by ZeroMQ


def broadcast_sides() -> list[Side]:
    """Return the bare loop, the App's channel, and the channel without its merging of items."""
    return [
        Side(BARE, partial(_measure, _BARE_LOOP, "/publish", 1)),
        Side(APP, partial(_measure, _WORKER, "/publish", 1)),
        Side(APP_APART, partial(_measure, _WORKER, "/publish-apart", 1)),
    ]


def gateway_sides() -> list[Side]:
    """Return the bare loop and the gateway's channel, with items one by one and many at once."""
    return [
        Side(BARE, partial(_measure, _BARE_LOOP, "/publish", 1)),
        Side(GATEWAY, partial(_measure, _GATEWAY, "/publish", 1)),
        Side(GATEWAY_TOGETHER, partial(_measure, _GATEWAY, "/publish-together", 1)),
        Side(GATEWAY_PUSHED, partial(_measure, _GATEWAY, _PUSH, 1)),
    ]


def spread_sides() -> list[tuple[Side, Side]]:
    """Return the bare loop and the gateway, with as many channels as each of CHANNELS says."""
    return [
        (
            Side(f"{BARE}, {channels:,} channels", partial(_measure, _BARE_LOOP, "/publish", channels)),
            Side(
                f"{GATEWAY_TOGETHER}, {channels:,} channels", partial(_measure, _GATEWAY, "/publish-together", channels)
            ),
        )
        for channels in CHANNELS
    ]


@contextmanager
def _running(module: str, place: Path, server: RunningServer) -> Iterator[list[int]]:
    target = "bench.programs.channel:app"
    if module == _GATEWAY:
        with fleet(place, [server.worker], target, workers=1, publish_pull=_pull_spec(place)) as running:
            yield running.pids
        return
    settings = {"target": target, "servers": [server.worker], "run_dir": str(place)}
    with handler_program(module, settings, place) as pid:
        yield [pid]


def _pull_spec(place: Path) -> str:
    return f"ipc://{place}/pull"


def _measure(module: str, path: str, channels: int) -> Figures:
    items = min(ITEMS * channels, ITEMS_MAX)
    with folder() as place, mongrel2(place) as server, _running(module, place, server) as handlers:
        streams = Streams(server.port, STREAMS, channels)
        publish, where = (streams.push, _pull_spec(place)) if path == _PUSH else (streams.publish, path)
        try:
            publish(channels * max(1, WARM_UP_ITEMS // channels), where)
            pids = [server.pid, *handlers]
            before_s = cpu_s(pids)
            seconds = publish(items, where)
            deliveries = items // channels * STREAMS
            return Figures(deliveries / seconds, (cpu_s(pids) - before_s) / deliveries * 1e6)
        finally:
            streams.close()
