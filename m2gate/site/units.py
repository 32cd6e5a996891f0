"""The systemd units of an installation, where systemd runs; elsewhere what to do is said instead."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from m2gate.errors import M2GateError
from m2gate.site.apply import Plan
from m2gate.site.changes import Change
from m2gate.site.places import Places

SYSTEMD: Final = Path("/run/systemd/system")
GATEWAY: Final = "m2gate-gateway.service"
TIMEOUT_S: Final = 120.0  # a worker that is stopped drains before that
VERBS: Final = {
    "start": ("enable", "--now"),
    "stop": ("disable", "--now"),
    "restart": ("restart",),
    "reload": ("reload",),
}


def commands(plan: Plan) -> list[list[str]]:
    """Return what systemctl is to be told, in this order: what goes, Mongrel2, the gateway, workers."""
    found = [_command(one) for one in plan.changes if one.action == "stop"]
    found += [_command(one) for one in plan.changes if one.is_server and one.action not in ("stop", "keep")]
    if plan.needs_gateway:
        found.append(["enable", "--now", GATEWAY])
        found.append(["reload", GATEWAY])
    found += [_command(one) for one in plan.changes if not one.is_server and one.action not in ("stop", "keep")]
    return found


def _command(change: Change) -> list[str]:
    return [*VERBS[change.action], change.unit]


def carry_out(plan: Plan, places: Places) -> Iterator[str]:
    """Do what is to be done besides the files; yield what was done or is left to do, line by line.

    Below another root than / nothing of the system is touched: certificates are read again by a SIGHUP to the
    process of the pid file, the rest is left to whoever started it.
    Raises M2GateError naming the command that failed.
    """
    if SYSTEMD.is_dir() and places.root == Path("/"):
        for words in commands(plan):
            _systemctl(words)
            yield f"systemctl {' '.join(words)}"
        return
    for change in plan.changes:
        if change.action == "reload" and change.is_running:
            with suppress(OSError, ValueError):  # it has ended meanwhile
                os.kill(int((places.control / f"{change.name}.pid").read_text()), signal.SIGHUP)
            yield f"{change.name}: told to read its certificates again"
        elif change.action != "keep":
            yield f"{change.name}: {change.action} it yourself, there is no systemd here: {_by_hand(change, places)}"
    if plan.needs_gateway:
        yield "gateway: send SIGHUP to m2gate gateway if it runs"


def _by_hand(change: Change, places: Places) -> str:
    return f"mongrel2 {places.database} {change.name}" if change.is_server else f"m2gate worker {change.name}"


def _systemctl(words: list[str]) -> None:
    command = ["systemctl", *words]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise M2GateError(f"{' '.join(command)}: {error}; the configuration is in its place, run it by hand") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().replace("\n", " ")
        raise M2GateError(f"{' '.join(command)} failed: {said}; the configuration is in its place")
