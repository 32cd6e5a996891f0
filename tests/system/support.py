"""Real programs for tests: Mongrel2, a worker process, ``m2gate run``; each is a context manager.

Every one has its own short temporary directory, waits on a condition with a deadline, stops exactly
the process that it started, and prints that process's log when the test inside it fails.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from m2gate.site.certificates import prepare_certdir
from m2gate.site.load import find_program, write_configuration
from m2gate.site.private import PrivateServer
from m2gate.site.records import Protocol, SettingValue
from tests.system.launched import M2GateRun, m2gate_run
from tests.system.processes import (
    ROOT,
    START_S,
    STOP_S,
    accepts,
    alive,
    children,
    command_line,
    environment,
    free_port,
    make_pair,
    peer_certificate,
    short_directory,
    stop_process,
    wait_until,
)
from tests.system.served import Served, running

# What most tests need beside the programs.
__all__ = [
    "ROOT",
    "M2GateRun",
    "Mongrel2",
    "Served",
    "accepts",
    "alive",
    "children",
    "command_line",
    "environment",
    "free_port",
    "m2gate_run",
    "make_pair",
    "mongrel2",
    "peer_certificate",
    "running",
    "short_directory",
    "stop_process",
    "wait_until",
]


@dataclass
class Mongrel2:
    """A running Debian Mongrel2 on 127.0.0.1.

    folder:       its directory; ``error.log`` and ``output.log`` are its logs.
    upload_store: the folder of ``upload.temp_store`` if the test asked for one.
    """

    private: PrivateServer
    database: Path
    upload_store: Path | None = None
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def folder(self) -> Path:
        return self.private.folder

    @property
    def port(self) -> int:
        return self.private.port

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT`` or its https form."""
        return f"{'https' if self.private.certdir else 'http'}://127.0.0.1:{self.port}"

    @property
    def send_spec(self) -> str:
        return self.private.handler.send_spec

    @property
    def recv_spec(self) -> str:
        return self.private.handler.recv_spec

    @property
    def send_ident(self) -> str:
        return self.private.uuid

    @property
    def control_spec(self) -> str:
        return self.private.control_spec

    @property
    def pid(self) -> int:
        return self.process.pid

    def start(self) -> None:
        """Start the process and wait until its port accepts."""
        with (self.folder / "output.log").open("ab") as log:
            self.process = subprocess.Popen(
                [find_program("mongrel2"), str(self.database), self.private.uuid],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until the port accepts and the sockets for the worker are there."""

        def is_ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"mongrel2 ended with {self.process.returncode}\n{self.logs()}")
            sockets = ("requests", "replies", "control")
            return all((self.folder / name).exists() for name in sockets) and accepts(self.port)

        wait_until(is_ready, "mongrel2 accepts connections", START_S)

    def stop(self) -> int:
        """Stop the process with SIGINT, after 5 s with SIGKILL; return its exit status.

        An abort (-6) is normal: Mongrel2 ends so when connections are stalled.
        """
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(STOP_S)
        return self.process.returncode

    def kill9(self) -> None:
        """Kill the process at once, as a crash would."""
        self.process.kill()
        self.process.wait(STOP_S)

    def restart(self) -> None:
        """Stop the process if it runs, and start it again on the same port and sockets."""
        self.stop()
        self.start()

    def rss_kib(self) -> int:
        """Return the resident memory of the process in KiB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise AssertionError("mongrel2 is gone")

    def logs(self) -> str:
        """Return both logs as text."""
        names = ("output.log", "error.log")
        files = [self.folder / name for name in names]
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')}" for file in files if file.exists())


@contextmanager
def mongrel2(
    *,
    protocol: Protocol = "tnetstring",
    routes: Sequence[str] = ("/",),
    settings: Mapping[str, SettingValue] | None = None,
    static: Mapping[str, Path] | None = None,
    certificates: Path | None = None,
    raw_payload: bool = False,
    upload_store: bool = False,
    uuid: str = "test-1",
    port: int | None = None,
) -> Iterator[Mongrel2]:
    """Run a real Mongrel2 with m2gate's settings and the given ones over them.

    routes:       what its one handler gets: paths, or ``@name`` for JSON sockets.
    settings:     such as ``{"limits.min_ping": 3, "download.flow_control": 0}``.
    static:       ``/url/`` to a folder that Mongrel2 serves.
    certificates: folder with NAME.crt and NAME.key (see make_pair): TLS with SNI.
    upload_store: large bodies go to files in ``.upload_store`` instead of coming in pieces.
    """
    with short_directory() as folder:
        changes = dict(settings or {})
        store = None
        if upload_store:
            store = folder / "uploads"
            store.mkdir()
            changes |= {"upload.stream": 0, "upload.temp_store": f"{store}/upload.XXXXXX"}
        private = PrivateServer(
            folder=folder,
            port=port or free_port(),
            uuid=uuid,
            routes=tuple(routes),
            static=static or {},
            certdir=None if certificates is None else prepare_certdir(certificates, folder / "certs", uuid),
            protocol=protocol,
            raw_payload=raw_payload,
            settings=changes,
            source="test",
        )
        server = Mongrel2(private, write_configuration(private.configuration(), folder), store)
        try:
            server.start()
            yield server
        except BaseException:
            print(server.logs(), file=sys.stderr)
            raise
        finally:
            if hasattr(server, "process"):
                server.stop()
