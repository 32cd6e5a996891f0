"""JSON sockets through the real Mongrel2: messages on a plain TCP connection."""

import base64
import json
import socket

import pytest

from tests.system.processes import ROOT
from tests.system.support import mongrel2, running, wait_until

pytestmark = pytest.mark.core  # what a gateway could break first

APP = ROOT / "tests/system/apps/service.py"


def talk(port: int, *messages: bytes, count: int = 1) -> list[bytes]:
    """Send messages on one connection; return what comes back until it holds count NULs, or one piece."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"".join(messages))
        got = b""
        while got.count(b"\0") < count:
            piece = client.recv(65_536)
            if not piece:
                break
            got += piece
        return got.split(b"\0")[:-1]


@pytest.mark.checklist("mongrel2", 65)
def test_raw_payload_answers_json_with_its_nul_and_pings_are_mongrel2s() -> None:
    with (
        mongrel2(routes=("/", "@sum", "@text"), raw_payload=True) as server,
        running(APP, server, access_log="-") as worker,
    ):
        messages = [
            b'@sum {"numbers": [1, 2, 3]}\0',
            b'@sum {"type": "ping"}\0',
            b'@text {"x": 1}\0',
            b'@sum {"numbers": "x"}\0',
            b"@sum {broken}\0",
        ]
        answers = talk(server.port, *messages, count=4)
        assert json.loads(answers[0]) == {"sum": 6}
        assert answers[1] == b"plain text"
        assert set(json.loads(answers[2])) == {"error", "request_id"}
        assert "no JSON" in json.loads(answers[3])["error"]
        wait_until(lambda: worker.stderr().count('"method": "JSON"') >= 4, "all four are logged")
        assert worker.stderr().count('"method": "JSON"') == 4  # and not the ping


@pytest.mark.checklist("mongrel2", 65)
def test_without_raw_payload_answers_are_base64() -> None:
    with mongrel2(routes=("/", "@sum")) as server, running(APP, server):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall(b'@sum {"numbers": [20, 22]}\0')
            got = b""
            while len(got) < len(base64.b64encode(b'{"sum":42}')):
                got += client.recv(1024)
        assert json.loads(base64.b64decode(got)) == {"sum": 42}
