"""A status document with something in every place."""

from typing import Any

from m2gate.inputs.document import StatusDocument


def gateway_document() -> StatusDocument:
    """Return the document of a gateway in the middle of things."""
    return {
        "role": "gateway",
        "version": "0.2.0",
        "pid": 4242,
        "uptime_s": 93_784.5,
        "servers": [
            {
                "send_ident": "m2gate-6767", "connected": True, "epoch": 1, "sessions": 1_234, "held": 900,
                "requests": 1_234_567, "frames_in": 2_469_000, "rejected": 2,
            },
            {
                "send_ident": "m2gate-443", "connected": False, "epoch": 0, "sessions": 0, "held": 0,
                "requests": 0, "frames_in": None, "rejected": 0,
            },
        ],
        "workers": [
            worker("w1", 4243, outstanding=3, served=617_000),
            worker("w2", 4250, outstanding=1, served=617_500, failed=2, beat_age_s=4.2, uptime_s=59.0),
            worker("w2", 4244, generation=1, state="leaving", outstanding=1, beat_age_s=None),
            worker("w3", 4251, state="lost"),
        ],
        "queue": {"waiting": 12, "max": 10_000, "bytes": 4_096},
        "channels": [
            {"name": "news", "subscribers": 1_200, "lagging": 3, "queued_bytes": 70_000, "published": 4_321},
            {"name": "room-\x1b[31m-and-a-very-long-name-of-its-own-that-ends-nowhere-near-the-edge", "subscribers": 2,
             "lagging": 0, "queued_bytes": 0, "published": 7},
        ],
        "channels_total": 40,
        "subscribers_total": 1_239,
        "lagging_total": 3,
        "queued_bytes_total": 70_000,
        "counters": {
            "requests_started": 1_234_567,
            "requests_finished": 1_234_500,
            "requests_failed": {"worker-died": 40, "client-left": 10, "queue-full": 0},
            "items_published": 4_400,
            "deliveries": 5_300_000,
            "drops": {"over-limit": 30, "gone": 4},
            "worker_deaths": {"exit": 2, "hung": 1},
            "orphans_closed": 1,
            "frames_rejected": 2,
            "publish_rejected": 5,
        },
    }  # fmt: skip


def worker(name: str, pid: int, **changes: Any) -> Any:
    """Return the row of a worker that is ready and idle, with changes."""
    row = {
        "name": name, "pid": pid, "generation": 2, "state": "ready", "outstanding": 0, "served": 0, "failed": 0,
        "capacity": 2_000, "beat_age_s": 0.4, "uptime_s": 3_600.0, "handler": "",
    }  # fmt: skip
    return row | changes
