import json
from typing import Any
from urllib.parse import quote

import pytest

from m2gate import HTTPError, TestClient
from m2gate.app.client_side import TestSocket


def enter(client: TestClient, name: str) -> TestSocket:
    return client.websocket(f"/talk?name={quote(name)}")


def hear(socket: TestSocket) -> tuple[str, str, str]:
    news: dict[str, Any] = json.loads(socket.receive(timeout=5))
    return news["name"], news["what"], news["text"]


def test_two_people(client: TestClient) -> None:
    ann = enter(client, "Ann")
    assert hear(ann) == ("Ann", "joined", "")
    ann.send("alone")
    assert hear(ann) == ("Ann", "says", "alone")
    bob = enter(client, "Bob <b>")
    assert hear(bob) == ("Bob <b>", "joined", "")  # and nothing of before
    assert hear(ann) == ("Bob <b>", "joined", "")
    bob.send("  <script>hi</script>  ")
    assert hear(ann) == hear(bob) == ("Bob <b>", "says", "<script>hi</script>")
    bob.close()
    assert hear(ann) == ("Bob <b>", "left", "")


def test_somebody_who_vanishes_has_left(client: TestClient) -> None:
    ann = enter(client, "Ann")
    bob = enter(client, "Bob")
    assert [hear(ann), hear(ann)] == [("Ann", "joined", ""), ("Bob", "joined", "")]
    bob.disconnect()
    assert hear(ann) == ("Bob", "left", "")


def test_what_is_not_said(client: TestClient) -> None:
    ann = enter(client, "Ann")
    hear(ann)
    ann.send("   ")
    ann.send(b"binary")
    ann.send("x" * 3_000)
    assert hear(ann) == ("Ann", "says", "x" * 2_000)


def test_a_message_that_is_too_big_ends_it(client: TestClient) -> None:
    ann = enter(client, "Ann")
    hear(ann)
    ann.send("x" * 8_193)
    assert list(ann) == []
    assert ann.close_code == 1009


@pytest.mark.parametrize("name", ["", " ", "x" * 33])
def test_bad_names_are_refused(client: TestClient, name: str) -> None:
    with pytest.raises(HTTPError) as refusal:
        enter(client, name)
    assert refusal.value.status == 400
    assert "?name=" in refusal.value.detail
