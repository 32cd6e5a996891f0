"""Items by HTTP over real sockets: each answer, each refusal, and what stays bounded."""

import gc
import json
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import socket as gsocket
from gevent.event import Event

from m2gate.errors import ConfigError, LimitReached
from m2gate.hub.item import Item
from m2gate.hub.work import Receipt
from m2gate.inputs import listener as listener_module
from m2gate.inputs import publish_http as module
from m2gate.inputs.publish_http import BODY_MAX, HEADER_MAX, HttpInput

DEADLINE_S = 10.0
DATE = "Wed, 25 Nov 2026 04:22:00 GMT"
ITEM = {"channel": "c", "formats": {"m2gate": {"content": "x"}}}
BODY = json.dumps({"items": [ITEM]}).encode()


class Hub:
    """Takes items, and does with them what the test says."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.before: Callable[[Item], None] = lambda item: None

    def publish(self, item: Item) -> Receipt:
        self.before(item)
        self.items.append(item)
        return Receipt(9, 3, 1, 2)

    @property
    def channels(self) -> list[str]:
        return [item.channel for item in self.items]


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def server(hub: Hub, capfd: pytest.CaptureFixture[str]) -> Iterator[HttpInput]:
    server = HttpInput("127.0.0.1:0", hub.publish, lambda: DATE)
    server.start()
    yield server
    server.stop()
    gc.collect()
    assert capfd.readouterr() == ("", "")


def talk(server: HttpInput, request: bytes) -> bytes:
    """Send a request and return everything that comes back until the end of the stream."""
    answer = b""
    with gsocket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as connection:
        connection.sendall(request)
        while piece := connection.recv(65_536):
            answer += piece
    return answer


def build(body: bytes = BODY, start: str = "POST /publish/", length: int | str | None = None, **fields: str) -> bytes:
    """Return a request; ``Content_Type`` stands for Content-Type."""
    fields = {"Host": "127.0.0.1:5561", "Content-Length": str(len(body) if length is None else length)} | fields
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items() if value)
    return f"{start} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def ask(server: HttpInput, request: bytes) -> tuple[int, str]:
    head, _, body = talk(server, request).partition(b"\r\n\r\n")
    assert b"\r\nConnection: close" in head
    assert f"\r\nContent-Length: {len(body)}".encode() in head
    return int(head[9:12]), body.decode()


def test_the_bytes_of_an_answer(server: HttpInput, hub: Hub) -> None:
    answer = talk(server, build())
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[:4] == [b"HTTP/1.1 200 OK", b"Content-Type: text/plain", b"Connection: close", b"Content-Length: 10"]
    assert body == b"Published\n"
    item = Item(channel="c", content="x", date=DATE)
    assert hub.items == [item]


JSON = '{"message":"Published"}\n'
NOT_ACCEPTABLE = "Not Acceptable. Supported formats are text/plain and application/json.\n"
ACCEPTS = [
    pytest.param("", 200, "Published\n", id="none"),
    pytest.param("*/*", 200, "Published\n", id="any"),
    pytest.param("text/*", 200, "Published\n", id="any-text"),
    pytest.param("text/plain", 200, "Published\n", id="text"),
    pytest.param("text/html, text/plain;q=0.5", 200, "Published\n", id="list"),
    pytest.param("application/json", 200, JSON, id="json"),
    pytest.param("application/json; charset=utf-8", 200, JSON, id="parameter"),
    pytest.param("application/json, */*", 200, JSON, id="json-first"),
    pytest.param("application/*", 200, JSON, id="any-application"),
    pytest.param("Application/JSON", 200, JSON, id="case"),
    pytest.param("text/html", 406, NOT_ACCEPTABLE, id="html"),
    pytest.param("image/*, video/mp4", 406, NOT_ACCEPTABLE, id="others"),
]


@pytest.mark.parametrize(("accept", "status", "text"), ACCEPTS)
def test_accept(server: HttpInput, hub: Hub, accept: str, status: int, text: str) -> None:
    assert ask(server, build(Accept=accept)) == (status, text)
    assert len(hub.items) == (status == 200)


def test_a_receipt_tells_what_became_of_each(server: HttpInput, hub: Hub) -> None:
    body = json.dumps({"items": [ITEM, {**ITEM, "channel": "d"}]}).encode()
    status, text = ask(server, build(body, "POST /publish/?receipt=1", Accept="text/plain"))
    counts = {"matched": 9, "written": 3, "queued": 3, "filtered": 2, "dropped": 1}
    receipt = [{"channel": "c", **counts}, {"channel": "d", **counts}]
    assert (status, json.loads(text)) == (200, {"message": "Published", "receipt": receipt})
    assert ask(server, build(b'{"items":[]}', "POST /publish?receipt=1")) == (
        200, '{"message": "Published", "receipt": []}\n',
    )  # fmt: skip
    assert ask(server, build(start="POST /publish/?receipt=0")) == (200, "Published\n")


GOOD = [
    pytest.param(b'{"items":[]}', {}, id="no-items"),
    pytest.param(BODY, {"start": "POST /publish"}, id="no-slash"),
    pytest.param(BODY, {"Content_Type": "text/html"}, id="content-type"),
    pytest.param(BODY, {"Host": "localhost:5561"}, id="localhost"),
    pytest.param(BODY, {"Host": "[::1]:5561"}, id="ipv6"),
    pytest.param(BODY, {"Host": "192.0.2.1"}, id="ipv4"),
    pytest.param(BODY + b" " * (BODY_MAX - len(BODY)), {}, id="largest-body"),
    pytest.param(BODY, {"X_A": "x" * (HEADER_MAX - 200)}, id="large-header"),
    pytest.param(BODY, {"Expect": ""}, id="expect"),
]


@pytest.mark.parametrize(("body", "changes"), GOOD)
def test_good_requests(server: HttpInput, body: bytes, changes: dict[str, Any]) -> None:
    assert ask(server, build(body, **changes)) == (200, "Published\n")
    assert server.rejected == 0


def test_other_paths(server: HttpInput) -> None:
    assert ask(server, build(b"", "GET /")) == (200, "m2gate publish input\n")
    assert ask(server, build(start="POST /other/")) == (404, "Not Found\n")
    assert ask(server, build(start="POST /publish/more")) == (404, "Not Found\n")
    head, _, body = talk(server, build(b"", "GET /publish/")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
    assert b"\r\nAllow: POST" in head
    assert body == b"Method not allowed: GET.\n"


BROWSERS = (403, "Browsers may not publish here.\n")
NAMES = (403, "Use an IP address or localhost in the URL.\n")
NO_LENGTH = (411, "Request requires Content-Length.\n")
REFUSED = [
    pytest.param(build(Origin="http://127.0.0.1:5561"), BROWSERS, id="origin"),
    pytest.param(build(Origin="null"), BROWSERS, id="origin-null"),
    pytest.param(build(Host="shop.example:5561"), NAMES, id="host"),
    pytest.param(build(Host="localhost.shop.example"), NAMES, id="host-prefix"),
    pytest.param(build(Host="[shop.example]"), NAMES, id="host-brackets"),
    pytest.param(build(b"", "GET /", Host="shop.example"), NAMES, id="host-of-any-path"),
    pytest.param(build(b"0\r\n\r\n", length="", Transfer_Encoding="chunked"), NO_LENGTH, id="chunked"),
    pytest.param(build(b"", length=""), NO_LENGTH, id="no-length"),
    pytest.param(build(b"", X_A="x" * HEADER_MAX), (400, "Request header too large.\n"), id="header"),
    pytest.param(
        build(b"x" * (BODY_MAX + 1)), (400, "Request body too large.\n"), id="body"
    ),
    pytest.param(build(b"", Accept="text/html"), (406, NOT_ACCEPTABLE), id="accept"),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "answer"), REFUSED)
def test_refusals(server: HttpInput, hub: Hub, request_: bytes, answer: tuple[int, str]) -> None:
    assert ask(server, request_) == answer
    assert hub.items == []
    assert server.rejected == 0  # that counts bodies


BAD_BODIES: list[Any] = [
    pytest.param(b"", "Body is not valid JSON.\n", id="empty"),
    pytest.param(b"{", "Body is not valid JSON.\n", id="cut"),
    pytest.param(b"\xff", "Body is not valid JSON.\n", id="binary"),
    pytest.param(b"[" * 100_000, "Body is not valid JSON.\n", id="nested"),
    pytest.param(b"[]", "Invalid format.\n", id="list"),
    pytest.param(b"null", "Invalid format.\n", id="null"),
    pytest.param(b"{}", "Invalid format: object does not contain 'items'\n", id="no-items"),
    pytest.param(b'{"items":{}}', "Invalid format: object contains 'items' with wrong type\n", id="items"),
    pytest.param([1], "Invalid format: publish item object is not an object\n", id="item"),
    pytest.param([ITEM, {}], "Invalid format: publish item object does not contain 'channel'\n", id="second"),
    pytest.param([ITEM, {"channel": "c"}], "Invalid format: no formats specified\n", id="formats"),
    pytest.param(
        [{**ITEM, "meta": {"\ud800\r\nX": 1}}], "Invalid format: 'meta' contains '?\r\nX' with wrong type\n", id="half"
    ),
]


@pytest.mark.parametrize(("body", "text"), BAD_BODIES)
def test_bad_bodies_publish_nothing(server: HttpInput, hub: Hub, body: bytes | list[Any], text: str) -> None:
    raw = body if isinstance(body, bytes) else json.dumps({"items": body}).encode()
    assert ask(server, build(raw, Accept="application/json")) == (400, text)
    assert hub.items == []
    assert server.rejected == 1


DEEP = b'{"items":[{"channel":"c","formats":{"m2gate":{"json":%b%b}}}]}'


@pytest.mark.parametrize("depth", range(900, 1_000, 7))
def test_deep_nesting_is_published_or_refused(server: HttpInput, depth: int) -> None:
    assert ask(server, build(DEEP % (b"[" * depth, b"]" * depth)))[0] in (200, 400)


def test_what_is_said_of_a_bad_item_is_bounded(server: HttpInput) -> None:
    body = json.dumps({"items": [{**ITEM, "meta": {"x" * 100_000: 1}}]}).encode()
    status, text = ask(server, build(body))
    assert (status, len(text)) == (400, len("Invalid format: \n") + module.TEXT_MAX)


@pytest.mark.parametrize("length", ["x", "-1", "\xb2", "1e3", "1 1"])
def test_lengths_that_are_none(server: HttpInput, hub: Hub, length: str) -> None:
    talk(server, build(b"", length=length))
    assert hub.items == []
    assert ask(server, build()) == (200, "Published\n")


def test_a_body_that_ends_early(server: HttpInput, hub: Hub) -> None:
    with gsocket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as connection:
        connection.sendall(build(BODY[:-1], length=len(BODY)))
        connection.shutdown(1)
        assert connection.recv(65_536).endswith(b"\r\n\r\nRequest body incomplete.\n")
    assert hub.items == []


def test_a_slow_body_is_cut(server: HttpInput, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "CONNECTION_S", 0.1)
    with gsocket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as connection:
        connection.sendall(build(BODY[:-1], length=len(BODY)))
        assert connection.recv(65_536) == b""
    assert hub.items == []


def test_who_waits_for_subscribers_is_not_cut(server: HttpInput, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "CONNECTION_S", 0.1)
    hub.before = lambda item: gevent.sleep(0.3)
    with gsocket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as connection:
        connection.sendall(build())
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
        assert hub.channels == ["c"]


def test_too_many_that_wait(server: HttpInput, hub: Hub) -> None:
    def before(item: Item) -> None:
        if len(hub.items) == 2:
            raise LimitReached(10, 11, "items that wait")

    hub.before = before
    body = json.dumps({"items": [ITEM] * 5}).encode()
    text = "items that wait: 11 is over the limit of 10; 2 of 5 items were published\n"
    assert ask(server, build(body)) == (503, text)


def test_a_publish_that_blocks_holds_up_nobody_else(server: HttpInput, hub: Hub) -> None:
    free = Event()

    def before(item: Item) -> None:
        if item.channel == "slow":
            free.wait(DEADLINE_S)

    hub.before = before
    slow = json.dumps({"items": [{**ITEM, "channel": "slow"}]}).encode()
    waiting = [gevent.spawn(ask, server, build(slow)) for _ in range(20)]
    assert ask(server, build()) == (200, "Published\n")
    assert hub.channels == ["c"]
    free.set()
    assert [one.get(timeout=DEADLINE_S) for one in waiting] == [(200, "Published\n")] * 20
    assert hub.channels == ["c"] + ["slow"] * 20


def test_a_long_list_lets_others_have_their_turn(server: HttpInput, hub: Hub) -> None:
    turns: list[int] = []

    def count_turns() -> None:
        while len(hub.items) < 1_000:
            turns.append(len(hub.items))
            gevent.sleep(0)

    other = gevent.spawn(count_turns)
    assert ask(server, build(json.dumps({"items": [ITEM] * 1_000}).encode())) == (200, "Published\n")
    other.join()
    assert len({one for one in turns if one}) >= 1_000 // module.TURN_ITEMS - 1


@pytest.mark.parametrize("address", ["5561", "shop.example:5561", "127.0.0.1:x", "192.0.2.1:5561"])
def test_bad_addresses(hub: Hub, address: str) -> None:
    with pytest.raises(ConfigError, match=f"publish_http = '{address}'"):
        HttpInput(address, hub.publish, lambda: DATE).start()


def test_a_stopped_input_leaves_its_port(server: HttpInput, hub: Hub) -> None:
    port = server.port
    server.stop()
    server.stop()
    assert server.port is None
    other = HttpInput(f"127.0.0.1:{port}", hub.publish, lambda: DATE)
    other.start()
    assert ask(other, build()) == (200, "Published\n")
    other.stop()
