"""Where a gateway's folder is; without ZeroMQ and gevent, so that commands and supervisors start quickly."""

import os
from pathlib import Path
from typing import Final

FOLDER_MAX: Final = 90  # bytes; ipc paths end at 107, and names such as status.4194304 lie in it
SOCKET: Final = "workers"  # of the workers, in the folder
BEAT: Final = "gateway.beat"  # in the folder: CLOCK_MONOTONIC ns, written by the gateway's loop each second


def default_folder() -> str:
    """Return where a gateway's folder is if nobody says otherwise: below $M2GATE_ROOT, as all of our paths."""
    return str(Path(os.environ.get("M2GATE_ROOT") or "/") / "run/m2gate/gateway")
