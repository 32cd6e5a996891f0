"""``m2gate gateway`` and ``m2gate worker``, started apart from each other behind one Mongrel2."""

import http.client
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from tests.system.runs import write_app
from tests.system.support import Mongrel2, alive, children, environment, stop_process, wait_until


class Command:
    """One m2gate command, and what it has printed so far."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        name = f"{arguments[0]}-{os.urandom(4).hex()}"
        self._stdout = folder / f"{name}.out"
        self._stderr = folder / f"{name}.err"
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "m2gate", *arguments],
                env=environment(XDG_RUNTIME_DIR=str(folder)),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )

    @property
    def stdout(self) -> str:
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()


@contextmanager
def command(folder: Path, *arguments: str) -> Iterator[Command]:
    one = Command(folder, *arguments)
    try:
        yield one
    except BaseException:
        print(f"--- m2gate {' '.join(arguments)}\n{one.stdout}\n{one.stderr}", file=sys.stderr)
        raise
    finally:
        stop_process(one.process)


def write_settings(folder: Path, server: Mongrel2) -> str:
    path = folder / "gateway.toml"
    path.write_text(
        f'folder = "{folder}/gateway"\n[[servers]]\nsend_ident = "{server.send_ident}"\n'
        f'send_spec = "{server.send_spec}"\nrecv_spec = "{server.recv_spec}"\ncontrol_spec = "{server.control_spec}"\n'
    )
    return str(path)


def get(server: Mongrel2, path: str = "/") -> str:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as client:
        client.request("GET", path)
        answer = client.getresponse()
        assert answer.status == 200, answer.status
        return answer.read().decode().rstrip("\n")


def answers(server: Mongrel2, body: str) -> bool:
    with suppress(OSError, http.client.HTTPException, AssertionError):
        return get(server) == body
    return False


def test_each_waits_for_the_other(app: Path, server: Mongrel2, short_tmp: Path) -> None:
    attach = f"gateway:{short_tmp}/gateway/workers"
    with command(short_tmp, "worker", str(app), "--count", "2", "--attach", attach) as workers:
        wait_until(lambda: "2 of 2 workers are loaded" in workers.stderr, "it says what it waits for")
        assert f"there is no {short_tmp}/gateway yet; waiting for a gateway to make it" in workers.stderr
        assert workers.stdout == ""
        with command(short_tmp, "gateway", "-c", write_settings(short_tmp, server)) as gateway:
            wait_until(lambda: gateway.stdout, "the gateway is ready")
            assert gateway.stdout == f"gateway of 1 server ready for workers at {attach}\n"
            wait_until(lambda: workers.stdout, "the workers are attached")
            assert workers.stdout == f"2 workers attached to {attach}\n"
            assert get(server) == "one"
            # A new generation, while requests come.
            write_app(app, "two")
            before = children(workers.process.pid)
            workers.process.send_signal(signal.SIGHUP)
            wait_until(lambda: answers(server, "two"), "the new code answers")
            wait_until(lambda: not any(alive(pid) for pid in before), "the old workers are gone")
            assert stop_process(workers.process) == 0
            assert stop_process(gateway.process) == 0
            assert len(workers.stdout.splitlines()) == 1
    assert [one.name for one in short_tmp.iterdir() if one.is_dir()] == ["gateway"]


def test_workers_outlive_a_gateway(app: Path, server: Mongrel2, short_tmp: Path) -> None:
    settings = write_settings(short_tmp, server)
    attach = f"gateway:{short_tmp}/gateway"
    with (
        command(short_tmp, "gateway", "-c", settings) as first,
        command(short_tmp, "worker", str(app), "--attach", attach) as workers,
    ):
        wait_until(lambda: workers.stdout, "the worker is attached")
        pids = children(workers.process.pid)
        first.process.kill()
        first.process.wait()
        with command(short_tmp, "gateway", "-c", settings) as second:
            wait_until(lambda: second.stdout, "the second gateway is ready")
            wait_until(lambda: answers(server, "one"), "it serves")
            assert children(workers.process.pid) == pids
            assert stop_process(workers.process) == 0


def test_a_stop_of_workers_lets_requests_finish(app: Path, server: Mongrel2, short_tmp: Path) -> None:
    attach = f"gateway:{short_tmp}/gateway"
    with (
        command(short_tmp, "gateway", "-c", write_settings(short_tmp, server)),
        command(short_tmp, "worker", str(app), "--attach", attach) as workers,
    ):
        wait_until(lambda: workers.stdout, "the worker is attached")
        results: list[str] = []
        thread = threading.Thread(target=lambda: results.append(get(server, "/slow/1")))
        thread.start()
        wait_until(lambda: get(server, "/pid"), "a later request is answered, so the first was received")
        assert stop_process(workers.process) == 0
        thread.join(10)
        assert results == ["slept"]
        with command(short_tmp, "worker", str(app), "--attach", attach) as others:
            wait_until(lambda: others.stdout, "others are attached")
            assert get(server) == "one"


def test_a_broken_target_is_one_line(short_tmp: Path) -> None:
    attach = f"gateway:{short_tmp}/gateway"
    with command(short_tmp, "worker", "nothing.py", "--count", "3", "--attach", attach) as workers:
        assert workers.process.wait(20) == 2
        assert workers.stderr.count("\n") == 1
        assert "nothing.py" in workers.stderr


def test_a_second_gateway_in_the_same_folder_is_refused(server: Mongrel2, short_tmp: Path) -> None:
    settings = write_settings(short_tmp, server)
    with command(short_tmp, "gateway", "-c", settings) as first:
        wait_until(lambda: first.stdout, "the gateway is ready")
        with command(short_tmp, "gateway", "-c", settings) as second:
            assert second.process.wait(20) == 1
            assert second.stderr.startswith(f"m2gate: {short_tmp}/gateway: another gateway has its sockets there;")
            assert second.stderr.count("\n") == 1
