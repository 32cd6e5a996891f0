"""The time as the link sees it: read once a second, not once a request."""

import time
from email.utils import formatdate


class Clock:
    """The Date line of responses and a coarse monotonic time, both as of the last tick."""

    __slots__ = ("date_line", "now_s")

    def __init__(self) -> None:
        self.date_line = b""
        self.now_s = 0.0
        self.tick()

    def tick(self) -> None:
        """Read the time; the owner calls this once a second."""
        self.now_s = time.monotonic()
        self.date_line = b"Date: " + formatdate(usegmt=True).encode() + b"\r\n"
