"""The subscribers that workers have: how many of which form on which channel, and who of them cannot take more."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from gevent.event import Event

from m2gate.hub.form import MEMBER_FORMS
from m2gate.hub.item import Item


class Worker(Protocol):
    """Where members of channels live."""

    def send(self, message: bytes) -> None:
        """Send one message, behind those that were sent before."""


class Crowd:
    """The workers whose subscribers of one channel cannot take more; ``room`` is set when there is none left."""

    __slots__ = ("room", "workers")

    def __init__(self) -> None:
        self.workers: set[Worker] = set()
        self.room = Event()


class Members:
    """Members of channels, by channel, worker and form.

    ``on_opened``, ``on_emptied``: called with a channel's name when its first member comes and when its last has left.
    """

    def __init__(self) -> None:
        self.on_opened: Callable[[str], None] | None = None
        self.on_emptied: Callable[[str], None] | None = None
        self._channels: dict[str, dict[Worker, Counter[str]]] = {}
        self._published: Counter[str] = Counter()  # items of channels that have members
        self._crowds: dict[str, Crowd] = {}

    def __contains__(self, channel: str) -> bool:
        return channel in self._channels

    def names(self) -> list[str]:
        """Return the channels that have members."""
        return list(self._channels)

    def add(self, channel: str, worker: Worker, form: str, count: int = 1) -> None:
        """Count members more, whose form is one of MEMBER_FORMS."""
        workers = self._channels.get(channel)
        if workers is None:
            workers = self._channels[channel] = {}
            if self.on_opened is not None:
                self.on_opened(channel)
        workers.setdefault(worker, Counter())[form] += count

    def remove(self, channel: str, worker: Worker, form: str) -> None:
        """Count one member less, if there is one."""
        forms = self._channels.get(channel, {}).get(worker)
        if forms is None or not forms[form]:
            return
        forms[form] -= 1
        if not forms[form]:
            del forms[form]
        if not forms:
            self._forget(channel, worker)

    def replace(self, worker: Worker, members: Iterable[tuple[str, str, int]]) -> None:
        """Let worker have these members and no others; those of an unknown form are left out."""
        self.forget(worker)
        for channel, form, count in members:
            if form in MEMBER_FORMS and count > 0:
                self.add(channel, worker, form, count)

    def forget(self, worker: Worker) -> None:
        """Forget all members of worker, and that any are crowded."""
        for channel in [one for one, workers in self._channels.items() if worker in workers]:
            self._forget(channel, worker)

    def _forget(self, channel: str, worker: Worker) -> None:
        self.crowd(channel, worker, is_crowded=False)
        workers = self._channels[channel]
        del workers[worker]
        if not workers:
            del self._channels[channel]
            self._published.pop(channel, None)
            if self.on_emptied is not None:
                self.on_emptied(channel)

    # -- items ----------------------------------------------------------------------------------------

    def match(self, item: Item) -> list[tuple[Worker, int]]:
        """Return the workers with members that item has a rendering for, and how many those are.

        Raises ValueError for an item that has no rendering in some form.
        """
        fits: dict[str, bool] = {}
        found: list[tuple[Worker, int]] = []
        for worker, forms in self._channels.get(item.channel, {}).items():
            count = 0
            for form, members in forms.items():
                if form not in fits:
                    fits[form] = MEMBER_FORMS[form].encode(item) is not None
                if fits[form]:
                    count += members
            if count:
                found.append((worker, count))
        return found

    def count_item(self, channel: str) -> None:
        """Count one more item of a channel, if that has members."""
        if channel in self._channels:
            self._published[channel] += 1

    # -- crowds ---------------------------------------------------------------------------------------

    def crowd(self, channel: str, worker: Worker, *, is_crowded: bool) -> None:
        """Hear that most members of worker on channel cannot take more, or can again; void without members there."""
        crowd = self._crowds.get(channel)
        if is_crowded and worker in self._channels.get(channel, {}):
            if crowd is None:
                crowd = self._crowds[channel] = Crowd()
            crowd.workers.add(worker)
        elif not is_crowded and crowd is not None:
            crowd.workers.discard(worker)
            if not crowd.workers:
                del self._crowds[channel]
                crowd.room.set()

    def is_crowded(self, channel: str) -> bool:
        """Tell whether most members of some worker on channel cannot take more."""
        return channel in self._crowds

    def wait_room(self, channel: str, timeout_s: float) -> None:
        """Blocks the greenlet until nobody on channel is crowded, at most for timeout_s seconds."""
        crowd = self._crowds.get(channel)
        if crowd is not None:
            crowd.room.wait(timeout_s)

    # -- seeing in ------------------------------------------------------------------------------------

    def count(self, channel: str) -> int:
        """Return how many members channel has."""
        return sum(forms.total() for forms in self._channels.get(channel, {}).values())

    def published(self, channel: str) -> int:
        """Return how many items were published to channel since its first member came."""
        return self._published[channel]

    @property
    def total(self) -> int:
        """Members of all channels."""
        return sum(self.count(channel) for channel in self._channels)
