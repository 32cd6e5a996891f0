"""Greenlets that wait for a message, and the server's count of them."""

import gevent
import pytest

from m2gate.link.wait import Turnstile
from tests.link.fakes import FakeMongrel2, finish, in_greenlet, settle


@pytest.fixture
def far() -> FakeMongrel2:
    return FakeMongrel2()


def test_a_turn_wakes_all_that_wait(far: FakeMongrel2) -> None:
    turnstile = Turnstile(far.server)
    waiters = [in_greenlet(turnstile.wait) for _ in range(3)]
    assert far.server.waiting == 3
    turnstile.turn()
    assert finish(*waiters) == [True] * 3
    assert far.server.waiting == 0


def test_a_turn_is_not_kept_for_those_who_come_later(far: FakeMongrel2) -> None:
    turnstile = Turnstile(far.server)
    turnstile.turn()
    assert turnstile.wait(0.01) is False
    assert far.server.waiting == 0


def test_a_timeout_and_a_turn_at_once(far: FakeMongrel2) -> None:
    """A second wake-up would reach the next wait of the same greenlet."""
    turnstile = Turnstile(far.server)
    timer = gevent.get_hub().loop.timer(0.001, 0.001)
    timer.start(turnstile.turn)
    for _ in range(50):
        turnstile.wait(0.001)
        other = Turnstile(far.server)
        assert other.wait(0.002) is False
    timer.stop()
    timer.close()
    assert far.server.waiting == 0


def test_whoever_is_killed_waits_no_more(far: FakeMongrel2) -> None:
    turnstile = Turnstile(far.server)
    waiter = in_greenlet(turnstile.wait)
    waiter.kill()
    assert far.server.waiting == 0
    turnstile.turn()
    settle()


def test_the_server_s_owner_hears_that_somebody_waits(far: FakeMongrel2) -> None:
    heard: list[int] = []
    far.server.on_wait = lambda: heard.append(far.server.waiting)
    turnstile = Turnstile(far.server)
    waiters = [in_greenlet(turnstile.wait) for _ in range(2)]
    turnstile.turn()
    finish(*waiters)
    assert heard == [1, 2]
