import re

import pytest

from m2gate import TestClient
from m2gate.app.client_side import TestResponse


def cookie(answer: TestResponse) -> dict[str, str]:
    return {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}


def entries(client: TestClient) -> list[str]:
    return re.findall("<li>(.*?)</li>", client.get("/").text)


def test_enter_sign_and_leave(client: TestClient) -> None:
    entered = client.post("/enter", data={"name": "Ann & Co"})
    assert (entered.status, entered.headers["Location"]) == (303, "/")
    assert "HttpOnly" in entered.headers["Set-Cookie"]
    session = cookie(entered)
    page = client.get("/", headers=session)
    assert "Welcome, Ann &amp; Co." in page.text
    session = cookie(page)
    signed = client.post("/sign", data={"text": "<b>hello"}, headers=session)
    assert signed.status == 303
    assert entries(client) == ['<span class="who">Ann &amp; Co</span>&lt;b&gt;hello']
    left = client.post("/leave", headers=cookie(signed))
    assert "Your name" in client.get("/", headers=cookie(left)).text


def test_signing_needs_a_name(client: TestClient) -> None:
    assert client.post("/sign", data={"text": "hello"}).status == 403
    forged = {"Cookie": "guestbook=eyJuYW1lIjoiQW5uIn0.aaaaaa.bbbb"}
    assert client.post("/sign", data={"text": "hello"}, headers=forged).status == 403
    assert entries(client) == []


@pytest.mark.parametrize("name", ["", "  ", "x" * 41])
def test_bad_names(client: TestClient, name: str) -> None:
    assert client.post("/enter", data={"name": name}).status == 400


def test_form_that_is_too_large(client: TestClient) -> None:
    assert client.post("/enter", data={"name": "x" * 70_000}).status == 413
