"""The status document: what a gateway or a direct worker says of itself, and what its readers rely on.

Names are stable: keys are added, never renamed or removed. Source: docs/reference/status.md.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypedDict

from m2gate.errors import M2GateError
from m2gate.hub.hub import Hub

CHANNELS_MAX: Final = 1_000  # channels that are named in a document: those with the most subscribers

WorkerState = Literal["starting", "ready", "leaving", "lost"]


class ServerStatus(TypedDict):
    """One Mongrel2.

    connected: its sockets are up now.      epoch:     how often they came up; 1 after the first time.
    sessions:  its client connections now.  held:      those of them that channels feed, without a handler.
    requests:  taken in since the start.    frames_in: messages of any kind; None where nobody counts them.
    rejected:  messages that broke a rule of the protocol.
    """

    send_ident: str
    connected: bool
    epoch: int
    sessions: int
    held: int
    requests: int
    frames_in: int | None
    rejected: int


class WorkerStatus(TypedDict):
    """One worker process.

    handler:     whose requests it serves; "" where there are no sites.
    outstanding: requests that are open in it.  served, failed: requests that ended there, since it attached.
    capacity:    requests that it takes at once.
    beat_age_s:  seconds since its heart last beat; None for a direct worker, which answers itself.
    """

    name: str
    pid: int
    generation: int
    state: WorkerState
    outstanding: int
    served: int
    failed: int
    capacity: int
    beat_age_s: float | None
    uptime_s: float
    handler: str


class QueueStatus(TypedDict):
    """Requests that no worker has begun: how many, how many may wait for one handler, and the bytes they hold."""

    waiting: int
    max: int
    bytes: int


class ChannelStatus(TypedDict):
    """One channel that has subscribers; published: items since the first of them came."""

    name: str
    subscribers: int
    lagging: int
    queued_bytes: int
    published: int


class CountersStatus(TypedDict):
    """Totals since the process started.

    requests_started = requests_finished + the sum of requests_failed + those that are open now.
    deliveries: items times the subscribers they matched; drops: those of them that were lost, by reason.
    """

    requests_started: int
    requests_finished: int
    requests_failed: dict[str, int]
    items_published: int
    deliveries: int
    drops: dict[str, int]
    worker_deaths: dict[str, int]
    orphans_closed: int
    frames_rejected: int
    publish_rejected: int


class StatusDocument(TypedDict):
    """The whole answer. channels: at most CHANNELS_MAX; *_total count all channels."""

    role: Literal["gateway", "worker"]
    version: str
    pid: int
    uptime_s: float
    servers: list[ServerStatus]
    workers: list[WorkerStatus]
    queue: QueueStatus
    channels: list[ChannelStatus]
    channels_total: int
    subscribers_total: int
    lagging_total: int
    queued_bytes_total: int
    counters: CountersStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelsPart:
    """What a hub contributes to a document: ``StatusDocument`` has fields of the same names."""

    channels: list[ChannelStatus]
    channels_total: int
    subscribers_total: int
    lagging_total: int
    queued_bytes_total: int
    items_published: int
    deliveries: int
    drops: dict[str, int]


def describe_channels(hub: Hub) -> ChannelsPart:
    """Return the part of a document that a hub knows; the CHANNELS_MAX largest channels by name."""
    stats = hub.stats(CHANNELS_MAX)
    rows: list[ChannelStatus] = [
        {
            "name": name,
            "subscribers": one.subscribers,
            "lagging": one.lagging,
            "queued_bytes": one.queued_bytes,
            "published": one.published,
        }
        for name, one in stats.channels.items()
    ]
    return ChannelsPart(
        channels=rows,
        channels_total=stats.channels_total,
        subscribers_total=stats.subscribers_total,
        lagging_total=stats.lagging_total,
        queued_bytes_total=stats.queued_bytes_total,
        items_published=stats.published,
        deliveries=stats.matched,
        drops=dict(stats.drops),
    )


_ROWS: Final[dict[str, type]] = {"servers": ServerStatus, "workers": WorkerStatus, "channels": ChannelStatus}
_PARTS: Final[dict[str, type]] = {"queue": QueueStatus, "counters": CountersStatus}


def check_document(document: object) -> StatusDocument:
    """Return document if it has all the keys that a reader relies on; what it has besides is kept.

    Raises M2GateError naming what is missing: the two programs are of different versions.
    """
    found = _check_keys("the document", document, StatusDocument)
    for key, kind in _PARTS.items():
        _check_keys(key, found[key], kind)
    for key, kind in _ROWS.items():
        rows = found[key]
        if not isinstance(rows, list):
            raise M2GateError(f"status: {key} is no list; does something else answer at this socket?")
        for row in rows:
            _check_keys(key, row, kind)
    return found  # type: ignore[return-value]  # its keys are there


def _check_keys(place: str, value: object, kind: type) -> dict[str, object]:
    if not isinstance(value, dict):
        raise M2GateError(f"status: {place} is no object; does something else answer at this socket?")
    missing = sorted(kind.__required_keys__ - value.keys())  # type: ignore[attr-defined]  # each is a TypedDict
    if missing:
        raise M2GateError(f"status: {place} lacks {', '.join(missing)}; another version of m2gate answers there")
    return value
