from types import ModuleType
from typing import Any

import gevent
import pytest

from m2gate import TestClient


def post(client: TestClient, text: str) -> Any:
    answer = client.post("/messages", json={"text": text})
    assert answer.status == 201
    return answer.json


def wait_for_polls(client: TestClient, count: int) -> None:
    with gevent.Timeout(5):
        while (board := client.app.broadcast.hub.stats().channels.get("board")) is None or board.subscribers < count:
            gevent.sleep(0.001)


def test_what_came_after_the_cursor(client: TestClient) -> None:
    for number in range(1, 4):
        assert post(client, f" text {number} ") == {"n": number, "text": f"text {number}"}
    answer = client.get("/messages?after=1")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json == {"messages": [{"n": 2, "text": "text 2"}, {"n": 3, "text": "text 3"}], "next": 3}


def test_a_poll_waits_for_the_next_message(client: TestClient) -> None:
    post(client, "old")
    polls = [gevent.spawn(client.get, "/messages?after=1") for _ in range(3)]
    wait_for_polls(client, 3)
    assert not any(poll.ready() for poll in polls)
    post(client, "new")
    answers = [poll.get(timeout=5) for poll in polls]
    assert [answer.json for answer in answers] == [{"messages": [{"n": 2, "text": "new"}], "next": 2}] * 3
    assert {answer.headers["Content-Type"] for answer in answers} == {"application/json"}


def test_a_poll_ends_when_its_time_is_up(
    client: TestClient, example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "WAIT_S", 0.2)
    answer = client.get("/messages?after=0")
    assert (answer.status, answer.json) == (200, {"messages": [], "next": 0})


def test_the_cursor_of_another_life_begins_anew(client: TestClient) -> None:
    post(client, "first")
    assert client.get("/messages?after=99").json == {"messages": [{"n": 1, "text": "first"}], "next": 1}


def test_only_the_last_100_are_kept(client: TestClient) -> None:
    for number in range(105):
        post(client, str(number))
    messages = client.get("/messages").json["messages"]
    assert [message["n"] for message in messages] == list(range(6, 106))


@pytest.mark.parametrize("cursor", ["x", "-1", "1.0", "", "1" * 19, "²"])
def test_bad_cursor(client: TestClient, cursor: str) -> None:
    assert client.get("/messages", params={"after": cursor}).status == 400


@pytest.mark.parametrize("sent", [{}, [], "text", {"text": ""}, {"text": "  "}, {"text": 1}, {"text": "x" * 1_001}])
def test_bad_message(client: TestClient, sent: Any) -> None:
    assert client.post("/messages", json=sent).status == 400
