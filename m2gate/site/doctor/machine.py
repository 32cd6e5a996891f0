"""The machine: open files, clock, systemd's units."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from m2gate.site.doctor.database import number
from m2gate.site.doctor.facts import Facts
from m2gate.site.doctor.finding import Finding, finding

UNITS: Final = ("m2gate-mongrel2@.service", "m2gate-gateway.service", "m2gate-worker@.service", "m2gate.target")
UNIT_FOLDERS: Final = ("etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")
CLOCK_SLACK_S: Final = 300
TIMEDATECTL_S: Final = 10.0


def check_open_files(facts: Facts) -> Iterator[Finding]:
    """A running server may open fewer files than its setting says."""
    wanted = number(facts.database, "superpoll.max_fd") if facts.database else None
    for server_id, pid in facts.running().items():
        limit = open_files(pid)
        if wanted is not None and limit is not None and limit < wanted:
            what = f"server {server_id} may open {limit} files, but superpoll.max_fd is {wanted}"
            remedy = f"LimitNOFILE={wanted}: systemctl edit m2gate-mongrel2@{server_id}"
            yield finding("file-limit", f"pid {pid}", what, remedy)


def open_files(pid: int) -> int | None:
    """Return how many files a process may open, at most; None if there is no bound or no process."""
    try:
        limits = Path(f"/proc/{pid}/limits").read_text()
    except OSError:
        return None
    found = re.search(r"^Max open files\s+\S+\s+(\d+)", limits, re.MULTILINE)
    return int(found[1]) if found else None


def check_clock(facts: Facts) -> Iterator[Finding]:
    """The clock is behind what has been written here, or nobody corrects it."""
    files = [facts.places.database, facts.places.settings, Path(__file__)]
    for file in files:
        if file.exists() and file.stat().st_mtime > facts.now_s + CLOCK_SLACK_S:
            what = (
                "this file was written in the future: the clock is or was wrong, and certificates seem valid or expired"
            )
            yield finding("clock", file, what, "correct the clock, e.g. timedatectl set-ntp true; then touch the file")
    if facts.is_system and facts.has_systemd and _is_unsynchronised():
        what = "nobody corrects the clock: sooner or later certificates seem expired, or not valid yet"
        yield finding("clock", "timedatectl", what, "timedatectl set-ntp true, or install chrony")


def _is_unsynchronised() -> bool:
    try:
        done = subprocess.run(
            ["timedatectl", "show", "--property=NTPSynchronized", "--value"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEDATECTL_S,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return done.stdout.strip() == "no"


def check_units(facts: Facts) -> Iterator[Finding]:
    """Units are missing where systemd runs."""
    if not facts.has_systemd:
        return
    for unit in UNITS:
        if not any((facts.places.root / folder / unit).exists() for folder in UNIT_FOLDERS):
            yield finding(
                "unit", unit, "systemd has no such unit", "install m2gate again: apt install --reinstall m2gate"
            )
