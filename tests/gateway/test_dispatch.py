"""Which worker gets which message, and when: the rules of docs/explanation/gateway.md."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from m2gate.gateway import dispatch
from m2gate.gateway.counters import CLIENT_LEFT, CUT, NO_WORKER, PIPELINE_FULL, QUEUE_FULL, SERVER_LOST, STOPPING
from m2gate.wire import attach as wire
from tests.gateway.fakes import Gate, credits_, first, frame, leave, piece, reply, request


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    one = Gate(tmp_path)
    yield one
    one.assert_counted()


def test_a_session_stays_with_its_worker(gate: Gate) -> None:
    gate.take(first(1), first(2))
    assert gate.owner(1) is not gate.owner(2)
    worker = gate.owner(1)
    gate.done(worker, 1, 100)
    gate.take(credits_(1, 100), request(1, b"/again"))
    assert gate.owner(1) is worker
    assert gate.given(worker.name) == [first(1), request(1, b"/again")]
    assert worker.outstanding == 1


def test_the_worker_with_the_fewest_open_requests_is_taken(gate: Gate) -> None:
    gate.take(first(1), first(2), first(3))
    busy = gate.owner(1)
    idle = gate.owner(2)
    assert (busy.outstanding, idle.outstanding) == (2, 1)
    gate.take(first(4))
    assert gate.owner(4) is idle


def test_a_request_waits_for_the_report_of_the_one_before(gate: Gate) -> None:
    gate.take(first(1), request(1, b"/2"), request(1, b"/3"))
    worker = gate.owner(1)
    assert gate.given(worker.name) == [first(1)]
    gate.done(worker, 1)
    assert gate.given(worker.name) == [first(1), request(1, b"/2")]


def test_a_request_waits_until_all_that_was_sent_is_written(gate: Gate) -> None:
    gate.take(first(1), request(1, b"/2"))
    worker = gate.owner(1)
    gate.done(worker, 1, 300)
    gate.take(credits_(1, 100))
    assert gate.given(worker.name) == [first(1)]
    gate.take(credits_(1, 200))
    assert gate.given(worker.name) == [first(1), request(1, b"/2")]


def test_credits_may_come_before_the_report(gate: Gate) -> None:
    gate.take(first(1), credits_(1, 300), request(1, b"/2"))
    worker = gate.owner(1)
    assert gate.given(worker.name) == [first(1), credits_(1, 300)]  # the worker needs them while it sends
    gate.done(worker, 1, 300)
    assert gate.given(worker.name)[-1] == request(1, b"/2")


def test_lost_credits_do_not_stop_a_session_for_ever(gate: Gate) -> None:
    gate.take(first(1), request(1, b"/2"))
    worker = gate.owner(1)
    gate.done(worker, 1, 300)
    gate.dispatcher.tick()
    assert gate.given(worker.name) == [first(1)]
    gate.session(1).unsettled_since_s -= dispatch.UNSETTLED_S
    gate.dispatcher.tick()
    gate.flush()
    assert gate.given(worker.name)[-1] == request(1, b"/2")


def test_without_flow_control_the_report_is_enough(gate: Gate) -> None:
    gate.take(request(1), request(1, b"/2"))
    worker = gate.owner(1)
    gate.done(worker, 1, 300)
    assert gate.given(worker.name) == [request(1), request(1, b"/2")]


def test_pieces_follow_their_request(gate: Gate) -> None:
    upload = first(1, b"/up", METHOD=b"POST", UPLOAD_STREAM=b"0")
    pieces = [piece(1, 0, b"abc"), piece(1, 3, b"6:METHOD,3:GET,"), piece(1, 18, b"", is_last=True)]
    gate.take(first(2), upload, *pieces)
    assert gate.given(gate.owner(1).name) == [upload, *pieces]
    assert gate.session(1).is_pieces_done
    assert gate.owner(1).outstanding == 1


def test_frames_of_a_websocket_go_at_once(gate: Gate) -> None:
    shake = first(1, b"/ws", METHOD=b"WEBSOCKET_HANDSHAKE")
    frames = [frame(1, b"0x81", b"one"), frame(1, b"0x82", b"two")]
    gate.take(shake, *frames)
    assert gate.given(gate.owner(1).name) == [shake, *frames]
    assert gate.owner(1).outstanding == 1


def test_a_leave_ends_what_is_open(gate: Gate) -> None:
    gate.take(first(1), request(1, b"/2"))
    worker = gate.owner(1)
    gate.take(leave(1), leave(1))
    assert gate.given(worker.name) == [first(1), leave(1), leave(1)]
    assert gate.dispatcher.counters.failed[CLIENT_LEFT] == 1  # the one that waited
    gate.done(worker, 1, 0, wire.CONNECTION_CLOSED)
    assert gate.dispatcher.counters.failed[CLIENT_LEFT] == 2
    assert worker.outstanding == 0
    assert not gate.server.sessions
    gate.done(worker, 1)
    assert gate.dispatcher.counters.finished == 0


def test_an_answer_whose_report_comes_behind_the_leave_is_no_failure(gate: Gate) -> None:
    gate.take(first(1))
    worker = gate.owner(1)
    gate.take(leave(1))
    gate.done(worker, 1, 100)
    assert (gate.dispatcher.counters.finished, worker.served, worker.outstanding) == (1, 1, 0)
    assert not gate.server.sessions


def test_a_leave_that_is_never_reported_does_not_stay_for_ever(gate: Gate) -> None:
    gate.take(first(1), leave(1))
    worker = gate.owner(1)
    gate.dispatcher.tick()
    assert worker.outstanding == 1
    gate.session(1).unsettled_since_s -= dispatch.UNSETTLED_S
    gate.dispatcher.tick()
    assert worker.outstanding == 0
    assert gate.dispatcher.counters.failed[CLIENT_LEFT] == 1
    assert not gate.server.sessions


def test_an_answer_that_a_handler_breaks_off_has_failed(gate: Gate) -> None:
    gate.take(first(1))
    gate.done(gate.owner(1), 1, 0, wire.CONNECTION_CLOSED)
    assert gate.dispatcher.counters.failed[CUT] == 1


def test_a_closed_connection_is_forgotten_and_its_last_messages_are_ignored(gate: Gate) -> None:
    gate.take(first(1))
    worker = gate.owner(1)
    gate.done(worker, 1, 1, wire.CONNECTION_CLOSED)
    assert (gate.dispatcher.counters.finished, worker.outstanding, worker.served) == (1, 0, 1)
    gate.take(request(1, b"/late"), leave(1), credits_(1, 5))
    assert gate.given(worker.name) == [first(1)]
    assert not gate.server.sessions


def test_behind_a_detached_exchange_requests_go_on(gate: Gate) -> None:
    gate.take(first(1), request(1, b"/2"))
    worker = gate.owner(1)
    gate.done(worker, 1, what=wire.EXCHANGE_DETACHED)
    assert gate.given(worker.name) == [first(1), request(1, b"/2")]
    gate.done(worker, 1)
    gate.done(worker, 1)
    assert worker.outstanding == 0
    assert gate.dispatcher.counters.finished == 2


def test_a_client_that_pipelines_too_much_is_cut(gate: Gate) -> None:
    gate.take(first(1), *[request(1, b"/%d" % number) for number in range(dispatch.PIPELINE_MAX)])
    assert gate.sent == []
    gate.take(request(1, b"/more"))
    assert b"6:cancel,4:true!" in gate.sent[0]
    assert gate.dispatcher.counters.failed[PIPELINE_FULL] == dispatch.PIPELINE_MAX + 2
    assert not gate.server.sessions


def test_junk_is_counted_and_lost(gate: Gate) -> None:
    junk = [b"", b"m2", b"m2 x / 0:}0:,", b"other 1 / 2:{},0:,", b"m2 1 @* 3:abc,0:,", b"m2 99999999999 / 0:}0:,"]
    gate.take(*junk, first(1))
    assert gate.server.rejected == len(junk)
    assert gate.given("w1") + gate.given("w2") == [first(1)]


def test_what_a_former_gateway_had_open_is_ended(gate: Gate) -> None:
    gate.take(frame(1, b"0x81", b"hi"), piece(2, 100, b"abc"))
    closing, end, cancel = gate.sent
    assert closing.startswith(b"m2 1:1, \x88")
    assert b"\x03\xf4" in closing  # 1012
    assert end == reply(1, b"")
    assert b"6:cancel,4:true!" in cancel
    gate.take(frame(1, b"0x81", b"more"), piece(2, 103, b"abc"))
    assert len(gate.sent) == 3


def test_the_two_announcements_of_a_stored_body_stay_together(tmp_path: Path) -> None:
    gate = Gate(tmp_path, workers=1, upload_store="/up/x.XXXXXX")
    start = {"x-mongrel2-upload-start": b"/up/x.1"}
    done = {**start, "x-mongrel2-upload-done": b"/up/x.1"}
    gate.take(first(1), request(1, b"/2", **start), request(1, b"/2", **done), request(1, b"/3"))
    worker = gate.workers[0]
    assert gate.given("w1") == [first(1)]
    assert gate.dispatcher.counters.started == 3
    gate.done(worker, 1)
    assert gate.given("w1") == [first(1), request(1, b"/2", **start), request(1, b"/2", **done)]
    gate.done(worker, 1)
    assert gate.given("w1")[-1] == request(1, b"/3")
    gate.take(request(1, b"/4", **start), request(1, b"/4", **done), leave(1))
    assert gate.dispatcher.counters.failed[CLIENT_LEFT] == 1
    gate.done(worker, 1)
    gate.assert_counted()


# -- at the bound -------------------------------------------------------------------------------------


def test_requests_wait_in_order_and_are_refused_at_the_bound(tmp_path: Path) -> None:
    gate = Gate(tmp_path, workers=1, capacity=2, waiting_max=3)
    gate.take(*[first(number) for number in range(1, 7)])
    worker = gate.workers[0]
    assert gate.given("w1") == [first(1), first(2)]
    assert len(gate.pool.queue) == 3
    refused = gate.sent[0]
    assert refused.startswith(b"m2 1:6, HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 1\r\n" in refused
    assert b"\r\nX-Request-Id: " in refused
    assert gate.dispatcher.counters.failed[QUEUE_FULL] == 1
    for number in (2, 1):
        gate.done(worker, number)
        gate.dispatcher.serve_queue()
        gate.flush()
    assert gate.given("w1") == [first(1), first(2), first(3), first(4)]
    gate.assert_counted()
    gate.take(leave(5))
    gate.done(worker, 3)
    gate.dispatcher.serve_queue()
    assert len(gate.pool.queue) == 0
    gate.assert_counted()


def test_a_newcomer_does_not_overtake_the_queue(tmp_path: Path) -> None:
    gate = Gate(tmp_path, workers=1, capacity=1)
    gate.take(first(1), first(2))
    gate.done(gate.workers[0], 1)
    gate.take(first(3))
    gate.dispatcher.serve_queue()
    gate.flush()
    assert gate.given("w1") == [first(1), first(2)]


def test_where_no_worker_is_there_nobody_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(tmp_path, workers=0)
    gate.take(first(1))
    gate.dispatcher.tick()
    assert gate.sent == []
    monkeypatch.setattr(dispatch, "NO_WORKER_S", 0.0)
    gate.dispatcher.tick()
    assert gate.sent[0].startswith(b"m2 1:1, HTTP/1.1 503 ")
    assert gate.dispatcher.counters.failed[NO_WORKER] == 1
    gate.assert_counted()


def test_a_refused_upload_is_swallowed_before_the_close(gate: Gate) -> None:
    gate.dispatcher.is_refusing = True
    gate.take(first(1, b"/up", METHOD=b"POST", UPLOAD_STREAM=b"0"))
    answer, grant = gate.sent
    assert answer.startswith(b"m2 1:1, HTTP/1.1 503 ")
    assert b"\r\nConnection: close\r\n" in answer
    assert b"7:credits,6:262144#" in grant
    gate.take(piece(1, 0, b"abc"))
    assert b"7:credits,1:3#" in gate.sent[2]
    gate.take(piece(1, 3, b"", is_last=True))
    assert gate.sent[3] == reply(1, b"")
    assert gate.dispatcher.counters.failed[STOPPING] == 1


def test_of_a_refused_head_request_only_the_head_is_sent(gate: Gate) -> None:
    gate.dispatcher.is_refusing = True
    gate.take(first(1, METHOD=b"HEAD"), first(2, VERSION=b"HTTP/1.0"))
    head, old, closing = gate.sent
    assert head.endswith(b"\r\n\r\n")
    assert b"Connection: close" not in head
    assert b"\r\nConnection: close\r\n" in old
    assert closing == reply(2, b"")


def test_a_stop_refuses_what_waits(tmp_path: Path) -> None:
    gate = Gate(tmp_path, workers=1, capacity=1)
    gate.take(first(1), first(2), request(1, b"/behind"))
    gate.dispatcher.refuse_all()
    gate.take(first(3))
    assert [one[:20] for one in gate.sent] == [b"m2 1:2, HTTP/1.1 503", b"m2 1:3, HTTP/1.1 503"]
    gate.done(gate.workers[0], 1)
    assert gate.sent[2].startswith(b"m2 1:1, HTTP/1.1 503")
    assert gate.dispatcher.counters.failed[STOPPING] == 3
    gate.assert_counted()


# -- workers that leave ---------------------------------------------------------------------------------


def test_the_sessions_of_a_leaving_worker_move_at_their_next_request(gate: Gate) -> None:
    gate.take(first(1))
    old = gate.owner(1)
    gate.done(old, 1, 10)
    old.is_leaving = True
    gate.take(request(1, b"/2"))
    assert gate.given(old.name) == [first(1)]  # ten bytes are not written yet
    gate.take(credits_(1, 10))
    assert gate.owner(1) is not old
    assert gate.given(gate.owner(1).name) == [request(1, b"/2")]
    assert gate.messages[old.name][-1] == wire.build_release(1, [1])


def test_a_session_moves_for_balance_only_after_a_pause(gate: Gate) -> None:
    gate.take(*[first(number) for number in range(1, 7)])
    busy = gate.owner(1)
    others = [number for number in range(1, 7) if gate.owner(number) is not busy]
    for number in others:
        gate.done(gate.owner(number), number)
    gate.done(busy, 1)
    gate.take(request(1, b"/soon"))
    assert gate.owner(1) is busy
    gate.done(busy, 1)
    gate.session(1).idle_since_s -= 1
    gate.take(request(1, b"/later"))
    assert gate.owner(1) is not busy


def test_a_worker_gets_only_requests_of_servers_that_it_reaches(gate: Gate) -> None:
    gate.workers[0].connected.clear()
    gate.take(first(1), first(2))
    assert gate.given("w1") == []
    assert gate.given("w2") == [first(1), first(2)]


def test_with_its_server_all_that_was_open_is_gone(gate: Gate) -> None:
    gate.take(first(1), first(2), request(2, b"/2"))
    gate.dispatcher.lose(gate.server)
    assert gate.dispatcher.counters.failed[SERVER_LOST] == 3
    assert [one.outstanding for one in gate.workers] == [0, 0]
    assert [len(one.sessions) for one in gate.workers] == [0, 0]


def test_a_websocket_that_floods_a_worker_which_does_not_read_is_cut(gate: Gate) -> None:
    gate.take(first(1, b"/ws", METHOD=b"WEBSOCKET_HANDSHAKE"))
    gate.owner(1).in_flight = dispatch.IN_FLIGHT_MAX + 1
    gate.take(frame(1, b"0x82", b"x"))
    assert b"6:cancel,4:true!" in gate.sent[-1]
    assert not gate.server.sessions
