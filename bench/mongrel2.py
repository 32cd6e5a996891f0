"""A Mongrel2 for the benchmarks: the very configuration that ``m2gate run`` gives its own."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.process import free_port, program, wait_listening
from m2gate.site.load import find_program, write_configuration
from m2gate.site.private import PrivateServer
from m2gate.site.records import SettingValue


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A running Mongrel2; ``worker`` is what a worker's settings file says about it."""

    pid: int
    port: int
    worker: dict[str, str]


@contextmanager
def mongrel2(place: Path, settings: Mapping[str, SettingValue] | None = None) -> Iterator[RunningServer]:
    """Run a private Mongrel2 with its files in place until the block ends; settings go over the usual ones."""
    wanted = PrivateServer(folder=place, port=free_port(), uuid="bench", settings=settings or {})
    handler = wanted.handler
    database = write_configuration(wanted.configuration(), place)
    command = [find_program("mongrel2"), str(database), wanted.uuid]
    # At any other signal it first tells of each client that leaves, for ever where nobody is there to hear it.
    with program(command, place / "mongrel2.log", stop=signal.SIGKILL) as pid:
        wait_listening(wanted.port, pid, place / "mongrel2.log")
        specs = {"send_spec": handler.send_spec, "recv_spec": handler.recv_spec, "send_ident": handler.send_ident}
        yield RunningServer(pid, wanted.port, specs)
