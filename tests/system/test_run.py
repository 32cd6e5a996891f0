"""``m2gate run`` as a person at a terminal sees it: it starts, serves, stops, and says what is wrong."""

import http.client
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.system.runs import assert_nothing_left, fails, family, get, write_app
from tests.system.support import alive, environment, free_port, m2gate_run, short_directory, wait_until

TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_start_serve_stop_and_start_again(app: Path, number: signal.Signals) -> None:
    bind = f"127.0.0.1:{free_port()}"
    for _ in range(2):
        with m2gate_run(app, "--bind", bind) as run:
            assert run.stdout == f"listening on http://{bind}\n"
            assert get(run) == "one"
            pids = family(run.pid)
            assert len(pids) >= 3
            assert (run.runtime / "m2gate" / f"run-{run.port}").stat().st_mode & 0o777 == 0o700
            assert run.stop(number) == 0
            assert_nothing_left(run, pids)
            assert run.stdout == f"listening on http://{bind}\n"


def test_app_py_is_found(tmp_path: Path) -> None:
    write_app(tmp_path / "app.py", "found")
    (tmp_path / "handlers").mkdir()
    with m2gate_run(cwd=tmp_path) as run:
        assert get(run) == "found"


def test_handlers_are_found(tmp_path: Path) -> None:
    (tmp_path / "handlers").mkdir()
    write_app(tmp_path / "handlers" / "shop.py", "found in a folder")
    with m2gate_run(cwd=tmp_path) as run:
        assert get(run, "/shop/") == "found in a folder"


def test_ctrl_c_at_a_terminal(app: Path) -> None:
    """The terminal sends SIGINT to its foreground group; the children must not be in it."""
    with short_directory() as runtime:
        port = free_port()
        terminal = subprocess.Popen(
            [sys.executable, "-c", TERMINAL, sys.executable, "-m", "m2gate", "run", str(app), "--bind", f":{port}"],
            env=environment(XDG_RUNTIME_DIR=str(runtime)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with terminal:
            assert terminal.stdin is not None
            assert terminal.stdout is not None
            lines = iter(terminal.stdout.readline, b"")
            assert any(b"listening on" in line for line in lines)
            pids = family(terminal.pid)
            terminal.stdin.write(b"\x03")
            terminal.stdin.flush()
            assert b"Traceback" not in b"".join(lines)
            assert terminal.wait(20) == 0
        wait_until(lambda: not any(alive(pid) for pid in pids), "all processes are gone")
        assert os.listdir(runtime) == []


def test_module_target(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    write_app(tmp_path / "shop" / "web.py", "module")
    with m2gate_run("shop.web:app", cwd=tmp_path) as run:
        assert get(run) == "module"


def test_port_0_is_any_free_one(app: Path) -> None:
    with m2gate_run(app, "--bind", "127.0.0.1:0") as run:
        assert run.port > 0
        assert get(run) == "one"


def test_ipv6(app: Path) -> None:
    port = free_port()
    with m2gate_run(app, "--bind", f"[::1]:{port}") as run:
        assert run.stdout == f"listening on http://[::1]:{port}\n"
        client = http.client.HTTPConnection("::1", port, timeout=10)
        with closing(client):
            client.request("GET", "/")
            assert client.getresponse().read() == b"one\n"


def test_two_runs_side_by_side(app: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = write_app(tmp_path / "other" / "app.py", "two")
    with m2gate_run(app) as first, m2gate_run(other, environ={"XDG_RUNTIME_DIR": str(first.runtime)}) as second:
        assert (get(first), get(second)) == ("one", "two")
        second.stop()
        assert get(first) == "one"


def test_json_sockets_are_routed(app: Path) -> None:
    with m2gate_run(app) as run, socket.create_connection(("127.0.0.1", run.port), timeout=10) as client:
        client.sendall(b'@echo {"a": 1}\0')
        assert client.recv(100)


def test_taken_port(app: Path) -> None:
    with m2gate_run(app) as run:
        status, line = fails(app, "--bind", f"127.0.0.1:{run.port}")
        assert status == 1
        assert line.startswith(f"m2gate: --bind = '127.0.0.1:{run.port}': Address already in use; ")
        assert line.count("\n") == 1
        assert get(run) == "one"


def test_address_of_another_machine(app: Path) -> None:
    status, line = fails(app, "--bind", "192.0.2.1:0")
    assert status == 1
    assert line == (
        "m2gate: --bind = '192.0.2.1:0': Cannot assign requested address;"
        " use an address of this machine, or 0.0.0.0 for all of them\n"
    )


def test_missing_mongrel2(app: Path, tmp_path: Path) -> None:
    status, line = fails(app, environ={"PATH": str(tmp_path)})
    assert status == 1
    assert line.startswith("m2gate: mongrel2: no such program in PATH; install Mongrel2")
    assert line.count("\n") == 1


def test_mongrel2_that_does_not_start(app: Path, tmp_path: Path) -> None:
    broken = tmp_path / "bin" / "mongrel2"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'now [ERROR] (main.c) no luck today' >&2\nexit 3\n")
    broken.chmod(0o755)
    status, text = fails(app, environ={"PATH": f"{broken.parent}:{os.environ['PATH']}"})
    assert status == 1
    assert "m2gate: mongrel2 ended with status 3: (main.c) no luck today\n" in text


BAD_TARGETS = [
    pytest.param("nothing.py", "nothing.py", id="no-file"),
    pytest.param("nothing.at.all:app", "nothing", id="no-module"),
    pytest.param("empty.py", "empty.py", id="no-app"),
    pytest.param("app.py:other", "other", id="no-such-name"),
    pytest.param("app.py:index", "index", id="no-app-of-that-name"),
]


@pytest.mark.parametrize(("target", "named"), BAD_TARGETS)
def test_bad_target(app: Path, target: str, named: str) -> None:
    (app.parent / "empty.py").touch()
    status, line = fails(target, cwd=app.parent)
    assert status == 2
    assert line.startswith("m2gate: ")
    assert named in line
    assert line.count("\n") == 1


def test_syntax_error_shows_its_line(app: Path) -> None:
    app.write_text("import m2gate\n\napp = m2gate.App(\n    )]\n")
    status, line = fails(app)
    assert status == 2
    assert line.startswith(f"m2gate: {app}:4: ")
    assert "SyntaxError" in line
    assert "')]'" in line
    assert line.count("\n") == 1


def test_import_error_says_where(app: Path) -> None:
    app.write_text("import m2gate\nimport no_such_module\n")
    status, line = fails(app)
    assert status == 2
    assert f"{app}:2" in line
    assert "No module named 'no_such_module'" in line
    assert line.count("\n") == 1


def test_stop_while_the_code_is_loaded(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(f"open({str(tmp_path / 'mark')!r}, 'w').close()\nimport time\ntime.sleep(60)\n")
    with m2gate_run(app, wait=False) as run:
        wait_until((tmp_path / "mark").exists, "the code is being loaded")
        pids = family(run.pid)
        assert run.stop() == 0
        assert run.stdout == ""
        wait_until(lambda: not any(alive(pid) for pid in pids), "all processes are gone")
        assert os.listdir(run.runtime) == []
