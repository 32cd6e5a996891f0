"""Text for a terminal: what fits, what gives way, and what a terminal must not be told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2gate.cli.table import Cell, Column, build_table, duration, number, printable, rate, shorten, size, width, wrap

COLUMNS = [
    Column(title="NAME", is_name=True),
    Column(title="COUNT"),
    Column(title="LESS", priority=1),
    Column(title="LEAST", priority=2),
]
ROW = [Cell("a-long-name-of-a-thing"), Cell("1,000"), Cell("7"), Cell("8")]


def table(limit: int) -> list[str]:
    return build_table(COLUMNS, [ROW], limit, colour=False)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        pytest.param(
            80, ["NAME                    COUNT  LESS  LEAST", "a-long-name-of-a-thing  1,000     7      8"], id="all"
        ),
        pytest.param(33, ["NAME           COUNT  LESS  LEAST", "a-long-name-~  1,000     7      8"], id="shortened"),
        pytest.param(25, ["NAME          COUNT  LESS", "a-long-name~  1,000     7"], id="one-less"),
        pytest.param(16, ["NAME       COUNT", "a-long-n~  1,000"], id="two-less"),
        pytest.param(10, ["NA~  COUNT", "a-~  1,000"], id="narrow"),
        pytest.param(3, ["~", "~"], id="too-narrow"),
    ],
)
def test_tables(limit: int, expected: list[str]) -> None:
    assert table(limit) == expected


@given(st.integers(1, 120), st.lists(st.tuples(st.text(max_size=30), st.integers(0, 10**9)), max_size=4))
def test_no_line_is_wider_than_the_terminal(limit: int, things: list[tuple[str, int]]) -> None:
    rows = [[Cell(printable(name)), Cell(number(count)), Cell("1"), Cell("2")] for name, count in things]
    for line in build_table(COLUMNS, rows, limit, colour=False):
        assert width(line) <= limit
        assert line.isprintable()


def test_colours_take_no_room() -> None:
    plain = build_table(COLUMNS, [ROW], 80, colour=True)
    assert plain[0].startswith("\x1b[2mNAME\x1b[0m    ")
    red = build_table(COLUMNS[:2], [[Cell("a", "red"), Cell("1", "green")]], 80, colour=True)
    assert red[1] == "\x1b[31ma\x1b[0m         \x1b[32m1\x1b[0m"


def test_names_of_clients_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[2Jb\x9b\r\n\t\0\u202ec") == "a?[2Jb??????c"
    assert printable("Grüße 日本") == "Grüße 日本"


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab~"),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本~"),
        ("日本語", 4, "日~"),
        ("e\u0301x", 2, "e\u0301x"),
    ],
)
def test_shorten(text: str, columns: int, expected: str) -> None:
    assert shorten(text, columns) == expected


def test_wrap() -> None:
    assert wrap("label", ["one", "two", "three"], 20, 8) == ["label   one  two", "        three"]
    assert wrap("label", ["x" * 30], 20, 8) == ["label   xxxxxxxxxxx~"]
    assert wrap("label", [], 20, 8) == ["label   "]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0 B"),
        (1_023, "1,023 B"),
        (1_024, "1.0 KiB"),
        (150 * 1_024, "150 KiB"),
        (5 << 30, "5.0 GiB"),
        (1 << 60, "1,048,576 TiB"),
    ],
)
def test_size(value: int, expected: str) -> None:
    assert size(value) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.4, "0 s"),
        (59.9, "59 s"),
        (65, "1 min 5 s"),
        (3_600, "1 h"),
        (3_605, "1 h"),
        (93_784, "1 d 2 h"),
        (9e6, "104 d 4 h"),
    ],
)
def test_duration(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(None, "-"), (0.0, "0"), (0.25, "0.2"), (9.9, "9.9"), (9.99, "10"), (12_345.6, "12,346")]
)
def test_rate(value: float | None, expected: str) -> None:
    assert rate(value) == expected
