"""Rounds: every side once, in turns, until there are enough quiet ones to compare."""

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.machine import foreign_share, usage

ATTEMPTS: Final = 4  # of one side in one round; then the last is kept and counted as noisy


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run of one side gave.

    rate: units (requests, deliveries, connections) a second.
    cost: of each unit, as the comparison says: CPU microseconds of all processes that serve, not of
          the client; or bytes of memory.
    """

    rate: float
    cost: float


@dataclass(frozen=True, slots=True)
class Side:
    """One of the things compared: how it is called, and what runs it once, from start to stop."""

    name: str
    run: Callable[[], Figures]


@dataclass(slots=True)
class Spread:
    """Median, smallest and largest of some values."""

    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The smallest one."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest one."""
        return max(self.values)


@dataclass(slots=True)
class Series:
    """What all rounds gave, by name of the side, in the order of the rounds.

    skipped: runs that were thrown away and repeated because other processes took the cores.
    noisy:   runs that were kept although they did so again at every attempt.
    """

    runs: dict[str, list[Figures]] = field(default_factory=dict)
    skipped: int = 0
    noisy: int = 0

    def rates(self, name: str) -> Spread:
        """Return the rates of one side."""
        return Spread([figures.rate for figures in self.runs[name]])

    def costs(self, name: str) -> Spread:
        """Return the costs a unit of one side."""
        return Spread([figures.cost for figures in self.runs[name]])

    def ratios(self, name: str, baseline: str) -> Spread:
        """Return side ÷ baseline, round by round."""
        pairs = zip(self.runs[name], self.runs[baseline], strict=True)
        return Spread([one.rate / other.rate for one, other in pairs])


def alternate(sides: Sequence[Side], rounds: int, foreign_max: float) -> Series:
    """Run every side once in each round, in opposite order in every other round.

    foreign_max: part of the machine's cores, 0 to 1, that other processes may take during a run;
                 with more the run is repeated at once, ATTEMPTS times at most.
    """
    series = Series({side.name: [] for side in sides})
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            figures = _run_quietly(side, series, foreign_max)
            series.runs[side.name].append(figures)
            tell(f"round {number + 1}/{rounds}  {side.name}: {figures.rate:,.0f}/s  {figures.cost:,.1f} each")
    return series


def _run_quietly(side: Side, series: Series, foreign_max: float) -> Figures:
    for attempt in range(1, ATTEMPTS + 1):
        before = usage()
        figures = side.run()
        share = foreign_share(before, usage())
        if share <= foreign_max:
            return figures
        if attempt < ATTEMPTS:
            series.skipped += 1
            tell(f"skipped  {side.name}: {figures.rate:,.0f}/s while others used {share:.0%} of the cores")
    series.noisy += 1
    return figures


def tell(line: str) -> None:
    """Say on stderr what is going on."""
    print(line, file=sys.stderr, flush=True)
