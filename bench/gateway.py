"""`bench/run gateway`: what is compared with what, and how much is expected of it."""

from collections.abc import Callable
from typing import Final

from bench import alone, broadcast, memory, through
from bench.dispatch import DISPATCHER, REQUESTS, dispatcher_side
from bench.options import Options
from bench.report import MEMORY, Bound, Comparison, Ratio
from bench.rounds import alternate

RATIO_GATEWAY: Final = Ratio(through.GATEWAY_1, through.APP, 0.75)
RATIO_GATEWAY_2: Final = Ratio(through.GATEWAY_2, through.APP, None)
RATIO_FED: Final = Ratio(alone.GATEWAY, alone.APP, None)
RATIO_COMPUTE: Final = Ratio(through.COMPUTE_2, through.COMPUTE_1, 1.6)
RATIO_BROADCAST: Final = Ratio(broadcast.GATEWAY, broadcast.BARE, 0.85)
RATIO_PUSHED: Final = Ratio(broadcast.GATEWAY_PUSHED, broadcast.BARE, 0.85)
RATIO_TOGETHER: Final = Ratio(broadcast.GATEWAY_TOGETHER, broadcast.BARE, None)
BOUND_HELD: Final = Bound(memory.HELD, 4_096)


def compare(options: Options) -> list[Comparison]:
    """Measure what was asked for."""
    return [found for letter in sorted(options.only) for found in _COMPARE[letter](options)]


def _hello(options: Options) -> list[Comparison]:
    names = [through.APP, through.GATEWAY_1, through.GATEWAY_2]
    series = alternate(through.through_sides(names, options.seconds), options.rounds, options.foreign_max)
    title = f"(a) through a real server, wrk -t1 -c50, {options.seconds} s a run"
    return [Comparison(title, "requests", series, [RATIO_GATEWAY, RATIO_GATEWAY_2])]


def _dispatch(options: Options) -> list[Comparison]:
    sides = [
        *through.through_sides([through.GATEWAY_ONLY], options.seconds),
        *alone.gateway_sides(),
        dispatcher_side(),
    ]
    series = alternate(sides, options.rounds, options.foreign_max)
    title = f"(b) what dispatch costs; {alone.REQUESTS:,} requests a run where fed, {REQUESTS:,} by {DISPATCHER}"
    return [Comparison(title, "requests", series, [RATIO_FED])]


def _compute(options: Options) -> list[Comparison]:
    names = [through.COMPUTE_1, through.COMPUTE_2]
    series = alternate(through.through_sides(names, options.seconds), options.rounds, options.foreign_max)
    title = f"(c) handlers that compute for 1 ms, wrk -t1 -c50, {options.seconds} s a run"
    return [Comparison(title, "requests", series, [RATIO_COMPUTE])]


def _broadcast(options: Options) -> list[Comparison]:
    items = f"items of 100 bytes to {broadcast.STREAMS} held streams"
    series = alternate(broadcast.gateway_sides(), options.rounds, options.foreign_max)
    ratios = [RATIO_BROADCAST, RATIO_TOGETHER, RATIO_PUSHED]
    one = Comparison(f"(d) broadcast, {broadcast.ITEMS:,} {items} a run", "deliveries", series, ratios)
    pairs = broadcast.spread_sides()
    series = alternate([side for pair in pairs for side in pair], options.rounds, options.foreign_max)
    ratios = [Ratio(ours.name, bare.name, None) for bare, ours in pairs]
    title = f"(d) spread over channels, at most {broadcast.ITEMS_MAX:,} {items} a run"
    return [one, Comparison(title, "deliveries", series, ratios)]


def _memory(options: Options) -> list[Comparison]:
    series = alternate(memory.memory_sides(), options.rounds, options.foreign_max)
    title = f"(e) memory, {memory.CONNECTIONS:,} connections, {memory.WEBSOCKETS:,} WebSockets"
    return [Comparison(title, "opened", series, [], cost=MEMORY, bounds=[BOUND_HELD])]


_COMPARE: Final[dict[str, Callable[[Options], list[Comparison]]]] = {
    "a": _hello,
    "b": _dispatch,
    "c": _compute,
    "d": _broadcast,
    "e": _memory,
}
