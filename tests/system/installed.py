"""An installation below M2GATE_ROOT whose Mongrel2 servers run, as `m2gate config apply` has made them."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from m2gate.site.load import find_program
from tests.site.installation import SITE, Healthy
from tests.system.processes import START_S, free_port, short_directory, stop_process, wait_until


@dataclass
class InstalledServer:
    """One of its servers; what tests.system.served wants to know of a server."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None
    upload_store: Path | None = None

    @property
    def send_ident(self) -> str:
        return f"local-{self.port}"

    @property
    def send_spec(self) -> str:
        return f"ipc://{self.socket('req')}"

    @property
    def recv_spec(self) -> str:
        return f"ipc://{self.socket('rep')}"

    @property
    def control_spec(self) -> str:
        return f"ipc://{self.socket('control')}"

    def socket(self, kind: str) -> Path:
        """The path of its socket: "req", "rep" or "control"."""
        return self.folder / ("control" if kind == "control" else "handlers") / f"{self.send_ident}.{kind}"

    @property
    def error_log(self) -> Path:
        return self.folder.parents[1] / f"var/log/m2gate/{self.send_ident}.error.log"

    def start(self, database: Path, log: Path, files: int | None = None) -> None:
        limit = [] if files is None else ["prlimit", f"--nofile={files}:{files}"]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*limit, find_program("mongrel2"), str(database), self.send_ident],
                cwd=database.parent,
                umask=0o007,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def is_ready(self) -> bool:
        """Whether it says so: half a second after its port accepts; a HUP before that makes it deaf to all others."""
        return self.error_log.exists() and " Running. " in self.error_log.read_text(errors="replace")

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            stop_process(self.process)


class Installed(Healthy):
    """A healthy installation of one site, with a plain server and one for TLS."""

    def __init__(self, root: Path, site: str = SITE) -> None:
        self.plain = InstalledServer(root / "run/m2gate", free_port())
        self.secure = InstalledServer(root / "run/m2gate", free_port())
        super().__init__(root, site.replace("8080", str(self.plain.port)).replace("8443", str(self.secure.port)))

    def start(self, server: InstalledServer, files: int | None = None) -> None:
        """Run a server. files: how many it may open."""
        server.start(self.places.database, self.places.logs / "output.log", files)
        wait_until(server.is_ready, "mongrel2 runs", START_S)


@contextmanager
def installed(site: str = SITE) -> Iterator[Installed]:
    """Make an installation; the servers that the test starts are stopped."""
    with short_directory() as folder:
        one = Installed(folder, site)
        try:
            yield one
        finally:
            one.plain.stop()
            one.secure.stop()
