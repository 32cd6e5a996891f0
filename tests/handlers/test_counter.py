from typing import Any

import pytest

from m2gate import TestClient


def test_counting_by_json_and_by_http(client: TestClient) -> None:
    assert client.json_socket("@counter", {"add": 5}) == {"total": 5}
    assert client.json_socket("@counter", {}) == {"total": 6}
    assert client.json_socket("@counter", {"add": -2}) == {"total": 4}
    assert client.post("/add").json == {"total": 5}
    assert client.get("/total").json == {"total": 5}


def test_watchers_see_each_change(client: TestClient) -> None:
    with client.stream("GET", "/changes") as stream:
        client.json_socket("@counter", {"add": 3})
        client.post("/add")
        expected = b'data: {"total":3}\n\ndata: {"total":4}\n\n'
        assert stream.read(len(expected)) == expected


@pytest.mark.parametrize("sent", [{"add": "1"}, {"add": True}, {"add": 1.5}, {"add": 1_001}, {"add": None}, []])
def test_bad_steps_change_nothing(client: TestClient, sent: Any) -> None:
    assert "whole number" in client.json_socket("@counter", sent)["error"]
    assert client.get("/total").json == {"total": 0}
