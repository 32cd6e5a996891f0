"""What the tests of ``m2gate run`` share: an application, and questions to it."""

import http.client
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from tests.system.support import M2GateRun, accepts, alive, children, m2gate_run, wait_until

APP = """
import os, time
from m2gate import App
app = App()

@app.get("/")
def index(request):
    return "VERSION\\n"

@app.get("/pid")
def pid(request):
    return str(os.getpid())

@app.get("/slow/{seconds:int}")
def slow(request, seconds):
    time.sleep(seconds)
    return "slept"

@app.json_socket("@echo")
def echo(request):
    return request.json
"""


def write_app(path: Path, version: str) -> Path:
    new = path.with_suffix(".new")
    new.write_text(APP.replace("VERSION", version))
    new.replace(path)
    return path


def get(run: M2GateRun, path: str = "/", timeout_s: float = 10.0) -> str:
    client = http.client.HTTPConnection("127.0.0.1", run.port, timeout=timeout_s)
    with closing(client):
        client.request("GET", path)
        answer = client.getresponse()
        body = answer.read().decode()
        assert answer.status == 200, (answer.status, body)
        return body.rstrip("\n")


def answers(run: M2GateRun, body: str) -> bool:
    with suppress(OSError, http.client.HTTPException, AssertionError):
        return get(run, timeout_s=2) == body
    return False


def family(pid: int) -> list[int]:
    """The process and all that it started."""
    return [pid, *[one for child in children(pid) for one in family(child)]]


def assert_nothing_left(run: M2GateRun, pids: list[int]) -> None:
    wait_until(lambda: not any(alive(pid) for pid in pids), "all processes are gone")
    assert os.listdir(run.runtime) == []
    assert not accepts(run.port)


def fails(*args: str | Path, **options: object) -> tuple[int, str]:
    with m2gate_run(*args, wait=False, **options) as run:  # type: ignore[arg-type]
        status = run.wait()
        assert run.stdout == ""
        assert "Traceback" not in run.stderr
        assert os.listdir(run.runtime) == []
        # On a busy machine it may also have said what it waits for.
        return status, "".join(line for line in run.stderr.splitlines(keepends=True) if " s so far" not in line)


@contextmanager
def in_background(run: M2GateRun, path: str) -> Iterator[list[str]]:
    """Ask for a path in a thread, and go on once the worker has the request; results come at the end."""
    results: list[str] = []

    def ask() -> None:
        with suppress(OSError, http.client.HTTPException):
            results.append(get(run, path, timeout_s=30))

    thread = threading.Thread(target=ask)
    thread.start()
    # A request that was sent later has been answered, so this one has been received.
    time.sleep(0.2)
    get(run)
    yield results
    thread.join(30)
