"""What every command that supervises children has in common: signals, its end, and what the operator is told."""

import json
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from m2gate.cli.notify import notify
from m2gate.worker.reload import POLL_S, SourceWatch
from m2gate.worker.supervisor import Child, Loop

PROGRESS_S: Final = 2.0  # what takes longer is told, and again after twice the time each


def say(line: str) -> None:
    """Tell the operator something in one line."""
    print(f"m2gate: {line}", file=sys.stderr, flush=True)


class Supervised(Protocol):
    """What a command supervises."""

    def start(self) -> None:
        """Start the first child."""

    def reload(self) -> None:
        """Load the code again."""

    def stop(self) -> None:
        """Let all of it end; calls finish() of the supervision at last."""

    def describe_start(self) -> str:
        """Say what the start, or a reload, waits for; "" if for nothing."""

    def document(self) -> dict[str, object]:
        """Return what is known of the children, for people and programs that look in."""


class Supervision:
    """Runs a command's loop until a signal or a failure ends it.

    target: its Python files are watched; None if they are not to be.
    state:  file that has the document, written anew at each change; None for none.
    ``exit_status`` is None as long as it runs; ``is_ready`` once it serves.
    """

    def __init__(self, loop: Loop, *, target: str | None = None, state: Path | None = None) -> None:
        self.loop = loop
        self.exit_status: int | None = None
        self.is_stopping = False
        self.is_ready = False
        self.restarts = {"worker": 0, "gateway": 0, "mongrel2": 0}
        self.last_end: str | None = None
        self._watch = SourceWatch(source_folder(target)) if target is not None else None
        self._state = state
        self._written = ""
        self._is_reloading = False

    @property
    def is_over(self) -> bool:
        """Whether nothing may be started any more."""
        return self.exit_status is not None

    def run(self, supervised: Supervised) -> int:
        """Run until the end; return the exit status. No child is left then."""
        loop = self.loop
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.on_signal(number, partial(self._stop, supervised))
        loop.on_signal(signal.SIGHUP, partial(self._reload, supervised))
        loop.on_signal(signal.SIGUSR1, lambda: print_status(supervised.document()))
        try:
            supervised.start()
            if self._watch is not None:
                loop.call_later(POLL_S, partial(self._poll_sources, self._watch, supervised))
            loop.call_later(PROGRESS_S, partial(self._tell_progress, supervised, PROGRESS_S))
            loop.run_until(partial(self._is_done, supervised))
        finally:
            loop.kill_all()
        return self.exit_status or 0

    def _is_done(self, supervised: Supervised) -> bool:
        """Called after each event, so that the file is never older than what it describes."""
        if self._state is not None and not self.is_over:
            text = json.dumps(supervised.document())
            if text != self._written:
                self._written = text
                write_whole(self._state, text)
        return self.is_over

    # -- what children and signals change -------------------------------------------------------

    def ready(self, line: str) -> None:
        """Say that it serves: to whoever reads stdout, and to systemd."""
        self.is_ready = True
        print(line, flush=True)
        notify("READY=1")

    def reloaded(self) -> None:
        """Tell systemd that a reload is over, however it ended."""
        if self._is_reloading:
            self._is_reloading = False
            notify("READY=1")

    def watch_also(self, files: tuple[str, ...]) -> None:
        """Watch these files, too, if any are watched."""
        if self._watch is not None:
            self._watch.watch_also(files)

    def count_death(self, kind: str, line: str) -> None:
        """Note that a child ended by itself, and will be started again. kind: a key of ``restarts``."""
        self.restarts[kind] += 1
        self.last_end = line

    def fail(self, line: str, status: int = 1) -> None:
        """End with this exit status. line: why; "" if it was said already."""
        if line:
            say(line)
        self.exit_status = status

    def fail_to_start(self, name: str, child: Child) -> None:
        """End because this child did before anything served. name: what it was, e.g. ``the worker``."""
        is_told = child.process.returncode == 2  # it has said why, in its own line
        self.fail("" if is_told else f"{name} {child.describe_end()} before it was ready", 2 if is_told else 1)

    def finish(self) -> None:
        """End well."""
        self.exit_status = self.exit_status or 0

    def _stop(self, supervised: Supervised) -> None:
        if self.is_stopping:
            self.exit_status = 0  # the second signal: what is left is killed
            return
        self.is_stopping = True
        notify("STOPPING=1")
        supervised.stop()

    def _reload(self, supervised: Supervised) -> None:
        if self.is_stopping or not self.is_ready:
            return
        self._is_reloading = True
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1_000}")
        supervised.reload()
        self.loop.call_later(PROGRESS_S, partial(self._tell_progress, supervised, PROGRESS_S))

    def _poll_sources(self, watch: SourceWatch, supervised: Supervised) -> None:
        changed = watch.changed()
        if changed and self.is_ready:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            say(f"{changed[0]}{more} changed; loading the code again")
            self._reload(supervised)
        self.loop.call_later(POLL_S, partial(self._poll_sources, watch, supervised))

    def _tell_progress(self, supervised: Supervised, passed_s: float) -> None:
        line = supervised.describe_start()
        if not line or self.is_stopping:
            return
        say(f"{line}, {passed_s:.0f} s so far")
        self.loop.call_later(passed_s, partial(self._tell_progress, supervised, 2 * passed_s))


def source_folder(target: str) -> Path:
    """Return the folder in which the sources of TARGET are looked for."""
    path = Path(target if Path(target).exists() else target.partition(":")[0])
    if path.is_dir():
        return path.resolve()
    return path.resolve().parent if path.exists() else Path.cwd()


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader finds the old one or the new one, never a part."""
    new = path.with_name(f"{path.name}.new")
    try:
        new.write_text(text)
        new.replace(path)
    except OSError as error:  # a full disk must not end what runs
        say(f"{path}: cannot be written: {error.strerror}; what it says is out of date")


def print_status(document: dict[str, object]) -> None:
    """Print the document for a person, on stderr."""
    lines = [f"{key}: {json.dumps(value)}" for key, value in document.items() if key != "workers"]
    workers = document.get("workers")
    if isinstance(workers, list):
        lines += ["  ".join(f"{key}={value}" for key, value in worker.items()) for worker in workers]
    say("status")
    print("\n".join(f"  {line}" for line in lines), file=sys.stderr, flush=True)
