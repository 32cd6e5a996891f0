"""The result for people, and for programs."""

from dataclasses import asdict, dataclass, field
from typing import Final

from bench.rounds import Series, Spread

CPU: Final = ("CPU us", 1)
MEMORY: Final = ("bytes", 0)
NAME_WIDTH: Final = 44


@dataclass(frozen=True, slots=True)
class Ratio:
    """One side ÷ another; ``target`` is what is expected of it at least, None: for information."""

    name: str
    baseline: str
    target: float | None


@dataclass(frozen=True, slots=True)
class Bound:
    """What one side may cost at most, each unit of it."""

    name: str
    most: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One table: its sides' figures, and the ratios that follow from them.

    unit: what is counted; cost: the cost of each, and how many decimals of it mean something.
    """

    title: str
    unit: str
    series: Series
    ratios: list[Ratio]
    notes: list[str] = field(default_factory=list)
    cost: tuple[str, int] = CPU
    bounds: list[Bound] = field(default_factory=list)


def facts_text(machine: dict[str, str]) -> str:
    """Return the machine's facts in lines of a few each."""
    entries = [f"{name} {value}" for name, value in machine.items()]
    return "\n".join("  ".join(entries[at : at + 5]) for at in range(0, len(entries), 5))


def as_text(comparison: Comparison) -> str:
    """Return one comparison as a table."""
    series = comparison.series
    rounds = len(next(iter(series.runs.values())))
    cost, digits = comparison.cost
    quiet = f"{series.skipped} runs skipped and repeated, {series.noisy} kept although other processes took the cores"
    lines = [
        f"{comparison.title}; median of {rounds} rounds (smallest - largest)",
        f"  {quiet}",
        *[f"  {note}" for note in comparison.notes],
        f"  {'':<{NAME_WIDTH}}{comparison.unit + '/s':>30}{cost + ' each':>24}",
    ]
    lines += [
        f"  {name:<{NAME_WIDTH}}{_spread(series.rates(name), 0):>30}{_spread(series.costs(name), digits):>24}"
        for name in series.runs
    ]
    lines.append("")
    for ratio in comparison.ratios:
        spread = series.ratios(ratio.name, ratio.baseline)
        lines.append(f"  {ratio.name} / {ratio.baseline}: {_spread(spread, 2)}{_verdict(spread, ratio.target)}")
    for bound in comparison.bounds:
        spread = series.costs(bound.name)
        reached = "reached" if spread.median <= bound.most else "MISSED"
        lines.append(f"  {bound.name}: {_spread(spread, digits)} {cost}  target <= {bound.most:,g}: {reached}")
    return "\n".join(lines)


def _spread(spread: Spread, digits: int) -> str:
    return f"{spread.median:,.{digits}f} ({spread.low:,.{digits}f} - {spread.high:,.{digits}f})"


def _verdict(spread: Spread, target: float | None) -> str:
    if target is None:
        return "  for information"
    return f"  target >= {target:g}: {'reached' if spread.median >= target else 'MISSED'}"


def as_json(machine: dict[str, str], rounds: int, comparisons: list[Comparison]) -> dict[str, object]:
    """Return everything as a JSON document."""
    return {"machine": machine, "rounds": rounds, "comparisons": [_comparison(one) for one in comparisons]}


def _comparison(comparison: Comparison) -> dict[str, object]:
    series = comparison.series
    return {
        "title": comparison.title,
        "unit": comparison.unit,
        "cost": comparison.cost[0],
        "skipped": series.skipped,
        "noisy": series.noisy,
        "notes": comparison.notes,
        "runs": {name: [asdict(figures) for figures in runs] for name, runs in series.runs.items()},
        "ratios": [_ratio(series.ratios(one.name, one.baseline), one) for one in comparison.ratios],
        "bounds": [_bound(series.costs(one.name), one) for one in comparison.bounds],
    }


def _ratio(spread: Spread, ratio: Ratio) -> dict[str, object]:
    return {
        **asdict(ratio),
        "median": spread.median,
        "min": spread.low,
        "max": spread.high,
        "reached": None if ratio.target is None else spread.median >= ratio.target,
    }


def _bound(spread: Spread, bound: Bound) -> dict[str, object]:
    return {**asdict(bound), "median": spread.median, "reached": spread.median <= bound.most}
