"""Programs that take part in a benchmark, all started in the same way.

The kernel shares the cores out by session (autogroup) before it looks at processes, so a side
that ran in a session of its own would be measured against everything else together.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 15.0
POLL_S: Final = 0.02


class BenchError(Exception):
    """Something did not start, did not answer as it should, or did not stop."""


@contextmanager
def folder() -> Iterator[Path]:
    """Provide a temporary folder with a short name: the path of an ipc socket ends at 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="m2b-") as name:
        yield Path(name)


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def program(
    command: Sequence[str], log: Path, ready_fd: int | None = None, stop: signal.Signals = signal.SIGTERM
) -> Iterator[int]:
    """Run a program until the block ends; provides its pid.

    log:      file for whatever it prints.
    ready_fd: a descriptor that it inherits.
    stop:     what ends it.
    Raises BenchError if it ended before it was stopped, or does not stop.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=() if ready_fd is None else (ready_fd,),
        )
    try:
        yield process.pid
        if process.poll() is not None:
            raise BenchError(f"{' '.join(command)} ended with {process.returncode}:\n{_tail(log)}")
    finally:
        process.send_signal(stop)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait()
            raise BenchError(f"{' '.join(command)} had to be killed:\n{_tail(log)}") from error


@contextmanager
def handler_program(
    module: str, settings: Mapping[str, object], place: Path, meanwhile: Callable[[], object] = bool
) -> Iterator[int]:
    """Run ``python -m module SETTINGS`` as a worker process runs, until the block ends.

    The file holds the settings and ``ready_fd``, where the program writes ``ready`` and a newline.
    meanwhile: called at intervals of POLL_S until then.
    Raises BenchError if it does not within START_TIMEOUT_S.
    """
    reader, writer = os.pipe()
    log = place / "handler.log"
    try:
        path = place / "handler.json"
        path.write_text(json.dumps({**settings, "ready_fd": writer}), encoding="utf-8")
        with program([sys.executable, "-m", module, str(path)], log, ready_fd=writer) as pid:
            os.close(writer)
            writer = -1
            _wait_ready(reader, module, log, meanwhile)
            yield pid
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


def _wait_ready(reader: int, module: str, log: Path, meanwhile: Callable[[], object]) -> None:
    said = b""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while b"\nready\n" not in b"\n" + said:
        meanwhile()
        readable, _, _ = select.select([reader], [], [], POLL_S)
        piece = os.read(reader, 100) if readable else b""
        if (readable and not piece) or time.monotonic() > deadline_s:
            raise BenchError(f"{module} did not become ready:\n{_tail(log)}")
        said += piece


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])


def wait_listening(port: int, pid: int, log: Path) -> None:
    """Wait until a process accepts connections on a port of the loopback interface.

    log: what it printed, for the error.
    Raises BenchError if it does not within START_TIMEOUT_S, or has ended.
    """
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                break
            time.sleep(0.02)
        else:
            return
    raise BenchError(f"nothing listens on port {port}:\n{_tail(log)}")
