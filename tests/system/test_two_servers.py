"""One worker behind two Mongrel2 servers, whose connections have the same numbers."""

import json
from collections.abc import Iterator

import pytest

from tests.system.support import Mongrel2, mongrel2, running, wait_until
from tests.system.transfer_app import BLOCK
from tests.system.transfers import APP, connection, exchange, fetch, read_answer, request_bytes

pytestmark = pytest.mark.checklist("mongrel2", 31)


@pytest.fixture
def servers() -> Iterator[tuple[Mongrel2, Mongrel2]]:
    """The name of one is the beginning of the other's."""
    with mongrel2(uuid="test-1") as one, mongrel2(uuid="test-10") as two, running(APP, one, two):
        yield one, two


def test_answers_go_where_the_questions_came_from(servers: tuple[Mongrel2, Mongrel2]) -> None:
    for number in range(20):
        for server in servers:
            name = f"{server.send_ident}-{number}"
            assert exchange(server, request_bytes(f"/echo/{name}")).text == name


def test_streams_and_uploads_side_by_side(servers: tuple[Mongrel2, Mongrel2]) -> None:
    with connection(servers[0], 16_384) as first, connection(servers[1], 16_384) as second:
        for client, size in ((first, 3_000_000), (second, 5_000_000)):
            client.sendall(request_bytes(f"/stream/{size}?piece=1000&name={size}"))
        for server in servers:
            assert json.loads(fetch(server, "/digest", "POST", BLOCK).body)["size"] == len(BLOCK)
        for client, size in ((second, 5_000_000), (first, 3_000_000)):
            with client.makefile("rb") as stream:
                assert read_answer(stream).body == BLOCK[:1000] * (size // 1000)


@pytest.mark.checklist("mongrel2", 32)
def test_the_end_of_one_is_none_of_the_other(servers: tuple[Mongrel2, Mongrel2]) -> None:
    dying, living = servers
    with connection(living) as kept, connection(dying) as lost:
        kept.sendall(request_bytes("/asleep/kept"))
        lost.sendall(request_bytes("/asleep/lost"))
        wait_until(lambda: {"kept", "lost"} <= notes(living).keys(), "both run")
        dying.kill9()
        wait_until(lambda: notes(living)["lost"]["finally"], "the handler of the dead server's client was told")
        assert notes(living)["kept"]["finally"] == 0
        assert b"first" in kept.recv(1000)


def notes(server: Mongrel2) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads(fetch(server, "/notes").body)
    return found
