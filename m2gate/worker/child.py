"""One worker process as its supervisor sees it, from its settings file to what it reports."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Literal, Protocol

import m2gate
from m2gate.worker.supervisor import Child, Loop

State = Literal["starting", "ready", "leaving"]

INTERPRETER: Final = sys.executable
# -P: the current folder must not shadow the modules that the worker itself needs; it comes onto the
# path when the target is imported.
PROGRAM: Final = ("-P", "-m", "m2gate.worker.process")
LINE_MAX: Final = 1_024  # bytes of reports read at once
LAST_WORDS_MAX: Final = 4_096  # bytes of a worker's output in which its last line is looked for


class Reports:
    """Lines that a child writes into a pipe to tell how far it has come.

    ``writer`` is for the child; call close_writer() once it has been started.
    """

    def __init__(self, loop: Loop, on_line: Callable[[bytes], None]) -> None:
        self._loop = loop
        self._on_line = on_line
        self._unread = b""
        self._reader, self.writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(self.writer, True)
        loop.on_readable(self._reader, self._read)

    def close_writer(self) -> None:
        """Leave the writing end to the child."""
        os.close(self.writer)

    def close(self) -> None:
        """Read no more. Idempotent."""
        if self._reader >= 0:
            self._loop.forget(self._reader)
            os.close(self._reader)
            self._reader = -1

    def _read(self) -> None:
        if self._reader < 0:
            return  # closed by what came before it in the same turn of the loop
        piece = os.read(self._reader, LINE_MAX)
        if not piece:
            self.close()
            return
        *lines, rest = (self._unread + piece).split(b"\n")
        self._unread = rest[:LINE_MAX]
        for line in lines:
            self._on_line(line)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """What all workers of one command are told.

    folder:  theirs lie in it. links: the settings that say what a worker is connected to.
    environ: variables over those of this process.
    """

    target: str
    folder: Path
    links: Mapping[str, object]
    patch: bool = True
    access_log: str | None = None
    drain_timeout_s: float = 30.0
    max_requests: int | None = None
    environ: Mapping[str, str] = field(default_factory=dict)

    def settings(self) -> dict[str, object]:
        """Return the settings file as a document, see m2gate.worker.settings."""
        return {
            "servers": [],
            **self.links,
            "target": self.target,
            "patch": self.patch,
            "access_log": self.access_log,
            "drain_timeout_s": self.drain_timeout_s,
            "max_requests": self.max_requests,
            "await_go": True,
        }


class WorkerWatcher(Protocol):
    """Who wants to know what a worker reports; each call comes once at most, ended() always."""

    def loaded(self, worker: "WorkerChild") -> None:
        """It has imported the code, and waits for go()."""

    def ready(self, worker: "WorkerChild") -> None:
        """It is connected and serves."""

    def spent(self, worker: "WorkerChild") -> None:
        """It has had --max-requests."""

    def ended(self, worker: "WorkerChild") -> None:
        """Its process has ended."""


class WorkerChild:
    """A worker process: it loads the code, waits for go(), connects, and serves.

    number:       counts the workers of one command; names its folder.
    is_quiet:     its output is shown once it is ready; what it says before is in last_words().
    json_sockets: names such as ``@chat`` that the App answers; known once it is loaded.
    files:        the source files that it imported; known once it is loaded.
    Raises OSError if it cannot be started.
    """

    def __init__(
        self,
        loop: Loop,
        plan: WorkerPlan,
        watcher: WorkerWatcher,
        *,
        number: int,
        name: str = "w1",
        generation: int = 1,
        is_quiet: bool = False,
    ) -> None:
        self._loop = loop
        self._plan = plan
        self._watcher = watcher
        self._calls: dict[bytes, Callable[[], None]] = {
            b"loaded": self._loaded,
            b"ready": self._ready,
            b"spent": partial(watcher.spent, self),
        }
        self._folder = plan.folder / f"worker-{number}"
        self._is_quiet = is_quiet
        self.name = name
        self.generation = generation
        self.is_loaded = False
        self.is_going = False
        self.is_ready = False
        self.is_leaving = False
        self.last_words = ""
        self.json_sockets: tuple[str, ...] = ()
        self.files: tuple[str, ...] = ()
        self._folder.mkdir(mode=0o700)
        self._reports = Reports(loop, self._report)
        try:
            self.child = self._spawn()
        except OSError:
            self._reports.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        finally:
            self._reports.close_writer()

    def __repr__(self) -> str:
        return f"<WorkerChild {self.name} generation={self.generation} {self.state}>"

    @property
    def pid(self) -> int:
        """Its process."""
        return self.child.process.pid

    @property
    def state(self) -> State:
        """How far it is, in the words of the status document."""
        if self.is_leaving:
            return "leaving"
        return "ready" if self.is_ready else "starting"

    def describe_end(self) -> str:
        """Say how it ended, in a sentence that its name begins."""
        return f"the worker {self.name} {self.child.describe_end()}"

    def _spawn(self) -> Child:
        settings = self._folder / "settings.json"
        document = self._plan.settings()
        document |= {"run_dir": str(self._folder), "ready_fd": self._reports.writer}
        document |= {"name": self.name, "generation": self.generation}
        if not self._is_quiet:
            return self._spawn_with(settings, document, 2)
        kept = os.dup(2)
        try:
            with (self._folder / "start.log").open("wb") as log:
                return self._spawn_with(settings, document | {"output_fd": kept}, log.fileno(), kept)
        finally:
            os.close(kept)

    def _spawn_with(self, settings: Path, document: dict[str, object], output: int, *more: int) -> Child:
        settings.write_text(json.dumps(document))
        return self._loop.spawn(
            "the worker",
            [INTERPRETER, *PROGRAM, str(settings)],
            self._ended,
            environ=environment(self._plan.environ),
            stdin=subprocess.PIPE,
            output=output,
            pass_fds=[self._reports.writer, *more],
        )

    def go(self) -> None:
        """Let the worker connect. It may have ended in this moment: its end is told anyway."""
        self.is_going = True
        stdin = self.child.process.stdin
        assert stdin is not None  # noqa: S101 - spawned with a pipe
        try:
            stdin.write(b"go\n")
            stdin.flush()
        except BrokenPipeError:
            pass  # the end of the process is on its way to us as SIGCHLD

    def leave(self, number: int, kill_after_s: float) -> None:
        """Ask it to end, with SIGHUP for a hand-over or SIGTERM, and kill it if it has not ended in time.

        One that has not been let go has nothing to finish: it is killed at once.
        """
        self.is_leaving = True
        if self.is_going:
            self.child.stop(number, kill_after_s)
        else:
            self.child.process.kill()

    def _report(self, line: bytes) -> None:
        call = self._calls.pop(line, None)
        if call is not None:
            call()

    def _loaded(self) -> None:
        document = json.loads((self._folder / "app.json").read_text())
        self.json_sockets = tuple(document["json_sockets"])
        self.files = tuple(document["files"])
        self.is_loaded = True
        self._watcher.loaded(self)

    def _ready(self) -> None:
        self.is_ready = True
        self._watcher.ready(self)

    def _ended(self, _child: Child) -> None:
        # A report may still be unread: "loaded" or "ready" of a process that ended right after it.
        self._reports.close()
        if self._is_quiet and not self.is_ready:
            self.last_words = _last_line(self._folder / "start.log")
        shutil.rmtree(self._folder, ignore_errors=True)
        self._watcher.ended(self)


def _last_line(path: Path) -> str:
    """Return the last line of a file that says something; "" if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LAST_WORDS_MAX))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a child's environment: ours, with this very m2gate importable, and without systemd's socket."""
    environ = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    package = str(Path(m2gate.__file__).resolve().parent.parent)
    paths = [path for path in environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if "site-packages" not in package and "dist-packages" not in package and package not in paths:
        environ["PYTHONPATH"] = os.pathsep.join([*paths, package])
    return environ | dict(more or {})
