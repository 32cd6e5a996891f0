"""The directory of one ``m2gate run`` or ``m2gate worker``: sockets, configuration, logs; gone when it ends.

Whoever runs holds a lock on its directory, so one whose lock is free belongs to a dead process.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final

from m2gate.errors import M2GateError
from m2gate.site.check import IPC_PATH_MAX

# What the names of sockets in a run directory need; a base that leaves less room is not used.
_NAMES_MAX: Final = len("/workers-4194304/worker-99999/replies")


class RunError(M2GateError):
    """What was asked for failed; reported as one line, exit status 1."""


def base_directory() -> Path:
    """Return the folder of all run directories: ``$XDG_RUNTIME_DIR/m2gate``, or a short one in /tmp.

    $XDG_RUNTIME_DIR counts if it exists, may be written, and is short enough for sockets.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    base = Path(runtime) / "m2gate"
    fits = len(os.fsencode(base)) + _NAMES_MAX <= IPC_PATH_MAX
    if runtime.startswith("/") and fits and os.access(runtime, os.W_OK | os.X_OK):
        return base
    # /tmp, and not $TMPDIR, which may be as long as anything.
    return Path("/tmp") / f"m2gate-{os.getuid()}"  # noqa: S108 - owner and mode are checked


def run_directory(port: int) -> AbstractContextManager[Path]:
    """Make ``run-PORT``, see held_directory."""
    return held_directory(f"run-{port}", "stop that, or choose another port")


def workers_directory() -> AbstractContextManager[Path]:
    """Make a directory for the workers of this process, see held_directory."""
    return held_directory(f"workers-{os.getpid()}", "stop that")


@contextmanager
def held_directory(name: str, remedy: str) -> Iterator[Path]:
    """Make a folder (0700) and hold it; at the end remove it, and its parent if that is empty.

    Directories that dead processes left are removed on the way.
    Raises RunError if another process holds it (remedy says what to do then) or it cannot be made.
    """
    base = base_directory()
    folder = base / name
    try:
        lock = _make(base, folder, remedy)
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be made: {error.strerror}; set XDG_RUNTIME_DIR to a folder of yours"
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
        with suppress(OSError):  # others run there
            base.rmdir()


def _make(base: Path, folder: Path, remedy: str) -> int:
    while True:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(base)
        try:
            base_lock = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # another one has just ended and removed it
        try:
            fcntl.flock(base_lock, fcntl.LOCK_EX)
            _remove_stale(base)
            folder.mkdir(mode=0o700)
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            return lock
        except FileNotFoundError:
            continue
        except FileExistsError as error:
            raise RunError(f"{folder}: another m2gate run holds it; {remedy}") from error
        finally:
            os.close(base_lock)


def _check_owner(base: Path) -> None:
    status = base.lstat()
    if status.st_uid != os.getuid() or not os.path.isdir(base) or os.path.islink(base):
        raise RunError(f"{base}: belongs to somebody else; set XDG_RUNTIME_DIR to a folder of yours")
    base.chmod(0o700)


def _remove_stale(base: Path) -> None:
    for folder in (*base.glob("run-*"), *base.glob("workers-*")):
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue  # it has just been removed, or is no directory
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(lock)


def scratch_directory() -> "tempfile.TemporaryDirectory[str]":
    """Return a private temporary directory with a short path, removed when it is closed."""
    return tempfile.TemporaryDirectory(prefix="m2gate-", dir="/tmp")
