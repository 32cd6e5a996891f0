"""The configuration that is written starts a real Mongrel2, which then behaves as it says."""

import http.client
import signal
import ssl
from pathlib import Path

import pytest
import zmq

from m2gate.site.records import Protocol
from m2gate.wire.mongrel2 import Request, build_reply, parse_message
from tests.system.support import Mongrel2, alive, make_pair, mongrel2


def connect(server: Mongrel2) -> http.client.HTTPConnection:
    if server.private.certdir is None:
        return http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection("127.0.0.1", server.port, timeout=10, context=context)


def ask_through(server: Mongrel2) -> Request:
    """Send one request, answer it from a bare handler, return what the handler got."""
    context = zmq.Context()
    pull, pub = context.socket(zmq.PULL), context.socket(zmq.XPUB)
    client = connect(server)
    try:
        pub.connect(server.recv_spec)
        assert pub.poll(10_000)
        assert pub.recv() == b"\x01test-1 "  # the server's subscription: from now on nothing is lost
        pull.connect(server.send_spec)
        client.request("GET", "/hello")
        assert pull.poll(10_000)
        message = parse_message(pull.recv())
        assert isinstance(message, Request)
        pub.send(build_reply(message.send_ident, [message.conn_id], b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"))
        assert client.getresponse().read() == b"hi"
        return message
    finally:
        client.close()
        context.destroy(linger=0)


@pytest.mark.checklist("mongrel2", 63)
@pytest.mark.parametrize("protocol", ["tnetstring", "json"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_request_and_reply(protocol: Protocol, scheme: str, tmp_path: Path) -> None:
    make_pair(tmp_path, "a.test", ["a.test"])
    with mongrel2(protocol=protocol, certificates=tmp_path if scheme == "https" else None) as server:
        message = ask_through(server)
    assert message.headers[b"URL_SCHEME"] == scheme.encode()
    assert message.send_ident == b"test-1"
    assert message.headers[b"METHOD"] == b"GET"
    assert message.headers[b"DOWNLOAD_CREDITS"] == b"102400"


def test_stop_leaves_nothing_and_restart_works(server: Mongrel2) -> None:
    first = server.pid
    server.restart()
    assert server.pid != first
    assert ask_through(server).path == b"/hello"
    server.kill9()
    assert not alive(server.pid)
    server.start()
    assert server.stop() in (0, -signal.SIGABRT)


def test_static_files(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<p>hi</p>")
    with mongrel2(static={"/files/": tmp_path}) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        client.request("GET", "/files/page.html")
        answer = client.getresponse()
        assert (answer.status, answer.read(), answer.getheader("Content-Type")) == (
            200,
            b"<p>hi</p>",
            "text/html; charset=utf-8",
        )
        client.close()
