"""What the bare loops share: their sockets, started and announced as a worker's are."""

import json
import os
import sys
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final

import zmq

SETTLE_S: Final = 0.5  # until Mongrel2's subscription has arrived; what is sent before is lost
ANSWER: Final = b"Hello friend\n"

Socket = zmq.Socket[bytes]


def open_sockets() -> tuple[Socket, Socket]:
    """Connect PULL and PUB as the settings file in argv[1] says, and tell ready_fd when they are."""
    settings: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    (server,) = settings["servers"]
    context = zmq.Context()
    replies = context.socket(zmq.PUB)
    replies.set(zmq.SNDHWM, 0)
    replies.set(zmq.LINGER, 0)
    replies.connect(server["recv_spec"])
    time.sleep(SETTLE_S)
    requests = context.socket(zmq.PULL)
    requests.connect(server["send_spec"])
    os.write(settings["ready_fd"], b"loaded\nready\n")
    return requests, replies


def build_answer() -> bytes:
    """Return a response with the same fields as the App's, so that both write as many bytes."""
    head = (
        "HTTP/1.1 200 OK\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        f"Date: {formatdate(usegmt=True)}\r\n"
        f"Content-Length: {len(ANSWER)}\r\n\r\n"
    )
    return head.encode() + ANSWER
