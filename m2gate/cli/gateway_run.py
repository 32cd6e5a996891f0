"""What ``m2gate gateway`` does: one gateway in this process, from its settings file to its end."""

import dataclasses
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
from gevent.socket import wait_read

from m2gate.cli.notify import notify
from m2gate.cli.rundir import RunError
from m2gate.errors import ConfigError
from m2gate.gateway.place import SOCKET
from m2gate.gateway.service import run
from m2gate.gateway.settings import GatewaySettings

FOLDER_MODE = 0o750  # made only if it is not there; the group's workers need one that they may write to


def run_gateway(read: Callable[[], GatewaySettings]) -> int:
    """Run a gateway until a signal; return the exit status. Raises ConfigError and RunError.

    read: returns the settings, now and again at each SIGHUP.
    """
    settings = read()
    with _held(settings.folder):
        reader, writer = os.pipe2(os.O_CLOEXEC)
        announcer = gevent.spawn(_announce, reader, settings)
        try:
            return run(dataclasses.replace(settings, ready_fd=writer), read)
        finally:
            announcer.kill()
            os.close(reader)
            os.close(writer)


def _announce(reader: int, settings: GatewaySettings) -> None:
    """Blocks the greenlet until all sockets are bound, and says so."""
    wait_read(reader)
    count = len(settings.servers)
    line = (
        f"gateway of {count} server{'s' if count > 1 else ''} ready for workers at gateway:{settings.folder}/{SOCKET}"
    )
    print(line, flush=True)
    notify("READY=1")


@contextmanager
def _held(folder: str) -> Iterator[None]:
    """Keep another gateway from taking over the sockets in the folder, which ZeroMQ would let it do."""
    try:
        Path(folder).mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        remedy = "name a folder of yours, or set M2GATE_ROOT"
        raise ConfigError("folder", folder, f"cannot be used: {error.strerror}", remedy) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise RunError(
            f"{folder}: another gateway has its sockets there; stop that, or choose another folder"
        ) from error
    finally:
        os.close(lock)
