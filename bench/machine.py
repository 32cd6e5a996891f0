"""What the machine is, and who used its cores while something was measured."""

import os
import platform
import subprocess
import time
from collections import defaultdict
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PACKAGES: Final = ("pyzmq", "gevent", "tnetstring3", "uvicorn", "uvloop", "httptools", "starlette", "granian")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds so far: of the whole machine, and of this process with all its descendants.

    Interrupts are left out on both sides: the kernel serves them on whatever process is running.
    """

    at_s: float
    machine_s: float
    own_s: float


def usage() -> Usage:
    """Read both clocks now."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    user, nice, system, _idle, _iowait, _irq, _softirq, steal = (int(field) for field in fields[1:9])
    return Usage(time.monotonic(), (user + nice + system + steal) / TICKS_PER_S, cpu_s([os.getpid()]))


def foreign_share(before: Usage, after: Usage) -> float:
    """Return the part of the machine's cores, 0 to 1, that other processes used in between."""
    wall_s = (after.at_s - before.at_s) * (os.cpu_count() or 1)
    foreign_s = (after.machine_s - before.machine_s) - (after.own_s - before.own_s)
    return max(0.0, foreign_s / wall_s)


def cpu_s(roots: list[int]) -> float:
    """Return the CPU seconds, user and system, of these processes, their threads and descendants.

    Descendants that have ended count through the parent that waited for them.
    """
    times: dict[int, int] = {}
    children: dict[int, list[int]] = defaultdict(list)
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path("/proc", entry, "stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended since listdir
        fields = stat[stat.rindex(")") + 2 :].split()  # the name before it may hold anything
        times[int(entry)] = sum(int(field) for field in fields[11:15])  # utime stime cutime cstime
        children[int(fields[1])].append(int(entry))
    ticks = 0
    queue = list(roots)
    while queue:
        pid = queue.pop()
        ticks += times.get(pid, 0)
        queue += children[pid]
    return ticks / TICKS_PER_S


def facts() -> dict[str, str]:
    """Return what a reader needs to know about the machine and the versions that were measured."""
    memory_kib = int(Path("/proc/meminfo").read_text(encoding="ascii").split("\n", 1)[0].split()[1])
    found = {
        "cores": str(os.cpu_count()),
        "processor": _processor(),
        "memory": f"{memory_kib / 2**20:.0f} GiB",
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load before": f"{os.getloadavg()[0]:.2f}",
        "mongrel2": _debian_version("mongrel2-core"),
        "wrk": _debian_version("wrk"),
    }
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _debian_version(package: str) -> str:
    command = ["dpkg-query", "--show", "--showformat=${Version}", package]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return "unknown"
