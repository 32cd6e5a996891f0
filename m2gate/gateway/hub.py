"""The gateway's hub as the rest of the gateway sees it: holds and channels behind one door."""

from collections.abc import Iterable

from m2gate.gateway.channels import Channels
from m2gate.gateway.dispatch import Dispatcher
from m2gate.gateway.holds import Holds
from m2gate.gateway.sessions import Session
from m2gate.gateway.workers import AttachedWorker
from m2gate.hub.holding import HoldRequest
from m2gate.hub.item import Item
from m2gate.hub.work import Receipt
from m2gate.inputs.document import ChannelsPart
from m2gate.inputs.publish import Inputs
from m2gate.link.access_log import AccessLog
from m2gate.link.broadcast import Broadcast, Feeding


class GatewayHub:
    """What workers hand over is held here, and what anybody publishes is accepted here."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._broadcast = Broadcast()
        self._holds = Holds(self._broadcast, dispatcher.released)
        self._channels = Channels(self._broadcast, self._find)
        dispatcher.on_settled = self._holds.settled
        self.handle = self._channels.handle
        self.worker_gone = self._channels.worker_gone

    def attached(self, worker: AttachedWorker, members: Iterable[tuple[str, str, int]]) -> None:
        """Take over the members that a worker already has."""
        self._channels.attached(worker, members)

    def hold(self, session: Session, request: HoldRequest) -> None:
        """Take over the connection of a session."""
        self._holds.hold(session, request)

    def publish(self, item: Item) -> Receipt:
        """Accept an item; see Channels.publish."""
        return self._channels.publish(item)

    def must_wait(self, channel: str) -> bool:
        """Tell whether a publish to channel would wait."""
        return self._channels.must_wait(channel)

    def date(self) -> str:
        """Return the time as HTTP writes it."""
        return self._broadcast.date()

    def listen_for(self, inputs: Inputs) -> None:
        """Tell inputs which channels have subscribers."""
        self._channels.on_opened, self._channels.on_emptied = inputs.opened, inputs.emptied

    def log_to(self, access_log: AccessLog) -> None:
        """Write a line for each held request when it ends."""
        self._holds.access_log = access_log

    def begin_drain(self) -> None:
        """End all holds, and from now on each new one at once."""
        self._broadcast.begin_drain()

    def tick(self) -> None:
        """Do what is due; once a second."""
        self._holds.tick()
        self._broadcast.tick()

    def part(self) -> ChannelsPart:
        """Return the channels' part of the status document."""
        return self._channels.part()

    @property
    def rejected(self) -> int:
        """Items that could not be accepted."""
        return self._channels.rejected

    def _find(self, server_number: int, conn_id: int) -> Feeding | None:
        server = self._dispatcher.servers.get(server_number)
        session = server.sessions.get(conn_id) if server is not None else None
        return self._holds.feeding(session) if session is not None else None
