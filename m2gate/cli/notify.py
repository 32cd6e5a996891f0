"""Telling systemd what it waits for (``Type=notify``)."""

import os
import socket
import sys


def notify(state: str) -> None:
    """Tell systemd, if it started us and wants to know."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
        try:
            notifier.connect(address)
            notifier.send(state.encode())
        except OSError as error:
            line = f"m2gate: NOTIFY_SOCKET = {address!r}: {error.strerror}; systemd was not told {state}"
            print(line, file=sys.stderr, flush=True)
