"""Whatever happens in whatever order: each subscriber has what was accepted while it was one, once, in one order."""

import re
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Final

import gevent
from gevent import get_hub
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from m2gate.gateway.hub import GatewayHub
from m2gate.hub.item import Item, dump_item, load_item
from m2gate.wire import attach as wire
from tests.gateway.fakes import Gate, credits_, leave
from tests.gateway.holding import hold, until

CHANNELS: Final = ("a", "b")
CHUNK: Final = re.compile(rb"[0-9a-f]+\r\n([ab])([0-9]+);x*\r\n")


class Worker:
    """What one worker should have been sent, and was: items by channel."""

    def __init__(self) -> None:
        self.members = dict.fromkeys(CHANNELS, 0)
        self.items: dict[str, list[int]] = defaultdict(list)
        self.answers: dict[int, bytes] = {}
        self.is_gone = False

    def send(self, message: bytes) -> None:
        assert not self.is_gone or message[:1] != wire.ITEM
        if message[:1] == wire.ITEM:
            item = load_item(message[1:])
            assert self.members[item.channel] > 0, "it has nobody there"
            self.items[item.channel].append(int(str(item.content)[1:].partition(";")[0]))
        else:
            self.answers[wire.parse_numbered(message)[0]] = message[:1]


class ChannelsMachine(RuleBasedStateMachine):
    """``accepted`` is the truth: the items of a channel in the order in which they were accepted."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.gate = Gate(Path(self.folder.name), workers=1, capacity=10_000)
        self.hub = GatewayHub(self.gate.dispatcher)
        self.channels = self.hub._channels
        self.workers = [Worker() for _ in range(3)]
        self.held: dict[int, set[str]] = {}
        self.next_conn_id = 1
        self.sequence = 0
        self.published = 0
        self.accepted: dict[str, list[int]] = defaultdict(list)
        self.expected: dict[object, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        self.asked: list[tuple[Worker, int]] = []

    @initialize()
    def watch(self) -> None:
        """Note what is accepted, and who is a subscriber at that moment."""
        accept = self.channels.broadcast.accept

        def note(item: Item) -> object:
            number = int(str(item.content)[1:].partition(";")[0])
            self.accepted[item.channel].append(number)
            for worker in self.workers:
                if worker.members[item.channel]:
                    self.expected[worker][item.channel].append(number)
            for conn_id, names in self.held.items():
                if item.channel in names:
                    self.expected[conn_id][item.channel].append(number)
            return accept(item)

        self.channels.broadcast.accept = note  # type: ignore[assignment,method-assign]

    def number(self) -> int:
        self.sequence += 1
        return self.sequence

    def say(self, worker: Worker, kind: bytes, payload: bytes) -> None:
        self.channels.handle(worker, wire.build_numbered(kind, self.number(), payload))

    @rule(index=st.integers(0, 2), channel=st.sampled_from(CHANNELS), form=st.sampled_from(["websocket", "events"]))
    def join(self, index: int, channel: str, form: str) -> None:
        worker = self.workers[index]
        worker.members[channel] += 1
        self.say(worker, wire.JOIN, wire.dump([channel.encode(), form.encode()]))

    @rule(index=st.integers(0, 2), channel=st.sampled_from(CHANNELS))
    def leave(self, index: int, channel: str) -> None:
        worker = self.workers[index]
        workers = self.channels._members._channels.get(channel, {})
        for form in ("websocket", "events"):
            if worker in workers and workers[worker][form]:
                self.say(worker, wire.LEAVE, wire.dump([channel.encode(), form.encode()]))
                worker.members[channel] -= 1
                return

    @rule(index=st.integers(0, 2))
    def die(self, index: int) -> None:
        """A worker dies, and another one comes with a member of its own."""
        worker = self.workers[index]
        worker.members = dict.fromkeys(CHANNELS, 0)
        worker.is_gone = True
        self.channels.worker_gone(worker)
        self.asked = [one for one in self.asked if one[0] is not worker]
        successor = self.workers[index] = Worker()
        successor.members["a"] = 1
        self.channels.attached(successor, [("a", "websocket", 1)])

    @rule(index=st.integers(0, 2), channel=st.sampled_from(CHANNELS), is_crowded=st.booleans())
    def crowd(self, index: int, channel: str, *, is_crowded: bool) -> None:
        self.channels.handle(self.workers[index], wire.CROWDED + wire.dump([channel.encode(), is_crowded]))

    @rule(names=st.sampled_from([("a",), ("b",), ("a", "b")]))
    def hold(self, names: tuple[str, ...]) -> None:
        conn_id, self.next_conn_id = self.next_conn_id, self.next_conn_id + 1
        hold(self.gate, self.hub, conn_id, *names)
        self.held[conn_id] = set(names)

    @rule(data=st.data())
    def part(self, data: st.DataObject) -> None:
        if self.held:
            conn_id = data.draw(st.sampled_from(sorted(self.held)))
            del self.held[conn_id]
            self.expected.pop(conn_id, None)  # what had not left is lost with its client
            self.gate.take(leave(conn_id))

    @rule(index=st.integers(0, 2), channel=st.sampled_from(CHANNELS), size=st.sampled_from([0, 9_000, 30_000]))
    def publish(self, index: int, channel: str, size: int) -> None:
        self.published += 1
        item = Item(channel=channel, content=f"{channel}{self.published};{'x' * size}")
        worker = self.workers[index]
        self.say(worker, wire.PUBLISH, dump_item(item))
        self.asked.append((worker, self.sequence))

    @rule(channel=st.sampled_from(CHANNELS))
    def publish_in_the_loop(self, channel: str) -> None:
        """An input that must not block comes behind what waits, and before what comes later."""
        self.published += 1
        number = self.published
        item = Item(channel=channel, content=f"{channel}{number};")
        get_hub().loop.run_callback(self.channels.publish, item)
        until(lambda: number in self.accepted[channel])

    @rule()
    def turn(self) -> None:
        gevent.idle()

    @rule(data=st.data(), amount=st.sampled_from([100, 9_000, 100_000]))
    def read(self, data: st.DataObject, amount: int) -> None:
        if self.held:
            self.gate.take(credits_(data.draw(st.sampled_from(sorted(self.held))), amount))

    @invariant()
    def workers_have_exactly_what_they_should(self) -> None:
        for worker in self.workers:
            assert worker.items == {name: found for name, found in self.expected[worker].items() if found}
        for numbers in self.accepted.values():
            assert numbers == sorted(set(numbers)), "accepted in the order in which they were published"

    def received(self, conn_id: int) -> dict[str, list[int]]:
        items: dict[str, list[int]] = defaultdict(list)
        for name, number in CHUNK.findall(self.gate.body(conn_id)):
            items[name.decode()].append(int(number))
        return items

    def teardown(self) -> None:
        """In the end all are read, and everything that was published has been accepted and answered."""
        try:
            for worker in self.workers:
                for channel in CHANNELS:
                    self.channels.handle(worker, wire.CROWDED + wire.dump([channel.encode(), False]))
            until(self.is_done)
            for conn_id in self.held:
                assert self.received(conn_id) == self.expected[conn_id]
            assert all(worker.answers[sequence] == wire.RECEIPT for worker, sequence in self.asked)
            assert self.channels._lines._queued_bytes == 0
            self.gate.assert_counted()
        finally:
            self.folder.cleanup()

    def is_done(self) -> bool:
        for conn_id in self.held:
            self.gate.take(credits_(conn_id, 100_000))
        self.channels.broadcast.flush()
        accepted = sum(len(numbers) for numbers in self.accepted.values())
        return accepted == self.published and all(self.received(one) == self.expected[one] for one in self.held)


TestChannels = ChannelsMachine.TestCase
TestChannels.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
