"""``m2gate run`` by its contract: options, their defaults, one-line errors, and who gets which stream."""

import http.client
import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.system.runs import fails, get, in_background
from tests.system.support import M2GateRun, alive, m2gate_run, wait_until

# key, what is wrong, what to do: one line
LINE = re.compile(r"m2gate: .+ = '.*': .+; .+\n")

MISTAKES = [
    pytest.param(["app.py", "--bind", "nowhere"], "--bind = 'nowhere'", id="bind"),
    pytest.param(["app.py", "--bind", "127.0.0.1:70000"], "--bind = '127.0.0.1:70000'", id="port"),
    pytest.param(["app.py", "--static", "public"], "--static = 'public'", id="static"),
    pytest.param(["app.py", "--static", "/x=/none/such"], "--static = '/x=/none/such'", id="static-folder"),
    pytest.param(["app.py", "--tls-certs", "/none/such"], "--tls-certs = '/none/such'", id="tls-certs"),
    pytest.param(["app.py", "--access-log", "/none/such/log"], "--access-log = '/none/such/log'", id="access-log"),
    pytest.param(["none.py"], "TARGET = 'none.py'", id="file"),
    pytest.param(["none"], "TARGET = 'none'", id="module"),
    pytest.param(["none:app"], "TARGET = 'none:app'", id="module-and-name"),
    pytest.param([""], "TARGET = ''", id="nothing"),
    pytest.param([":app"], "TARGET = ':app'", id="only-a-name"),
    pytest.param(["app.py:index"], "TARGET = 'app.py:index'", id="no-app"),
    pytest.param(["."], "TARGET = '.'", id="folder-with-a-file-that-has-none"),
]


@pytest.mark.parametrize(("args", "begin"), MISTAKES)
def test_a_mistake_is_one_line_and_2(app: Path, args: list[str], begin: str) -> None:
    (app.parent / "other.py").touch()
    status, line = fails(*args, cwd=app.parent)
    assert status == 2
    assert LINE.fullmatch(line), line
    assert line.removeprefix("m2gate: ").startswith(begin) or (args == ["."] and "other.py" in line)


USAGE = [["--max-requests", "0"], ["--max-requests", "many"], ["--drain-timeout", "-1"], ["app.py", "more"]]


@pytest.mark.parametrize("args", USAGE, ids=" ".join)
def test_wrong_usage_is_one_line_and_2(app: Path, args: list[str]) -> None:
    status, line = fails(*args, cwd=app.parent)
    assert (status, line.count("\n")) == (2, 1)
    assert line.startswith("m2gate: ")
    assert line.endswith("; see m2gate run --help\n")


@pytest.mark.parametrize("option", ["--route", "--command", "--sig-key", "--condure"])
def test_options_of_later_are_unknown(app: Path, option: str) -> None:
    status, line = fails(app, option, "1")
    assert (status, line) == (2, f"m2gate: No such option '{option}'; see m2gate run --help\n")


def test_a_hook_that_fails_at_the_start_is_told_in_one_line(app: Path) -> None:
    app.write_text("from m2gate import App\napp = App()\n@app.on_start\ndef begin():\n    open('/none/such')\n")
    status, line = fails(app)
    assert status == 2
    assert line.startswith(f"m2gate: {app}:5: TARGET = '{app}': FileNotFoundError: ")
    assert line.count("\n") == 1


def test_code_that_ends_the_process_at_import(app: Path) -> None:
    app.write_text("import sys\nsys.exit(0)\n")
    status, line = fails(app)
    assert status == 2
    assert line.startswith(f"m2gate: {app}:2: TARGET = ")
    assert line.count("\n") == 1


def test_hooks_of_the_life_run_once_in_each_worker(app: Path) -> None:
    app.write_text(
        app.read_text()
        + "import sys\n"
        + "@app.on_start\ndef begin():\n    print(f'begin {os.getpid()}', file=sys.stderr)\n"
        + "@app.on_stop\ndef end():\n    print(f'end {os.getpid()}', file=sys.stderr)\n"
    )
    with m2gate_run(app) as run:
        first = get(run, "/pid")
        run.process.send_signal(signal.SIGHUP)
        wait_until(lambda: served_by(run) not in (None, first), "the next one answers")
        second = get(run, "/pid")
        assert run.stop() == 0
        lines = [line for line in run.stderr.splitlines() if line.split(" ")[0] in ("begin", "end")]
    assert lines == [f"begin {first}", f"end {first}", f"begin {second}", f"end {second}"]


def test_what_an_app_prints_and_logs_goes_to_stderr(app: Path) -> None:
    with app.open("a") as file:
        file.write("print('at import')\n@app.get('/fail')\ndef fail(request):\n    print('before')\n    1 / 0\n")
    with m2gate_run(app) as run:
        with pytest.raises(AssertionError, match="500"):
            get(run, "/fail")
        get(run)
        assert run.stop() == 0
        assert run.stdout == f"listening on http://127.0.0.1:{run.port}\n"
        assert "at import\n" in run.stderr
        assert "before\n" in run.stderr
        assert "ZeroDivisionError" in run.stderr
        assert "request_id=" in run.stderr


def served_by(run: M2GateRun) -> str | None:
    """Return the process that answers; None for 503, and for what comes just when the sockets change hands."""
    try:
        return get(run, "/pid")
    except http.client.RemoteDisconnected:
        return None
    except AssertionError as error:
        if "503" not in str(error):
            raise
        return None


def test_max_requests_lets_a_fresh_process_take_over(app: Path) -> None:
    with m2gate_run(app, "--max-requests", "20") as run:
        seen: list[str] = []

        def has_changed_twice() -> bool:
            pid = served_by(run)
            seen.extend([pid] if pid is not None else [])
            return len(set(seen)) == 3

        wait_until(has_changed_twice, "two have taken over", 30)
        assert all(seen.count(pid) >= 20 for pid in seen[:-1])
        wait_until(lambda: not alive(int(seen[0])), "the first has gone")
        assert run.stop() == 0


def test_the_run_directory_without_a_runtime_of_the_session(app: Path) -> None:
    with m2gate_run(app, environ={"XDG_RUNTIME_DIR": ""}) as run:
        folder = Path(f"/tmp/m2gate-{os.getuid()}/run-{run.port}")
        assert (folder / "requests").is_socket()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert run.stop() == 0
        assert not folder.exists()


@pytest.mark.parametrize("is_spent", [False, True])
def test_while_the_next_one_waits_for_the_last_request_nobody_is_refused(app: Path, *, is_spent: bool) -> None:
    with m2gate_run(app, *(["--max-requests", "3"] if is_spent else [])) as run:
        with in_background(run, "/slow/3") as results:
            first = get(run, "/pid")
            if not is_spent:
                run.process.send_signal(signal.SIGHUP)
            wait_until(lambda: "draining" in run.stderr, "the first one drains")
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                assert get(run, "/pid") == first
        assert results == ["slept"]
        # What comes in the tenth of a second of the change itself may get 503 with Retry-After.
        wait_until(lambda: (pid := served_by(run)) is not None and pid != first, "the next one answers")


def test_a_drain_waits_for_what_is_open(app: Path) -> None:
    """The default is 30 s, so 3 s are not cut."""
    with m2gate_run(app) as run:
        with in_background(run, "/slow/3") as results:
            started = time.monotonic()
            assert run.stop() == 0
            assert time.monotonic() - started < 20
        assert results == ["slept"]
