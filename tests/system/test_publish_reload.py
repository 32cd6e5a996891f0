"""Publish inputs over a change of workers: the successor has the same addresses, and serves all of them."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

import pytest
import zmq

from m2gate import BackendError, Publisher
from tests.system.broadcast_clients import Crowd, crowd
from tests.system.processes import free_port
from tests.system.runs import get
from tests.system.support import M2GateRun, m2gate_run, wait_until

APP = """
import os
from m2gate import App, Hold
app = App()

@app.get("/pid")
def pid(request):
    return str(os.getpid())

@app.get("/stream")
def stream(request):
    return Hold("news", body="begin;")
"""
SHAPES = [pytest.param([], id="direct"), pytest.param(["--gateway"], id="gateway")]


class Site:
    """A run with all inputs, whose publishers stay connected over its reloads."""

    def __init__(self, run: M2GateRun, clients: Crowd, folder: Path, http: int, sub: "zmq.Socket[bytes]") -> None:
        self.run = run
        self.clients = clients
        self.http = Publisher(f"http://127.0.0.1:{http}")
        self.pull = Publisher(f"ipc://{folder}/items")
        self.sub = sub

    def publish_by_all(self, name: str) -> None:
        """Let one new client hear an item by each input."""
        (client,) = self.clients.add("/stream")
        self.clients.listen(lambda: b"begin;" in client.body(), "the stream has begun")
        # The count is the client's: with a gateway, those of before the reload are held on.
        wait_until(lambda: self._matched(f"{name}-http;") >= 1, "the HTTP input is there")
        self.pull.publish("news", f"{name}-pull;")
        wait_until(lambda: self.sub.poll(0), "the SUB input is subscribed")
        while self.sub.poll(0):
            self.sub.recv()
        item = f'J{{"channel": "news", "formats": {{"http-stream": {{"content": "{name}-sub;"}}}}}}'
        self.sub.send_multipart([b"news", item.encode()])
        expected = {f"{name}-{way};".encode() for way in ("http", "pull", "sub")}
        self.clients.listen(lambda: expected <= set(client.chunks()), f"{name}: an item by each input")
        assert sorted(chunk for chunk in client.chunks() if chunk.startswith(name.encode())) == sorted(expected)

    def _matched(self, data: str) -> int:
        try:
            return self.http.publish("news", data) or 0
        except BackendError:
            return 0  # between two workers


def wait_other(run: M2GateRun, old_pid: str) -> None:
    """Wait until another worker than old_pid answers; a direct one may lose a request when it leaves."""

    def has_changed() -> bool:
        with suppress(OSError, HTTPException):
            return get(run, "/pid") != old_pid
        return False

    wait_until(has_changed, "the new worker answers", 20)


@contextmanager
def serving(args: list[str], tmp_path: Path) -> Iterator[Site]:
    app = tmp_path / "app.py"
    app.write_text(APP)
    http, sub = free_port(), free_port()
    options = ["--publish-http", f"127.0.0.1:{http}", "--publish-sub", f"tcp://127.0.0.1:{sub}"]
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        with (
            m2gate_run(app, *args, *options, "--publish-pull", f"ipc://{tmp_path}/items") as run,
            crowd(run.port) as all_,
        ):
            xpub = context.socket(zmq.XPUB)
            xpub.setsockopt(zmq.XPUB_VERBOSE, 1)  # it is told also what it has known since before a reconnect
            xpub.connect(f"tcp://127.0.0.1:{sub}")
            site = Site(run, all_, tmp_path, http, xpub)
            yield site
            site.pull.close()
    finally:
        context.destroy(linger=0)


@pytest.mark.parametrize("args", SHAPES)
def test_all_inputs_after_a_reload(args: list[str], tmp_path: Path) -> None:
    with serving(args, tmp_path) as site:
        site.publish_by_all("before")
        for name in ("once", "twice"):
            pid = get(site.run, "/pid")
            site.run.process.send_signal(signal.SIGHUP)
            wait_other(site.run, pid)
            if not args:  # with a gateway the channel keeps its subscribers, and SUB its subscription
                site.publish_by_all(name)
            else:
                assert site.http.publish("news", f"{name};") == 1
        assert "address in use" not in site.run.stderr


def test_items_pushed_during_a_reload_arrive_in_order(tmp_path: Path) -> None:
    with serving(["--gateway"], tmp_path) as site:
        (client,) = site.clients.add("/stream")
        wait_until(lambda: site._matched("probe;") == 1, "the client is subscribed")
        pid = get(site.run, "/pid")
        for number in range(300):
            site.pull.publish("news", f"{number};")
            if number == 100:
                site.run.process.send_signal(signal.SIGHUP)
        wait_other(site.run, pid)
        site.clients.listen(lambda: client.body().count(b"299;") == 1, "the last item")
        got = [one for one in b"".join(client.chunks()).split(b";") if one.isdigit()]
        assert got == [b"%d" % number for number in range(300)]
