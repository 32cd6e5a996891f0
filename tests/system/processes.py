"""Processes, ports, files and certificates for tests."""

import os
import random
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

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
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", **changes}


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
