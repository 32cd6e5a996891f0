"""Every default of the public contract: its value, and what happens at that very bound."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from m2gate import App, ConnectionGone, EventStream, Hold, Request, Response, TestClient, WebSocket
from m2gate.cli.run import command
from m2gate.link.server import LinkSettings
from m2gate.worker.settings import WorkerSettings

MIB = 1 << 20


def test_values() -> None:
    app = App()
    assert (app.max_body, app.max_memory, app.max_message) == (100 * MIB, 16 * MIB, 4 * MIB)
    worker, link = WorkerSettings(target="app", servers=(), run_dir="/tmp"), LinkSettings()
    assert (worker.max_handlers, worker.max_requests) == (2_000, None)
    assert (worker.inbox_messages, worker.inbox_bytes) == (link.inbox_messages, link.inbox_bytes) == (256, MIB)
    assert worker.keepalive_s == link.keepalive_s == 45
    assert link.max_body == app.max_body
    assert worker.drain_timeout_s == 30
    assert worker.patch is True
    assert worker.access_log is None
    assert (Hold("c").timeout, EventStream([]).ping) == (55, 15)


def test_options_of_the_command() -> None:
    defaults = {parameter.name: parameter.default for parameter in command.params if parameter.default}
    assert (defaults["bind"], defaults["drain_timeout"]) == ("127.0.0.1:6767", 30)


def test_signatures() -> None:
    def defaults(of: Callable[..., Any]) -> dict[str, Any]:
        parameters = inspect.signature(of).parameters.values()
        return {one.name: one.default for one in parameters if one.default is not one.empty}

    response = {"body": b"", "status": 200, "headers": None, "content_type": None}
    assert defaults(Response) == response
    assert defaults(Response.redirect) == {"status": 302}
    assert defaults(WebSocket.receive) == {"timeout": None}
    assert defaults(WebSocket.close) == {"code": 1000, "reason": ""}
    assert defaults(EventStream) == {"ping": 15.0}


@pytest.fixture
def app() -> App:
    app = App()

    @app.post("/stream")
    def stream(request: Request) -> dict[str, int]:
        return {"size": sum(len(piece) for piece in request.stream)}

    @app.post("/body")
    def body(request: Request) -> dict[str, int]:
        return {"size": len(request.body)}

    @app.post("/text")
    def text(request: Request) -> dict[str, int]:
        return {"size": len(request.text)}

    @app.post("/json")
    def json_(request: Request) -> dict[str, int]:
        return {"size": len(request.json) + 2}

    @app.post("/form")
    def form(request: Request) -> dict[str, int]:
        return {"size": len(request.form["a"]) + 2}

    return app


def pieces(size: int) -> Iterator[bytes]:
    piece = bytes(MIB)
    while size > 0:
        yield piece[:size]
        size -= MIB


def test_max_body_100_mib(app: App) -> None:
    with TestClient(app) as client:
        assert client.post("/stream", data=pieces(100 * MIB)).json == {"size": 100 * MIB}
        over = client.post("/stream", data=pieces(100 * MIB + 1))
        assert (over.status, over.text) == (413, f"the limit is {100 * MIB} bytes")


def test_max_body_by_its_declared_length(app: App) -> None:
    with TestClient(app) as client:
        over = client.post("/stream", data=bytes(100 * MIB + 1))
        assert (over.status, over.headers["Connection"]) == (413, "close")


@pytest.mark.parametrize(
    ("name", "content_type", "begin", "end"),
    [
        ("body", "application/octet-stream", b"", b""),
        ("text", "text/plain", b"", b""),
        ("json", "application/json", b'"', b'"'),
        ("form", "application/x-www-form-urlencoded", b"a=", b""),
    ],
)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_max_memory_16_mib(
    app: App, name: str, content_type: str, begin: bytes, end: bytes, *, is_chunked: bool
) -> None:
    def send(client: TestClient, size: int) -> Any:
        whole = begin + b"x" * (size - len(begin + end)) + end
        data = (whole[at : at + MIB] for at in range(0, size, MIB)) if is_chunked else whole
        return client.post(f"/{name}", data=data, headers={"Content-Type": content_type})

    with TestClient(app) as client:
        assert send(client, 16 * MIB).json == {"size": 16 * MIB}
        over = send(client, 16 * MIB + 1)
        assert (over.status, over.text) == (413, f"the limit is {16 * MIB} bytes")


@pytest.mark.parametrize("kind", [str, bytes])
def test_max_message_4_mib(app: App, kind: type) -> None:
    @app.websocket("/size")
    def size(ws: WebSocket) -> None:
        for message in ws:
            ws.send(str(len(message)))

    def message(length: int) -> str | bytes:
        return "x" * length if kind is str else bytes(length)

    with TestClient(app) as client:
        ws = client.websocket("/size")
        ws.send(message(4 * MIB))
        assert ws.receive() == str(4 * MIB)
        ws.send(message(4 * MIB + 1))
        with pytest.raises(ConnectionGone):
            ws.receive()
        assert ws.close_code == 1009


@pytest.mark.parametrize(("count", "size"), [(256, 1), (4, 256 * 1024)], ids=["messages", "bytes"])
@pytest.mark.parametrize("is_over", [False, True])
def test_inbox_of_256_messages_or_1_mib(app: App, count: int, size: int, *, is_over: bool) -> None:
    go_on = gevent.event.Event()

    @app.websocket("/late")
    def late(ws: WebSocket) -> None:
        ws.accept()
        go_on.wait()
        for message in ws:
            ws.send(str(len(message)))

    with TestClient(app) as client:
        ws = client.websocket("/late")
        for _ in range(count + is_over):
            ws.send(bytes(size))
        if not is_over:
            go_on.set()
            assert [ws.receive() for _ in range(count)] == [str(size)] * count
            ws.close()
            return
        with pytest.raises(ConnectionGone):
            ws.receive()
        assert ws.close_code == 1013
        go_on.set()


def test_a_setting_of_the_worker_s_file_is_known_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text('{"target": "app", "servers": [], "run_dir": "/tmp", "max_handlers": 7}')
    assert WorkerSettings.read(path).max_handlers == 7
