"""All inputs of a process together: those that were asked for, a start that fails, and a handover."""

import gc
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import gevent
import pytest
import zmq
from gevent.event import Event

from m2gate.errors import ConfigError
from m2gate.hub.item import Item
from m2gate.hub.work import NOBODY, Receipt
from m2gate.inputs.publish import Inputs
from tests.system.processes import free_port, short_directory

DEADLINE_S = 10.0


@dataclass
class Addresses:
    publish_http: str | None = None
    publish_pull: str | None = None
    publish_sub: str | None = None


class Process:
    """What a worker or a gateway has: a context, and a hub whose channel ``slow`` is crowded at first."""

    def __init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.items: list[str] = []
        self.gate = Event()
        self.sockets: list[zmq.Socket[bytes]] = []

    def publish(self, item: Item) -> Receipt:
        if self.is_crowded(item.channel):
            self.gate.wait()
        self.items.append(f"{item.channel} {item.content!s}")
        return NOBODY

    def is_crowded(self, channel: str) -> bool:
        return channel == "slow" and not self.gate.is_set()

    def inputs(self, **addresses: str) -> Inputs:
        return Inputs(self.context, Addresses(**addresses), self.publish, lambda: "", self.is_crowded)

    def connect(self, kind: int, spec: str) -> "zmq.Socket[bytes]":
        socket = self.context.socket(kind)
        self.sockets.append(socket)
        socket.connect(spec)
        return socket

    def push(self, spec: str) -> "zmq.Socket[bytes]":
        return self.connect(zmq.PUSH, spec)

    def close(self) -> None:
        for socket in self.sockets:
            socket.close(linger=0)
        self.context.term()


@pytest.fixture
def process() -> Iterator[Process]:
    one = Process()
    yield one
    one.close()
    gc.collect()


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_directory() as folder:
        yield folder


def until(condition: Callable[[], object]) -> None:
    with gevent.Timeout(DEADLINE_S):
        while not condition():
            gevent.sleep(0.001)


def message(channel: str, content: object) -> bytes:
    return b"J" + json.dumps({"channel": channel, "m2gate": {"content": str(content)}}).encode()


def test_no_inputs(process: Process) -> None:
    inputs = process.inputs()
    inputs.start()
    inputs.opened("c")
    inputs.emptied("c")
    assert inputs.rejected == 0
    inputs.stop()


def test_rejected_is_that_of_all(process: Process, folder: Path) -> None:
    specs = {key: f"ipc://{folder}/{key}" for key in ("publish_pull", "publish_sub")}
    inputs = process.inputs(**specs)
    inputs.start()
    inputs.opened("c")
    process.push(specs["publish_pull"]).send(b"junk")
    xpub = process.connect(zmq.XPUB, specs["publish_sub"])
    until(lambda: xpub.poll(0))
    xpub.send_multipart([b"c", b"junk"])
    until(lambda: inputs.rejected == 2)
    inputs.stop()


@pytest.mark.parametrize("key", ["publish_pull", "publish_sub"])
def test_a_start_that_fails_leaves_nothing_open(process: Process, key: str) -> None:
    port = free_port()
    inputs = process.inputs(publish_http=f"127.0.0.1:{port}", **{key: "tcp://192.0.2.1:1"})
    with pytest.raises(ConfigError, match=key):
        inputs.start()
    process.context.term()  # would wait for a socket that is open
    with pytest.raises(ConnectionRefusedError), gevent.socket.create_connection(("127.0.0.1", port)):
        pass


def test_a_crowded_channel_holds_up_no_other_one(process: Process, folder: Path) -> None:
    spec = f"ipc://{folder}/items"
    inputs = process.inputs(publish_pull=spec)
    inputs.start()
    push = process.push(spec)
    for number in range(3):
        push.send(message("slow", number))
        push.send(message("fast", number))
    until(lambda: len(process.items) == 3)
    assert process.items == ["fast 0", "fast 1", "fast 2"]
    process.gate.set()
    until(lambda: len(process.items) == 6)
    assert process.items[3:] == ["slow 0", "slow 1", "slow 2"]
    inputs.stop()


def test_a_stop_publishes_what_has_arrived(process: Process, folder: Path) -> None:
    spec = f"ipc://{folder}/items"
    inputs = process.inputs(publish_pull=spec)
    inputs.start()
    push = process.push(spec)
    push.send(message("slow", 0))
    push.send(message("fast", 0))
    until(lambda: process.items)
    for number in range(1, 300):
        push.send(message("fast", number))
    gevent.spawn_later(0.05, process.gate.set)
    inputs.stop()
    assert [one for one in process.items if one != "slow 0"] == [f"fast {number}" for number in range(300)]
    assert "slow 0" in process.items


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_a_successor_loses_none_of_what_is_sent_after_the_stop(process: Process, folder: Path, transport: str) -> None:
    for _ in range(5):
        spec = f"ipc://{folder}/items" if transport == "ipc" else f"tcp://127.0.0.1:{free_port()}"
        process.items.clear()
        first, second = process.inputs(publish_pull=spec), process.inputs(publish_pull=spec)
        first.start()
        second.start()
        process.push(spec).send(message("c", 1))
        until(lambda: process.items)
        first.stop()
        process.push(spec).send(message("c", 2))
        until(lambda: len(process.items) == 2)
        assert process.items == ["c 1", "c 2"]
        second.stop()


def test_a_path_is_not_taken_from_who_answers_there(process: Process, folder: Path) -> None:
    spec = f"ipc://{folder}/items"
    mine, other = process.inputs(publish_pull=spec), Process()
    mine.start()
    late = other.inputs(publish_pull=spec)
    late.start()
    process.push(spec).send(message("c", 1))
    until(lambda: process.items)
    late.stop()
    process.push(spec).send(message("c", 2))
    until(lambda: len(process.items) == 2)
    assert other.items == []
    mine.stop()
    other.close()


def test_a_path_that_was_left_behind_is_used(process: Process, folder: Path) -> None:
    with gevent.socket.socket(gevent.socket.AF_UNIX) as dead:
        dead.bind(f"{folder}/items")
    spec = f"ipc://{folder}/items"
    inputs = process.inputs(publish_pull=spec)
    inputs.start()
    process.push(spec).send(message("c", 1))
    until(lambda: process.items)
    inputs.stop()


@pytest.mark.parametrize(("folder_mode", "mode"), [(0o700, 0o600), (0o750, 0o660)])
def test_who_may_publish_is_who_may_enter(process: Process, folder: Path, folder_mode: int, mode: int) -> None:
    os.chmod(folder, folder_mode)
    inputs = process.inputs(publish_pull=f"ipc://{folder}/items")
    inputs.start()
    assert stat.S_IMODE((folder / "items").stat().st_mode) == mode
    inputs.stop()
