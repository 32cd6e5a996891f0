"""The conversations of tests/app/cases.py through a real Mongrel2: the same answers as through TestClient."""

import http.client
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from tests.app.cases import CASES, SOCKETS, Answer, Ask, Talk
from tests.system.support import Mongrel2, mongrel2, running

pytestmark = pytest.mark.core  # what a gateway could break first


@pytest.fixture(scope="module")
def service(shape: str) -> Iterator[Mongrel2]:
    with mongrel2() as server, running("tests.app.cases:app", server):
        yield server


@pytest.mark.parametrize("conversation", CASES.values(), ids=CASES)
def test_case(service: Mongrel2, conversation: list[tuple[Ask, Answer]]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    for ask, answer in conversation:
        send(connection, ask)
        response = connection.getresponse()
        body = response.read()
        assert (response.status, body) == (answer.status, answer.body)
        assert {name: response.headers.get(name) for name in answer.headers} == answer.headers
    connection.close()


def send(connection: http.client.HTTPConnection, ask: Ask) -> None:
    """Send the request with exactly the headers that TestClient sends."""
    connection.putrequest(ask.method, ask.path, skip_accept_encoding=True)
    for name, value in ask.headers.items():
        connection.putheader(name, value)
    if isinstance(ask.body, list):
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders(iter(ask.body), encode_chunked=True)
    else:
        if ask.body:
            connection.putheader("Content-Length", str(len(ask.body)))
        connection.endheaders(ask.body or None)


@pytest.mark.parametrize("talk", SOCKETS.values(), ids=SOCKETS)
def test_socket(service: Mongrel2, talk: Talk) -> None:
    if talk.refused:
        with pytest.raises(InvalidStatus) as refusal:
            open_socket(service, talk)
        response = refusal.value.response
        assert (response.status_code, response.body) == (talk.refused, talk.reason.encode())
        return
    with open_socket(service, talk) as ws:
        assert ws.subprotocol == talk.subprotocol
        for message in talk.says:
            ws.send(message)
        for heard in talk.hears:
            assert ws.recv(timeout=10) == heard
        if talk.code != 1000:  # then it is the server that ends it
            with pytest.raises(ConnectionClosed):
                ws.recv(timeout=10)
    assert (ws.close_code, ws.close_reason) == (talk.code, talk.reason)


def open_socket(service: Mongrel2, talk: Talk) -> ClientConnection:
    return connect(
        f"ws://127.0.0.1:{service.port}{talk.path}",
        origin=None if talk.origin is None else Origin(talk.origin),
        subprotocols=[Subprotocol(one) for one in talk.subprotocols] or None,
        compression=None,
        open_timeout=10,
    )
