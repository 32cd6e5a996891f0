"""The control port of a real server: every command, its errors, and what it says when it is gone."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from m2gate.link.control import ControlError, ControlPort, ControlTimeout
from tests.system.support import Mongrel2, accepts, wait_until

pytestmark = pytest.mark.checklist("mongrel2", 62)


@pytest.fixture
def control(server: Mongrel2) -> ControlPort:
    return ControlPort(server.control_spec, timeout_s=5)


@pytest.fixture
def client(server: Mongrel2) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as one:
        one.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        yield one


def test_questions(server: Mongrel2, control: ControlPort) -> None:
    assert {"help", "info", "uuid", "time", "status", "kill", "reload", "stop"} <= control.help().keys()
    info = control.info()
    assert (info["port"], info["bind_addr"], info["uuid"]) == (server.port, "127.0.0.1", "test-1")
    assert control.uuid() == "test-1"
    assert abs(control.time() - time.time()) < 60


def test_status(control: ControlPort, client: socket.socket) -> None:
    wait_until(lambda: [one for one in control.status_net() if one.bytes_read], "the request was read")
    connection = control.status_net()[0]
    assert connection.kind == 1
    assert connection.bytes_read == len(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    tasks = control.status_tasks()
    assert len(tasks) > 3
    assert all(isinstance(task.name, str) for task in tasks)


def test_kill_closes_the_connection(control: ControlPort, client: socket.socket) -> None:
    wait_until(lambda: any(one.conn_id > 0 for one in control.status_net()), "the connection has an id")
    conn_id = next(one.conn_id for one in control.status_net() if one.conn_id > 0)
    control.kill(conn_id)
    assert client.recv(100) == b""


def test_errors_are_exceptions(control: ControlPort) -> None:
    with pytest.raises(ControlError, match="INVALID_ARGUMENT") as caught:
        control.kill(54_321)
    assert (caught.value.command, caught.value.code) == ("kill", "INVALID_ARGUMENT")
    with pytest.raises(ControlError, match="CALLBACK_NOT_FOUND"):
        control.call("version")
    with pytest.raises(ControlError, match="status"):
        control.call("status", what="weather")
    assert control.uuid() == "test-1"


def test_reload_keeps_serving(server: Mongrel2, control: ControlPort) -> None:
    control.reload()
    control.reload()
    assert control.uuid() == "test-1"
    assert accepts(server.port)


@pytest.mark.parametrize("command", ["stop", "terminate"])
def test_stop_ends_the_server(server: Mongrel2, control: ControlPort, command: str) -> None:
    getattr(control, command)()
    server.process.wait(10)
    with pytest.raises(ControlTimeout, match="does the server run"):
        ControlPort(server.control_spec, timeout_s=0.2).uuid()


def test_control_stop_closes_only_the_control_port(server: Mongrel2, control: ControlPort) -> None:
    control.control_stop()
    with pytest.raises(ControlTimeout):
        ControlPort(server.control_spec, timeout_s=0.2).uuid()
    assert accepts(server.port)


def test_threads_share_a_client(control: ControlPort) -> None:
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(control.uuid())) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert answers == ["test-1"] * 10
