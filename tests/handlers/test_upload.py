import hashlib

import pytest

from m2gate import TestClient


def test_digest_of_a_body(client: TestClient) -> None:
    content = bytes(range(256)) * 1_000
    answer = client.post("/file", data=content).json
    assert answer["bytes"] == 256_000
    assert answer["sha256"] == hashlib.sha256(content).hexdigest()


def test_digest_of_a_chunked_body(client: TestClient) -> None:
    pieces = [b"%d" % number * 1_000 for number in range(100)]
    answer = client.post("/file", data=pieces).json
    assert answer["sha256"] == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_empty_body(client: TestClient) -> None:
    answer = client.post("/file").json
    assert (answer["bytes"], answer["sha256"]) == (0, hashlib.sha256().hexdigest())


def test_rate_makes_it_slow(client: TestClient) -> None:
    half = client.post("/file?rate=2", data=bytes(1 << 19)).json
    assert half["seconds"] >= 0.25


@pytest.mark.parametrize("rate", ["x", "-1", "1.5", "", "1" * 7, "²"])
def test_bad_rate(client: TestClient, rate: str) -> None:
    assert client.post("/file", params={"rate": rate}, data=b"x").status == 400


def test_more_than_apps_take_elsewhere(client: TestClient) -> None:
    assert client.app.max_body == 100 << 20
    answer = client.post("/file", data=iter([bytes(1 << 20)] * 101))
    assert answer.json["bytes"] == 101 << 20
