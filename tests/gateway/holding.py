"""A worker that hands its connections over to the gateway's hub."""

from collections.abc import Callable
from time import monotonic

import gevent

from m2gate.gateway.hub import GatewayHub
from m2gate.hub.form import ResponseForm, StreamForm
from m2gate.hub.holding import HoldLog, HoldRequest, dump_hold, load_hold
from m2gate.hub.item import ResponseFormat
from tests.gateway.fakes import Gate, first

LOG = HoldLog(request_id="r1", method="GET", path="/held", client="10.0.0.1", started_us=1)
TIMED_OUT = ResponseFormat(204, (), b"")


def stream(*names: str, begin: bytes = b"", ping: bytes = b"", close: bool = False) -> HoldRequest:
    form = StreamForm(chunked=True, events=False)
    return HoldRequest(channels=names, form=form, status=200, begin=begin, ping=ping, ping_ms=50, close=close, log=LOG)


def response(*names: str, timeout_ms: int = 60_000, close: bool = False) -> HoldRequest:
    form = ResponseForm((), close=close, body_less=False)
    return HoldRequest(channels=names, form=form, timeout_ms=timeout_ms, answer=TIMED_OUT, close=close, log=LOG)


def hand_over(gate: Gate, hub: GatewayHub, conn_id: int, request: HoldRequest, *, balance: int = 0) -> None:
    """Let a client ask for what a worker lets the hub hold, as it arrives from there.

    balance: bytes that the worker has sent on the connection before, not credited yet.
    """
    gate.take(first(conn_id))
    session = gate.session(conn_id)
    assert session.owner is not None
    gate.dispatcher.hold(session.owner, session)
    session.balance += balance
    hub.hold(session, load_hold(dump_hold(1, conn_id, request))[2])


def hold(gate: Gate, hub: GatewayHub, conn_id: int, *names: str, begin: bytes = b"") -> None:
    """Hold a stream on these channels."""
    hand_over(gate, hub, conn_id, stream(*names, begin=begin))


def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until condition() is true."""
    deadline_s = monotonic() + 5
    while not condition():
        assert monotonic() < deadline_s
        gevent.sleep(0.005)
