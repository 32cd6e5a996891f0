"""Channels against a real Mongrel2: many clients, slow ones, and all kinds of subscribers in one channel."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.broadcast_clients import Client, Crowd, ask, crowd
from tests.system.support import Mongrel2, Served, running

pytestmark = pytest.mark.core  # what a gateway could break first

APP = Path(__file__).with_name("broadcast_app.py")
NUMBERS = [b"%06d" % number for number in range(1_000)]


@pytest.fixture
def worker(server: Mongrel2) -> Iterator[Served]:
    with running(APP, server) as one:
        yield one


@pytest.fixture
def clients(server: Mongrel2, worker: Served) -> Iterator[Crowd]:
    with crowd(server.port) as one:
        yield one


def subscribed(worker: Served, name: str) -> int:
    return next((one["subscribers"] for one in worker.status()["channels"] if one["name"] == name), 0)


def wait_subscribed(clients: Crowd, worker: Served, name: str, count: int) -> None:
    clients.listen(lambda: subscribed(worker, name) == count, f"{count} subscribers of {name}")


def numbers(client: Client) -> list[bytes]:
    return [chunk[:6] for chunk in client.chunks()]


def drops(worker: Served) -> dict[str, int]:
    return worker.status()["counters"]["drops"]


@pytest.mark.checklist("mongrel2", 21, 42)
def test_900_streams_get_1000_items_in_order(server: Mongrel2, worker: Served, clients: Crowd) -> None:
    streams = clients.add("/stream/news", 900)
    wait_subscribed(clients, worker, "news", 900)
    size = 100
    assert publish(clients, "news", 1_000, size) == [900] * 1_000
    wait_size(clients, streams, 1_000 * (size + 6))
    assert [one for one in streams if numbers(one) != NUMBERS] == []
    assert not any(one.is_closed for one in streams)
    assert drops(worker) == {}
    assert subscribed(worker, "news") == 900


def publish(clients: Crowd, name: str, count: int, size: int, first: int = 0) -> list[int]:
    """Publish from a connection of its own while the crowd reads; return how many each item matched."""
    path = f"/publish/{name}?count={count}&size={size}&first={first}"
    answers: list[list[int]] = []
    thread = threading.Thread(target=lambda: answers.append(ask(clients.port, "POST", path)["matched"]))
    thread.start()
    clients.listen(lambda: not thread.is_alive(), f"POST {path} is answered", 120)
    thread.join()
    assert answers, "the publish failed"
    return answers[0]


def wait_size(clients: Crowd, streams: list[Client], size: int) -> None:
    clients.listen(lambda: all(one.size > size for one in streams), "all items at all that read")


@pytest.mark.checklist("mongrel2", 42)
@pytest.mark.parametrize(("name", "reason"), [("tight", "over-limit"), ("oldest", "drop-oldest"), ("latest", "latest")])
def test_a_stalled_client_costs_the_others_nothing(
    server: Mongrel2, worker: Served, clients: Crowd, name: str, reason: str
) -> None:
    streams = clients.add(f"/stream/{name}", 50)
    stalled = clients.add_stalled(f"/stream/{name}")
    wait_subscribed(clients, worker, name, 51)
    size, count, total = 10_000, 8, 0
    # Less than a window at a time, until the kernel's buffers and the queue of the stalled client are full.
    while reason not in drops(worker):
        assert total < 2_000, "nothing is ever dropped"
        publish(clients, name, count, size, total)
        total += count
        wait_size(clients, streams, total * size)
    expected = [b"%06d" % number for number in range(total)]
    assert [one for one in streams if numbers(one) != expected] == []
    assert subscribed(worker, name) == (50 if reason == "over-limit" else 51)
    assert not any(one.is_closed for one in streams)
    assert ("subscriber dropped" in worker.stderr()) is (reason == "over-limit")
    read_to_the_end(stalled, closed=reason == "over-limit", last=expected[-1])
    got = numbers(stalled)
    if reason == "over-limit":
        assert got == expected[: len(got)]
    else:
        assert got == sorted(set(got))
        assert total - len(got) == drops(worker)[reason]


def read_to_the_end(client: Client, *, closed: bool, last: bytes) -> None:
    client.socket.settimeout(20)
    while not client.is_closed and (closed or numbers(client)[-1:] != [last]):
        client.feed()


def test_every_kind_of_subscriber_in_one_channel(server: Mongrel2, worker: Served, clients: Crowd) -> None:
    (stream,) = clients.add("/stream/news")
    (events,) = clients.add("/events/news")
    (websocket,) = clients.add("/ws/news", websocket=True)
    (poll,) = clients.add("/poll/news")
    wait_subscribed(clients, worker, "news", 4)
    assert ask(server.port, "POST", "/say/news?event=greeting", '"hello"') == {"matched": 4}
    assert ask(server.port, "POST", "/say/news", '{"n": [1, "é"]}') == {"matched": 3}
    text = '{"n":[1,"é"]}'.encode()
    clients.listen(lambda: len(websocket.frames()) == 2 and len(events.chunks()) >= 2, "both items everywhere")
    assert stream.chunks() == [b"hello", text]
    assert events.chunks()[:2] == [b"event: greeting\ndata: hello\n\n", b"data: " + text + b"\n\n"]
    assert websocket.frames() == [(1, b"hello"), (1, text)]
    head, _, body = poll.received().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nContent-Length: 5" in head
    assert b"\r\nX-Hold: yes" in head
    assert body == b"hello"
    assert b"Content-Type: text/event-stream" in events.received()
    # The poll's connection goes on with the next request.
    poll.socket.sendall(b"GET /poll/news HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wait_subscribed(clients, worker, "news", 4)
    assert ask(server.port, "POST", "/say/news", '"again"') == {"matched": 4}
    clients.listen(lambda: poll.received().endswith(b"\r\n\r\nagain"), "the second answer")


def test_an_event_stream_is_kept_alive_by_comments(clients: Crowd) -> None:
    (events,) = clients.add("/events/news")
    clients.listen(lambda: events.chunks()[:2] == [b": \n\n"] * 2, "two comments", 10)


def test_a_response_hold_ends_by_itself(worker: Served, clients: Crowd) -> None:
    (poll,) = clients.add("/poll/news?timeout=1")
    clients.listen(lambda: poll.body() == b'{"timeout":true}', "the timeout's answer", 10)
    assert b"Content-Type: application/json" in poll.received()
    wait_subscribed(clients, worker, "news", 0)


@pytest.mark.checklist("mongrel2", 28)
def test_what_is_pipelined_behind_a_hold_waits_for_its_end(server: Mongrel2, worker: Served, clients: Crowd) -> None:
    (poll,) = clients.add("/poll/news")
    poll.socket.sendall(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wait_subscribed(clients, worker, "news", 1)
    assert poll.received() == b""
    assert ask(server.port, "POST", "/say/news", '"first"') == {"matched": 1}
    clients.listen(lambda: poll.received().endswith(b"hello"), "both answers")
    first, second = poll.received().split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert first.endswith(b"\r\n\r\nfirst")
    assert second.endswith(b"\r\n\r\nhello")


def test_those_that_leave_are_forgotten(worker: Served, clients: Crowd) -> None:
    gone = [*clients.add("/stream/news", 5), *clients.add("/events/news", 5), *clients.add("/poll/news", 5)]
    gone += clients.add("/ws/news", 5, websocket=True)
    wait_subscribed(clients, worker, "news", 20)
    for one in gone:
        clients.drop(one)
    wait_subscribed(clients, worker, "news", 0)


def test_a_stop_ends_holds_as_their_clients_expect(worker: Served, clients: Crowd) -> None:
    (stream,) = clients.add("/stream/news")
    (events,) = clients.add("/events/news")
    (websocket,) = clients.add("/ws/news", websocket=True)
    (poll,) = clients.add("/poll/news")
    wait_subscribed(clients, worker, "news", 4)
    worker.terminate()
    clients.listen(lambda: stream.is_closed and events.is_closed and poll.is_closed, "all are closed", 20)
    assert stream.body() == b"0\r\n\r\n"
    assert events.body().endswith(b"0\r\n\r\n")
    assert poll.body() == b'{"timeout":true}'
    assert websocket.frames()[-1][1][:2] == (1001).to_bytes(2, "big")
    assert worker.stop() == 0
