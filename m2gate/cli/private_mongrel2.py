"""The Mongrel2 that ``m2gate run`` starts: its place, its configuration, its process."""

import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from m2gate.cli.options import ServerOptions
from m2gate.cli.supervision import Supervision, say
from m2gate.errors import ConfigError
from m2gate.site.certificates import refresh_certdir
from m2gate.site.load import write_configuration
from m2gate.worker.supervisor import Child, Keeper

STOP_S: Final = 5.0  # for it to end


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


class PrivateMongrel2:
    """Keeps one Mongrel2 running, with the routes that the App wants.

    on_gone: called when it has ended after stop().
    """

    def __init__(
        self, supervision: Supervision, options: ServerOptions, place: Place, on_gone: Callable[[], None]
    ) -> None:
        self._supervision = supervision
        self._options = options
        self._place = place
        self._on_gone = on_gone
        self._json_sockets: tuple[str, ...] = ()
        self._is_stopped = False
        count = partial(supervision.count_death, "mongrel2")
        self._keeper = Keeper(supervision.loop, "mongrel2", self._spawn, say, count)

    @property
    def pid(self) -> int | None:
        """Its process, if it runs."""
        return self._keeper.child.process.pid if self._keeper.child is not None else None

    @property
    def is_looping(self) -> bool:
        """Whether it dies again and again."""
        return self._keeper.is_looping

    def link(self) -> dict[str, object]:
        """Return its sockets as the settings of a worker or gateway have them."""
        server = self._options.private_server(self._place.folder, self._place.port, ["/"], None)
        handler = server.handler
        return {
            "send_spec": handler.send_spec,
            "recv_spec": handler.recv_spec,
            "send_ident": handler.send_ident,
            "control_spec": server.control_spec,
        }

    def serve(self, json_sockets: tuple[str, ...]) -> None:
        """Start it, or restart it if these are not the JSON sockets that it knows.

        Raises ConfigError and LoadError.
        """
        is_running = self._keeper.child is not None
        if is_running and json_sockets == self._json_sockets:
            return
        routes = ("/", *json_sockets)
        server = self._options.private_server(self._place.folder, self._place.port, routes, self._place.certdir)
        write_configuration(server.configuration(), self._place.folder)
        self._json_sockets = json_sockets
        if self._keeper.child is not None:
            say("the JSON sockets have changed; restarting mongrel2")
            self._keeper.child.stop(signal.SIGINT, STOP_S)
        else:
            self._keeper.start()

    def refresh_certificates(self) -> None:
        """Read the certificates again; those of before go on if they are not good."""
        certs, certdir, child = self._options.tls_certs, self._place.certdir, self._keeper.child
        if certs is None or certdir is None or child is None:
            return
        try:
            refresh_certdir(certs, certdir, self._place.uuid)
        except ConfigError as error:
            say(f"{error}; the certificates of before go on")
            return
        child.signal(signal.SIGHUP)

    def stop(self) -> None:
        """Let it end."""
        self._is_stopped = True
        self._keeper.stop(signal.SIGINT, STOP_S)
        self._tell_if_gone()

    def _spawn(self, on_exit: Callable[[Child], None]) -> Child:
        def ended(child: Child) -> None:
            if self._is_stopped:
                self._tell_if_gone()
            elif not self._supervision.is_ready and not self._supervision.is_stopping:
                self._supervision.fail(f"mongrel2 {child.describe_end()}: {self._error()}")
            if not self._supervision.is_over:
                on_exit(child)

        with (self._place.folder / "mongrel2.log").open("wb") as log:
            command = [self._place.mongrel2, str(self._place.folder / "mongrel2.sqlite"), self._place.uuid]
            return self._supervision.loop.spawn("mongrel2", command, ended, cwd=self._place.folder, output=log)

    def _tell_if_gone(self) -> None:
        child = self._keeper.child
        if child is None or not child.is_alive:
            self._on_gone()

    def _error(self) -> str:
        for name in ("error.log", "mongrel2.log"):
            with suppress(FileNotFoundError):
                lines = (self._place.folder / name).read_text(errors="replace").splitlines()
                errors = [line for line in lines if "[ERROR]" in line]
                if errors:
                    return errors[0].partition("[ERROR]")[2].strip()
        return "it says nothing about it"
