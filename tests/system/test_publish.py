"""Publishing from a shell, a script and a worker, to subscribers of every kind: each item once, in order."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest
import tnetstring
import zmq

from tests.system.broadcast_clients import Client, Crowd, ask, crowd
from tests.system.processes import ROOT, environment, free_port
from tests.system.support import M2GateRun, m2gate_run, wait_until

APP = ROOT / "tests/system/broadcast_app.py"
SHAPES = {"direct": [], "gateway": ["--workers", "3"]}


def run(command: list[str], stdin: str = "", **environ: str) -> str:
    done = subprocess.run(
        command,
        check=False,
        cwd=ROOT,
        env=environment(**environ),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Published:
    """A run with all publish inputs, and clients of every kind on the channel ``news``."""

    def __init__(self, run: M2GateRun, clients: Crowd, ports: dict[str, int]) -> None:
        self.run = run
        self.clients = clients
        self.http = f"http://127.0.0.1:{ports['http']}"
        self.pull = f"tcp://127.0.0.1:{ports['pull']}"
        self.sub = f"tcp://127.0.0.1:{ports['sub']}"
        self.streams = clients.add("/stream/news", 4)
        self.events = clients.add("/events/news", 4)
        self.sockets = [clients.add("/ws/news", websocket=True)[0] for _ in range(4)]
        clients.listen(lambda: self.count() == 12, "all are subscribed")

    def count(self) -> int:
        return int(self.shell("news", "probe"))

    def shell(self, *args: str, to: str | None = None, stdin: str = "") -> str:
        command = [sys.executable, "-m", "m2gate.cli", "publish", *args, "--to", to or self.http]
        return run(command, stdin)

    def script(self, code: str, **environ: str) -> str:
        command = [sys.executable, "-c", code]
        return run(command, **environ)

    def received(self, kind: str, client: Client) -> list[str]:
        if kind == "sockets":
            texts = [payload.decode() for _, payload in client.frames()]
        elif kind == "events":
            texts = [
                line[6:]
                for chunk in client.chunks()
                for line in chunk.decode().splitlines()
                if line.startswith("data: ")
            ]
        else:
            raise AssertionError(kind)
        return texts

    def wait_items(self, expected: list[str]) -> None:
        """Wait until each client has had exactly these, in this order, behind the probes."""

        def items(kind: str, client: Client) -> list[str]:
            return [one for one in self.received(kind, client) if not one.startswith("probe")]

        everybody = [(kind, one) for kind in ("events", "sockets") for one in getattr(self, kind)]
        self.clients.listen(lambda: all(len(items(*one)) >= len(expected) for one in everybody), "all items everywhere")
        for one in everybody:
            assert items(*one) == expected


@pytest.fixture(params=list(SHAPES))
def published(request: pytest.FixtureRequest) -> Iterator[Published]:
    ports = {name: free_port() for name in ("http", "pull", "sub")}
    args = ["--publish-http", f"127.0.0.1:{ports['http']}"]
    args += ["--publish-pull", f"tcp://127.0.0.1:{ports['pull']}", "--publish-sub", f"tcp://127.0.0.1:{ports['sub']}"]
    with m2gate_run(APP, *SHAPES[request.param], *args) as run, crowd(run.port) as clients:
        yield Published(run, clients, ports)


def test_from_a_shell_a_worker_and_a_script(published: Published) -> None:
    assert published.shell("news", "from a shell") == "12"
    assert published.shell("news", "-", stdin="from its stdin") == "12"
    assert published.shell("nobody-is-here", "hello") == "0"
    assert ask(published.run.port, "POST", "/say/news", '"from a worker"') == {"matched": 12}
    code = "import m2gate; print(m2gate.publish('news', 'from a script'), m2gate.publish('nobody', 'x'))"
    assert published.script(code, M2GATE_PUBLISH=published.http) == "12 0"
    # Over PUSH nothing is answered, and a script that exits at once has delivered all the same.
    code = f"import m2gate; print(m2gate.publish('news', 'pushed', to={published.pull!r}))"
    assert published.script(code) == "None"
    published.wait_items(["from a shell", "from its stdin", "from a worker", "from a script", "pushed"])


def test_1000_items_of_one_publisher_in_order(published: Published) -> None:
    code = f"""
from m2gate import Publisher
with Publisher({published.pull!r}) as publisher:
    for number in range(1000):
        publisher.publish("news", str(number))
"""
    published.script(code)
    published.wait_items([str(number) for number in range(1000)])


def test_formats_reach_their_kind_only(published: Published) -> None:
    assert published.shell("news", "for streams|", "--format", "http-stream") == "8"
    assert published.shell("news", "for sockets", "--format", "ws-message") == "4"
    (poll,) = published.clients.add("/poll/news")
    answer = ["news", "answer", "--format", "http-response", "--code", "201", "-H", "X-A: b"]
    wait_until(lambda: published.shell(*answer) == "1", "the poll is there")
    published.clients.listen(lambda: poll.received().endswith(b"answer"), "the poll is answered")
    assert poll.received().startswith(b"HTTP/1.1 201 Created\r\n")
    assert b"\r\nX-A: b\r\n" in poll.received()
    assert published.shell("news", '{"n": 1}', "--format", "json") == "12"
    assert published.shell("news", "an event", "--event", "greeting", "--id", "7") == "12"
    published.clients.listen(
        lambda: b"event: greeting\nid: 7\ndata: an event\n\n" in b"".join(published.events[0].chunks()), "event"
    )
    published.clients.listen(lambda: (1, b'{"n":1}') in published.sockets[0].frames(), "JSON")


def test_receipts_and_refusals_over_http(published: Published) -> None:
    def post(path: str, body: bytes, **headers: str) -> tuple[int, str]:
        request = urllib.request.Request(published.http + path, body, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    item = {"channel": "news", "formats": {"ws-message": {"content": "x"}}}
    body = json.dumps({"items": [item, {**item, "channel": "none"}]}).encode()
    assert post("/publish/", body) == (200, "Published\n")
    text = post("/publish/?receipt=1", body)[1]
    assert json.loads(text) == {
        "message": "Published",
        "receipt": [
            {"channel": "news", "matched": 4, "written": 4, "queued": 0, "filtered": 0, "dropped": 0},
            {"channel": "none", "matched": 0, "written": 0, "queued": 0, "filtered": 0, "dropped": 0},
        ],
    }
    assert post("/publish", b"no JSON") == (400, "Body is not valid JSON.\n")
    assert post("/publish", b"{}") == (400, "Invalid format: object does not contain 'items'\n")
    # One bad item: nothing of the whole list is published.
    bad = json.dumps({"items": [item, {"channel": "news"}]}).encode()
    before = len(published.sockets[0].frames())
    assert post("/publish", bad) == (400, "Invalid format: no formats specified\n")
    assert post("/publish", body, Origin="http://evil.example")[0] == 403
    assert post("/publish", body, Host="evil.example")[0] == 403
    assert post("/other", body) == (404, "Not Found\n")
    published.clients.listen(lambda: len(published.sockets[0].frames()) >= before, "nothing more")


def test_zmq_inputs(published: Published) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        push, xpub = context.socket(zmq.PUSH), context.socket(zmq.XPUB)
        push.connect(published.pull)
        xpub.connect(published.sub)
        assert xpub.poll(5_000)
        assert xpub.recv() == b"\x01news"  # of all channels only this one has subscribers
        item = {
            b"channel": b"news",
            b"formats": {b"ws-message": {b"content": b"tnetstring"}, b"m2gate": {b"content": b"x"}},
        }
        for junk in (b"", b"J{", b"T999:x", b"{}", b"J[]", b'J{"channel": 1}'):
            push.send(junk)
        push.send_multipart([b"two", b"frames"])
        own = '"formats": {"m2gate": {"content": "JSON"}}'
        push.send(f'J{{"channel": "news", {own}}}'.encode())
        push.send(b"T" + tnetstring.dumps(item))
        push.send(tnetstring.dumps(item))
        published.clients.listen(lambda: len(items(published)) == 3, "three items")
        assert items(published) == ["JSON", "tnetstring", "tnetstring"]
        xpub.send_multipart([b"news", f'J{{"channel": "other", {own}}}'.encode()])
        xpub.send_multipart([b"news-2", f'J{{"channel": "news", {own}}}'.encode()])
        published.clients.listen(lambda: len(items(published)) == 4, "the channel frame decides")
    finally:
        context.destroy(linger=0)


def items(published: Published) -> list[str]:
    return [one for one in published.received("sockets", published.sockets[0]) if not one.startswith("probe")]


def test_nobody_there_is_one_line() -> None:
    command = [sys.executable, "-m", "m2gate.cli", "publish", "c", "x", "--to", f"http://127.0.0.1:{free_port()}"]
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "nobody takes items there" in done.stderr
