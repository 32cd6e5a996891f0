from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2gate.wire.flow import PIECE_BYTES, PIECE_MIN_BYTES, Outflow
from m2gate.wire.mongrel2 import CREDITS_INITIAL


def take_all(flow: Outflow) -> list[bytes]:
    """Take until nothing more may go out."""
    return [bytes(piece) for piece in iter(flow.take, b"")]


def test_small_units_go_out_whole_and_in_order() -> None:
    flow = Outflow(CREDITS_INITIAL)
    for unit in (b"one", b"two", b"three"):
        flow.push(unit)
    assert flow.queued == 11
    assert take_all(flow) == [b"one", b"two", b"three"]
    assert (flow.queued, flow.outstanding, len(flow.units)) == (0, 11, 0)


def test_a_large_unit_goes_out_in_pieces_as_credits_come_back() -> None:
    flow = Outflow(CREDITS_INITIAL)
    flow.push(b"a" * 200_000)
    assert [len(piece) for piece in take_all(flow)] == [PIECE_BYTES] * 3
    assert take_all(flow) == []
    flow.grant(PIECE_BYTES)
    assert [len(piece) for piece in take_all(flow)] == [PIECE_BYTES]
    assert flow.outstanding == 3 * PIECE_BYTES
    assert flow.queued == 200_000 - 4 * PIECE_BYTES


def test_a_unit_is_not_cut_for_a_few_bytes_of_credit() -> None:
    flow = Outflow(CREDITS_INITIAL)
    flow.spend(CREDITS_INITIAL - PIECE_MIN_BYTES + 1)
    flow.push(b"a" * PIECE_BYTES)
    assert take_all(flow) == []
    flow.grant(1)
    assert [len(piece) for piece in take_all(flow)] == [PIECE_MIN_BYTES]


def test_a_unit_that_fits_uses_the_last_credits() -> None:
    flow = Outflow(CREDITS_INITIAL)
    flow.spend(CREDITS_INITIAL - 5)
    flow.push(b"12345")
    flow.push(b"6")
    assert take_all(flow) == [b"12345"]
    assert flow.outstanding == CREDITS_INITIAL


def test_a_window_below_the_smallest_piece_still_moves() -> None:
    flow = Outflow(10)
    flow.push(b"a" * 25)
    sizes = []
    while flow.units:
        pieces = take_all(flow)
        sizes += [len(piece) for piece in pieces]
        flow.grant(sizes[-1])
    assert sizes == [10, 10, 5]


def test_nothing_goes_out_without_a_window() -> None:
    flow = Outflow(None)
    flow.push(b"x")
    assert not flow.fits(0)
    assert take_all(flow) == []
    flow.grant(1)
    assert flow.window == CREDITS_INITIAL
    assert take_all(flow) == [b"x"]


def test_fits_counts_what_is_outstanding_and_never_overtakes() -> None:
    flow = Outflow(100)
    assert flow.fits(100)
    assert not flow.fits(101)
    flow.spend(60)
    assert flow.fits(40)
    assert not flow.fits(41)
    flow.push(b"waits")
    assert not flow.fits(1)


def test_credits_for_bytes_of_somebody_else_do_not_widen_the_window() -> None:
    flow = Outflow(100)
    flow.spend(10)
    flow.grant(1_000)
    assert flow.outstanding == 0
    assert not flow.fits(101)


def test_a_unit_without_bytes_is_none() -> None:
    # Sent as a message it would close the connection; and b"" from take() means that nothing may go.
    flow = Outflow(100)
    flow.push(b"")
    flow.push(b"x")
    assert take_all(flow) == [b"x"]


def test_pieces_of_200_mb_are_not_copies_of_the_rest() -> None:
    unit = bytes(200_000_000)
    flow = Outflow(CREDITS_INITIAL)
    flow.push(unit)
    first = flow.take()
    assert isinstance(first, memoryview)
    assert first.obj is unit
    rest = flow.units[0]
    assert isinstance(rest, memoryview)
    assert rest.obj is unit


@given(
    st.lists(st.integers(0, 300), max_size=20),
    st.lists(st.integers(0, 5), max_size=200),
    st.sampled_from([1, 1_000, PIECE_BYTES, CREDITS_INITIAL]),
)
def test_everything_arrives_once_in_order_within_the_window(percents: list[int], steps: list[int], window: int) -> None:
    bodies = [bytes([percent % 251]) * (percent * window // 100) for percent in percents]
    flow = Outflow(window)
    waiting = list(bodies)
    sent: list[bytes] = []
    under_way: list[int] = []
    largest = min(PIECE_BYTES, window)

    def take() -> bool:
        piece = bytes(flow.take())
        if piece:
            sent.append(piece)
            under_way.append(len(piece))
        assert len(piece) <= largest
        assert flow.outstanding == sum(under_way) <= window
        assert flow.queued == sum(len(unit) for unit in flow.units)
        return bool(piece)

    for step in steps:
        if step == 0 and waiting:
            flow.push(waiting.pop(0))
        elif step == 1 and under_way:
            flow.grant(under_way.pop(0))
        else:
            take()
    for unit in waiting:
        flow.push(unit)
    while flow.units:
        if not take():
            # Progress: what cannot go out now is waiting for credits that will come.
            assert under_way
            flow.grant(under_way.pop(0))
    assert b"".join(sent) == b"".join(bodies)
    # No piece has bytes of two units.
    assert set(accumulate(map(len, bodies))) <= {0, *accumulate(map(len, sent))}


def test_small_pieces_do_not_stay_small() -> None:
    flow = Outflow(CREDITS_INITIAL)
    under_way = []
    for _ in range(500):
        flow.push(bytes(100))
    flow.push(bytes(5_000_000))
    pieces = []
    while flow.units:
        piece = len(flow.take())
        if piece:
            pieces.append(piece)
            under_way.append(piece)
        else:
            flow.grant(under_way.pop(0))
    assert all(size >= PIECE_MIN_BYTES for size in pieces[500:-1])


@pytest.mark.parametrize("amount", [0, 1])
def test_a_grant_never_makes_outstanding_negative(amount: int) -> None:
    flow = Outflow(None)
    flow.grant(amount)
    assert flow.outstanding == 0


def test_where_nothing_waits_there_is_no_queue() -> None:
    flow, other = Outflow(10), Outflow(10)
    assert flow.units is other.units
    flow.push(b"abc")
    assert (len(flow.units), len(other.units)) == (1, 0)
    assert flow.take() == b"abc"
    assert flow.units is other.units
