"""What the gateway counts: started = finished + failed + open, at any moment."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

# Why a request has failed, as it stands in the status document and in the metrics.
WORKER_DIED: Final = "worker-died"
CLIENT_LEFT: Final = "client-left"  # before the answer was complete; a stream without end counts as complete
CUT: Final = "cut"  # the answer had begun and was broken off: a handler failed in the middle of it
QUEUE_FULL: Final = "queue-full"
NO_WORKER: Final = "no-worker"
STOPPING: Final = "stopping"
SERVER_LOST: Final = "server-lost"
CLOSED: Final = "connection-closed"  # it came behind a request whose answer ended the connection
PIPELINE_FULL: Final = "pipeline-full"
WORKER_BEHIND: Final = "worker-behind"
SUBSCRIBER_SLOW: Final = "subscriber-slow"  # the channel's policy has closed a held connection
REASONS: Final = (
    WORKER_DIED,
    CLIENT_LEFT,
    CUT,
    QUEUE_FULL,
    NO_WORKER,
    STOPPING,
    SERVER_LOST,
    CLOSED,
    PIPELINE_FULL,
    WORKER_BEHIND,
    SUBSCRIBER_SLOW,
)


@dataclass(slots=True)
class Counters:
    """Totals since the gateway's start.

    orphans: connections of a former gateway that nobody claimed, and were closed.
    claimed: exchanges that workers brought along when they attached anew.
    """

    started: int = 0
    finished: int = 0
    orphans: int = 0
    claimed: int = 0
    rejected: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
