"""What a direct worker says of itself: the status document, made when somebody asks."""

import os
import time
from collections import Counter
from collections.abc import Sequence

from m2gate.inputs.document import ServerStatus, StatusDocument, describe_channels
from m2gate.inputs.publish import Inputs
from m2gate.link.broadcast import Broadcast
from m2gate.link.tally import REASONS, Tally
from m2gate.version import __version__
from m2gate.worker.direct import DirectLink
from m2gate.worker.pool import WAITING_MAX, Pool
from m2gate.worker.settings import WorkerSettings


class Report:
    """Reads the counters of one worker. Costs nothing until document() is called."""

    def __init__(
        self, settings: WorkerSettings, pool: Pool, links: Sequence[DirectLink], broadcast: Broadcast, tally: Tally
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._links = links
        self._broadcast = broadcast
        self._tally = tally
        self._started_s = time.monotonic()
        self.is_leaving = False
        self.inputs: Inputs | None = None

    def document(self) -> StatusDocument:
        """Return the document as of now. Takes time with the connections and subscribers there are."""
        uptime_s = round(time.monotonic() - self._started_s, 3)
        totals = [link.totals() for link in self._links]
        started = sum(one.requests for one in totals)
        finished = self._tally.finished + sum(one.answers for one in totals)
        failed = {reason: self._tally.failed[reason] for reason in REASONS}
        waiting, waiting_bytes = self._pool.waiting
        part = describe_channels(self._broadcast.hub)
        return {
            "role": "worker",
            "version": __version__,
            "pid": os.getpid(),
            "uptime_s": uptime_s,
            "servers": self._servers(),
            "workers": [
                {
                    "name": self._settings.label,
                    "pid": os.getpid(),
                    "generation": self._settings.generation,
                    "state": "leaving" if self.is_leaving else "ready",
                    "outstanding": started - finished - sum(failed.values()),
                    "served": finished,
                    "failed": sum(failed.values()),
                    "capacity": self._settings.max_handlers,
                    "beat_age_s": None,
                    "uptime_s": uptime_s,
                    "handler": "",
                }
            ],
            "queue": {"waiting": waiting, "max": WAITING_MAX, "bytes": waiting_bytes},
            "channels": part.channels,
            "channels_total": part.channels_total,
            "subscribers_total": part.subscribers_total,
            "lagging_total": part.lagging_total,
            "queued_bytes_total": part.queued_bytes_total,
            "counters": {
                "requests_started": started,
                "requests_finished": finished,
                "requests_failed": failed,
                "items_published": part.items_published,
                "deliveries": part.deliveries,
                "drops": part.drops,
                "worker_deaths": {},
                "orphans_closed": sum(link.orphans_closed for link in self._links),
                "frames_rejected": sum(one.rejected for one in totals),
                "publish_rejected": self.inputs.rejected if self.inputs is not None else 0,
            },
        }

    def _servers(self) -> list[ServerStatus]:
        held = Counter(self._broadcast.held_servers())
        rows: list[ServerStatus] = []
        for link in self._links:
            server, totals = link.server, link.totals()
            rows.append(
                {
                    "send_ident": link.send_ident,
                    "connected": server is not None,
                    "epoch": link.epoch,
                    "sessions": 0 if server is None else len(server.connections),
                    "held": 0 if server is None else held[server],
                    "requests": totals.requests,
                    "frames_in": None,
                    "rejected": totals.rejected,
                }
            )
        return rows
