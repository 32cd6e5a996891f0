"""The terminal as a live view: its own screen, one key at a time, and all of it given back at every end."""

import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, Final

_ENTER: Final = "\x1b[?1049h\x1b[?25l"  # the alternate screen, without a cursor
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_REST_OF_LINE: Final = "\x1b[K"
_REST_OF_SCREEN: Final = "\x1b[J"
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_HANDLED: Final = (*_ENDING, signal.SIGWINCH, signal.SIGTSTP)


class Screen:
    """Takes over the terminal of stdout (and the keys of stdin, if that is one, too) while it is entered.

    SIGINT, SIGTERM and SIGHUP make wait() return False, SIGTSTP gives the terminal back until the
    process is continued, a change of its size ends a wait early.
    """

    def __enter__(self) -> "Screen":
        self._is_ending = False
        self._keys = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._modes: list[Any] | None = None
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = {number: signal.signal(number, self._signalled) for number in _HANDLED}
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._give_back()
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        if number in _ENDING:
            self._is_ending = True

    def _take(self) -> None:
        if self._keys is not None:
            self._modes = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys)
        self._write(_ENTER)

    def _give_back(self) -> None:
        try:
            self._write(_LEAVE)
        except OSError:
            pass  # the terminal is gone, there is nobody to give it back to
        if self._keys is not None and self._modes is not None:
            try:
                termios.tcsetattr(self._keys, termios.TCSADRAIN, self._modes)
            except termios.error:
                pass  # likewise

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    @staticmethod
    def size() -> tuple[int, int]:
        """Return columns and rows."""
        found = shutil.get_terminal_size((80, 24))
        return found.columns, found.lines

    def draw(self, lines: Sequence[str]) -> None:
        """Show lines from the top, in place of what was there."""
        # Each line is overwritten, then what is left of it cleared: clearing first would flicker.
        self._write(_HOME + "".join(f"{line}{_REST_OF_LINE}\r\n" for line in lines[:-1]))
        self._write("".join(f"{line}{_REST_OF_LINE}" for line in lines[-1:]) + _REST_OF_SCREEN)

    def wait(self, seconds: float) -> bool:
        """Wait so long, or less if the terminal's size changes; False once it is to end: q, Ctrl-C, a signal."""
        deadline_s = time.monotonic() + seconds
        sources = [self._reader] + ([] if self._keys is None else [self._keys])
        while not self._is_ending:
            left_s = deadline_s - time.monotonic()
            ready = select.select(sources, [], [], left_s)[0] if left_s > 0 else []
            if not ready:
                return True
            if self._keys in ready and not self._read_keys(sources):
                return False
            if self._reader in ready and self._read_signals():
                return not self._is_ending
        return False

    def _read_keys(self, sources: list[int]) -> bool:
        keys = os.read(self._keys or 0, 64)
        if not keys and self._keys is not None:
            sources.remove(self._keys)  # the terminal has no more keys: only signals end this
        return b"q" not in keys and b"Q" not in keys and b"\x03" not in keys

    def _read_signals(self) -> bool:
        """Take what came; tell whether the screen has to be drawn anew."""
        numbers = os.read(self._reader, 64)
        if signal.SIGTSTP in numbers:
            self._give_back()
            os.kill(os.getpid(), signal.SIGSTOP)
            self._take()
        return signal.SIGWINCH in numbers or signal.SIGTSTP in numbers
