"""wrk as the client: one thread, fifty kept-alive connections."""

import re
import subprocess
from dataclasses import dataclass
from typing import Final

from bench.process import BenchError

CONNECTIONS: Final = 50
_DONE: Final = re.compile(r"(\d+) requests in ([0-9.]+)(ms|s|m),")
# A timeout is an answer that took wrk more than two seconds: slow, but no error.
_FAILED: Final = re.compile(r"Non-2xx|Socket errors: (?!connect 0, read 0, write 0,)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw: answered requests, and the seconds that took."""

    requests: int
    seconds: float


def load(url: str, seconds: int) -> Load:
    """Load url for so many seconds.

    Raises BenchError if any request failed or was not answered with 200.
    """
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    match = _DONE.search(done.stdout)
    if done.returncode != 0 or match is None or _FAILED.search(done.stdout):
        raise BenchError(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    return Load(int(match[1]), float(match[2]) * _SECONDS[match[3]])
