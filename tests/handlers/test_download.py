import hashlib
from base64 import b64encode
from types import ModuleType

import gevent
import pytest

from m2gate import TestClient


def test_the_announced_digest_is_right(client: TestClient) -> None:
    answer = client.get("/file?mb=3")
    assert answer.status == 200
    assert answer.headers["Content-Length"] == str(3 << 20)
    assert "Transfer-Encoding" not in answer.headers
    assert len(answer.body) == 3 << 20
    digest = b64encode(hashlib.sha256(answer.body).digest()).decode()
    assert answer.headers["Repr-Digest"] == f"sha-256=:{digest}:"
    assert "sample-3-mib.bin" in answer.headers["Content-Disposition"]


def test_head_announces_without_producing(client: TestClient, example: ModuleType) -> None:
    answer = client.head("/file?mb=7")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == str(7 << 20)
    assert "Repr-Digest" in answer.headers
    assert example.Producers.count == 0


def test_whoever_leaves_stops_the_producer(client: TestClient, example: ModuleType) -> None:
    with client.stream("GET", "/file?mb=1024") as stream:
        assert len(stream.read(100_000)) == 100_000
        assert client.get("/producers").json == {"producers": 1}
    with gevent.Timeout(5):
        while example.Producers.count:
            gevent.sleep(0.01)


@pytest.mark.parametrize("mb", ["0", "1025", "x", "-1", "", "1e3", "²"])
def test_bad_size(client: TestClient, mb: str) -> None:
    assert client.get("/file", params={"mb": mb}).status == 400
