"""Print how many bytes of memory each of 10,000 held connections takes: ``hold_memory stream | response``.

Each has two channels, one of them its own, and comes with its own path and request id as from a worker.
"""

import gc
import resource
import sys
import tempfile
from pathlib import Path
from typing import Final

from m2gate.gateway.hub import GatewayHub
from m2gate.hub.form import ResponseForm, StreamForm
from m2gate.hub.holding import HoldLog, HoldRequest
from m2gate.hub.item import ResponseFormat
from m2gate.wire.sse import build_comment
from tests.gateway.fakes import Gate
from tests.gateway.holding import hand_over

HOLDS: Final = 10_000
WARM_UP: Final = 500  # before, so that what the first ones need is not counted
HEADERS: Final = (("Content-Type", "application/json"), ("Cache-Control", "no-cache"))


def build_request(kind: str, number: int) -> HoldRequest:
    """Return what a worker asks for."""
    log = HoldLog(
        request_id=f"01234567-{number:x}", method="GET", path=f"/poll/{number}", client="10.0.0.1", started_us=number
    )
    channels = (f"user-{number}", "news")
    if kind == "stream":
        form = StreamForm(chunked=True, events=True)
        ping = form.wrap(build_comment())
        return HoldRequest(
            channels=channels, form=form, status=200, begin=b"h" * 150, ping=ping, ping_ms=15_000, log=log
        )
    return HoldRequest(
        channels=channels,
        form=ResponseForm(HEADERS, close=False, body_less=False),
        timeout_ms=60_000,
        answer=ResponseFormat(200, HEADERS, b"{}"),
        log=log,
    )


def resident() -> int:
    """Return the bytes of memory that this process has."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure(kind: str, folder: Path) -> int:
    """Return the bytes that each hold takes, its session included."""
    gate = Gate(folder, workers=1, capacity=10 * HOLDS)
    gate.server.send = gate.server.link.send = lambda _frame: None
    hub = GatewayHub(gate.dispatcher)

    def hold(numbers: range) -> None:
        for number in numbers:
            hand_over(gate, hub, number, build_request(kind, number))
            gate.flush()
            gate.workers[0].seen(number)
            gate.messages["w1"].clear()

    hold(range(1, WARM_UP + 1))
    before = resident()
    hold(range(WARM_UP + 1, WARM_UP + HOLDS + 1))
    return (resident() - before) // HOLDS


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(measure(sys.argv[1], Path(folder)))
