import re
from types import ModuleType

import gevent

from m2gate import TestClient


def test_ticks_and_the_count_of_watchers(client: TestClient, example: ModuleType) -> None:
    with client.stream("GET", "/ticks") as stream:
        assert stream.headers["Content-Type"] == "text/event-stream"
        events = [next(iter(stream)).decode() for _ in range(2)]
        assert example.Watchers.count == 1
    form = r'event: tick\nid: (\d+)\ndata: {"time":"\d\d:\d\d:\d\d","watchers":1}\n\n'
    matches = [re.fullmatch(form, event) for event in events]
    assert all(matches)
    first, second = (int(match[1]) for match in matches if match)
    assert second > first
    with gevent.Timeout(5):
        while example.Watchers.count:
            gevent.sleep(0.01)


def test_head_starts_no_generator(client: TestClient, example: ModuleType) -> None:
    answer = client.head("/ticks")
    assert (answer.status, answer.body) == (200, b"")
    assert example.Watchers.count == 0
