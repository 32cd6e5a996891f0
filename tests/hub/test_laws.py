"""Whatever happens in whatever order: order per channel, nothing twice, and nothing lost that is not counted."""

import re
from collections import Counter, defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from m2gate.hub.policy import Policy
from tests.hub.fakes import CHUNKED, RAW, FakeOutlet, FakeServer, Owner

CHANNELS = {"block": Policy("block", 2_000), "oldest": Policy("drop-oldest", 500), "latest": Policy("latest", 500)}
CHUNK = re.compile(rb"([0-9a-f]+)\r\n(.*?)\r\n", re.DOTALL)


class Client:
    """What one connection should have got: the items published while it was subscribed, by channel."""

    def __init__(self, outlet: FakeOutlet, *, chunked: bool) -> None:
        self.outlet = outlet
        self.chunked = chunked
        self.joined: set[str] = set()
        self.expected: dict[str, list[int]] = defaultdict(list)
        self.is_gone = False

    def received(self) -> dict[str, list[int]]:
        data = self.outlet.received
        if self.chunked:
            data = b"".join(match.group(2) for match in CHUNK.finditer(data))
        items: dict[str, list[int]] = defaultdict(list)
        for item in data.split(b";")[:-1]:
            name, number, _ = item.split(b":")
            items[name.decode()].append(int(number))
        return items


class HubMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.owner = Owner()
        self.servers = [FakeServer(b"one"), FakeServer(b"two")]
        self.clients: list[Client] = []
        self.numbers: Counter[str] = Counter()
        for name, policy in CHANNELS.items():
            self.owner.hub.configure(name, policy)

    @rule(server=st.integers(0, 1), window=st.sampled_from([40, 300, 102_400, None]), chunked=st.booleans())
    def connect(self, server: int, window: int | None, chunked: bool) -> None:
        self.clients.append(Client(self.servers[server].connect(window), chunked=chunked))

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), name=st.sampled_from(sorted(CHANNELS)))
    def join(self, data: st.DataObject, name: str) -> None:
        client = data.draw(st.sampled_from(self.clients))
        if not client.is_gone:
            self.owner.subscribe(name, client.outlet, CHUNKED if client.chunked else RAW)
            client.joined.add(name)
            self.note_closed()

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), name=st.sampled_from(sorted(CHANNELS)))
    def leave(self, data: st.DataObject, name: str) -> None:
        client = data.draw(st.sampled_from(self.clients))
        if name in client.joined:
            form = CHUNKED if client.chunked else RAW
            subscriber = self.owner.hub.subscribe(name, client.outlet, form, self.owner.now_s)
            self.owner.hub.unsubscribe(subscriber, self.owner.now_s)
            client.joined.discard(name)
            self.note_closed()

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def vanish(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(self.clients))
        client.is_gone = True
        client.joined.clear()
        self.owner.hub.discard(client.outlet)

    @rule(name=st.sampled_from(sorted(CHANNELS)), size=st.sampled_from([0, 30, 450, 20_000]), times=st.integers(1, 5))
    def publish(self, name: str, size: int, times: int) -> None:
        for _ in range(times):
            self.numbers[name] += 1
            number = self.numbers[name]
            matched, _, _ = self.owner.publish(name, f"{name}:{number}:{'x' * size};")
            joined = [client for client in self.clients if name in client.joined]
            assert matched == len(joined)
            for client in joined:
                client.expected[name].append(number)
            self.note_closed()

    @rule()
    def flush(self) -> None:
        self.owner.flush()
        self.note_closed()

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), size=st.sampled_from([1, 50, 1_000, None]))
    def read(self, data: st.DataObject, size: int | None) -> None:
        outlet = data.draw(st.sampled_from(self.clients)).outlet
        if outlet.window is None:
            outlet.pace()
        else:
            outlet.read(size)

    def note_closed(self) -> None:
        """Clients that the hub has closed are subscribed no more."""
        subscribed = self.owner.hub._subscribers
        for client in self.clients:
            if client.joined and client.outlet not in subscribed:
                client.joined.clear()
                client.is_gone = True

    @invariant()
    def in_order_and_never_twice(self) -> None:
        for client in self.clients:
            for name, numbers in client.received().items():
                assert numbers == sorted(set(numbers))
                assert set(numbers) <= set(client.expected[name])

    @invariant()
    def room_is_watched_only_while_something_waits(self) -> None:
        stats = self.owner.hub.stats().channels
        assert sum(one.lagging for one in stats.values()) >= sum(
            client.outlet.on_room is not None for client in self.clients
        )

    def teardown(self) -> None:
        """In the end all read: what is still missing is what was counted as dropped."""
        for _ in range(10_000):
            self.owner.flush()
            unread = [client.outlet for client in self.clients if client.outlet.unread or client.outlet.units]
            if not unread:
                break
            for outlet in unread:
                if outlet.window is None:
                    outlet.unread = 0
                    outlet.pace()
                else:
                    outlet.read()
        self.note_closed()
        self.in_order_and_never_twice()
        lost = sum(
            len(set(numbers) - set(client.received()[name]))
            for client in self.clients
            for name, numbers in client.expected.items()
        )
        assert lost == sum(self.owner.hub.stats().drops.values())
        stats = self.owner.hub.stats().channels.values()
        assert sum(one.queued_bytes for one in stats) == 0


TestHub = HubMachine.TestCase
TestHub.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
