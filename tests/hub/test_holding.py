"""The record of a hold, and its way to another process."""

import pytest

from m2gate.errors import WireError
from m2gate.hub.form import ResponseForm, StreamForm
from m2gate.hub.holding import HoldLog, HoldRequest, dump_hold, load_hold
from m2gate.hub.item import ResponseFormat
from m2gate.wire.attach import dump, load
from tests.wire.passes import check_passes

LOG = HoldLog(request_id="ab-1", method="GET", path="/q", client="::1", started_us=7)
STREAM = HoldRequest(
    channels=("news", "ü"),
    form=StreamForm(chunked=True, events=False),
    status=200,
    begin=b"HTTP/1.1 200 OK\r\n\r\n",
    written=3,
    ping=b":\n\n",
    ping_ms=15_000,
    log=LOG,
)
RESPONSE = HoldRequest(
    channels=("news",),
    form=ResponseForm((("X-A", "é"),), close=True, body_less=False),
    timeout_ms=55_000,
    answer=ResponseFormat(204, (("X-B", "1"),), b"\x00\xff"),
    close=True,
    log=LOG,
)


@pytest.mark.parametrize("request_", [STREAM, RESPONSE], ids=["stream", "response"])
def test_hold_passes(request_: HoldRequest) -> None:
    check_passes(
        load_hold, dump_hold(3, 2**32 - 1, request_), (3, 2**32 - 1, request_), build=lambda found: dump_hold(*found)
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"channels", b"news"),
        (b"channels", [1]),
        (b"form", [b"websocket"]),
        (b"form", [b"stream", 1, True]),
        (b"form", [b"response", [], False, False]),  # without an answer
        (b"status", -1),
        (b"begin", None),
        (b"log", []),
        (b"answer", [200]),
        (b"close", 0),
    ],
)
def test_a_hold_with_a_wrong_field_is_refused(key: bytes, value: object) -> None:
    document = load(dump_hold(1, 2, STREAM), dict)
    document[key] = value
    with pytest.raises(WireError):
        load_hold(dump(document))
