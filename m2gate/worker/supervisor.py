"""A parent process and its children: one loop for signals, descriptors, timers and ends of processes.

Plain Python without gevent, ZeroMQ or threads: the parent must work when everything else fails. Its
children die with it, even if it is killed with SIGKILL.
"""

import ctypes
import heapq
import itertools
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

RESTART_FIRST_S: Final = 0.1  # before the second restart in a row; the first one is at once
RESTART_MAX_S: Final = 5.0
ALIVE_S: Final = 10.0  # a process that lived so long did not crash at start
LOOP_DEATHS: Final = 3  # deaths in a row that make a crash loop
_PR_SET_PDEATHSIG: Final = 1

# Looked up before any fork: between fork and exec only calls into the kernel are safe.
_prctl = ctypes.CDLL(None, use_errno=True).prctl


class Timer:
    """A call that is due later; cancel() if it is not wanted any more."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Make sure that the callback is not called."""
        self.callback = None


class Loop:
    """Waits for signals, readable descriptors, timers and ends of children, and calls who asked.

    Use it in the main thread, as a context manager: it gives the signals back at its end.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._before: dict[int, object] = {}
        self._children: list[Child] = []
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> "Loop":
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._selector.register(self._reader, selectors.EVENT_READ, self._dispatch_signals)
        self.on_signal(signal.SIGCHLD, self._reap)
        return self

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() itself returned
        signal.set_wakeup_fd(self._wakeup)
        self._selector.close()
        os.close(self._reader)
        os.close(self._writer)

    def on_signal(self, number: int, callback: Callable[[], None]) -> None:
        """Call back in the loop, not in the middle of something else, when the signal arrives."""
        self._handlers[number] = callback
        before = signal.signal(number, _ignore)
        self._before.setdefault(number, before)

    def on_readable(self, descriptor: int, callback: Callable[[], None]) -> None:
        """Call back whenever the descriptor has something to read, or is at its end."""
        self._selector.register(descriptor, selectors.EVENT_READ, callback)

    def forget(self, descriptor: int) -> None:
        """Take back on_readable."""
        self._selector.unregister(descriptor)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call back once, after delay_s seconds."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._order), timer))
        return timer

    def run_until(self, is_done: Callable[[], bool]) -> None:
        """Run until is_done() after an event."""
        while not is_done():
            self._turn()

    def _turn(self) -> None:
        timeout_s = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
        for key, _ in self._selector.select(timeout_s):
            key.data()
        while self._timers and self._timers[0][0] <= time.monotonic():
            callback = heapq.heappop(self._timers)[2].callback
            if callback is not None:
                callback()

    def _dispatch_signals(self) -> None:
        for number in os.read(self._reader, 4096):
            handler = self._handlers.get(number)
            if handler is not None:
                handler()

    def spawn(
        self,
        name: str,
        command: Sequence[str],
        on_exit: "Callable[[Child], None]",
        *,
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        output: IO[bytes] | int = 2,
        pass_fds: Iterable[int] = (),
    ) -> "Child":
        """Start a process in a process group of its own, so that Ctrl-C reaches only the parent.

        output: for its stdout and stderr; our stderr if not given.
        Raises OSError if it cannot be started.
        """
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environ,
            stdin=stdin,
            stdout=output,
            stderr=output,
            pass_fds=tuple(pass_fds),
            process_group=0,
            preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - the parent has no threads
        )
        child = Child(self, name, process, on_exit)
        self._children.append(child)
        return child

    def _reap(self) -> None:
        for child in [one for one in self._children if one.process.poll() is not None]:
            self._children.remove(child)
            child.ended()

    def kill_all(self) -> None:
        """Kill every child that is left, and wait for it."""
        for child in self._children:
            child.process.kill()
            child.process.wait()
            child.close()
        self._children.clear()


def _ignore(_number: int, _frame: object) -> None:
    """A signal handler that leaves the work to the wake-up descriptor."""


def _die_with(parent: int) -> Callable[[], None]:
    def preexec() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the call above
            os._exit(1)

    return preexec


class Child:
    """One process that was started; its end is told once."""

    def __init__(
        self, loop: Loop, name: str, process: "subprocess.Popen[bytes]", on_exit: "Callable[[Child], None]"
    ) -> None:
        self.name = name
        self.process = process
        self.started_s = time.monotonic()
        self._loop = loop
        self._on_exit = on_exit
        self._kill_timer: Timer | None = None

    @property
    def is_alive(self) -> bool:
        """Whether its end has not been seen yet."""
        return self.process.returncode is None

    def signal(self, number: int) -> None:
        """Send a signal, if the process is still there."""
        if self.is_alive:
            self.process.send_signal(number)

    def stop(self, number: int, kill_after_s: float) -> None:
        """Ask the process to end with a signal, and kill it if it has not ended in time.

        Asked again, it only gets the new time: a second signal would mean that it has to hurry.
        """
        if self._kill_timer is None or number == signal.SIGKILL:
            self.signal(number)
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self._kill_timer = self._loop.call_later(kill_after_s, self.process.kill)

    def ended(self) -> None:
        """Called by the loop once the process has ended."""
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self.close()
        self._on_exit(self)

    def close(self) -> None:
        """Close the pipe to the process, if there is one."""
        if self.process.stdin is not None:
            self.process.stdin.close()

    def describe_end(self) -> str:
        """Say how the process ended."""
        status = self.process.returncode
        if status is None:
            return "still runs"
        return f"ended with status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"


class Backoff:
    """How long to wait before a process is started again."""

    def __init__(self) -> None:
        self.deaths = 0  # in a row, each soon after the start

    def next_delay_s(self, alive_s: float) -> float:
        """Return 0 for the first death, then RESTART_FIRST_S doubling up to RESTART_MAX_S.

        alive_s: how long the process lived; from ALIVE_S on the count starts anew.
        """
        if alive_s >= ALIVE_S:
            self.deaths = 0
        self.deaths += 1
        if self.deaths == 1:
            return 0.0
        return min(RESTART_MAX_S, RESTART_FIRST_S * 2.0 ** min(self.deaths - 2, 10))

    def forget(self) -> None:
        """Count anew: what was started lives."""
        self.deaths = 0


def describe_restart(line: str, deaths: int) -> str:
    """Return what an operator is told of a death; "" in a crash loop that has been told.

    line: how it ended. deaths: in a row.
    """
    if deaths < LOOP_DEATHS:
        return f"{line}; starting it again"
    if deaths == LOOP_DEATHS:
        return f"{line}, again and again; trying again, every {RESTART_MAX_S:g} s at last, without saying so each time"
    return ""


class Keeper:
    """Keeps one process running: starts it again when it ends by itself, with back-off.

    spawn: starts the process; gets what to call at its end.
    say:   takes one line for the operator: each death at first, then once that it is a crash loop.
    on_death: gets one line about each death.
    ``is_looping`` says whether it dies again and again.
    """

    def __init__(
        self,
        loop: Loop,
        name: str,
        spawn: Callable[[Callable[[Child], None]], Child],
        say: Callable[[str], None],
        on_death: Callable[[str], None] | None = None,
    ) -> None:
        self._loop = loop
        self._name = name
        self._spawn = spawn
        self._say = say
        self._on_death = on_death
        self._backoff = Backoff()
        self._restart: Timer | None = None
        self._is_wanted = False
        self.child: Child | None = None

    @property
    def is_looping(self) -> bool:
        """Whether it has died again and again, and not lived for long since."""
        child = self.child
        lives = child is not None and time.monotonic() - child.started_s >= ALIVE_S
        return self._backoff.deaths >= LOOP_DEATHS and not lives

    def start(self) -> None:
        """Start the process, unless it runs."""
        self._is_wanted = True
        self._cancel_restart()
        if self.child is None:
            self.child = self._spawn(self._ended)

    def adopt(self, child: Child) -> None:
        """Keep this process from now on; the one before it is not replaced when it ends."""
        self._is_wanted = True
        self._cancel_restart()
        self.child = child

    def ended(self, child: Child) -> None:
        """Tell that a process ended which was started elsewhere and may have been adopted."""
        self._ended(child)

    def stop(self, number: int, kill_after_s: float) -> None:
        """Stop the process for good: with a signal, and SIGKILL after kill_after_s seconds."""
        self._is_wanted = False
        self._cancel_restart()
        if self.child is not None:
            self.child.stop(number, kill_after_s)

    def _cancel_restart(self) -> None:
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None

    def _ended(self, child: Child) -> None:
        if child is not self.child:
            return
        self.child = None
        if not self._is_wanted:
            return
        delay_s = self._backoff.next_delay_s(time.monotonic() - child.started_s)
        line = f"{self._name} {child.describe_end()}"
        if self._on_death is not None:
            self._on_death(line)
        told = describe_restart(line, self._backoff.deaths)
        if told:
            self._say(told)
        self._restart = self._loop.call_later(delay_s, self.start)
