"""Real programs for tests: Mongrel2, a worker process, ``m2gate run``; each is a context manager.

Every one has its own short temporary directory, waits on a condition with a deadline, stops exactly
the process that it started, and prints that process's log when the test inside it fails.
"""

import json
import os
import random
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from m2gate.site.certificates import prepare_certdir
from m2gate.site.load import find_program, write_configuration
from m2gate.site.private import PrivateServer
from m2gate.site.records import Protocol, SettingValue

ROOT: Final = Path(__file__).resolve().parents[2]
START_S: Final = 20.0
STOP_S: Final = 5.0


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 10.0, interval_s: float = 0.01) -> None:
    """Poll until condition() is true. Raises AssertionError saying ``what`` when the time is over."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(interval_s)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on, below the range of outgoing connections."""
    while True:
        port = random.randint(15_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def accepts(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether something listens on the port."""
    with suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def alive(pid: int) -> bool:
    """Tell whether a process exists and is no zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def children(pid: int) -> list[int]:
    """Return the direct children of a process."""
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def command_line(pid: int) -> str:
    """Return the command line of a process, or "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def environment(**changes: str) -> dict[str, str]:
    """Return the environment for a child that imports this checkout's m2gate."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **changes}


@contextmanager
def short_directory() -> Iterator[Path]:
    """Make a temporary directory whose path leaves room for the name of a socket; removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="m2t-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_pair(folder: Path, stem: str, names: Sequence[str], key: str = "ec") -> Path:
    """Write a self-signed ``stem.crt`` and ``stem.key`` for the names into folder; return the .crt.

    key: "ec", "rsa" or "ed25519".
    """
    kinds = {"ec": ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"], "rsa": ["rsa:2048"], "ed25519": ["ed25519"]}
    alternatives = ",".join(f"DNS:{name}" for name in names)
    command = ["openssl", "req", "-x509", "-newkey", *kinds[key], "-nodes"]
    command += ["-keyout", str(folder / f"{stem}.key"), "-out", str(folder / f"{stem}.crt"), "-days", "30"]
    command += ["-subj", f"/CN={names[0]}", "-addext", f"subjectAltName={alternatives}"]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return folder / f"{stem}.crt"


def peer_certificate(port: int, server_name: str | None) -> bytes:
    """Return the certificate, DER, that a TLS server shows for a name; None sends no name."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=server_name) as secure,
    ):
        certificate = secure.getpeercert(binary_form=True)
    assert certificate is not None
    return certificate


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
        return f"ipc://{self.folder}/control"

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


@dataclass
class Worker:
    """A running ``python -m m2gate.worker.process``; its stderr is in ``log``."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def stderr(self) -> str:
        """Return what the worker has written to stderr so far."""
        return self.log.read_text(errors="replace")

    def stop(self, timeout_s: float = 10.0) -> int:
        """Stop with SIGTERM, then SIGKILL; return the exit status."""
        return stop_process(self.process, timeout_s)


def stop_process(process: subprocess.Popen[Any], timeout_s: float = 10.0) -> int:
    """Send SIGTERM, after timeout_s SIGKILL, and wait; return the exit status."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)
    return int(process.returncode)


@contextmanager
def running(target: str | Path, *servers: Mongrel2, cwd: Path | None = None, **options: Any) -> Iterator[Worker]:
    """Run a worker process with TARGET behind the given servers, and wait until it is ready.

    target:  ``module:app`` or ``path/file.py[:app]``.
    options: entries of the worker's settings file, such as ``drain_timeout_s=1`` or ``access_log="-"``;
             ``environ={...}`` adds to its environment.
    """
    with short_directory() as folder:
        environ = options.pop("environ", {})
        settings = folder / "settings.json"
        document = {
            "target": str(target),
            "servers": [
                {"send_spec": one.send_spec, "recv_spec": one.recv_spec, "send_ident": one.send_ident}
                | ({"upload_store": f"{one.upload_store}/upload.XXXXXX"} if one.upload_store else {})
                for one in servers
            ],
            "patch": True,
            "access_log": None,
            "drain_timeout_s": 30,
            "run_dir": str(folder),
        }
        reader, writer = os.pipe()
        settings.write_text(json.dumps({**document, **options, "ready_fd": writer}))
        log = folder / "worker.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "m2gate.worker.process", str(settings)],
                cwd=cwd or ROOT,
                env=environment(**environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[writer],
            )
        os.close(writer)
        worker = Worker(process, log)
        try:
            _wait_line(reader, b"ready\n", worker)
            yield worker
        except BaseException:
            print(f"--- worker\n{worker.stderr()}", file=sys.stderr)
            raise
        finally:
            worker.stop()
            os.close(reader)


def _wait_line(reader: int, line: bytes, worker: Worker) -> None:
    got = b""
    deadline = time.monotonic() + START_S
    while line not in got:
        readable, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
        piece = os.read(reader, 1024) if readable else b""
        if not piece:
            raise AssertionError(f"the worker did not say {line!r}, only {got!r}")
        got += piece


class M2GateRun:
    """A running ``m2gate run``: its stdout and stderr as they come, its exit status at the end.

    runtime: the directory that stands for $XDG_RUNTIME_DIR; empty again after a clean stop.
    """

    def __init__(self, args: Sequence[str], cwd: Path, runtime: Path, environ: Mapping[str, str]) -> None:
        self.runtime = runtime
        self.process = subprocess.Popen(
            [sys.executable, "-m", "m2gate.cli", "run", *args],
            cwd=cwd,
            env=environment(**{"XDG_RUNTIME_DIR": str(runtime), **environ}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._texts: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        self._threads = [
            threading.Thread(target=self._collect, args=(name, getattr(self.process, name)), daemon=True)
            for name in self._texts
        ]
        for thread in self._threads:
            thread.start()

    def _collect(self, name: str, stream: Any) -> None:
        for line in stream:
            self._texts[name].append(line)
        stream.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stdout(self) -> str:
        return b"".join(self._texts["stdout"]).decode(errors="replace")

    @property
    def stderr(self) -> str:
        return b"".join(self._texts["stderr"]).decode(errors="replace")

    @property
    def url(self) -> str:
        """The URL of the ``listening on`` line."""
        return self.stdout.partition("listening on ")[2].split()[0]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def wait_listening(self, timeout_s: float = START_S) -> None:
        """Wait for the ``listening on`` line. Raises AssertionError if the process ends before."""

        def is_listening() -> bool:
            if "listening on " in self.stdout and self.stdout.endswith("\n"):
                return True
            if self.process.poll() is not None:
                raise AssertionError(f"m2gate run ended with {self.wait()}: {self.stderr}")
            return False

        wait_until(is_listening, "m2gate run says that it is listening", timeout_s)

    def wait(self, timeout_s: float = 20.0) -> int:
        """Wait for the end; return the exit status."""
        status = self.process.wait(timeout_s)
        for thread in self._threads:
            thread.join(timeout_s)
        return status

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 20.0) -> int:
        """Send a signal and wait for the end; return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait(timeout_s)

    def child(self, part: str) -> int:
        """Return the pid of the one child whose command line has ``part``."""
        found = [pid for pid in children(self.pid) if part in command_line(pid)]
        assert len(found) == 1, f"{len(found)} children with {part!r}"
        return found[0]


@contextmanager
def m2gate_run(
    *args: str | Path, cwd: Path | None = None, environ: Mapping[str, str] | None = None, wait: bool = True
) -> Iterator[M2GateRun]:
    """Run ``python -m m2gate.cli run ARGS`` and wait for its ``listening on`` line.

    ``--bind 127.0.0.1:PORT`` with a free port is added if args have no --bind.
    wait: False returns at once, for runs that are to fail.
    """
    texts = [str(arg) for arg in args]
    if "--bind" not in texts:
        texts += ["--bind", f"127.0.0.1:{free_port()}"]
    with short_directory() as runtime:
        run = M2GateRun(texts, cwd or ROOT, runtime, environ or {})
        try:
            if wait:
                run.wait_listening()
            yield run
        except BaseException:
            print(f"--- m2gate run, stdout\n{run.stdout}\n--- stderr\n{run.stderr}", file=sys.stderr)
            raise
        finally:
            _end(run)


def _end(run: M2GateRun) -> None:
    with suppress(subprocess.TimeoutExpired):
        run.stop()
    if run.process.poll() is None:
        run.process.kill()
        run.wait()
