"""One worker process of ``m2gate run``, from its settings file to what it reports."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import m2gate
from m2gate.site.records import Handler
from m2gate.worker.supervisor import Child, Loop


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """What a worker is told; folder is its own, made here."""

    target: str
    handler: Handler
    control_spec: str
    folder: Path
    patch: bool
    access_log: str | None
    drain_timeout_s: float
    max_requests: int | None

    def settings(self, ready_fd: int) -> dict[str, object]:
        """Return the settings file as a document, see m2gate.worker.settings."""
        handler = self.handler
        server = {
            "send_spec": handler.send_spec,
            "recv_spec": handler.recv_spec,
            "send_ident": handler.send_ident,
            "control_spec": self.control_spec,
        }
        return {
            "target": self.target,
            "servers": [server],
            "run_dir": str(self.folder),
            "patch": self.patch,
            "access_log": self.access_log,
            "drain_timeout_s": self.drain_timeout_s,
            "max_requests": self.max_requests,
            "ready_fd": ready_fd,
            "await_go": True,
        }


class Generation:
    """A worker process: it loads the code, waits for go(), connects, and serves.

    on_loaded, on_ready, on_spent: called once each at most, with this generation.
    json_sockets:        names such as ``@chat`` that the App answers; known once it is loaded.
    files:               the source files that it imported; known once it is loaded.
    """

    def __init__(
        self,
        loop: Loop,
        plan: WorkerPlan,
        on_exit: Callable[[Child], None],
        *,
        on_loaded: "Callable[[Generation], None]",
        on_ready: "Callable[[Generation], None]",
        on_spent: "Callable[[Generation], None]",
    ) -> None:
        self._loop = loop
        self._plan = plan
        self._reports = {b"loaded": on_loaded, b"ready": on_ready, b"spent": on_spent}
        self._on_exit = on_exit
        self._unread = b""
        self.is_loaded = False
        self.json_sockets: tuple[str, ...] = ()
        self.files: tuple[str, ...] = ()
        plan.folder.mkdir(mode=0o700)
        self._reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.set_blocking(writer, True)
            self.child = self._spawn(writer)
        finally:
            os.close(writer)
        loop.on_readable(self._reader, self._read_reports)

    def _spawn(self, writer: int) -> Child:
        settings = self._plan.folder / "settings.json"
        settings.write_text(json.dumps(self._plan.settings(writer)))
        # -P: the current folder must not shadow the modules that the worker itself needs; it comes
        # onto the path when the target is imported.
        command = [sys.executable, "-P", "-m", "m2gate.worker.process", str(settings)]
        return self._loop.spawn(
            "the worker", command, self._ended, environ=environment(), stdin=subprocess.PIPE, pass_fds=[writer]
        )

    def go(self) -> None:
        """Let the worker connect. It may have ended in this moment: its end is told anyway."""
        stdin = self.child.process.stdin
        assert stdin is not None  # noqa: S101 - spawned with a pipe
        try:
            stdin.write(b"go\n")
            stdin.flush()
        except BrokenPipeError:
            pass  # the end of the process is on its way to us as SIGCHLD

    def _read_reports(self) -> None:
        if self._reader < 0:
            return  # closed by what came before it in the same turn of the loop
        piece = os.read(self._reader, 1024)
        if not piece:
            self._close()
            return
        *lines, self._unread = (self._unread + piece).split(b"\n")
        for line in lines:
            if line == b"loaded":
                self._read_description()
            report = self._reports.pop(line, None)
            if report is not None:
                report(self)

    def _read_description(self) -> None:
        document = json.loads((self._plan.folder / "app.json").read_text())
        self.json_sockets = tuple(document["json_sockets"])
        self.files = tuple(document["files"])
        self.is_loaded = True

    def _close(self) -> None:
        if self._reader >= 0:
            self._loop.forget(self._reader)
            os.close(self._reader)
            self._reader = -1

    def _ended(self, child: Child) -> None:
        # A report may still be unread: "loaded" or "ready" of a process that ended right after it.
        self._close()
        shutil.rmtree(self._plan.folder, ignore_errors=True)
        self._on_exit(child)


def environment() -> dict[str, str]:
    """Return the worker's environment: ours, with this very m2gate importable, and without systemd's socket."""
    environ = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    package = str(Path(m2gate.__file__).resolve().parent.parent)
    paths = [path for path in environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if "site-packages" not in package and "dist-packages" not in package and package not in paths:
        environ["PYTHONPATH"] = os.pathsep.join([*paths, package])
    return environ
