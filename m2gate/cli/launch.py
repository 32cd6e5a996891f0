"""What ``m2gate run`` does: Mongrel2 and what lies behind it as children, from the first check to the last file.

The order at the start: the port, the programs, the user's code, Mongrel2, the connection between
the two, and only then "listening on". Workers wait after they have loaded the code, because the
routes of JSON sockets must be in Mongrel2's configuration before it starts.
"""

import os
from dataclasses import dataclass, field
from typing import Final

from m2gate.cli.addresses import InputAddresses
from m2gate.cli.direct_mode import RELOAD_DRAIN_S, DirectMode
from m2gate.cli.gateway_mode import GatewayMode
from m2gate.cli.mode import Mode
from m2gate.cli.options import ServerOptions
from m2gate.cli.ports import accepts, check_free, free_port
from m2gate.cli.private_mongrel2 import Place, PrivateMongrel2
from m2gate.cli.rundir import run_directory
from m2gate.cli.supervision import Supervision, say
from m2gate.errors import ConfigError, M2GateError
from m2gate.site.certificates import prepare_certdir
from m2gate.site.load import find_program
from m2gate.worker.child import WorkerChild, WorkerPlan
from m2gate.worker.supervisor import Loop

ACCEPT_POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The command line of ``m2gate run``, checked.

    workers:    how many; more than one, or is_gateway, stand behind a gateway.
    access_log: None, "-" for stderr, or an absolute path.
    """

    target: str
    server: ServerOptions
    inputs: InputAddresses = field(default_factory=InputAddresses)
    workers: int = 1
    is_gateway: bool = False
    reload: bool = False
    access_log: str | None = None
    drain_timeout_s: float = 30.0
    max_requests: int | None = None
    patch: bool = True


def launch(options: RunOptions) -> int:
    """Run until a signal or a failure at the start; return the exit status.

    Raises ConfigError, RunError and LoadError for what can be seen before anything is started.
    """
    mongrel2 = find_program("mongrel2")
    find_program("m2sh")
    port = free_port(options.server)
    check_free(options.inputs, (options.server.bind_addr, port))
    for warning in options.inputs.warnings():
        say(warning)
    with run_directory(port) as folder, Loop() as loop:
        certs = options.server.tls_certs
        certdir = None if certs is None else prepare_certdir(certs, folder / "certs", f"m2gate-{port}")
        place = Place(folder=folder, port=port, certdir=certdir, mongrel2=mongrel2)
        watched = options.target if options.reload else None
        supervision = Supervision(loop, target=watched, state=folder / "supervisor.json")
        return supervision.run(Launch(options, supervision, place))


class Launch:
    """Mongrel2 and the mode behind it, as one thing to supervise."""

    def __init__(self, options: RunOptions, supervision: Supervision, place: Place) -> None:
        self._options = options
        self._place = place
        self._url = options.server.url(place.port)
        self._mongrel2 = PrivateMongrel2(supervision, options.server, place, supervision.finish)
        self.supervision = supervision
        self._mode = self._choose_mode()

    def _choose_mode(self) -> Mode:
        options, folder = self._options, self._place.folder
        cut_after_s = RELOAD_DRAIN_S if options.reload else None
        servers = [self._mongrel2.link()]
        inputs = {key: value for key, value in options.inputs.settings().items() if value is not None}
        if options.workers == 1 and not options.is_gateway:
            plan = self._plan({"servers": servers, "status": str(folder / "status"), **inputs})
            return DirectMode(self, plan, cut_after_s=cut_after_s)
        gateway: dict[str, object] = {
            "folder": str(folder),
            "servers": servers,
            "access_log": options.access_log,
            "drain_timeout_s": options.drain_timeout_s,
            **inputs,
        }
        plan = self._plan({"gateway": {"folder": str(folder)}})
        return GatewayMode(self, plan, gateway, count=options.workers, cut_after_s=cut_after_s)

    def _plan(self, links: dict[str, object]) -> WorkerPlan:
        options = self._options
        return WorkerPlan(
            target=options.target,
            folder=self._place.folder,
            links=links,
            patch=options.patch,
            access_log=options.access_log,
            drain_timeout_s=options.drain_timeout_s,
            max_requests=options.max_requests,
            environ=options.inputs.environ(),
        )

    # -- as the supervision calls it ------------------------------------------------------------

    def start(self) -> None:
        """See Supervised."""
        self._mode.start()

    def reload(self) -> None:
        """Load the code again, and read the certificates again."""
        self._mongrel2.refresh_certificates()
        self._mode.reload()

    def stop(self) -> None:
        """See Supervised."""
        self._mode.stop()

    def describe_start(self) -> str:
        """See Supervised."""
        return self._mode.describe_start()

    def document(self) -> dict[str, object]:
        """Return what supervisor.json says."""
        supervision, mode = self.supervision, self._mode.document()
        return {
            "pid": os.getpid(),
            "url": self._url,
            "target": self._options.target,
            "mongrel2_pid": self._mongrel2.pid,
            **mode,
            "restarts": supervision.restarts,
            "last_end": supervision.last_end,
            "crash_loop": mode["crash_loop"] or self._mongrel2.is_looping,
        }

    # -- as the mode calls it -------------------------------------------------------------------

    def serve(self, json_sockets: tuple[str, ...]) -> None:
        """See Host."""
        self._mongrel2.serve(json_sockets)

    def mode_ready(self) -> None:
        """See Host."""
        if self.supervision.is_ready:
            self.supervision.reloaded()
        else:
            self._announce_when_accepting()

    def mode_failed(self, worker: WorkerChild) -> None:
        """See Host."""
        self.supervision.fail_to_start("the worker", worker.child)

    def mode_cannot(self, error: M2GateError) -> None:
        """See Host."""
        self.supervision.fail(str(error), 2 if isinstance(error, ConfigError) else 1)

    def mode_gone(self) -> None:
        """See Host."""
        self._mongrel2.stop()

    def _announce_when_accepting(self) -> None:
        supervision = self.supervision
        if supervision.is_stopping or supervision.is_over or supervision.is_ready:
            return
        if not accepts(self._options.server.bind_addr, self._place.port):
            supervision.loop.call_later(ACCEPT_POLL_S, self._announce_when_accepting)
            return
        supervision.ready(f"listening on {self._url}")
