"""TCP ports: are they free, and does one accept."""

import errno
import os
import socket
from contextlib import suppress

from m2gate.cli.addresses import InputAddresses, is_any
from m2gate.cli.options import ServerOptions
from m2gate.cli.rundir import RunError
from m2gate.errors import ConfigError


def free_port(options: ServerOptions) -> int:
    """Return the port to bind, chosen if it is 0. Raises RunError if the address cannot be bound."""
    return probe("--bind", f"{options.bind_addr}:{options.port}", options.bind_addr, options.port)


def check_free(inputs: InputAddresses, bind: tuple[str, int]) -> None:
    """Look whether the addresses of inputs and metrics can be had. bind: where Mongrel2 will listen.

    Raises RunError naming the option, ConfigError for two of the same port.
    """
    before = [("--bind", *bind)]
    for option, value, host, port in inputs.tcp():
        for other, other_host, other_port in before:
            if port == other_port and (host == other_host or is_any(host) or is_any(other_host)):
                raise ConfigError(option, value, f"{other} has the same port", "give each its own")
        before.append((option, host, port))
        probe(option, value, host, port)


def probe(option: str, value: str, host: str, port: int) -> int:
    """Return the port, chosen if it is 0, once it could be bound.

    option, value: where the address comes from. Raises RunError naming them if it cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(1)
        except OSError as error:
            problem = os.strerror(error.errno) if error.errno else str(error)
            raise RunError(f"{option} = {value!r}: {problem}; {_remedy(option, error)}") from error
        found: int = listener.getsockname()[1]
        return found


def _remedy(option: str, error: OSError) -> str:
    if error.errno == errno.EADDRNOTAVAIL:
        return "use an address of this machine, or 0.0.0.0 for all of them"
    if error.errno == errno.EACCES:
        return "choose a port from 1024 on, or give the process CAP_NET_BIND_SERVICE"
    how = "--bind ADDR:PORT (port 0: any free one)" if option == "--bind" else option
    return f"stop what listens there, or choose another with {how}"


def accepts(bind_addr: str, port: int) -> bool:
    """Tell whether the server accepts connections."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind_addr, bind_addr)  # noqa: S104 - compared, not bound
    with suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False
