"""``m2gate status``: what it shows, how it finds what runs, and that it gives the terminal back."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from m2gate.cli.rundir import run_directory
from m2gate.cli.status_view import BLANKS, Rates, Snapshot, View
from tests.inputs.documents import gateway_document
from tests.system.processes import environment, short_directory, stop_process, wait_until

HERE = Path(__file__).parent
ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"
SUPERVISOR: dict[str, Any] = {
    "pid": 4000,
    "url": "http://127.0.0.1:6767",
    "target": "shop/app.py",
    "mode": "gateway",
    "generation": 2,
    "restarts": {"worker": 3, "gateway": 0, "mongrel2": 1},
    "last_end": "the worker w2 was ended by SIGKILL",
    "crash_loop": False,
    "workers": [{"name": "w1", "pid": 4243, "generation": 2, "state": "ready"}],
}
NOW = Snapshot(document=gateway_document(), supervisor=SUPERVISOR, taken_s=101.0)


# -- what it shows ------------------------------------------------------------------------------


def later(**changes: Any) -> Snapshot:
    """Return NOW a second later, with other counters."""
    document = gateway_document()
    document["counters"].update(changes)  # type: ignore[typeddict-item]
    document["workers"][0]["served"] += 700
    return Snapshot(document=document, supervisor=SUPERVISOR, taken_s=102.0)


@pytest.mark.parametrize("columns", [80, 120])
def test_golden(columns: int) -> None:
    text = "\n".join(View(columns, colour=False).render(NOW, Rates())) + "\n"
    assert text == (HERE / f"status_{columns}.golden").read_text(encoding="utf-8")


@pytest.mark.parametrize("columns", [1, 20, 80, 200])
@pytest.mark.parametrize("rows", [1, 5, 10, 16, 23, 39])
def test_every_size_of_terminal(columns: int, rows: int) -> None:
    lines = View(columns, colour=False, rows=rows, watched=True).render(NOW, Rates())
    assert len(lines) <= rows
    if columns >= 20:
        assert max(len(line) for line in lines) <= columns


def test_a_screen_shows_workers_before_channels() -> None:
    whole = View(80, colour=False, rows=100, watched=True).render(NOW, Rates())
    assert "and 38 more" in "\n".join(whole)
    needed = len(whole) - len([line for line in whole if not line])
    text = "\n".join(View(80, colour=False, rows=needed - BLANKS, watched=True).render(NOW, Rates()))
    assert "CHANNEL" not in text
    assert all(f"\nw{number} " in text for number in (1, 2, 3))
    tight = "\n".join(View(80, colour=False, rows=17, watched=True).render(NOW, Rates()))
    assert "and 3 more" in tight


def test_rates_are_of_the_time_between_two_answers() -> None:
    now = later(requests_finished=1_234_500 + 900, items_published=4_402, deliveries=5_300_050)
    rates = Rates.between(NOW, now)
    assert (rates.finished, rates.published, rates.deliveries) == (900.0, 2.0, 50.0)
    assert rates.served["w1", 4243] == 700.0
    text = "\n".join(View(120, colour=False, watched=True).render(now, rates))
    assert "900 req/s" in text
    assert "2.0 publishes/s  50 deliveries/s" in text
    assert "617,700       0    700  " in text


def test_no_rates_across_a_restart_or_a_silence() -> None:
    other = gateway_document()
    other["pid"] = 1
    silent = Snapshot(document=None, supervisor=None, taken_s=100.0)
    for before in (None, NOW, silent, Snapshot(document=other, supervisor=None, taken_s=100.0)):
        assert Rates.between(before, NOW) == Rates()
    assert Rates.between(NOW, silent) == Rates()


def test_quiet_things_are_left_out() -> None:
    document = gateway_document()
    document["channels"] = []
    document["channels_total"] = 0
    counters: Any = document["counters"]
    counters |= {"requests_failed": {"worker-died": 0}, "drops": {}, "worker_deaths": {"exit": 0}}
    counters |= {"orphans_closed": 0, "frames_rejected": 0, "publish_rejected": 0}
    text = "\n".join(View(80, colour=False).render(Snapshot(document=document, supervisor=None), Rates()))
    assert not any(word in text for word in ("\nfailed", "drops", "trouble", "CHANNEL ", "supervisor"))


def test_what_needs_attention_is_coloured() -> None:
    text = "\n".join(View(120, colour=True).render(NOW, Rates()))
    assert "\x1b[31mdown\x1b[0m" in text
    assert "\x1b[31m4.2 s\x1b[0m" in text
    assert "\x1b[31mlost\x1b[0m" in text
    assert "\x1b[33mdrops      over-limit 30  gone 4\x1b[0m" in text
    looping = Snapshot(document=None, supervisor=SUPERVISOR | {"crash_loop": True}, error="no answer")
    assert "\x1b[31m           crash loop: " in "\n".join(View(120, colour=True).render(looping, Rates()))


def test_no_worker_is_said() -> None:
    document = gateway_document()
    document["workers"] = []
    assert "no worker is attached" in View(80, colour=False).render(
        Snapshot(document=document, supervisor=None), Rates()
    )


def test_without_an_answer_the_supervisor_is_shown() -> None:
    lines = View(80, colour=False).render(Snapshot(document=None, supervisor=SUPERVISOR, error="no answer"), Rates())
    assert lines == [
        "m2gate  http://127.0.0.1:6767  shop/app.py",
        "no answer",
        "supervisor pid 4000  generation 2  restarts: worker 3, mongrel2 1",
        "last end   the worker w2 was ended by SIGKILL",
        "",
        "WORKER   PID  GEN  STATE",
        "w1      4243    2  ready",
    ]


@pytest.mark.parametrize("known", [{}, {"workers": 1, "restarts": []}, {"workers": [1, {}], "last_end": None}])
def test_a_supervisor_that_says_less(known: dict[str, Any]) -> None:
    for document in (None, gateway_document()):
        assert View(80, colour=False).render(Snapshot(document=document, supervisor=known, error="x"), Rates())


# -- the command --------------------------------------------------------------------------------


@contextmanager
def answering(path: Path, answer: Callable[[], Any] = gateway_document) -> Iterator[None]:
    """Answer at a status socket, in a thread, as a process of m2gate does."""
    is_over = threading.Event()

    def serve(socket: Any) -> None:
        while not is_over.is_set():
            if socket.poll(20):
                assert socket.recv() == b"status"
                socket.send(json.dumps(answer()).encode())

    with zmq.Context() as context, context.socket(zmq.REP) as socket:
        socket.linger = 0
        socket.bind(f"ipc://{path}")
        thread = threading.Thread(target=serve, args=(socket,))
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty $XDG_RUNTIME_DIR."""
    with short_directory() as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        yield runtime


def status(*args: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "m2gate", "status", *args]
    kept = {name: os.environ[name] for name in ("XDG_RUNTIME_DIR",) if name in os.environ}
    return subprocess.run(
        command, env=environment(**kept, **environ), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


def test_json_is_the_document_and_what_the_supervisor_knows(runtime: Path) -> None:
    with run_directory(6767) as folder, answering(folder / "status"):
        done = status("--json")
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout) == {**gateway_document(), "supervisor": None}
        (folder / "supervisor.json").write_text(json.dumps(SUPERVISOR))
        assert json.loads(status("--json").stdout)["supervisor"] == SUPERVISOR
        (folder / "supervisor.json").write_text('{"half')
        assert json.loads(status("--json").stdout)["supervisor"] is None


def test_text_in_a_pipe_has_the_width_of_columns_and_no_colours(runtime: Path) -> None:
    with run_directory(6767) as folder, answering(folder / "status"):
        (folder / "supervisor.json").write_text(json.dumps(SUPERVISOR))
        done = status(COLUMNS="120")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (HERE / "status_120.golden").read_text(encoding="utf-8")


def test_a_gateway_is_named_by_its_folder(runtime: Path, tmp_path: Path) -> None:
    with short_directory() as folder, answering(folder / "status"):
        done = status("--run", str(folder))
    assert done.returncode == 0
    assert done.stdout.startswith("m2gate 0.2.0  gateway  pid 4242")


def test_a_gateway_within_a_run_directory_is_found(runtime: Path) -> None:
    with run_directory(6767) as folder:
        (folder / "gateway").mkdir()
        with answering(folder / "gateway" / "status"):
            assert status("--run", "6767").returncode == 0


def test_help_teaches() -> None:
    done = status("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(option in done.stdout for option in ("--json", "--watch", "--run"))


def test_nobody_runs(runtime: Path) -> None:
    stale = runtime / "m2gate" / "run-7"  # of a process that was killed
    stale.mkdir(parents=True)
    done = status()
    assert (done.returncode, done.stdout) == (1, "")
    gateway = "no gateway in /run/m2gate/gateway; --run says which"
    assert done.stderr == f"m2gate: no m2gate run of yours in {runtime}/m2gate, and {gateway}\n"
    done = status("--run", "7")
    assert (done.returncode, done.stderr) == (1, "m2gate: --run 7: no m2gate run has this port\n")
    assert stale.exists()


def test_several_run(runtime: Path) -> None:
    with run_directory(8001), run_directory(443) as folder, answering(folder / "status"):
        done = status()
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "m2gate: several run: 443, 8001; say which, e.g. --run 443\n"
        assert status("--run", "443").returncode == 0
        done = status("--run", "80")
        assert done.stderr == "m2gate: --run 80: no m2gate run has this port; these do: 443, 8001\n"


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        pytest.param(["--run", "nothing/there"], "--run = 'nothing/there': neither a port nor a folder", id="folder"),
        pytest.param(["--json", "--watch"], "exclude each other", id="both"),
    ],
)
def test_usage(runtime: Path, args: list[str], problem: str) -> None:
    done = status(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1


def test_nobody_answers(runtime: Path) -> None:
    with run_directory(6767) as folder:
        (folder / "supervisor.json").write_text(json.dumps(SUPERVISOR))
        done = status()
        assert done.returncode == 1
        assert f"{folder}/status: nobody listens there\n" in done.stdout
        assert "last end   the worker w2 was ended by SIGKILL\n" in done.stdout
        done = status("--json")
        assert done.returncode == 1
        assert json.loads(done.stdout) == {"supervisor": SUPERVISOR}
        assert done.stderr == f"m2gate: {folder}/status: nobody listens there\n"


def test_it_starts_without_the_machinery() -> None:
    code = "import sys, m2gate.cli.status, m2gate.cli.status_view, m2gate.cli.screen, m2gate.inputs.status_client\n"
    code += "print(sorted(sys.modules.keys() & {'gevent', 'jinja2', 'werkzeug', 'prometheus_client'}))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# -- the live view ------------------------------------------------------------------------------


# Keys become signals only for processes whose terminal it is.
CONTROLLED = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


class Terminal:
    """A terminal of 80x24 with ``m2gate status --watch`` in it, and what it has been shown."""

    def __init__(self) -> None:
        self.master, self._slave = pty.openpty()
        self.resize(80, 24)
        self.modes = termios.tcgetattr(self._slave)
        self.shown = b""
        self.process = subprocess.Popen(
            [sys.executable, "-c", CONTROLLED, sys.executable, "-m", "m2gate", "status", "--watch"],
            env=environment(TERM="xterm", XDG_RUNTIME_DIR=os.environ["XDG_RUNTIME_DIR"]),
            stdin=self._slave, stdout=self._slave, stderr=self._slave, start_new_session=True,
        )  # fmt: skip
        os.set_blocking(self.master, False)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self) -> bytes:
        try:
            self.shown += os.read(self.master, 65_536)
        except BlockingIOError:
            pass
        return self.shown

    def wait_for(self, text: bytes, times: int = 1) -> None:
        wait_until(lambda: self.read().count(text) >= times, f"the terminal shows {text!r}", 20)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def wait(self) -> int:
        wait_until(lambda: self.read() is not None and self.process.poll() is not None, "it ends", 20)
        self.read()
        return self.process.returncode

    def assert_given_back(self) -> None:
        assert self.shown.count(ENTER) == self.shown.count(LEAVE) > 0
        assert self.shown.rindex(LEAVE) > self.shown.rindex(ENTER)
        assert termios.tcgetattr(self._slave) == self.modes

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
        stop_process(self.process, 5)
        os.close(self.master)
        os.close(self._slave)


@pytest.fixture
def terminal(runtime: Path) -> Iterator[Terminal]:
    counts = iter(range(0, 10**9, 50))

    def document() -> Any:
        document = gateway_document()
        document["counters"]["requests_finished"] += next(counts)
        return document

    with run_directory(6767) as folder, answering(folder / "status", document):
        terminal = Terminal()
        try:
            terminal.wait_for(b"q ends")
            yield terminal
        finally:
            terminal.close()


@pytest.mark.parametrize("keys", [b"q", b"Q", b"xyzq", b"\x03"])
def test_keys_that_end_it(terminal: Terminal, keys: bytes) -> None:
    terminal.type(keys)
    assert terminal.wait() == 0
    terminal.assert_given_back()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_that_end_it(terminal: Terminal, number: signal.Signals) -> None:
    terminal.process.send_signal(number)
    assert terminal.wait() == 0
    terminal.assert_given_back()


def test_it_is_drawn_anew_each_second_with_rates(terminal: Terminal) -> None:
    terminal.wait_for(b"q ends", 3)
    before, _, rate = terminal.shown.rpartition(b" req/s")[0].rpartition(b" ")
    assert before
    assert 20 < float(rate) < 70  # 50 for each answer, one a second


def test_another_size_is_drawn_at_once(terminal: Terminal) -> None:
    assert b"CHANNEL" not in terminal.shown
    terminal.resize(120, 40)
    terminal.process.send_signal(signal.SIGWINCH)
    terminal.wait_for(b"CHANNEL")


def test_it_can_be_suspended(terminal: Terminal) -> None:
    terminal.process.send_signal(signal.SIGTSTP)
    terminal.wait_for(LEAVE)
    stat = Path(f"/proc/{terminal.process.pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "it is stopped", 10)
    terminal.assert_given_back()
    terminal.process.send_signal(signal.SIGCONT)
    terminal.wait_for(ENTER, 2)
    terminal.type(b"q")
    assert terminal.wait() == 0
    terminal.assert_given_back()


def test_a_process_that_goes_away_is_said_and_the_view_goes_on(runtime: Path) -> None:
    with run_directory(6767) as folder:
        with answering(folder / "status"):
            terminal = Terminal()
            terminal.wait_for(b"q ends")
        (folder / "status").unlink(missing_ok=True)
        try:
            terminal.wait_for(b"nobody listens there")
            terminal.type(b"q")
            assert terminal.wait() == 1
            terminal.assert_given_back()
        finally:
            terminal.close()


def test_watch_in_a_pipe_prints_a_block_each_second(runtime: Path) -> None:
    with run_directory(6767) as folder, answering(folder / "status"):
        process = subprocess.Popen(
            [sys.executable, "-m", "m2gate", "status", "--watch"],
            env=environment(XDG_RUNTIME_DIR=str(runtime)), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        titles: list[float] = []
        while len(titles) < 2:
            line = process.stdout.readline()
            assert b"\x1b" not in line
            if line.startswith(b"m2gate 0.2.0"):
                titles.append(time.monotonic())
        assert titles[1] - titles[0] > 0.5
        process.stdout.close()  # as head does
        assert process.wait(20) == 0
        assert process.stderr.read() == b""
        process.stderr.close()
