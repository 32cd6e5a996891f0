"""The gateway process as its supervisor sees it: started, watched, and started again."""

import json
import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from m2gate.cli.supervision import Supervision, say
from m2gate.gateway.place import BEAT
from m2gate.worker.child import Reports, environment
from m2gate.worker.supervisor import Child, Keeper

INTERPRETER: Final = sys.executable
PROGRAM: Final = ("-P", "-m", "m2gate.gateway.process")
POLL_S: Final = 0.5
HUNG_S: Final = 5.0  # without a beat of its loop: it is killed
LATE_S: Final = 2.0  # a look that comes so late says more about us than about the gateway


class BeatWatch:
    """Tells whether the loop of a gateway stands still, from the file that it writes each second.

    Before the first beat nothing is told. A look that comes late, because this process or the whole machine was
    stopped, begins anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._value = b""
        self._changed_s = 0.0
        self._looked_s = 0.0

    def begin(self) -> None:
        """Forget what another gateway has written."""
        self._path.unlink(missing_ok=True)
        self._value = b""

    def is_hung(self, now_s: float) -> bool:
        """Look once; call it each POLL_S or so."""
        is_late = now_s - self._looked_s > LATE_S
        self._looked_s = now_s
        try:
            value = self._path.read_bytes()
        except OSError:
            value = b""
        # It is not written in one piece: an empty file says nothing.
        if is_late or (value and value != self._value):
            self._value = value or self._value
            self._changed_s = now_s
        return bool(self._value) and now_s - self._changed_s > HUNG_S


class GatewayKeeper:
    """Keeps one gateway process running, and kills it when its loop stands still.

    settings: see m2gate.gateway.settings; its folder is there.
    folder:   the settings file is written into it.
    on_ready: its sockets are bound; called at each start.
    on_gone:  it has ended after stop().
    """

    def __init__(
        self,
        supervision: Supervision,
        settings: Mapping[str, object],
        folder: Path,
        *,
        on_ready: Callable[[], None],
        on_gone: Callable[[], None],
    ) -> None:
        self._supervision = supervision
        self._settings = settings
        self._path = folder / "gateway.json"
        self._on_ready = on_ready
        self._on_gone = on_gone
        self._reports: Reports | None = None
        self._beat = BeatWatch(Path(str(settings["folder"])) / BEAT)
        count = partial(supervision.count_death, "gateway")
        self._keeper = Keeper(supervision.loop, "the gateway", self._spawn, say, count)

    @property
    def pid(self) -> int | None:
        """Its process, if it runs."""
        child = self._keeper.child
        return child.process.pid if child is not None and child.is_alive else None

    @property
    def is_looping(self) -> bool:
        """Whether it dies again and again."""
        return self._keeper.is_looping

    def start(self) -> None:
        """Start it, and look after it from now on."""
        self._keeper.start()
        self._supervision.loop.call_later(POLL_S, self._look)

    def stop(self, number: int, kill_after_s: float) -> None:
        """Let it end for good."""
        self._keeper.stop(number, kill_after_s)

    def _spawn(self, on_exit: Callable[[Child], None]) -> Child:
        reports = self._reports = Reports(self._supervision.loop, lambda _line: self._on_ready())

        def ended(child: Child) -> None:
            reports.close()
            self._ended(child)
            if not self._supervision.is_over:
                on_exit(child)
            if self._supervision.is_stopping:
                self._on_gone()

        self._beat.begin()
        try:
            self._path.write_text(json.dumps({**self._settings, "ready_fd": reports.writer}))
            command = [INTERPRETER, *PROGRAM, str(self._path)]
            return self._supervision.loop.spawn(
                "the gateway", command, ended, environ=environment(), pass_fds=[reports.writer]
            )
        finally:
            reports.close_writer()

    def _ended(self, child: Child) -> None:
        if not self._supervision.is_ready and not self._supervision.is_stopping:
            self._supervision.fail_to_start("the gateway", child)

    def _look(self) -> None:
        child = self._keeper.child
        if self._beat.is_hung(time.monotonic()) and child is not None and not self._supervision.is_stopping:
            say(f"the gateway has not moved for {HUNG_S:g} s; killing it")
            child.signal(signal.SIGKILL)
            self._beat.begin()
        self._supervision.loop.call_later(POLL_S, self._look)
