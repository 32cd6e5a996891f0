"""Requests of several sites: which workers get them, and what is answered to those that nobody gets."""

from collections.abc import Callable
from pathlib import Path

import pytest

from m2gate.gateway import counters as reasons
from m2gate.gateway.settings import SiteSettings
from m2gate.wire.attach import EXCHANGE_DETACHED
from tests.gateway.fakes import Gate, credits_, first, frame, request

SITES = (
    SiteSettings(
        hosts=("shop.example", "*.shop.example"),
        servers=("m2",),
        routes={"/": "shop", "/api": "api", "/api/admin/": "admin"},
    ),
    SiteSettings(hosts=("blog.example",), servers=("m2",), routes={"/blog/": "blog"}),
)
HANDLERS = ("shop", "api", "admin", "blog")
MakeGate = Callable[..., Gate]


@pytest.fixture
def make_gate(tmp_path: Path) -> MakeGate:
    def make(*sites: SiteSettings) -> Gate:
        gate = Gate(tmp_path, workers=0, sites=sites or SITES)
        gate.workers = [gate.attach(name, handler=name) for name in HANDLERS]
        return gate

    return make


def receivers(gate: Gate) -> list[str]:
    return [name for name in HANDLERS if gate.given(name)]


@pytest.mark.parametrize(
    ("host", "path", "handler"),
    [
        (b"shop.example", b"/", "shop"),
        (b"SHOP.Example:8080", b"/x", "shop"),
        (b"shop.example.", b"/", "shop"),
        (b"www.shop.example", b"/", "shop"),
        (b"shop.example", b"/api", "api"),
        (b"shop.example", b"/api/x", "api"),
        (b"shop.example", b"/apix", "shop"),
        (b"shop.example", b"/api/admin/x", "admin"),
        (b"shop.example", b"/api/admin", "api"),
        (b"blog.example", b"/blog/2026", "blog"),
    ],
)
def test_a_request_goes_to_the_handler_of_its_name_and_longest_path(
    make_gate: MakeGate, host: bytes, path: bytes, handler: str
) -> None:
    gate = make_gate()
    gate.take(first(1, path, host=host))
    assert receivers(gate) == [handler]


@pytest.mark.parametrize(
    ("host", "path", "status"),
    [
        (b"evilshop.example", b"/", b"421"),
        (b"shop.example.evil", b"/", b"421"),
        (b"a.b.shop.example", b"/", b"421"),
        (b".shop.example", b"/", b"421"),
        (b"shop.example@evil", b"/", b"421"),
        (b"shop.example:80:80", b"/", b"421"),
        (b"", b"/", b"421"),
        ([b"shop.example", b"blog.example"], b"/", b"421"),
        (None, b"/", b"421"),
        (b"blog.example", b"/", b"404"),
        (b"blog.example", b"/blogs/", b"404"),
    ],
)
def test_what_is_for_nobody_is_answered_here(
    make_gate: MakeGate, host: bytes | list[bytes] | None, path: bytes, status: bytes
) -> None:
    gate = make_gate()
    gate.take(first(1, path) if host is None else first(1, path, host=host))
    assert gate.body(1).startswith(b"HTTP/1.1 " + status)
    assert receivers(gate) == []
    counters = gate.dispatcher.counters
    assert (counters.started, counters.finished) == (1, 1)


def test_a_site_without_names_takes_all_that_no_other_has(make_gate: MakeGate) -> None:
    gate = make_gate(*SITES, SiteSettings(servers=("m2",), routes={"/": "admin"}))
    gate.take(first(1, b"/", host=b"other.example"), first(2), first(3, b"/", host=b"shop.example"))
    assert receivers(gate) == ["shop", "admin"]
    assert len(gate.given("admin")) == 2


def test_plain_http_is_sent_to_https(make_gate: MakeGate) -> None:
    site = SiteSettings(hosts=("shop.example",), servers=("m2",), routes={"/": "shop"}, redirects={"m2": 443})
    gate = make_gate(site)
    gate.take(first(1, b"/a", host=b"shop.example:80", URI=b"/a?b=c"), first(2, b"/", host=b"evil.example"))
    assert gate.body(1).startswith(b"HTTP/1.1 308 ")
    assert b"\r\nLocation: https://shop.example/a?b=c\r\n" in gate.body(1)
    assert gate.body(2).startswith(b"HTTP/1.1 421 ")


def test_another_port_of_https_is_named(make_gate: MakeGate) -> None:
    site = SiteSettings(hosts=("shop.example",), servers=("m2",), routes={"/": "shop"}, redirects={"m2": 8443})
    gate = make_gate(site)
    gate.take(first(1, b"/a", host=b"shop.example", URI=b"//evil.example/x"))
    assert b"\r\nLocation: https://shop.example:8443//evil.example/x\r\n" in gate.body(1)


def test_a_connection_changes_hands_between_requests(make_gate: MakeGate) -> None:
    gate = make_gate()
    shop, api = gate.workers[:2]
    gate.take(first(1, b"/", host=b"shop.example"))
    gate.done(shop, 1, sent=50)
    gate.take(request(1, b"/api", host=b"shop.example"))
    assert gate.given("api") == []  # not before what shop sent is written
    gate.take(credits_(1, 50))
    assert len(gate.given("api")) == 1
    assert gate.owner(1) is api
    assert not shop.sessions


def test_an_answer_of_ours_between_two_of_a_worker(make_gate: MakeGate) -> None:
    gate = make_gate()
    gate.take(first(1, b"/blog/", host=b"blog.example"))
    gate.take(request(1, b"/none", host=b"blog.example"), request(1, b"/blog/2", host=b"blog.example"))
    gate.done(gate.workers[3], 1, sent=10)
    gate.take(credits_(1, 10))
    answer = gate.body(1)
    assert answer.startswith(b"HTTP/1.1 404 ")
    gate.take(credits_(1, len(answer)))
    assert len(gate.given("blog")) == 2


def test_a_full_handler_does_not_hold_up_another(make_gate: MakeGate) -> None:
    gate = make_gate()
    gate.take(*[first(number, b"/", host=b"shop.example") for number in range(1, 13)])
    assert len(gate.given("shop")) == 10
    gate.take(first(20, b"/api", host=b"shop.example"))
    assert len(gate.given("api")) == 1
    gate.done(gate.workers[0], 1)
    gate.dispatcher.serve_queue()
    gate.flush()
    assert len(gate.given("shop")) == 11


def test_behind_a_detached_answer_only_its_own_handler_may_follow(make_gate: MakeGate) -> None:
    gate = make_gate()
    gate.take(first(1, b"/", host=b"shop.example"))
    gate.done(gate.workers[0], 1, what=EXCHANGE_DETACHED)
    gate.take(request(1, b"/api", host=b"shop.example"))
    assert gate.given("api") == []
    assert 1 not in gate.server.sessions
    assert gate.dispatcher.counters.failed == {reasons.CLOSED: 2}


def test_the_frames_of_a_websocket_follow_its_handshake(make_gate: MakeGate) -> None:
    gate = make_gate()
    gate.take(first(1, b"/api/ws", host=b"shop.example", METHOD=b"WEBSOCKET_HANDSHAKE"))
    gate.take(frame(1, b"0x81", b"hello"))
    assert len(gate.given("api")) == 2
    assert receivers(gate) == ["api"]
