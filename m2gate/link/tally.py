"""What became of the requests of one process: started = finished + failed + open, at any moment."""

from collections import Counter
from typing import Final

# Why a request has failed, as it stands in the status document and in the metrics.
CLIENT_LEFT: Final = "client-left"  # before the answer was complete
CUT: Final = "cut"  # the answer had begun and was broken off: a handler failed in the middle of it
REFUSED: Final = "refused"  # its framing or its size could not be accepted; no handler saw it
QUEUE_FULL: Final = "queue-full"  # 503: all handlers are busy, and so is what may wait for them
STOPPING: Final = "stopping"  # 503: the service is draining
SUBSCRIBER_SLOW: Final = "subscriber-slow"  # a channel's policy has closed the connection
REASONS: Final = (CLIENT_LEFT, CUT, REFUSED, QUEUE_FULL, STOPPING, SUBSCRIBER_SLOW)


class Tally:
    """How the requests of a process have ended, of all its servers and all their lives.

    A WebSocket, a stream and a JSON message are one request each.
    ``finished`` were answered as the App wanted it, whatever the status; a WebSocket and a stream
                 without end finish however they end. Whole answers that left by Server.send_soon,
                 which are most of them, are counted by the Outbox instead.
    ``failed``   the others, by reason.
    """

    __slots__ = ("failed", "finished")

    def __init__(self) -> None:
        self.finished = 0
        self.failed: Counter[str] = Counter()
