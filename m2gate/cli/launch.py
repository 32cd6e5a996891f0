"""What ``m2gate run`` does: Mongrel2 and a worker as children, from the first check to the last file.

The order at the start: the port, the programs, the user's code, Mongrel2, the connection between
the two, and only then "listening on". The worker waits after it has loaded the code, because the
routes of JSON sockets must be in Mongrel2's configuration before it starts.
"""

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from m2gate.cli.generation import Generation, WorkerPlan
from m2gate.cli.notify import notify
from m2gate.cli.options import ServerOptions
from m2gate.cli.ports import accepts, free_port
from m2gate.cli.rundir import run_directory
from m2gate.errors import ConfigError, M2GateError
from m2gate.site.certificates import prepare_certdir, refresh_certdir
from m2gate.site.load import find_program, write_configuration
from m2gate.worker.reload import POLL_S, SourceWatch
from m2gate.worker.supervisor import Child, Keeper, Loop

ACCEPT_POLL_S: Final = 0.02
STOP_S: Final = 5.0  # for Mongrel2 to end, and for a worker beyond its drain timeout
RELOAD_DRAIN_S: Final = 2.0  # with --reload, what is open is cut after this: a person waits


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The command line of ``m2gate run``, checked.

    access_log: None, "-" for stderr, or an absolute path.
    """

    target: str
    server: ServerOptions
    reload: bool = False
    access_log: str | None = None
    drain_timeout_s: float = 30.0
    max_requests: int | None = None
    patch: bool = True


def say(line: str) -> None:
    """Tell the operator something in one line."""
    print(f"m2gate: {line}", file=sys.stderr, flush=True)


def launch(options: RunOptions) -> int:
    """Run until a signal or a failure at the start; return the exit status.

    Raises ConfigError, RunError and LoadError for what can be seen before anything is started.
    """
    mongrel2 = find_program("mongrel2")
    find_program("m2sh")
    port = free_port(options.server)
    with run_directory(port) as folder, Loop() as loop:
        certs = options.server.tls_certs
        certdir = None if certs is None else prepare_certdir(certs, folder / "certs", f"m2gate-{port}")
        return Launch(options, loop, Place(folder=folder, port=port, certdir=certdir, mongrel2=mongrel2)).run()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one run lives.

    folder: its run directory. port: the real one, never 0.
    certdir: None for plain HTTP. mongrel2: the program's path.
    """

    folder: Path
    port: int
    certdir: Path | None
    mongrel2: str

    @property
    def uuid(self) -> str:
        """The name of the Mongrel2 of this run."""
        return f"m2gate-{self.port}"


class Launch:
    """The children of one run, and what is to be done when they report, end, or a signal comes."""

    def __init__(self, options: RunOptions, loop: Loop, place: Place) -> None:
        self._options = options
        self._loop = loop
        self._place = place
        self._mongrel2 = Keeper(loop, "mongrel2", self._spawn_mongrel2, say)
        self._worker = Keeper(loop, "the worker", self._spawn_worker, say)
        self._watch = SourceWatch(_source_folder(options.target)) if options.reload else None
        self._exit_status: int | None = None
        self._is_stopping = False
        self._is_listening = False
        self._json_sockets: tuple[str, ...] = ()
        self._running: Generation | None = None  # has the sockets, or is about to get them
        self._next: Generation | None = None  # is being loaded, or waits for the sockets
        self._generations = 0

    def run(self) -> int:
        """Run until the end; return the exit status. No child is left then."""
        self._loop.on_signal(signal.SIGINT, self._stop)
        self._loop.on_signal(signal.SIGTERM, self._stop)
        self._loop.on_signal(signal.SIGHUP, self._reload)
        try:
            self._worker.start()
            if self._watch is not None:
                self._loop.call_later(POLL_S, partial(self._poll_sources, self._watch))
            self._loop.run_until(lambda: self._exit_status is not None)
        finally:
            self._loop.kill_all()
        return self._exit_status or 0

    # -- children -------------------------------------------------------------------------------

    def _spawn_mongrel2(self, on_exit: Callable[[Child], None]) -> Child:
        def ended(child: Child) -> None:
            if self._is_stopping:
                self._end_if_stopped()
            elif not self._is_listening:
                self._fail(f"mongrel2 {child.describe_end()}: {self._mongrel2_error()}")
            self._unless_over(on_exit, child)

        with (self._place.folder / "mongrel2.log").open("wb") as log:
            command = [self._place.mongrel2, str(self._place.folder / "mongrel2.sqlite"), self._place.uuid]
            return self._loop.spawn("mongrel2", command, ended, cwd=self._place.folder, output=log)

    def _mongrel2_error(self) -> str:
        for name in ("error.log", "mongrel2.log"):
            with suppress(FileNotFoundError):
                lines = (self._place.folder / name).read_text(errors="replace").splitlines()
                errors = [line for line in lines if "[ERROR]" in line]
                if errors:
                    return errors[0].partition("[ERROR]")[2].strip()
        return "it says nothing about it"

    def _spawn_worker(self, on_exit: Callable[[Child], None]) -> Child:
        self._running = self._spawn_generation(on_exit)
        return self._running.child

    def _spawn_generation(self, on_exit: Callable[[Child], None]) -> Generation:
        self._generations += 1
        server = self._options.server.private_server(self._place.folder, self._place.port, ["/"], None)
        plan = WorkerPlan(
            target=self._options.target,
            handler=server.handler,
            control_spec=server.control_spec,
            folder=self._place.folder / f"worker-{self._generations}",
            patch=self._options.patch,
            access_log=self._options.access_log,
            drain_timeout_s=self._options.drain_timeout_s,
            max_requests=self._options.max_requests,
        )

        def ended(child: Child) -> None:
            self._worker_ended(child)
            self._unless_over(on_exit, child)

        return Generation(
            self._loop,
            plan,
            ended,
            on_loaded=self._worker_loaded,
            on_ready=self._worker_ready,
            on_spent=self._worker_spent,
        )

    def _unless_over(self, on_exit: Callable[[Child], None], child: Child) -> None:
        if self._exit_status is None:
            on_exit(child)

    # -- what the worker says -------------------------------------------------------------------

    def _worker_loaded(self, generation: Generation) -> None:
        if generation is self._next:
            self._retire(self._worker.child)
        else:
            self._connect(generation)

    def _retire(self, child: Child | None) -> None:
        """End the old worker; when it has ended, the next one takes over."""
        if child is None:
            self._hand_over()
            return
        child.stop(signal.SIGHUP, self._options.drain_timeout_s + STOP_S)
        if self._options.reload:
            # The second one lets the worker cut what is open, which a kill would leave hanging.
            self._loop.call_later(RELOAD_DRAIN_S, lambda: child.signal(signal.SIGTERM))

    def _connect(self, generation: Generation) -> None:
        """Give the generation the sockets, with a Mongrel2 that knows its JSON sockets."""
        if self._watch is not None:
            self._watch.watch_also(generation.files)
        try:
            self._serve(generation.json_sockets)
        except M2GateError as error:
            self._fail(str(error), 2 if isinstance(error, ConfigError) else 1)
            return
        generation.go()

    def _serve(self, json_sockets: tuple[str, ...]) -> None:
        is_running = self._mongrel2.child is not None
        if is_running and json_sockets == self._json_sockets:
            return
        self._json_sockets = json_sockets
        routes = ("/", *json_sockets)
        server = self._options.server.private_server(self._place.folder, self._place.port, routes, self._place.certdir)
        write_configuration(server.configuration(), self._place.folder)
        if self._mongrel2.child is not None:
            say("the JSON sockets have changed; restarting mongrel2")
            self._mongrel2.child.stop(signal.SIGINT, STOP_S)
        else:
            self._mongrel2.start()

    def _worker_ready(self, generation: Generation) -> None:
        if generation is self._running and not self._is_listening:
            self._announce_when_accepting()

    def _worker_spent(self, generation: Generation) -> None:
        """Let a fresh process take over from one that has had --max-requests, unless one is on its way."""
        if generation is self._running and self._next is None and not self._is_stopping:
            self._next = self._spawn_generation(self._worker.ended)

    def _announce_when_accepting(self) -> None:
        if self._is_stopping or self._exit_status is not None:
            return
        if not accepts(self._options.server.bind_addr, self._place.port):
            self._loop.call_later(ACCEPT_POLL_S, self._announce_when_accepting)
            return
        self._is_listening = True
        print(f"listening on {self._options.server.url(self._place.port)}", flush=True)
        notify("READY=1")

    def _worker_ended(self, child: Child) -> None:
        if self._next is not None and child is self._next.child:
            self._next = None
            say(f"the new code was not loaded ({child.describe_end()}); the old code goes on")
            return
        if self._running is None or child is not self._running.child:
            return  # one that was loaded in vain, or that had handed over
        if self._is_stopping:
            self._stop_mongrel2()
        elif not self._is_listening:
            status = child.process.returncode
            if status != 2:  # with 2 it has said why, in its own line
                say(f"the worker {child.describe_end()} before it was ready")
            self._exit_status = 2 if status == 2 else 1
        elif self._next is not None and self._next.is_loaded:
            self._hand_over()

    def _hand_over(self) -> None:
        generation = self._next
        if generation is None:
            return
        self._running, self._next = generation, None
        self._worker.adopt(generation.child)
        self._connect(generation)

    # -- reload ---------------------------------------------------------------------------------

    def _reload(self) -> None:
        """Load the code in a new process, which takes over once that has worked; read certificates again."""
        if self._is_stopping or not self._is_listening:
            return
        self._refresh_certificates()
        self._drop_next()
        self._next = self._spawn_generation(self._worker.ended)

    def _refresh_certificates(self) -> None:
        certs, certdir = self._options.server.tls_certs, self._place.certdir
        if certs is None or certdir is None or self._mongrel2.child is None:
            return
        try:
            refresh_certdir(certs, certdir, self._place.uuid)
        except ConfigError as error:
            say(f"{error}; the certificates of before go on")
            return
        self._mongrel2.child.signal(signal.SIGHUP)

    def _drop_next(self) -> None:
        if self._next is not None:
            dropped, self._next = self._next, None
            dropped.child.process.kill()

    def _poll_sources(self, watch: SourceWatch) -> None:
        changed = watch.changed()
        if changed and self._is_listening:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            say(f"{changed[0]}{more} changed; loading the code again")
            self._reload()
        self._loop.call_later(POLL_S, partial(self._poll_sources, watch))

    # -- the end --------------------------------------------------------------------------------

    def _stop(self) -> None:
        if self._is_stopping:
            self._exit_status = 0  # the second signal: what is left is killed
            return
        self._is_stopping = True
        notify("STOPPING=1")
        self._drop_next()
        if self._worker.child is None or not self._is_listening:
            # Nothing is open yet: a worker that still loads code has nothing to drain.
            self._worker.stop(signal.SIGKILL, STOP_S)
            self._stop_mongrel2()
            return
        self._worker.stop(signal.SIGTERM, self._options.drain_timeout_s + STOP_S)

    def _stop_mongrel2(self) -> None:
        self._mongrel2.stop(signal.SIGINT, STOP_S)
        self._end_if_stopped()

    def _end_if_stopped(self) -> None:
        child = self._mongrel2.child
        if child is None or not child.is_alive:
            self._exit_status = self._exit_status or 0

    def _fail(self, line: str, status: int = 1) -> None:
        say(line)
        self._exit_status = status


def _source_folder(target: str) -> Path:
    path = Path(target if Path(target).exists() else target.partition(":")[0])
    if path.is_dir():
        return path.resolve()
    return path.resolve().parent if path.exists() else Path.cwd()
