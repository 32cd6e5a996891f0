"""The protocol between a gateway and its workers, byte by byte."""

from collections.abc import Callable
from typing import Any

import pytest

from m2gate.errors import WireError
from m2gate.wire import attach
from m2gate.wire.attach import Attach, Claim, ServerNote
from tests.wire.passes import check_passes

SERVERS = [ServerNote(1, b"m2-a", "ipc:///r/a", ""), ServerNote(65_535, b"m2-b", "tcp://127.0.0.1:9", "/up/x.XXXXXX")]
ATTACH = Attach(
    name="w1",
    pid=4_711,
    generation=2,
    table="w1.2.4711.table",
    capacity=2_000,
    base=2**40,
    is_leaving=True,
    claims=[
        Claim(b"m2-a", 2**32 - 1, 7, is_started=True, is_websocket=False),
        Claim(b"m2-b", 0, 8, is_started=False, is_websocket=True),
    ],
    members=[("chät", "websocket", 3)],
)

MESSAGES: list[Any] = [
    pytest.param(attach.split_frames, attach.build_frames([b"m2 1 / x", b"", b"\xff" * 300]),
                 [b"m2 1 / x", b"", b"\xff" * 300], attach.build_frames, False, id="frames"),
    pytest.param(attach.parse_servers, attach.build_servers(SERVERS), SERVERS,
                 attach.build_servers, True, id="servers"),
    pytest.param(attach.parse_servers, attach.build_servers([]), [], attach.build_servers, True, id="no-servers"),
    pytest.param(attach.parse_release, attach.build_release(3, [1, 2**32 - 1]), (3, [1, 2**32 - 1]),
                 lambda found: attach.build_release(*found), False, id="release"),
    pytest.param(attach.parse_read, attach.build_read(3, {1: 2**40, 2**32 - 1: 0}), (3, {1: 2**40, 2**32 - 1: 0}),
                 lambda found: attach.build_read(*found), False, id="read"),
    pytest.param(attach.parse_connected, attach.build_connected(3), 3, attach.build_connected, True, id="connected"),
    pytest.param(attach.parse_attach, attach.build_attach(ATTACH), ATTACH, attach.build_attach, True, id="attach"),
    pytest.param(attach.parse_numbered, attach.build_numbered(attach.JOIN, 9, b"payload"), (9, b"payload"),
                 lambda found: attach.build_numbered(attach.JOIN, *found), False, id="numbered"),
    pytest.param(attach.parse_receipt, attach.build_receipt(9, (5, 3, 1, 0, 1)), (9, (5, 3, 1, 0, 1)),
                 lambda found: attach.build_receipt(*found), True, id="receipt"),
]  # fmt: skip


@pytest.mark.parametrize(("parse", "data", "record", "build", "prefixes_fail"), MESSAGES)
def test_message_passes(
    parse: Callable[[bytes], object],
    data: bytes,
    record: object,
    build: Callable[[Any], bytes],
    prefixes_fail: bool,
) -> None:
    check_passes(parse, data, record, build=build, prefixes_fail=prefixes_fail)


def test_done() -> None:
    records = [(1, attach.EXCHANGE_DONE, 7, 300), (2, attach.CONNECTION_CLOSED, 2**32 - 1, 0)]
    data = attach.build_done(2**50, [attach.RECORD.pack(*record) for record in records])

    def parse(message: bytes) -> tuple[int, list[tuple[int, int, int, int]]]:
        seen, rows = attach.parse_done(message)
        return seen, list(rows)

    check_passes(parse, data, (2**50, records), prefixes_fail=False)
    assert parse(attach.build_done(5, [])) == (5, [])


KINDS = [
    [attach.FRAMES, attach.SERVERS, attach.RELEASE, attach.RECEIPT, attach.REFUSAL, attach.ITEM, attach.BEAT,
     attach.READ, attach.END],
    [attach.ATTACH, attach.CONNECTED, attach.DONE, attach.HOLD, attach.FEED, attach.JOIN, attach.LEAVE, attach.PUBLISH,
     attach.POLICY, attach.CROWDED, attach.BYE],
]  # fmt: skip


@pytest.mark.parametrize("kinds", KINDS, ids=["to-worker", "to-gateway"])
def test_each_kind_is_one_byte_of_its_own(kinds: list[bytes]) -> None:
    assert len(set(kinds)) == len(kinds)
    assert all(len(kind) == 1 for kind in kinds)


def test_a_worker_of_another_version_is_not_taken() -> None:
    message = attach.build_attach(ATTACH).replace(b"7:version,1:1#", b"7:version,1:2#")
    with pytest.raises(WireError, match="version 1"):
        attach.parse_attach(message)


@pytest.mark.parametrize("data", [b"", b"5:hello,", b"3:1#", b"0:~ ", b"9" * 40 + b":", b"]" * 10])
def test_load_refuses_what_is_no_document_of_the_kind(data: bytes) -> None:
    with pytest.raises(WireError):
        attach.load(data, dict)


HUGE = 10**12


@pytest.mark.parametrize("row", [[HUGE, b"a", b"b", b""], [1, HUGE, b"b", b""], [1, b"a", 2, b""], [1, b"a", b"b"], 5])
def test_a_server_with_a_wrong_field_is_refused(row: object) -> None:
    with pytest.raises(WireError):
        attach.parse_servers(attach.SERVERS + attach.dump([row]))
