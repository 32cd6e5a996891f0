"""The gateway's part of the status document."""

import os
from collections.abc import Sequence
from time import monotonic

from m2gate.gateway.counters import REASONS
from m2gate.gateway.dispatch import Dispatcher
from m2gate.gateway.uplink import Uplink
from m2gate.gateway.workers import AttachedWorker, WorkerPools
from m2gate.inputs.document import ChannelsPart, ServerStatus, StatusDocument, WorkerStatus
from m2gate.version import __version__


def describe(
    dispatcher: Dispatcher,
    uplinks: Sequence[Uplink],
    pools: WorkerPools,
    workers: Sequence[AttachedWorker],
    hub: ChannelsPart,
    *,
    started_s: float,
    publish_rejected: int,
) -> StatusDocument:
    """Return what the gateway is and has done. publish_rejected: items that inputs or workers could not have taken."""
    counters, queues = dispatcher.counters, [pool.queue for pool in pools]
    return {
        "role": "gateway",
        "version": __version__,
        "pid": os.getpid(),
        "uptime_s": round(monotonic() - started_s, 3),
        "servers": [_describe_server(one) for one in uplinks],
        "workers": [_describe_worker(one) for one in sorted(workers, key=lambda one: (one.generation, one.name))],
        "queue": {
            "waiting": sum(map(len, queues)),
            "max": pools.waiting_max,
            "bytes": sum(queue.bytes for queue in queues),
        },
        "channels": hub.channels,
        "channels_total": hub.channels_total,
        "subscribers_total": hub.subscribers_total,
        "lagging_total": hub.lagging_total,
        "queued_bytes_total": hub.queued_bytes_total,
        "counters": {
            "requests_started": counters.started,
            "requests_finished": counters.finished,
            "requests_failed": {reason: counters.failed[reason] for reason in REASONS},
            "items_published": hub.items_published,
            "deliveries": hub.deliveries,
            "drops": hub.drops,
            "worker_deaths": {how: counters.deaths[how] for how in ("exit", "hung")},
            "orphans_closed": counters.orphans,
            "frames_rejected": counters.rejected,
            "publish_rejected": publish_rejected,
        },
    }


def _describe_server(uplink: Uplink) -> ServerStatus:
    server = uplink.server
    return {
        "send_ident": uplink.address.send_ident,
        "connected": server is not None,
        "epoch": uplink.epoch,
        "sessions": len(server.sessions) if server else 0,
        "held": server.held if server else 0,
        "requests": uplink.requests,
        "frames_in": uplink.frames_in,
        "rejected": uplink.rejected,
    }


def _describe_worker(worker: AttachedWorker) -> WorkerStatus:
    return {
        "name": worker.name,
        "pid": worker.pid,
        "generation": worker.generation,
        "state": worker.state,
        "outstanding": worker.outstanding,
        "served": worker.served,
        "failed": worker.failed,
        "capacity": worker.capacity,
        "beat_age_s": round(worker.table.beat_age_s, 3),
        "uptime_s": round(monotonic() - worker.attached_s, 3),
        "handler": worker.handler,
    }
