"""Stopping, reloading and dying: what ``m2gate run`` does about its processes."""

import http.client
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.system.runs import APP, answers, assert_nothing_left, family, get, in_background, write_app
from tests.system.support import M2GateRun, alive, children, command_line, m2gate_run, wait_until


def test_stop_lets_a_request_finish(app: Path) -> None:
    with m2gate_run(app) as run, in_background(run, "/slow/1") as results:
        assert run.stop() == 0
    assert results == ["slept"]


def test_second_signal_stops_at_once(app: Path) -> None:
    with m2gate_run(app) as run, in_background(run, "/slow/60"):
        pids = family(run.pid)
        run.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            run.process.wait(1)
        started = time.monotonic()
        assert run.stop(signal.SIGINT) == 0
        assert time.monotonic() - started < 5
        assert_nothing_left(run, pids)


def test_drain_timeout(app: Path) -> None:
    with m2gate_run(app, "--drain-timeout", "0.5") as run, in_background(run, "/slow/60"):
        started = time.monotonic()
        assert run.stop() == 0
        assert time.monotonic() - started < 8


def test_hangup_loads_the_new_code(app: Path) -> None:
    with m2gate_run(app) as run:
        first = get(run, "/pid")
        write_app(app, "two")
        run.process.send_signal(signal.SIGHUP)
        wait_until(lambda: answers(run, "two"), "the new code answers")
        assert get(run, "/pid") != first
        assert run.process.poll() is None


def test_hangups_in_a_row_cut_nothing(app: Path) -> None:
    with m2gate_run(app) as run:
        with in_background(run, "/slow/2") as results:
            write_app(app, "two")
            for _ in range(3):
                run.process.send_signal(signal.SIGHUP)
                time.sleep(0.3)
        assert results == ["slept"]
        wait_until(lambda: answers(run, "two"), "the new code answers")
        assert len(children(run.pid)) == 2


def test_hangup_keeps_the_old_code_if_the_new_is_broken(app: Path) -> None:
    with m2gate_run(app) as run:
        first = get(run, "/pid")
        app.write_text("app = (\n")
        run.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the old code goes on" in run.stderr, "the failure is said")
        assert "was never closed" in run.stderr
        assert get(run, "/pid") == first
        write_app(app, "three")
        run.process.send_signal(signal.SIGHUP)
        wait_until(lambda: answers(run, "three"), "the mended code answers")


def test_reload_on_change(app: Path) -> None:
    with m2gate_run(app, "--reload") as run:
        write_app(app, "two")
        wait_until(lambda: answers(run, "two"), "the new code answers")
        assert f"m2gate: {app} changed; loading the code again" in run.stderr
        (app.parent / "helper.py").write_text("word = 'three'\n")
        app.write_text(APP.replace('"VERSION\\n"', "helper.word").replace("import os", "import helper, os"))
        wait_until(lambda: answers(run, "three"), "the helper is used")
        (app.parent / "helper.py").write_text("word = 'and four'\n")
        wait_until(lambda: answers(run, "and four"), "the changed helper is used")


def test_reload_cuts_what_stays_open(app: Path) -> None:
    with m2gate_run(app, "--reload") as run, in_background(run, "/slow/30"):
        write_app(app, "two")
        wait_until(lambda: answers(run, "two"), "the new code answers", timeout_s=15)


def test_systemd_is_told(app: Path, short_tmp: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(short_tmp / "notify"))
        notified.settimeout(20)
        with m2gate_run(app, environ={"NOTIFY_SOCKET": str(short_tmp / "notify")}) as run:
            assert notified.recv(100) == b"READY=1"
            run.stop()
            assert notified.recv(100) == b"STOPPING=1"


def test_mongrel2_killed_under_load(app: Path) -> None:
    stop = threading.Event()
    with m2gate_run(app) as run:
        threads = [threading.Thread(target=load, args=(run, stop)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3):
                mongrel2 = run.child("mongrel2.sqlite")
                os.kill(mongrel2, signal.SIGKILL)
                wait_until(lambda pid=mongrel2: not alive(pid), "it is dead")  # type: ignore[misc]
                wait_until(lambda: answers(run, "one"), "service is back", timeout_s=2 + 5)
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
        assert "mongrel2 was ended by SIGKILL; starting it again" in run.stderr
        assert get(run) == "one"


def load(run: M2GateRun, stop: threading.Event) -> None:
    while not stop.is_set():
        answers(run, "one")


def test_service_is_back_within_2_s_of_the_restart(app: Path) -> None:
    with m2gate_run(app) as run:
        before = run.child("mongrel2.sqlite")
        os.kill(before, signal.SIGKILL)
        wait_until(
            lambda: any("mongrel2.sqlite" in command_line(pid) and pid != before for pid in children(run.pid)), ""
        )
        started = time.monotonic()
        wait_until(lambda: answers(run, "one"), "service is back")
        assert time.monotonic() - started < 2


def test_worker_killed(app: Path) -> None:
    with m2gate_run(app) as run:
        os.kill(int(get(run, "/pid")), signal.SIGKILL)
        wait_until(lambda: answers(run, "one"), "another worker answers")
        assert "the worker was ended by SIGKILL; starting it again" in run.stderr


def test_clients_of_a_dead_worker_are_not_left_hanging(app: Path) -> None:
    """What it had received is lost, and its clients are told so by a close, in seconds instead of minutes."""
    with m2gate_run(app) as run, socket.create_connection(("127.0.0.1", run.port), timeout=10) as client:
        client.sendall(b"GET /slow/60 HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: run.stderr, "the worker is there")
        worker = int(get(run, "/pid"))
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: answers(run, "one"), "another worker answers")
        assert client.recv(100) == b""
        wait_until(lambda: "closed connections that were left behind count=" in run.stderr, "it is said")
        assert get(run, "/slow/2") == "slept"


def test_nothing_outlives_a_killed_parent_and_the_next_start_cleans_up(app: Path) -> None:
    with m2gate_run(app) as run:
        pids = family(run.pid)
        run.process.kill()
        run.wait()
        wait_until(lambda: not any(alive(pid) for pid in pids), "all processes are gone")
        assert os.listdir(run.runtime / "m2gate") == [f"run-{run.port}"]
        again = ["--bind", f"127.0.0.1:{run.port}"]
        with m2gate_run(app, *again, environ={"XDG_RUNTIME_DIR": str(run.runtime)}) as second:
            assert get(second) == "one"
            second.stop()
        assert os.listdir(run.runtime) == []


def test_a_hangup_cuts_no_file_that_mongrel2_sends(app: Path, tmp_path: Path) -> None:
    size = 60_000_000
    files = tmp_path / "files"
    files.mkdir()
    with (files / "big.bin").open("wb") as file:
        file.truncate(size)
    with m2gate_run(app, "--static", f"/files={files}") as run:
        client = http.client.HTTPConnection("127.0.0.1", run.port, timeout=20)
        client.request("GET", "/pid")  # from now on the worker knows this connection
        first = client.getresponse().read()
        client.request("GET", "/files/big.bin")
        response = client.getresponse()
        run.process.send_signal(signal.SIGHUP)
        got = 0
        while piece := response.read(500_000):  # at most 10 MB/s: slower than the change of workers
            got += len(piece)
            time.sleep(0.05)
        assert got == size
        assert get(run, "/pid").encode() != first
        client.close()
