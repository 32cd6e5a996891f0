"""TCP ports: is one free, and does it accept."""

import errno
import os
import socket
from contextlib import suppress

from m2gate.cli.options import ServerOptions
from m2gate.cli.rundir import RunError


def free_port(options: ServerOptions) -> int:
    """Return the port to bind, chosen if it is 0. Raises RunError if the address cannot be bound."""
    family = socket.AF_INET6 if ":" in options.bind_addr else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((options.bind_addr, options.port))
            probe.listen(1)
        except OSError as error:
            where = f"{options.bind_addr}:{options.port}"
            problem = os.strerror(error.errno) if error.errno else str(error)
            raise RunError(f"--bind = {where!r}: {problem}; {_remedy(error)}") from error
        port: int = probe.getsockname()[1]
        return port


def _remedy(error: OSError) -> str:
    if error.errno == errno.EADDRNOTAVAIL:
        return "use an address of this machine, or 0.0.0.0 for all of them"
    if error.errno == errno.EACCES:
        return "choose a port from 1024 on, or give the process CAP_NET_BIND_SERVICE"
    return "stop what listens there, or choose another with --bind ADDR:PORT (port 0: any free one)"


def accepts(bind_addr: str, port: int) -> bool:
    """Tell whether the server accepts connections."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind_addr, bind_addr)  # noqa: S104 - compared, not bound
    with suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False
