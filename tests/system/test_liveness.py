"""Sessions that nobody speaks on, and connections that Mongrel2 ends without a word."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest

from m2gate.link.control import ControlPort
from tests.system.support import wait_until
from tests.system.transfers import WEBSOCKET, Site, connection, read_answer, read_head, request_bytes, site

APP = Path(__file__).with_name("session_app.py")
SCALED = {"limits.min_ping": 3, "limits.tick_timer": 1}  # 3 s of silence instead of 120
KEEPALIVE_S = 1.0
LATE_S = 10.0  # of a worker whose sessions Mongrel2 kills
TICK_S = 1.0  # the worker looks once a second what is due
SILENCE_S = 180.0
HELLO = b"\x81\x85\0\0\0\0hello"  # a masked frame
ECHO = b"\x81\x05hello"


class Session:
    """One client that has sent its request, or a part of it, and now says nothing."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.stream: IO[bytes] = client.makefile("rb")

    def expect(self, wanted: bytes) -> None:
        """Read lines, those of the chunks' framing too, up to the wanted one."""
        while (line := self.stream.readline()) != wanted:
            assert line, f"closed before {wanted!r}"

    def ended(self) -> bool:
        """Tell whether the server has closed; only for a session that gets nothing else."""
        self.client.setblocking(False)
        try:
            return self.client.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
        finally:
            self.client.settimeout(30)


REQUESTS = {
    "stream": request_bytes("/stream/NAME"),
    "events": request_bytes("/events/NAME"),
    "channel": request_bytes("/channel/NAME"),
    "poll": request_bytes("/poll/NAME"),
    "hold": request_bytes("/hold/NAME"),
    "ws": request_bytes("/ws/NAME", **WEBSOCKET),
}
SPEAK_FIRST = {"stream": b"first\n", "events": b"data: first\n"}


class Silence:
    """One session of each kind at a site, all waiting for the gate of that name."""

    def __init__(self, here: Site, stack: ExitStack, name: str, kinds: tuple[str, ...] = tuple(REQUESTS)) -> None:
        self.here = here
        self.name = name
        self.sessions = {}
        for kind in kinds:
            session = Session(stack.enter_context(connection(here.server)))
            stack.callback(session.stream.close)
            session.client.sendall(REQUESTS[kind].replace(b"NAME", name.encode()))
            self.sessions[kind] = session
            if kind in {"poll", "hold"}:
                wait_until(lambda kind=kind: here.note(f"{kind}-{name}", "conn_id"), "it waits")  # type: ignore[misc]
                continue
            assert read_head(session.stream).status == (101 if kind == "ws" else 200)
            if kind in SPEAK_FIRST:
                session.expect(SPEAK_FIRST[kind])

    def assert_alive(self) -> None:
        """Open the gate and expect what each session then gets."""
        self.here.ask(f"/open/{self.name}", "POST")
        self.sessions["ws"].client.sendall(HELLO)
        assert self.sessions["ws"].stream.read(len(ECHO)) == ECHO
        self.sessions["stream"].expect(b"last\n")
        self.sessions["events"].expect(b"data: last\n")
        self.sessions["channel"].expect(b"data: published\n")
        assert read_answer(self.sessions["poll"].stream).text == "answered"
        assert read_answer(self.sessions["hold"].stream).text == "published"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as one:
        yield one


@pytest.fixture(scope="module")
def here(shape: str) -> Iterator[Site]:
    with site(SCALED, APP, keepalive_s=KEEPALIVE_S, drain_timeout_s=0.5) as one:
        yield one


@pytest.mark.checklist("mongrel2", 59, 60)
def test_silent_sessions_outlive_the_limits(here: Site, stack: ExitStack) -> None:
    """Those of a worker that is late with its keep-alives are killed meanwhile, and it hears of it."""
    with site(SCALED, APP, keepalive_s=LATE_S, drain_timeout_s=0.5) as late:
        kept = Silence(here, stack, "silence")
        crowd = [Session(stack.enter_context(connection(here.server))) for _ in range(300)]
        for session in crowd:
            stack.callback(session.stream.close)
            session.client.sendall(request_bytes("/channel/crowd"))
            assert read_head(session.stream).status == 200
        lost = Silence(late, stack, "silence")
        for kind, session in lost.sessions.items():
            wait_until(session.ended, f"Mongrel2 has killed the {kind}", 20)
        assert not any(session.ended() for session in (*kept.sessions.values(), *crowd))
        kept.assert_alive()
        for kind in ("stream", "events", "poll", "ws"):
            wait_until(lambda kind=kind: late.note(f"{kind}-silence", "ended"), f"the {kind} was told", 20)  # type: ignore[misc]
        here.ask("/open/crowd", "POST")
        for session in crowd:
            session.expect(b"data: published\n")


@pytest.mark.full
@pytest.mark.checklist("mongrel2", 59)
def test_three_minutes_of_silence(stack: ExitStack) -> None:
    with site(app=APP, drain_timeout_s=0.5) as one:
        silence = Silence(one, stack, "minutes")
        time.sleep(SILENCE_S)  # the silence is what is tested
        assert not any(session.ended() for session in silence.sessions.values())
        silence.assert_alive()


@pytest.mark.checklist("mongrel2", 60)
@pytest.mark.parametrize("kind", ["stream", "events", "poll", "ws"])
def test_a_killed_session_is_told_within_one_interval(here: Site, stack: ExitStack, kind: str) -> None:
    name = f"{kind}-killed"
    silence = Silence(here, stack, "killed", (kind,))
    killed_s = kill(here, name)
    wait_until(silence.sessions[kind].ended, "the client sees it")
    assert here.note(name, "conn_id")
    wait_until(lambda: here.note(name, "ended"), "the handler was told")
    assert here.note(name, "ended") - killed_s < KEEPALIVE_S + TICK_S + 0.5


@pytest.mark.checklist("mongrel2", 50, 60)
def test_a_killed_upload_is_told_within_one_interval(here: Site) -> None:
    with connection(here.server) as client:
        client.sendall(request_bytes("/upload/killed", "POST", Content_Length="10000000") + b"x" * 1000)
        wait_until(lambda: here.note("upload-killed", "conn_id"), "it reads")
        killed_s = kill(here, "upload-killed")
        wait_until(lambda: here.note("upload-killed", "ended"), "the handler was told")
    assert here.note("upload-killed", "ended") - killed_s < KEEPALIVE_S + TICK_S + 0.5


def kill(here: Site, name: str) -> float:
    ControlPort(here.server.control_spec).kill(here.note(name, "conn_id"))
    return time.monotonic()


@pytest.mark.checklist("mongrel2", 61)
def test_an_idle_websocket_is_closed_by_its_handler(here: Site) -> None:
    with connection(here.server) as client, client.makefile("rb") as stream:
        client.sendall(request_bytes("/idle", **WEBSOCKET))
        assert read_head(stream).status == 101
        client.sendall(HELLO)
        assert stream.read(len(ECHO)) == ECHO
        started_s = time.monotonic()
        assert stream.read(8) == b"\x88\x06\x0f\xa0idle"
        assert 0.4 < time.monotonic() - started_s < 3


@pytest.mark.checklist("mongrel2", 61)
def test_an_idle_stream_is_ended_by_its_handler(here: Site) -> None:
    with connection(here.server) as client, client.makefile("rb") as stream:
        client.sendall(request_bytes("/patience"))
        assert read_answer(stream).text == "first\ngave up\n"


def test_requests_work_as_before(here: Site) -> None:
    assert here.ask("/hello") == b"hello"
    assert "Traceback" not in here.worker.stderr()
