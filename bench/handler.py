"""`bench/run handler`: what is compared with what, and how much is expected of it."""

from typing import Final

from bench import alone, broadcast, through
from bench.options import Options
from bench.report import Comparison, Ratio
from bench.rounds import alternate

RATIO_BARE: Final = Ratio(through.APP, through.BARE, 0.90)
RATIO_ALONE: Final = Ratio(alone.APP, alone.BARE, 0.60)
RATIO_WAITING: Final = Ratio(alone.APP_WAITING, alone.BARE, 0.40)
RATIO_WAITING_MORE: Final = Ratio(alone.APP_WAITING, alone.BARE_MORE, None)
RATIO_UVICORN: Final = Ratio(through.APP, through.UVICORN, 1.3)
RATIO_GRANIAN: Final = Ratio(through.APP, through.GRANIAN, None)
RATIO_GUNICORN: Final = Ratio(through.APP, through.GUNICORN, None)
RATIO_BROADCAST: Final = Ratio(broadcast.APP, broadcast.BARE, 0.85)
RATIO_APART: Final = Ratio(broadcast.APP_APART, broadcast.BARE, None)


def compare(options: Options) -> list[Comparison]:
    """Measure what was asked for."""
    found: list[Comparison] = []
    if "a" in options.only or "c" in options.only:
        found.append(_through(options))
    if "b" in options.only:
        series = alternate(alone.fed_sides(), options.rounds, options.foreign_max)
        title = f"(b) handler side alone, {alone.REQUESTS:,} requests and as many credits messages a run"
        found.append(Comparison(title, "requests", series, [RATIO_ALONE, RATIO_WAITING, RATIO_WAITING_MORE]))
    if "d" in options.only:
        series = alternate(broadcast.broadcast_sides(), options.rounds, options.foreign_max)
        title = f"(d) broadcast, {broadcast.ITEMS:,} items of 100 bytes to {broadcast.STREAMS} held streams a run"
        found.append(Comparison(title, "deliveries", series, [RATIO_BROADCAST, RATIO_APART]))
    return found


def _through(options: Options) -> Comparison:
    names, ratios = [through.APP], []
    if "a" in options.only:
        names.insert(0, through.BARE)
        ratios.append(RATIO_BARE)
    if "c" in options.only:
        names += [through.UVICORN, through.GRANIAN, through.GUNICORN]
        ratios += [RATIO_UVICORN, RATIO_GRANIAN, RATIO_GUNICORN]
    notes = [f"{through.answer_bytes(name)} bytes an answer on the wire: {name}" for name in names]
    series = alternate(through.through_sides(names, options.seconds), options.rounds, options.foreign_max)
    letters = " and ".join(f"({letter})" for letter in "ac" if letter in options.only)
    title = f"{letters} through a real server, wrk -t1 -c50, {options.seconds} s a run"
    return Comparison(title, "requests", series, ratios, notes)
