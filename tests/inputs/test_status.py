"""The status socket: who is answered, what is not, and what stays bounded."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
import zmq

from m2gate.errors import ConfigError, M2GateError
from m2gate.inputs.document import (
    CHANNELS_MAX,
    ChannelStatus,
    CountersStatus,
    QueueStatus,
    ServerStatus,
    StatusDocument,
    WorkerStatus,
    check_document,
    describe_channels,
)
from m2gate.inputs.status import QUESTION_MAX, TURN_QUESTIONS, UNREAD_MAX, StatusServer
from m2gate.inputs.status_client import StatusClient
from tests.hub.fakes import FakeServer, Owner
from tests.inputs.documents import gateway_document
from tests.system.processes import short_directory

DEADLINE_S = 10.0


@pytest.fixture
def context() -> Iterator[Any]:
    with zmq.Context() as context:
        yield context


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_directory() as folder:
        yield folder


@pytest.fixture
def server(context: Any, folder: Path) -> Iterator[StatusServer]:
    server = StatusServer(context, folder / "status", gateway_document)
    server.start()
    yield server
    server.stop()


def until(condition: Callable[[], object]) -> None:
    with gevent.Timeout(DEADLINE_S):
        while not condition():
            gevent.sleep(0.001)


def asked(path: Path, timeout_s: float = DEADLINE_S) -> Any:
    """Ask in a thread, as another process would; return the document or the error."""
    results: list[Any] = []

    def ask() -> None:
        try:
            results.append(StatusClient(path, timeout_s).ask())
        except M2GateError as error:
            results.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: results)
    thread.join()
    return results[0]


def client(context: Any, path: Path, kind: int = zmq.DEALER, rcvhwm: int = 1_000) -> Any:
    socket = context.socket(kind)
    socket.linger = 0
    socket.rcvhwm = rcvhwm
    socket.connect(f"ipc://{path}")
    return socket


def received(socket: Any) -> list[bytes]:
    message: list[bytes] = []

    def is_there() -> bool:
        try:
            message[:] = socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    until(is_there)
    return message


def test_a_question_is_answered_with_the_document(server: StatusServer, folder: Path) -> None:
    assert asked(folder / "status") == gateway_document()
    assert asked(folder / "status") == gateway_document()
    assert server.rejected == 0


@pytest.mark.parametrize("kind", [zmq.REQ, zmq.DEALER])
def test_both_kinds_of_clients(server: StatusServer, folder: Path, context: Any, kind: int) -> None:
    with client(context, folder / "status", kind) as socket:
        socket.send(b"status")
        (answer,) = received(socket)
        assert json.loads(answer) == gateway_document()


JUNK = [
    pytest.param([b""], id="empty"),
    pytest.param([b"Status"], id="case"),
    pytest.param([b"status\0"], id="longer"),
    pytest.param([b"status", b"status"], id="two-frames"),
    pytest.param([b"", b"", b"status"], id="envelope"),
    pytest.param([b"\xff" * QUESTION_MAX], id="large"),
]


@pytest.mark.parametrize("message", JUNK)
def test_junk_is_counted_and_nobody_else_suffers(
    server: StatusServer, folder: Path, context: Any, message: list[bytes]
) -> None:
    with client(context, folder / "status") as socket:
        socket.send_multipart(message)
        until(lambda: server.rejected == 1)
        socket.send(b"status")
        assert json.loads(received(socket)[0])["role"] == "gateway"


def test_a_frame_that_is_too_large_ends_that_client_only(server: StatusServer, folder: Path, context: Any) -> None:
    with client(context, folder / "status") as socket:
        monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        socket.send(b"x" * (QUESTION_MAX + 1))
        assert received(monitor)
        socket.disable_monitor()
        monitor.close()
    assert server.rejected == 0
    assert asked(folder / "status") == gateway_document()


def test_more_questions_than_a_turn_takes(server: StatusServer, folder: Path, context: Any) -> None:
    with client(context, folder / "status") as socket:
        for _ in range(3 * TURN_QUESTIONS):
            socket.send(b"junk")
        socket.send(b"status")
        assert json.loads(received(socket)[0])["role"] == "gateway"
    assert server.rejected == 3 * TURN_QUESTIONS


def test_a_client_that_does_not_read_costs_only_its_answers(context: Any, folder: Path) -> None:
    filler = "x" * 300_000  # more than the buffers of a socket hold of a few
    made = 0

    def document() -> dict[str, object]:
        nonlocal made
        made += 1
        return {"made": made, "filler": filler}

    server = StatusServer(context, folder / "status", document)
    server.start()
    asks = 200
    with client(context, folder / "status", rcvhwm=1) as socket:
        for _ in range(asks):
            socket.send(b"status")
        socket.send(b"the last")
        until(lambda: server.rejected == 1)
        before, answers = made, 0
        while True:
            socket.send(b"status")
            if json.loads(received(socket)[0])["made"] > before:
                break
            answers += 1
    assert UNREAD_MAX <= answers < asks
    server.stop()


def test_the_successor_takes_the_path_and_keeps_it(context: Any, folder: Path, server: StatusServer) -> None:
    # As in another process: the name that libzmq is bound to has the pid in it.
    mine = os.getpid
    try:
        os.getpid = lambda: 1
        successor = StatusServer(context, folder / "status", lambda: gateway_document() | {"pid": 2})
        successor.start()
    finally:
        os.getpid = mine
    assert asked(folder / "status")["pid"] == 2
    server.stop()
    assert asked(folder / "status")["pid"] == 2
    successor.stop()
    successor.stop()
    assert os.listdir(folder) == []


def test_what_a_killed_process_left_is_replaced(context: Any, folder: Path) -> None:
    (folder / "status").touch()
    server = StatusServer(context, folder / "status", gateway_document)
    server.start()
    assert asked(folder / "status") == gateway_document()
    server.stop()


@pytest.mark.parametrize(("folder_mode", "mode"), [(0o700, 0o600), (0o750, 0o660), (0o755, 0o660)])
def test_the_mode_follows_the_folder(context: Any, folder: Path, folder_mode: int, mode: int) -> None:
    folder.chmod(folder_mode)
    server = StatusServer(context, folder / "status", gateway_document)
    server.start()
    assert (folder / "status").stat().st_mode & 0o777 == mode
    server.stop()


@pytest.mark.parametrize("name", ["nothing/status", "x" * 120])
def test_a_path_that_cannot_be_bound(context: Any, folder: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="status = "):
        StatusServer(context, folder / name, gateway_document).start()


def test_a_document_that_fails_is_our_bug_and_is_logged(
    context: Any, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> StatusDocument:
        raise RuntimeError("a bug")

    server = StatusServer(context, folder / "status", fail)
    server.start()
    error = asked(folder / "status")
    assert isinstance(error, M2GateError)
    assert "status document failed" in caplog.text
    server.stop()


def test_nobody_listens(folder: Path) -> None:
    with pytest.raises(M2GateError, match="nobody listens there"):
        StatusClient(folder / "status").ask()


def test_nobody_answers(folder: Path, context: Any) -> None:
    with context.socket(zmq.ROUTER) as silent:
        silent.bind(f"ipc://{folder}/status")
        with pytest.raises(M2GateError, match=r"no answer within 0\.05 s"):
            StatusClient(folder / "status", 0.05).ask()


WRONG = [
    pytest.param(b"<html>", "no JSON", id="html"),
    pytest.param(b"[" * 100_000, "no JSON", id="deep"),
    pytest.param(b"[]", "is no object", id="list"),
    pytest.param(b"{}", "lacks channels, ", id="empty"),
]


@pytest.mark.parametrize(("answer", "problem"), WRONG)
def test_something_else_answers(folder: Path, context: Any, answer: bytes, problem: str) -> None:
    with context.socket(zmq.REP) as other:
        other.bind(f"ipc://{folder}/status")

        def reply() -> None:
            other.recv()
            other.send(answer)

        thread = threading.Thread(target=reply)
        thread.start()
        with pytest.raises(M2GateError, match=problem):
            StatusClient(folder / "status").ask()
        thread.join()


def test_a_document_is_checked_down_to_its_rows() -> None:
    document: Any = {**gateway_document(), "new": 1}
    assert check_document(document) is document
    row: Any = document["workers"][0]
    del row["beat_age_s"]
    with pytest.raises(M2GateError, match="workers lacks beat_age_s; another version"):
        check_document(document)
    with pytest.raises(M2GateError, match="servers is no list"):
        check_document(gateway_document() | {"servers": {}})
    with pytest.raises(M2GateError, match="queue is no object"):
        check_document(gateway_document() | {"queue": 1})


def test_the_names_of_the_keys_are_a_contract() -> None:
    assert {
        kind.__name__: " ".join(kind.__annotations__)
        for kind in (StatusDocument, ServerStatus, WorkerStatus, QueueStatus, ChannelStatus, CountersStatus)
    } == {
        "StatusDocument": "role version pid uptime_s servers workers queue channels channels_total subscribers_total"
        " lagging_total queued_bytes_total counters",
        "ServerStatus": "send_ident connected epoch sessions held requests frames_in rejected",
        "WorkerStatus": "name pid generation state outstanding served failed capacity beat_age_s uptime_s handler",
        "QueueStatus": "waiting max bytes",
        "ChannelStatus": "name subscribers lagging queued_bytes published",
        "CountersStatus": "requests_started requests_finished requests_failed items_published deliveries drops"
        " worker_deaths orphans_closed frames_rejected publish_rejected",
    }


def test_the_largest_channels_are_named_and_all_are_counted() -> None:
    owner = Owner()
    server = FakeServer()
    for number in range(CHANNELS_MAX + 5):
        owner.subscribe(f"c{number}", server.connect())
    owner.subscribe("c7", server.connect())
    owner.publish("c7", "x")
    part = describe_channels(owner.hub)
    assert len(part.channels) == CHANNELS_MAX
    assert part.channels[0] == {"name": "c7", "subscribers": 2, "lagging": 0, "queued_bytes": 0, "published": 1}
    assert (part.channels_total, part.subscribers_total) == (CHANNELS_MAX + 5, CHANNELS_MAX + 6)
    assert (part.items_published, part.deliveries, part.drops) == (1, 2, {})
