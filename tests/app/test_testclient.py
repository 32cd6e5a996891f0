"""TestClient answers as Mongrel2 does (tests/system/test_same_cases.py has the other half), and what only it has."""

from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event

from m2gate import App, Connection, ConnectionGone, HTTPError, Request, TestClient, WebSocket
from tests.app.cases import CASES, SOCKETS, Answer, Ask, Talk, app


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(app) as one:
        yield one


@pytest.mark.parametrize("conversation", CASES.values(), ids=CASES)
def test_case(client: TestClient, conversation: list[tuple[Ask, Answer]]) -> None:
    for ask, answer in conversation:
        data = iter(ask.body) if isinstance(ask.body, list) else ask.body or None
        got = client.request(ask.method, ask.path, headers=ask.headers, data=data)
        assert (got.status, got.body) == (answer.status, answer.body)
        assert {name: got.headers.get(name) for name in answer.headers} == answer.headers


@pytest.mark.parametrize("talk", SOCKETS.values(), ids=SOCKETS)
def test_socket(client: TestClient, talk: Talk) -> None:
    headers = {"Origin": talk.origin} if talk.origin else None
    if talk.refused:
        with pytest.raises(HTTPError) as refusal:
            client.websocket(talk.path, headers=headers, subprotocols=talk.subprotocols)
        assert (refusal.value.status, refusal.value.detail) == (talk.refused, talk.reason)
        return
    with client.websocket(talk.path, headers=headers, subprotocols=talk.subprotocols) as ws:
        assert ws.subprotocol == talk.subprotocol
        for message in talk.says:
            ws.send(message)
        for message in talk.hears:
            assert ws.receive() == message
        if talk.code != 1000:  # then it is the server that ends it
            assert list(ws) == []
    assert (ws.close_code, ws.close_reason) == (talk.code, talk.reason)


def test_slow_client_holds_the_producer_up() -> None:
    app = App()
    made: list[int] = []

    @app.get("/")
    def numbers(request: Request) -> Iterator[bytes]:
        def produce() -> Iterator[bytes]:
            for i in range(100):
                made.append(i)
                yield b"%1000d" % i

        return produce()

    with TestClient(app, credits=5_000) as client, client.stream("GET", "/") as stream:
        gevent.sleep(0.01)
        first = len(made)
        assert 3 <= first <= 6
        assert len(stream.read(10_000)) == 10_000
        gevent.sleep(0.01)
        assert first < len(made) <= 16
        assert len(stream.read()) == 90_000
        assert stream.is_complete


def test_disconnect_closes_the_producer() -> None:
    app = App()
    ends: list[str] = []

    @app.get("/")
    def endless(request: Request) -> Iterator[str]:
        def produce() -> Iterator[str]:
            try:
                while True:
                    yield "tick\n"
                    gevent.sleep(60)
            finally:
                ends.append("closed" if not request.connected else "early")

        return produce()

    with TestClient(app) as client:
        with client.stream("GET", "/") as stream:
            assert next(iter(stream)) == b"tick\n"
        for _ in range(100):
            gevent.sleep(0.001)
            if ends:
                break
        assert ends == ["closed"]


def test_upload_waits_for_its_reader() -> None:
    app = App()
    reading = Event()

    @app.post("/")
    def take(request: Request) -> dict[str, int]:
        first = request.stream.read(1)
        reading.wait()
        return {"size": len(first) + sum(len(piece) for piece in request.stream)}

    sent: list[int] = []

    def pieces() -> Iterator[bytes]:
        for i in range(100):
            sent.append(i)
            yield b"x" * 10_000

    with TestClient(app) as client:
        asking = gevent.spawn(client.post, "/", data=pieces())
        gevent.sleep(0.01)
        assert 10 <= len(sent) <= 60
        reading.set()
        assert asking.get(timeout=10).json == {"size": 1_000_000}
        assert len(sent) == 100


def test_client_that_leaves_during_an_upload_raises_in_the_reader() -> None:
    app = App()
    raised: list[type[BaseException]] = []

    @app.post("/")
    def take(request: Request) -> str:
        try:
            return str(len(request.body))
        except ConnectionGone as error:
            raised.append(type(error))
            raise

    with TestClient(app) as browser:

        def pieces() -> Iterator[bytes]:
            yield b"x"
            browser.disconnect()
            yield b"y"

        with pytest.raises(EOFError):
            browser.post("/", data=pieces())
        gevent.sleep(0.01)
    assert raised == [ConnectionGone]


def test_connections_are_used_again() -> None:
    app = App()

    @app.get("/")
    def which(request: Request) -> str:
        return str(request.conn_id)

    with TestClient(app) as client:
        assert [client.get("/").text for _ in range(3)] == ["1", "1", "1"]
        assert client.get("/", headers={"Connection": "close"}).headers["Connection"] == "close"
        assert client.get("/").text == "2"
        assert client.get("/", version="1.0").text == "2"
        assert client.get("/").text == "3"


def test_on_start_and_on_stop_run_once() -> None:
    app = App()
    calls: list[str] = []
    app.on_start(lambda: calls.append("start"))
    app.on_stop(lambda: calls.append("stop"))
    with TestClient(app) as client:
        client.get("/")
        assert calls == ["start"]
    assert calls == ["start", "stop"]


def test_detached_request_is_answered_by_token() -> None:
    app = App(secret="s")
    tokens: list[str] = []

    @app.get("/")
    def later(request: Request) -> None:
        tokens.append(request.detach().token)

    with TestClient(app) as client:
        asking = gevent.spawn(client.get, "/")
        gevent.sleep(0.01)
        Connection.from_token(tokens[0]).send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nlater")
        assert asking.get(timeout=5).text == "later"
        # The connection goes on with the next request.
        asking = gevent.spawn(client.get, "/")
        gevent.sleep(0.01)
        Connection.from_token(tokens[1]).send(b"HTTP/1.1 200 OK\r\n\r\nclosed")
        Connection.from_token(tokens[1]).close()
        assert asking.get(timeout=5).text == "closed"
        with pytest.raises(ConnectionGone):
            Connection.from_token(tokens[1]).send(b"more")
    with pytest.raises(ConnectionGone):
        Connection.from_token(tokens[0]).send(b"after the end")


def test_json_socket() -> None:
    app = App()

    @app.json_socket("@sum")
    def total(request: Request) -> dict[str, int]:
        return {"sum": sum(request.json)}

    with TestClient(app) as client:
        assert client.json_socket("@sum", [1, 2, 3]) == {"sum": 6}


def test_a_silent_handler_is_a_timeout() -> None:
    app = App()

    @app.get("/")
    def silent(request: Request) -> None:
        gevent.sleep(60)

    with TestClient(app, timeout=0.05) as client, pytest.raises(TimeoutError, match=r"within 0\.05 s"):
        client.get("/")


def test_ping_pong_and_leaving_without_a_close_frame() -> None:
    app = App()
    codes: list[int] = []

    @app.websocket("/")
    def listen(ws: WebSocket) -> None:
        for message in ws:
            ws.ping(b"from the server")
            ws.send(message)
        codes.append(ws.close_code)

    with TestClient(app) as client:
        ws = client.websocket("/")
        ws.ping(b"from the client")
        ws.send("hi")
        assert ws.receive() == "hi"
        assert ws.pongs == [b"from the client"]
        with pytest.raises(TimeoutError):
            ws.receive(timeout=0.01)
        ws.disconnect()
        gevent.sleep(0.01)
        assert codes == [1006]
        with pytest.raises(ConnectionGone):
            ws.send("too late")


@pytest.mark.parametrize(
    ("opcode", "payload", "flags", "code"),
    [(0x1, b"\xff", 0x80, 1007), (0x3, b"", 0x80, 1002), (0x1, b"x", 0xC0, 1002), (0x2, b"x" * 101, 0x80, 1009)],
    ids=["utf8", "opcode", "reserved", "size"],
)
def test_violations_are_closed_with_their_code(opcode: int, payload: bytes, flags: int, code: int) -> None:
    app = App(max_message=100)

    @app.websocket("/")
    def listen(ws: WebSocket) -> None:
        for _ in ws:
            pass

    with TestClient(app) as client:
        ws = client.websocket("/")
        ws.send_frame(opcode, payload, flags)
        assert list(ws) == []
        assert ws.close_code == code
