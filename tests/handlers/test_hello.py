from typing import Any

import pytest

from m2gate import TestClient

ANSWERS = [
    pytest.param("/greet/World", 200, "Hello World\n", id="parameter"),
    pytest.param("/greet/W%C3%B6rld?greeting=Good+morning,", 200, "Good morning, Wörld\n", id="utf-8-and-query"),
    pytest.param("/greet/a%2Fb", 200, "Hello a/b\n", id="escaped-slash"),
    pytest.param("/square/12", 200, '{"n":12,"square":144}', id="json"),
    pytest.param("/square/twelve", 404, "Not Found\n", id="no-number"),
    pytest.param("/tea", 418, "short and stout", id="error"),
    pytest.param("/nothing", 404, "Not Found\n", id="unknown"),
]


@pytest.mark.parametrize(("path", "status", "text"), ANSWERS)
def test_answers(client: TestClient, path: str, status: int, text: str) -> None:
    answer = client.get(path)
    assert (answer.status, answer.text) == (status, text)


@pytest.mark.parametrize("sent", [{"answer": 42}, [1, "ü", None], "text"])
def test_echo(client: TestClient, sent: Any) -> None:
    assert client.post("/echo", json=sent).json == {"you_sent": sent, "from": "127.0.0.1"}


def test_echo_of_what_is_no_json(client: TestClient) -> None:
    assert client.post("/echo", data=b"{", headers={"Content-Type": "application/json"}).status == 400
    assert client.post("/echo", data=b"{}", headers={"Content-Type": "text/plain"}).status == 415
    refused = client.get("/echo")
    assert refused.status == 405
    assert "POST" in refused.headers["Allow"]
