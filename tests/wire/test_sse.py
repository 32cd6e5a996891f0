import re
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2gate.wire.sse import build_comment, build_event


@dataclass
class Event:
    """What a browser dispatches."""

    data: str
    event: str
    last_id: str


class Browser:
    """The standard's algorithm for reading an event stream, line by line, from bytes to events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.retry: int | None = None
        self.last_id = ""
        self._data = ""
        self._event = ""

    def read(self, stream: bytes) -> "Browser":
        text = stream.decode()
        lines = re.split("\r\n|\n|\r", text)
        assert lines.pop() == ""
        for line in lines:
            self._line(line)
        return self

    def _line(self, line: str) -> None:
        if not line:
            if self._data:
                self.events.append(Event(self._data[:-1], self._event or "message", self.last_id))
            self._data = self._event = ""
            return
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data += value + "\n"
        elif field == "event":
            self._event = value
        elif field == "id" and "\0" not in value:
            self.last_id = value
        elif field == "retry" and value.isdigit():
            self.retry = int(value)


EVENTS: list[Any] = [
    pytest.param({"data": "hello"}, b"data: hello\n\n", id="text"),
    pytest.param({"data": b"gr\xc3\xbc"}, b"data: gr\xc3\xbc\n\n", id="bytes"),
    pytest.param({"data": ""}, b"data: \n\n", id="empty"),
    pytest.param({"data": " a"}, b"data:  a\n\n", id="leading-blank"),
    pytest.param({"data": "a\nb"}, b"data: a\ndata: b\n\n", id="lf"),
    pytest.param({"data": "a\r\nb\rc"}, b"data: a\ndata: b\ndata: c\n\n", id="crlf-and-cr"),
    pytest.param({"data": "a\n"}, b"data: a\ndata: \n\n", id="line-end-at-the-end"),
    pytest.param({"data": "a\n\nevent: x"}, b"data: a\ndata: \ndata: event: x\n\n", id="looks-like-a-field"),
    pytest.param(
        {"data": "x", "event": "tick", "id": "17", "retry": 3000},
        b"event: tick\nid: 17\nretry: 3000\ndata: x\n\n",
        id="all-fields",
    ),
    pytest.param({"data": "x", "id": ""}, b"id: \ndata: x\n\n", id="empty-id-resets"),
    pytest.param({"data": "x", "retry": 0}, b"retry: 0\ndata: x\n\n", id="retry-at-once"),
]


@pytest.mark.parametrize(("fields", "text"), EVENTS)
def test_build_event(fields: dict[str, Any], text: bytes) -> None:
    assert build_event(**fields) == text


@pytest.mark.parametrize("field", ["event", "id"])
@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\r\ndata: forged", "\n", "a\0"])
def test_no_second_line_in_event_or_id(field: str, value: str) -> None:
    fields: dict[str, Any] = {"data": "x", field: value}
    with pytest.raises(ValueError, match=f"{field} = "):
        build_event(**fields)


def test_retry_is_not_negative() -> None:
    with pytest.raises(ValueError, match="retry = -1"):
        build_event("x", retry=-1)


LINE = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\n\0"), max_size=20)
TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=40)


@given(
    st.lists(
        st.tuples(TEXT, st.none() | LINE, st.none() | LINE, st.none() | st.integers(0, 10**9)), min_size=1, max_size=5
    ),
    TEXT,
)
def test_a_browser_dispatches_what_was_built(
    events: list[tuple[str, str | None, str | None, int | None]], comment: str
) -> None:
    stream = b"".join(
        build_event(data, event, id_, retry) + build_comment(comment) for data, event, id_, retry in events
    )
    browser = Browser().read(stream)
    assert [(one.data, one.event) for one in browser.events] == [
        (re.sub("\r\n|\r", "\n", data), event or "message") for data, event, _, _ in events
    ]
    ids = [id_ for _, _, id_, _ in events if id_ is not None]
    assert browser.last_id == (ids[-1] if ids else "")
    retries = [retry for _, _, _, retry in events if retry is not None]
    assert browser.retry == (retries[-1] if retries else None)


COMMENTS = [("", b": \n\n"), ("ping", b": ping\n\n"), ("a\r\nb\rc\nd", b": a\n: b\n: c\n: d\n\n")]


@pytest.mark.parametrize(("text", "comment"), COMMENTS, ids=range(len(COMMENTS)))
def test_build_comment(text: str, comment: bytes) -> None:
    assert build_comment(text) == comment
    assert Browser().read(comment).events == []
