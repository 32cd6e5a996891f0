"""``m2gate run --workers``: start, deaths, reloads and stops of a gateway and its workers."""

import http.client
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.runs import answers, assert_nothing_left, fails, family, get, in_background, write_app
from tests.system.supervised import all_ready, known, worker_pids
from tests.system.support import M2GateRun, alive, children, free_port, m2gate_run, wait_until

WORKERS = ("--workers", "3")
BACK_S = 2.0


@contextmanager
def load(run: M2GateRun, threads: int = 3) -> Iterator[list[str]]:
    """Ask on keep-alive connections all the time; what went wrong is in the list at the end."""
    stop = threading.Event()
    wrong: list[str] = []

    def ask() -> None:
        client = http.client.HTTPConnection("127.0.0.1", run.port, timeout=15)
        while not stop.is_set():
            try:
                client.request("GET", "/pid")
                answer = client.getresponse()
                body = answer.read()
                if answer.status != 200:
                    wrong.append(f"{answer.status} {body!r}")
            except (OSError, http.client.HTTPException) as error:
                wrong.append(repr(error))
                client.close()
            time.sleep(0.002)
        client.close()

    all_threads = [threading.Thread(target=ask) for _ in range(threads)]
    for thread in all_threads:
        thread.start()
    try:
        yield wrong
    finally:
        stop.set()
        for thread in all_threads:
            thread.join(30)


def test_start_serve_and_stop(app: Path) -> None:
    with m2gate_run(app, *WORKERS) as run:
        assert run.stdout == f"listening on http://127.0.0.1:{run.port}\n"
        assert get(run) == "one"
        assert len(children(run.pid)) == 3 + 2
        document = known(run)
        assert document["mode"] == "gateway"
        assert [worker["name"] for worker in document["workers"]] == ["w1", "w2", "w3"]
        assert document["restarts"] == {"worker": 0, "gateway": 0, "mongrel2": 0}
        assert (document["pid"], document["url"]) == (run.pid, run.url)
        pids = family(run.pid)
        assert run.stop() == 0
        assert_nothing_left(run, pids)
        assert run.stdout == f"listening on http://127.0.0.1:{run.port}\n"


def test_all_workers_answer(app: Path) -> None:
    with m2gate_run(app, *WORKERS) as run:
        pids = {int(get(run, "/pid"))}

        def another_answers() -> bool:
            known = len(pids)
            pids.add(int(get(run, "/pid")))
            return len(pids) > known

        with in_background(run, "/slow/8"):
            wait_until(another_answers, "the first worker is busy")
            with in_background(run, "/slow/7"):
                wait_until(another_answers, "two workers are busy")
        assert pids == set(worker_pids(run))


def test_one_worker_behind_a_gateway(app: Path) -> None:
    with m2gate_run(app, "--gateway") as run:
        assert [int(get(run, "/pid"))] == worker_pids(run)
        assert len(children(run.pid)) == 3


def test_a_killed_worker_is_back_and_nobody_else_notices(app: Path) -> None:
    with m2gate_run(app, *WORKERS) as run:
        # Each connection stays with its worker, so these three are with three of them.
        clients: dict[int, http.client.HTTPConnection] = {}
        while len(clients) < 3:
            client = http.client.HTTPConnection("127.0.0.1", run.port, timeout=10)
            clients[ask(client)] = client
        killed, *others = clients
        os.kill(killed, signal.SIGKILL)
        killed_s = time.monotonic()
        wait_until(lambda: len(worker_pids(run)) == 3 and killed not in worker_pids(run), "it is replaced")
        assert time.monotonic() - killed_s < BACK_S
        assert [ask(clients[pid]) for pid in others] == others
        assert known(run)["restarts"]["worker"] == 1
        assert "was ended by SIGKILL; starting it again" in run.stderr
        for client in clients.values():
            client.close()


def ask(client: http.client.HTTPConnection) -> int:
    client.request("GET", "/pid")
    return int(client.getresponse().read())


def is_back(run: M2GateRun) -> Callable[[], bool]:
    return lambda: answers(run, "one")


def test_a_killed_gateway_is_back(app: Path) -> None:
    with m2gate_run(app, *WORKERS) as run:
        workers = all_ready(run, 3)
        gateway = run.child("gateway.json")
        os.kill(gateway, signal.SIGKILL)
        killed_s = time.monotonic()
        wait_until(lambda: not alive(gateway), "it is dead")
        wait_until(is_back(run), "service is back")
        assert time.monotonic() - killed_s < BACK_S + 2  # Mongrel2 and workers have to come back to it
        assert worker_pids(run) == workers
        assert known(run)["restarts"] == {"worker": 0, "gateway": 1, "mongrel2": 0}
        assert known(run)["last_end"] == "the gateway was ended by SIGKILL"


def test_a_stopped_gateway_is_killed(app: Path) -> None:
    with m2gate_run(app, *WORKERS) as run:
        wait_until((run.runtime / "m2gate" / f"run-{run.port}" / "gateway.beat").exists, "it beats")
        gateway = run.child("gateway.json")
        os.kill(gateway, signal.SIGSTOP)
        wait_until(lambda: not alive(gateway), "it is killed", timeout_s=10)
        wait_until(is_back(run), "service is back")
        assert "the gateway has not moved for 5 s; killing it" in run.stderr


def test_a_killed_mongrel2_is_back(app: Path) -> None:
    with m2gate_run(app, *WORKERS) as run:
        workers = all_ready(run, 3)
        mongrel2 = run.child("mongrel2.sqlite")
        os.kill(mongrel2, signal.SIGKILL)
        killed_s = time.monotonic()
        wait_until(lambda: not alive(mongrel2), "it is dead")
        wait_until(is_back(run), "service is back")
        assert time.monotonic() - killed_s < BACK_S
        assert worker_pids(run) == workers
        assert known(run)["restarts"]["mongrel2"] == 1


def test_a_reload_under_load_loses_nothing(app: Path) -> None:
    with m2gate_run(app, *WORKERS) as run:
        with load(run) as wrong:
            for number in range(3):
                write_app(app, f"version {number}")
                run.process.send_signal(signal.SIGHUP)
                wait_until(lambda text=f"version {number}": answers(run, text), "the new code answers")  # type: ignore[misc]
                wait_until(lambda: len(known(run)["workers"]) == 3, "the old ones are gone")
        assert wrong == []
        assert known(run)["generation"] == 4
        assert known(run)["restarts"]["worker"] == 0


def test_hangups_in_a_row_are_bounded(app: Path) -> None:
    with m2gate_run(app, "--workers", "2") as run:
        write_app(app, "last")
        most = 0
        for _ in range(20):
            run.process.send_signal(signal.SIGHUP)
            time.sleep(0.1)
            most = max(most, len({worker["generation"] for worker in known(run)["workers"]}))
        assert most <= 3
        wait_until(lambda: answers(run, "last"), "the new code answers")
        wait_until(lambda: len(children(run.pid)) == 4, "one generation is left")


def test_the_old_code_goes_on_if_the_new_is_broken(app: Path) -> None:
    with m2gate_run(app, *WORKERS) as run:
        before = all_ready(run, 3)
        app.write_text("import nothing_of_this_name\n")
        run.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the old code goes on" in run.stderr, "the failure is said")
        assert "the new code was not loaded (the worker w1 ended with status 2); the old code goes on" in run.stderr
        assert run.stderr.count("No module named 'nothing_of_this_name'") == 1
        assert worker_pids(run) == before
        assert get(run) == "one"
        write_app(app, "mended")
        run.process.send_signal(signal.SIGHUP)
        wait_until(lambda: answers(run, "mended"), "the mended code answers")


def test_reload_on_change(app: Path) -> None:
    with m2gate_run(app, "--workers", "2", "--reload") as run:
        write_app(app, "two")
        wait_until(lambda: answers(run, "two"), "the new code answers")
        assert f"m2gate: {app} changed; loading the code again" in run.stderr


def test_other_json_sockets_restart_mongrel2(app: Path) -> None:
    with m2gate_run(app, "--workers", "2") as run:
        mongrel2 = run.child("mongrel2.sqlite")
        app.write_text(app.read_text().replace("@echo", "@other").replace("one", "two"))
        run.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the JSON sockets have changed; restarting mongrel2" in run.stderr, "it is said")
        wait_until(lambda: answers(run, "two"), "the new code answers")
        assert run.child("mongrel2.sqlite") != mongrel2


def test_spent_workers_are_replaced_without_a_gap(app: Path) -> None:
    with m2gate_run(app, "--workers", "2", "--max-requests", "50") as run:
        before = set(all_ready(run, 2))
        with load(run, threads=2) as wrong:
            wait_until(lambda: not before & set(worker_pids(run)), "both are replaced", timeout_s=20)
        assert wrong == []
        assert known(run)["generation"] == 1


def test_stop_lets_requests_finish(app: Path) -> None:
    with m2gate_run(app, *WORKERS) as run, in_background(run, "/slow/1") as results:
        started = time.monotonic()
        assert run.stop() == 0
        assert time.monotonic() - started < 8
    assert results == ["slept"]


def test_second_signal_stops_at_once(app: Path) -> None:
    with m2gate_run(app, *WORKERS) as run, in_background(run, "/slow/60"):
        pids = family(run.pid)
        run.process.send_signal(signal.SIGTERM)
        wait_until(lambda: len(worker_pids(run, "leaving")) > 0, "the drain has begun")
        started = time.monotonic()
        assert run.stop(signal.SIGINT) == 0
        assert time.monotonic() - started < 5
        assert_nothing_left(run, pids)


def test_nothing_outlives_a_killed_parent(app: Path) -> None:
    with m2gate_run(app, *WORKERS) as run:
        pids = family(run.pid)
        assert len(pids) == 6
        run.process.kill()
        run.wait()
        wait_until(lambda: not any(alive(pid) for pid in pids), "all processes are gone")


def test_a_broken_target_is_one_line(app: Path) -> None:
    status, line = fails("nothing.py", *WORKERS, cwd=app.parent)
    assert status == 2
    assert "nothing.py" in line
    assert line.count("\n") == 1


def test_workers_know_where_to_publish(app: Path) -> None:
    app.write_text(app.read_text().replace('"one\\n"', 'os.environ.get("M2GATE_PUBLISH", "none")'))
    options = ("--publish-http", f"127.0.0.1:{free_port()}")
    more = ("--publish-pull", f"tcp://127.0.0.1:{free_port()}", "--publish-sub", f"tcp://127.0.0.1:{free_port()}")
    with m2gate_run(app, "--workers", "2", *options, *more) as run:
        assert get(run) == f"http://{options[1]}"


@pytest.mark.parametrize("option", ["--publish-http", "--metrics"])
def test_a_taken_input_port_is_one_line(app: Path, option: str) -> None:
    with m2gate_run(app) as run:
        status, line = fails(app, option, f"127.0.0.1:{run.port}")
        assert status == 1
        assert line.startswith(f"m2gate: {option} = '127.0.0.1:{run.port}': Address already in use; stop what listens")
        assert line.count("\n") == 1


def test_status_on_a_signal(app: Path) -> None:
    with m2gate_run(app, "--workers", "2") as run:
        run.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "  name=w2  pid=" in run.stderr, "the block is printed")
        assert 'mode: "gateway"' in run.stderr
        assert get(run) == "one"


def test_what_takes_long_is_told(app: Path) -> None:
    app.write_text("import time\ntime.sleep(3)\n" + app.read_text())
    with m2gate_run(app, "--workers", "2") as run:
        assert "m2gate: 0 of 2 workers are loaded, 2 s so far" in run.stderr
