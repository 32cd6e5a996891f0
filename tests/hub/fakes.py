"""A server and connections that behave as m2gate.link's do, without sockets."""

import re
from collections.abc import Callable

from m2gate.hub.form import Form, StreamForm
from m2gate.hub.hub import Hub
from m2gate.hub.item import Item
from m2gate.hub.work import Work
from m2gate.wire.flow import Outflow
from m2gate.wire.mongrel2 import CREDITS_INITIAL, TARGETS_MAX

RAW = StreamForm(chunked=False, events=False)
CHUNKED = StreamForm(chunked=True, events=False)

FRAME = re.compile(rb"([A-Za-z0-9-]+) ([0-9]+):([0-9 ]+), (.*)", re.DOTALL)


class FakeServer:
    """Takes frames as Mongrel2 does: checks them, and hands their bodies to its connections."""

    def __init__(self, ident: bytes = b"m2") -> None:
        self.send_ident = ident
        self.outlets: dict[int, FakeOutlet] = {}
        self.frames: list[bytes] = []

    def connect(self, window: int | None = CREDITS_INITIAL) -> "FakeOutlet":
        outlet = FakeOutlet(self, len(self.outlets) + 1, window)
        self.outlets[outlet.conn_id] = outlet
        return outlet

    def send(self, frame: bytes) -> None:
        match = FRAME.fullmatch(frame)
        assert match is not None, frame[:60]
        ident, length, ids, body = match.groups()
        assert ident == self.send_ident
        assert int(length) == len(ids)
        targets = [int(one) for one in ids.split(b" ")]
        assert 0 < len(targets) <= TARGETS_MAX
        assert len(set(targets)) == len(targets)
        self.frames.append(frame)
        for conn_id in targets:
            self.outlets[conn_id].deliver(body)


class FakeOutlet(Outflow):
    """A connection whose client reads when the test says so."""

    def __init__(self, server: FakeServer, conn_id: int, window: int | None) -> None:
        super().__init__(window)
        self.server = server
        self.conn_id = conn_id
        self.on_room: Callable[[], None] | None = None
        self.received = b""
        self.unread = 0  # bytes whose credits the client has not given back

    def __repr__(self) -> str:
        return f"<FakeOutlet {self.conn_id} {self.outstanding}/{self.window} queued={self.queued}>"

    def deliver(self, body: bytes) -> None:
        self.received += body
        self.unread += len(body)
        if self.window is not None:
            assert self.unread <= self.window, "Mongrel2 would cut this client"

    def post(self, data: bytes) -> None:
        self.push(data)
        self._pump()

    def read(self, size: int | None = None) -> None:
        """Let the client read size bytes, or all; their credits come back."""
        size = self.unread if size is None else min(size, self.unread)
        if size == 0:
            return
        self.unread -= size
        self.grant(size)
        if self.units:
            self._pump()
        elif self.on_room is not None:
            self.on_room()

    def pace(self) -> None:
        """Send what is queued, as the pacer for servers without flow control does."""
        while self.units:
            unit = bytes(self.units.popleft())
            self.outstanding += len(unit)
            self.deliver(unit)
        self.queued = 0
        if self.on_room is not None:
            self.on_room()

    def _pump(self) -> None:
        while piece := self.take():
            self.deliver(bytes(piece))
        if not self.units and self.on_room is not None:
            self.on_room()


class Owner:
    """Does what the owner of a hub does; time stands still unless a test moves it."""

    def __init__(self) -> None:
        self.wakes = 0
        self.hub = Hub(self._wake)
        self.now_s = 100.0

    def _wake(self) -> None:
        self.wakes += 1

    def publish(self, channel: str, content: str | bytes) -> tuple[int, int, int]:
        receipt = self.hub.publish(Item(channel=channel, content=content))
        return receipt.matched, receipt.queued, receipt.dropped

    def subscribe(self, channel: str, outlet: FakeOutlet, form: Form = RAW) -> None:
        self.hub.subscribe(channel, outlet, form, self.now_s)

    def flush(self) -> Work:
        """Flush until nothing more comes; return the first lot of work."""
        first: Work | None = None
        while True:
            self.wakes = 0
            work = self.hub.flush(self.now_s)
            first = first or work
            for server, frame in work.sends:
                server.send(frame)
            for outlet, data in work.posts:
                outlet.post(data)
            if not self.wakes:
                return first
