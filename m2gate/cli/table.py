"""Text for a terminal: tables that fit its width, numbers for people, nothing that the terminal would obey."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal

Style = Literal["", "bold", "dim", "red", "yellow", "green"]

_CODES: Final[dict[Style, str]] = {"bold": "1", "dim": "2", "red": "31", "yellow": "33", "green": "32"}
_GAP: Final = "  "
_NAME_MIN: Final = 8  # columns that a name keeps when a table is squeezed
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class Cell:
    """Text in a table, and how it looks."""

    text: str
    style: Style = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its title, and where it gives way if the terminal is narrow.

    is_name:  aligned to the left and shortened at need; others are aligned to the right and whole.
    priority: columns with the highest number are left out first; 0 never.
    """

    title: str
    is_name: bool = False
    priority: int = 0


def paint(text: str, style: Style, *, colour: bool) -> str:
    """Return text with the escape sequences of style; as it is without colour."""
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if colour and style and text else text


def printable(text: str) -> str:
    """Return text with ``?`` in place of whatever a terminal would not show: clients choose names, too."""
    return "".join(one if one.isprintable() else "?" for one in text)


def width(text: str) -> int:
    """Return the columns that printable text takes."""
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )


def shorten(text: str, columns: int) -> str:
    """Return text cut to so many columns, with ``~`` for what is missing."""
    if width(text) <= columns:
        return text
    kept, used = "", 1
    for one in text:
        used += width(one)
        if used > columns:
            break
        kept += one
    return f"{kept}~"


def wrap(label: str, parts: Iterable[str], columns: int, indent: int) -> list[str]:
    """Return lines of ``label`` and parts, two blanks apart, continued below the first of them."""
    lines = [label.ljust(indent)]
    for part in parts:
        piece = shorten(part, max(columns - indent, 1))
        if width(lines[-1]) > indent and width(lines[-1]) + len(_GAP) + width(piece) > columns:
            lines.append(" " * indent)
        lines[-1] += (_GAP if width(lines[-1]) > indent else "") + piece
    return lines


def build_table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], limit: int, *, colour: bool) -> list[str]:
    """Return a heading and the rows, each line at most limit columns wide."""
    chosen = list(range(len(columns)))
    widths = [max([len(columns[at].title), *(width(row[at].text) for row in rows)]) for at in chosen]

    def excess() -> int:
        return sum(widths[at] for at in chosen) + len(_GAP) * (len(chosen) - 1) - limit

    names = [at for at in chosen if columns[at].is_name]
    while excess() > 0:
        slack = sum(max(widths[at] - _NAME_MIN, 0) for at in names)
        optional = [at for at in chosen if columns[at].priority > 0]
        if slack < excess() and optional:
            chosen.remove(max(optional, key=lambda at: columns[at].priority))
            continue
        widest = max(names, key=lambda at: widths[at])
        if widths[widest] <= 1:
            break
        widths[widest] -= 1
    head = [Cell(column.title, "dim") for column in columns]
    return [_build_line(row, columns, widths, chosen, limit, colour=colour) for row in (head, *rows)]


def _build_line(
    row: Sequence[Cell],
    columns: Sequence[Column],
    widths: Sequence[int],
    chosen: Iterable[int],
    limit: int,
    *,
    colour: bool,
) -> str:
    parts: list[str] = []
    used = 0
    for at in chosen:
        text = shorten(row[at].text, widths[at])
        blanks = " " * (widths[at] - width(text))
        gap = _GAP if parts else ""
        used += len(gap) + widths[at]
        if used > limit:
            break  # narrower than any sensible terminal
        painted = paint(text, row[at].style, colour=colour)
        parts.append(gap + (painted + blanks if columns[at].is_name else blanks + painted))
    return "".join(parts).rstrip()


def number(value: float) -> str:
    """Return a count with separators: 1,234,567."""
    return f"{value:,.0f}"


def rate(value: float | None) -> str:
    """Return events a second: 1,234 or 2.5; ``-`` where it is not known."""
    if value is None:
        return "-"
    return f"{value:,.1f}" if 0 < value < 9.95 else f"{value:,.0f}"


def size(value: float) -> str:
    """Return bytes in a unit that fits: 512 B, 1.5 KiB."""
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{value:,.0f} {unit}" if unit == "B" or value >= 100 else f"{value:,.1f} {unit}"


def duration(seconds: float) -> str:
    """Return a time in its two largest units: 4 s, 1 min 5 s, 2 h 3 min, 3 d 4 h."""
    whole = int(seconds)
    parts = [(whole // 86_400, "d"), (whole // 3_600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    first = next((at for at, (count, _) in enumerate(parts) if count), 3)
    shown = [f"{count} {unit}" for count, unit in islice(parts, first, first + 2) if count]
    return " ".join(shown) or "0 s"
