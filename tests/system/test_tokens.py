"""Any process on the machine answers a connection by its token."""

import subprocess
import sys

import pytest

from m2gate import Connection
from tests.system.processes import ROOT, environment
from tests.system.support import Mongrel2, running, wait_until
from tests.system.test_restart import ask, fetch

pytestmark = pytest.mark.core  # what a gateway could break first

APP = ROOT / "tests/system/apps/service.py"

SCRIPT = """
import sys
from m2gate import Connection, ConnectionGone

connection = Connection.from_token(sys.argv[1])
try:
    for piece in sys.argv[2:]:
        connection.send(piece.encode().decode("unicode_escape").encode())
    connection.close()
except ConnectionGone:
    print("gone")
"""


def in_other_process(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return done.stdout.strip()


def token(server: Mongrel2, name: str) -> str:
    wait_until(lambda: fetch_or_none(server, f"/token/{name}") is not None, "the request is detached")
    return fetch(server, f"/token/{name}")


def fetch_or_none(server: Mongrel2, path: str) -> str | None:
    try:
        return fetch(server, path)
    except OSError:
        return None


def test_another_process_answers_and_closes(server: Mongrel2) -> None:
    with running(APP, server), ask(server, "/detach/a") as client:
        text = token(server, "a")
        assert in_other_process(text, r"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "world") == ""
        answer = b""
        while piece := client.recv(1024):
            answer += piece
        assert answer == b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhelloworld"
        assert in_other_process(text, "more") == "gone"


def test_the_own_process_answers_and_the_connection_goes_on(server: Mongrel2) -> None:
    with running(APP, server), ask(server, "/detach/b") as client:
        token(server, "b")
        assert fetch(server, "/answer/b/one") == "sent"
        assert client.recv(1024).endswith(b"\r\n\r\none")
        client.sendall(b"GET /ok/next HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1024).endswith(b"\r\n\r\nnext")


def test_a_client_that_left_voids_the_token(server: Mongrel2) -> None:
    with running(APP, server):
        with ask(server, "/detach/c"):
            text = token(server, "c")
        wait_until(lambda: in_other_process(text, "x") == "gone", "the token is void")


def test_a_dead_server_voids_the_token(server: Mongrel2) -> None:
    with running(APP, server), ask(server, "/detach/d"):
        text = token(server, "d")
        server.kill9()
        server.start()
        assert fetch(server, "/ok/back") == "back"
        assert in_other_process(text, "x") == "gone"


@pytest.mark.parametrize("text", ["", "nonsense", "x" * 200, "MTI6NjpodHRwOi8sMDosXQ"])
def test_what_is_no_token(text: str) -> None:
    with pytest.raises(ValueError, match="no connection token"):
        Connection.from_token(text)
