"""``m2gate run`` as a process of its own."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.system.processes import (
    ROOT,
    START_S,
    children,
    command_line,
    environment,
    free_port,
    short_directory,
    wait_until,
)


class M2GateRun:
    """A running ``m2gate run``: its stdout and stderr as they come, its exit status at the end.

    runtime: the directory that stands for $XDG_RUNTIME_DIR; empty again after a clean stop.
    """

    def __init__(self, args: Sequence[str], cwd: Path, runtime: Path, environ: Mapping[str, str]) -> None:
        self.runtime = runtime
        self.process = subprocess.Popen(
            [sys.executable, "-m", "m2gate.cli", "run", *args],
            cwd=cwd,
            env=environment(**{"XDG_RUNTIME_DIR": str(runtime), **environ}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._texts: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        self._threads = [
            threading.Thread(target=self._collect, args=(name, getattr(self.process, name)), daemon=True)
            for name in self._texts
        ]
        for thread in self._threads:
            thread.start()

    def _collect(self, name: str, stream: Any) -> None:
        for line in stream:
            self._texts[name].append(line)
        stream.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stdout(self) -> str:
        return b"".join(self._texts["stdout"]).decode(errors="replace")

    @property
    def stderr(self) -> str:
        return b"".join(self._texts["stderr"]).decode(errors="replace")

    @property
    def url(self) -> str:
        """The URL of the ``listening on`` line."""
        return self.stdout.partition("listening on ")[2].split()[0]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def wait_listening(self, timeout_s: float = START_S) -> None:
        """Wait for the ``listening on`` line. Raises AssertionError if the process ends before."""

        def is_listening() -> bool:
            if "listening on " in self.stdout and self.stdout.endswith("\n"):
                return True
            if self.process.poll() is not None:
                raise AssertionError(f"m2gate run ended with {self.wait()}: {self.stderr}")
            return False

        wait_until(is_listening, "m2gate run says that it is listening", timeout_s)

    def wait(self, timeout_s: float = 20.0) -> int:
        """Wait for the end; return the exit status."""
        status = self.process.wait(timeout_s)
        for thread in self._threads:
            thread.join(timeout_s)
        return status

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 20.0) -> int:
        """Send a signal and wait for the end; return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait(timeout_s)

    def child(self, part: str) -> int:
        """Return the pid of the one child whose command line has ``part``."""
        found = [pid for pid in children(self.pid) if part in command_line(pid)]
        assert len(found) == 1, f"{len(found)} children with {part!r}"
        return found[0]


@contextmanager
def m2gate_run(
    *args: str | Path, cwd: Path | None = None, environ: Mapping[str, str] | None = None, wait: bool = True
) -> Iterator[M2GateRun]:
    """Run ``python -m m2gate.cli run ARGS`` and wait for its ``listening on`` line.

    ``--bind 127.0.0.1:PORT`` with a free port is added if args have no --bind.
    wait: False returns at once, for runs that are to fail.
    """
    texts = [str(arg) for arg in args]
    if "--bind" not in texts:
        texts += ["--bind", f"127.0.0.1:{free_port()}"]
    with short_directory() as runtime:
        run = M2GateRun(texts, cwd or ROOT, runtime, environ or {})
        try:
            if wait:
                run.wait_listening()
            yield run
        except BaseException:
            print(f"--- m2gate run, stdout\n{run.stdout}\n--- stderr\n{run.stderr}", file=sys.stderr)
            raise
        finally:
            _end(run)


def _end(run: M2GateRun) -> None:
    with suppress(subprocess.TimeoutExpired):
        run.stop()
    if run.process.poll() is None:
        run.process.kill()
        run.wait()
