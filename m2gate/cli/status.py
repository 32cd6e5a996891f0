"""``m2gate status``: how a running m2gate is, once, as JSON, or as a live view."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from m2gate.errors import ConfigError, M2GateError

if TYPE_CHECKING:
    from m2gate.cli.status_view import Snapshot

INTERVAL_S: Final = 1.0
ANSWER_S: Final = 2.0
SOCKETS: Final = ("status", "gateway/status")  # in a run directory, or in a gateway's folder


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The whole document, for scripts; see docs/reference/status.md.")
@click.option("--watch", is_flag=True, help="Anew each second, with rates; q or Ctrl-C ends it.")
@click.option("--run", metavar="PORT", help="Which one: the port of an m2gate run, or a gateway's folder.")
def command(*, as_json: bool, watch: bool, run: str | None) -> None:
    """Show how a running m2gate is: servers, workers, queue, channels, and what went wrong.

    Without --run it finds the only m2gate run of this user, else the gateway of the enabled sites. Exit
    status 1: none runs, or it does not answer; then what its supervisor knows is shown.
    """
    if as_json and watch:
        raise click.UsageError("--json and --watch exclude each other: a script asks as often as it likes")
    folder = find_folder(run)
    if watch:
        is_good = _watch(folder)
    else:
        now = look(folder)
        is_good = now.document is not None
        if as_json:
            _print_json(now)
        else:
            _print_text(now)
    raise click.exceptions.Exit(0 if is_good else 1)


def find_folder(run: str | None) -> Path:
    """Return the folder that has the status socket: of a run's port, of a path, or of the only run there is.

    Raises RunError if there is none or more than one, ConfigError for what is neither port nor folder.
    """
    from m2gate.cli.rundir import RunError, base_directory
    from m2gate.gateway.place import default_folder

    base = base_directory()
    if run is not None and not run.isdigit():
        if not Path(run).is_dir():
            raise ConfigError("--run", run, "neither a port nor a folder", "write e.g. 6767 or /run/m2gate/gateway")
        return Path(run)
    ports = sorted(running_ports(base))
    if run is not None:
        if int(run) not in ports:
            hint = f"; these do: {', '.join(map(str, ports))}" if ports else ""
            raise RunError(f"--run {run}: no m2gate run has this port{hint}")
        return base / f"run-{int(run)}"
    if not ports:
        gateway = Path(default_folder())
        if _is_held(gateway):
            return gateway
        raise RunError(f"no m2gate run of yours in {base}, and no gateway in {gateway}; --run says which")
    if len(ports) > 1:
        raise RunError(f"several run: {', '.join(map(str, ports))}; say which, e.g. --run {ports[0]}")
    return base / f"run-{ports[0]}"


def running_ports(base: Path) -> list[int]:
    """Return the ports of the runs whose directory is held by a process that lives."""
    ports = [folder.name.removeprefix("run-") for folder in base.glob("run-*") if _is_held(folder)]
    return [int(port) for port in ports if port.isdigit()]


def _is_held(folder: Path) -> bool:
    import fcntl
    import os

    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def look(folder: Path, timeout_s: float = ANSWER_S) -> "Snapshot":
    """Ask the process and read what its supervisor wrote. Raises nothing: an error is part of the answer."""
    from m2gate.cli.status_view import Snapshot
    from m2gate.inputs.status_client import StatusClient

    path = next((folder / name for name in SOCKETS if (folder / name).exists()), folder / SOCKETS[0])
    supervisor = read_supervisor(folder)
    try:
        document = StatusClient(path, timeout_s).ask()
    except M2GateError as error:
        return Snapshot(document=None, supervisor=supervisor, error=str(error), taken_s=time.monotonic())
    return Snapshot(document=document, supervisor=supervisor, taken_s=time.monotonic())


def read_supervisor(folder: Path) -> Mapping[str, Any] | None:
    """Return what the supervisor of a run knows; None if there is none."""
    try:
        found = json.loads((folder / "supervisor.json").read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _print_json(now: "Snapshot") -> None:
    document: dict[str, Any] = dict(now.document or {})
    click.echo(json.dumps({**document, "supervisor": now.supervisor}, indent=2))
    if now.document is None:
        click.echo(f"m2gate: {now.error}", err=True)


def _print_text(now: "Snapshot") -> None:
    from m2gate.cli.screen import Screen
    from m2gate.cli.status_view import Rates, View

    view = View(Screen.size()[0], colour=has_colours())
    click.echo("\n".join(view.render(now, Rates())))


def has_colours() -> bool:
    """Tell whether stdout is a terminal whose user does not refuse colours (NO_COLOR, TERM=dumb)."""
    import os

    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _watch(folder: Path) -> bool:
    return _watch_screen(folder) if sys.stdout.isatty() else _watch_lines(folder)


def _watch_screen(folder: Path) -> bool:
    """Show a live view until it is to end; tell whether the process answered in the end."""
    from m2gate.cli.screen import Screen
    from m2gate.cli.status_view import Rates, View

    colour = has_colours()
    before = now = look(folder, INTERVAL_S)
    with Screen() as screen:
        while True:
            columns, rows = screen.size()
            view = View(columns, colour=colour, rows=max(rows - 1, 1), watched=True)
            lines = view.render(now, Rates.between(before, now))
            screen.draw([*lines, *[""] * (rows - 1 - len(lines)), view.footer()])
            if not screen.wait(INTERVAL_S):
                return now.document is not None
            # A change of the terminal's size ends the wait early: rates are of a whole interval.
            if time.monotonic() - now.taken_s >= INTERVAL_S * 0.9:
                before, now = now, look(folder, INTERVAL_S)


def _watch_lines(folder: Path) -> bool:
    """Print a block each second until Ctrl-C, or until nobody reads them any more."""
    from m2gate.cli.screen import Screen
    from m2gate.cli.status_view import Rates, View

    before = now = look(folder)
    view = View(Screen.size()[0], colour=False, watched=True)
    try:
        while True:
            print("\n".join(view.render(now, Rates.between(before, now))), end="\n\n", flush=True)
            if not folder.exists():
                return False
            time.sleep(INTERVAL_S)
            before, now = now, look(folder)
    except KeyboardInterrupt:
        return now.document is not None
    except BrokenPipeError:
        # The interpreter flushes stdout once more at its end.
        sys.stdout = None
        return True
