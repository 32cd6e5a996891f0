"""Items on their way to the hub of another process."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2gate.errors import WireError
from m2gate.hub.item import Formats, Item, ResponseFormat, dump_item, load_item

TEXT = st.text(max_size=20)
CONTENT = st.none() | TEXT | st.binary(max_size=20)
RESPONSES = st.builds(
    ResponseFormat,
    st.integers(100, 599),
    st.lists(st.tuples(TEXT, TEXT), max_size=2).map(tuple),
    st.binary(),
    st.none() | TEXT,
)
ITEMS = st.builds(
    Item,
    channel=TEXT,
    content=CONTENT,
    content_type=TEXT,
    event=st.none() | TEXT,
    id=st.none() | TEXT,
    prev_id=st.none() | TEXT,
    formats=st.builds(
        Formats, stream=st.none() | st.binary(max_size=20), message=CONTENT, response=st.none() | RESPONSES
    ),
    date=TEXT,
)


@given(ITEMS)
def test_nothing_is_lost(item: Item) -> None:
    assert load_item(dump_item(item)) == item


@given(ITEMS, st.data())
def test_anything_else_is_a_wire_error(item: Item, data: st.DataObject) -> None:
    whole = dump_item(item)
    position = data.draw(st.integers(0, len(whole) - 1))
    broken = whole[:position] + bytes([data.draw(st.integers(0, 255))]) + whole[position + 1 :]
    for one in (whole[:position], broken):
        try:
            load_item(one)
        except WireError:
            continue
        assert one is broken


@pytest.mark.parametrize("data", [b"", b"0:]", b"0:,", b"3:1:a,]", b"x"])
def test_junk(data: bytes) -> None:
    with pytest.raises(WireError):
        load_item(data)
