"""An application behind Mongrel2 servers, in one of three shapes: a direct worker, or a gateway with workers."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from m2gate.inputs.document import StatusDocument
from m2gate.inputs.status_client import StatusClient
from tests.system.processes import ROOT, START_S, STOP_S, environment, short_directory

WORKER: Final = "m2gate.worker.process"
GATEWAY: Final = "m2gate.gateway.process"
SHAPES: Final = {"direct": 0, "gateway-1": 1, "gateway-3": 3}


Address = dict[str, str]


class Server(Protocol):
    """A Mongrel2 that a test has started."""

    upload_store: Path | None

    @property
    def send_spec(self) -> str: ...

    @property
    def recv_spec(self) -> str: ...

    @property
    def send_ident(self) -> str: ...

    @property
    def control_spec(self) -> str: ...


class _Shape:
    """The shape of the test that runs now; the fixture of that name sets it."""

    name = "direct"


def use_shape(name: str) -> None:
    assert name in SHAPES
    _Shape.name = name


@dataclass
class Process:
    """One process of ours."""

    process: subprocess.Popen[bytes]
    reader: int

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_line(self, line: bytes) -> None:
        """Wait for a line on its ready_fd."""
        got = b""
        deadline = time.monotonic() + START_S
        while line not in got:
            readable, _, _ = select.select([self.reader], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(self.reader, 1024) if readable else b""
            if not piece:
                raise AssertionError(f"the process did not say {line!r}, only {got!r}")
            got += piece


@dataclass
class Served:
    """What runs an application: its workers, and the gateway if there is one.

    folder: of the status socket, and of the gateway's others. log: what all of them write.
    """

    folder: Path
    log: Path
    workers: list[Process] = field(default_factory=list)
    gateway: Process | None = None

    @property
    def processes(self) -> list[Process]:
        return [*self.workers, *([self.gateway] if self.gateway else [])]

    @property
    def worker(self) -> Process:
        """The one worker, where there is only one."""
        (one,) = self.workers
        return one

    @property
    def pid(self) -> int:
        return self.worker.pid

    @property
    def pids(self) -> list[int]:
        return [one.pid for one in self.processes]

    def status(self) -> StatusDocument:
        """Ask the gateway, or the one direct worker."""
        return StatusClient(self.folder / "status").ask()

    def stderr(self) -> str:
        """What all of them have written so far, in the order in which they did."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def is_alive(self) -> bool:
        return all(one.process.poll() is None for one in self.processes)

    def terminate(self) -> None:
        """Ask all of them to stop, as the supervisor does."""
        for one in self.processes:
            if one.process.poll() is None:
                one.process.terminate()

    def wait(self, timeout_s: float = 10.0) -> int:
        """Wait for the end of all; return the first exit status that is not 0."""
        deadline = time.monotonic() + timeout_s
        statuses = [one.process.wait(max(0.0, deadline - time.monotonic())) for one in self.processes]
        return next((status for status in statuses if status), 0)

    def stop(self, timeout_s: float = 10.0) -> int:
        """Stop with SIGTERM, then SIGKILL; return the first exit status that is not 0."""
        self.terminate()
        try:
            return self.wait(timeout_s)
        except subprocess.TimeoutExpired:
            for one in self.processes:
                one.process.kill()
                one.process.wait(STOP_S)
            return self.wait()


@contextmanager
def running(
    target: str | Path, *servers: Server, cwd: Path | None = None, shape: str | None = None, **options: Any
) -> Iterator[Served]:
    """Run TARGET behind the given servers in the shape of this test, and wait until it is ready.

    target:  ``module:app`` or ``path/file.py[:app]``.
    shape:   in place of the test's own.
    options: entries of the worker's settings file, such as ``drain_timeout_s=1`` or ``access_log="-"``;
             ``environ={...}`` adds to its environment, ``gateway={...}`` to the gateway's settings;
             ``servers=[{...}]`` are addresses in place of those of servers.
    """
    count = SHAPES[shape or _Shape.name]
    with short_directory() as folder, ExitStack() as stack:
        environ = {"M2GATE_TEST_SHARED": str(folder / "shared"), **options.pop("environ", {})}
        (folder / "shared").mkdir()
        gateway_options = options.pop("gateway", {})
        addresses = options.pop("servers", None) or [_address(one) for one in servers]
        served = Served(folder / "g", folder / "output.log")
        try:
            served.folder.mkdir()
            if count:
                served.gateway = _start_gateway(stack, folder, addresses, options, gateway_options)
            for number in range(1, max(count, 1) + 1):
                document = _worker_settings(target, addresses, count, folder, number)
                place = folder / f"w{number}"
                worker = _start(stack, WORKER, {**document, **options}, place, cwd=cwd, environ=environ)
                served.workers.append(worker)
            for worker in served.workers:
                worker.wait_line(b"ready\n")
            yield served
        except BaseException:
            print(f"--- workers and gateway\n{served.stderr()}", file=sys.stderr)
            raise
        finally:
            served.stop()


def _worker_settings(
    target: str | Path, servers: Sequence[Address], count: int, folder: Path, number: int
) -> dict[str, Any]:
    return {
        "target": str(target),
        "servers": [] if count else [{**one, "control_spec": None} for one in servers],
        "gateway": {"folder": str(folder / "g")} if count else None,
        "name": f"w{number}" if count else None,
        "status": None if count else str(folder / "g/status"),
        "patch": True,
        "access_log": None,
        "drain_timeout_s": 30,
    }


def _address(server: Server) -> Address:
    address = {"send_spec": server.send_spec, "recv_spec": server.recv_spec, "send_ident": server.send_ident}
    address["control_spec"] = server.control_spec
    if server.upload_store:
        address["upload_store"] = f"{server.upload_store}/upload.XXXXXX"
    return address


def _start_gateway(
    stack: ExitStack, folder: Path, servers: Sequence[Address], options: dict[str, Any], more: dict[str, Any]
) -> Process:
    document = {
        "folder": str(folder / "g"),
        "servers": list(servers),
        "drain_timeout_s": options.get("drain_timeout_s", 30),
        "keepalive_s": options.get("keepalive_s", 45),
        **more,
    }
    gateway = _start(stack, GATEWAY, document, folder / "gateway", cwd=None, environ={})
    gateway.wait_line(b"ready\n")
    return gateway


def _start(
    stack: ExitStack, module: str, document: dict[str, Any], place: Path, *, cwd: Path | None, environ: dict[str, str]
) -> Process:
    place.mkdir()
    reader, writer = os.pipe()
    stack.callback(os.close, reader)
    settings = place / "settings.json"
    own = {} if module == GATEWAY else {"run_dir": str(place)}
    settings.write_text(json.dumps({**document, **own, "ready_fd": writer}))
    with (place.parent / "output.log").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(settings)],
            cwd=cwd or ROOT,
            env=environment(**environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[writer],
        )
    os.close(writer)
    return Process(process, reader)
