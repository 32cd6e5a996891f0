"""Mongrel2 or the worker goes and comes back: nothing received is lost, nothing reaches the wrong client."""

import http.client
import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial

import pytest

from tests.system.processes import ROOT
from tests.system.raw_socket import RawSocket, masked
from tests.system.support import Mongrel2, mongrel2, running, wait_until

APP = ROOT / "tests/system/apps/service.py"


def fetch(server: Mongrel2, path: str, timeout_s: float = 10) -> str:
    with urllib.request.urlopen(f"{server.url}{path}", timeout=timeout_s) as answer:
        return str(answer.read().decode())


def events(server: Mongrel2) -> list[str]:
    return list(json.loads(fetch(server, "/events")))


def ask(server: Mongrel2, path: str) -> socket.socket:
    """Send a request and return the socket, without waiting for the answer."""
    client = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return client


@pytest.mark.checklist("mongrel2", 32)
def test_state_ends_with_its_server(server: Mongrel2) -> None:
    """What a Mongrel2 had under way is told of its end, when that Mongrel2 is killed."""
    with running(APP, server):
        with ask(server, "/stream/a") as stream, RawSocket(server.port, "/ws/b") as ws:
            upload = socket.create_connection(("127.0.0.1", server.port), timeout=10)
            with upload:
                upload.sendall(b"POST /body/c HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 99_999)
                ws.send(masked(0x81, b"there"))
                assert ws.receive() == (0x81, b"there")
                assert stream.recv(1024).startswith(b"HTTP/1.1 200")
                server.kill9()
        started_s = time.monotonic()
        server.start()
        wait_until(lambda: {"finally a", "ws b 1006", "gone c"} <= set(events(server)), "all three are told")
        assert time.monotonic() - started_s < 5


def test_answers_for_the_old_ids_reach_nobody(server: Mongrel2) -> None:
    """Ids start anew with a restarted Mongrel2: the answers of before must not go to whoever has them now."""
    with running(APP, server):
        before = [ask(server, f"/sleep/1500/old{number}") for number in range(20)]
        wait_until(lambda: fetch(server, "/ok/there") == "there", "the worker serves")
        server.kill9()
        for client in before:
            client.close()
        server.start()
        after = [ask(server, f"/sleep/2500/new{number}") for number in range(40)]
        for number, client in enumerate(after):
            client.settimeout(20)
            answer = client.recv(65_536)
            client.close()
            assert answer.startswith(b"HTTP/1.1 200 OK"), answer
            assert answer.endswith(f"\r\n\r\nnew{number}".encode()), answer


def has_grown(counter: list[int], limit: int) -> bool:
    return counter[0] > limit


def test_many_restarts_under_load(server: Mongrel2) -> None:
    """Five crashes of Mongrel2 under load: whoever gets an answer gets its own."""
    wrong: list[str] = []
    answered = [0]
    stop = threading.Event()

    def load(worker: int) -> None:
        number = 0
        while not stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=2)
            with suppress(OSError, http.client.HTTPException):
                for _ in range(5):
                    number += 1
                    name = f"{worker}-{number}"
                    connection.request("GET", f"/sleep/{number % 30}/{name}")
                    got = connection.getresponse().read().decode()
                    if got != name:
                        wrong.append(f"{got} instead of {name}")
                    answered[0] += 1
            connection.close()

    with running(APP, server):
        threads = [threading.Thread(target=load, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(5):
                count = answered[0]
                wait_until(partial(has_grown, answered, count + 100), "requests are answered", 20)
                server.kill9()
                server.start()
                started_s = time.monotonic()
                assert fetch(server, "/ok/back", timeout_s=5) == "back"
                assert time.monotonic() - started_s < 2
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
    assert wrong == []


def test_a_stopped_worker_loses_nothing_that_it_received(server: Mongrel2) -> None:
    """SIGTERM under load: every request in the access log of the worker has its answer at the client."""
    answered: set[str] = set()
    statuses: set[int] = set()
    stop = threading.Event()

    def load(worker: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            name = f"{worker}-{number}"
            try:
                answered.add(fetch(server, f"/sleep/{number % 40}/{name}", timeout_s=4))
            except urllib.error.HTTPError as error:
                statuses.add(error.code)
                answered.add(name)
            except OSError:
                pass  # never received: it waits in Mongrel2

    with running(APP, server, access_log="-") as worker:
        threads = [threading.Thread(target=load, args=(number,)) for number in range(30)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: len(answered) > 300, "the load runs", 20)
            assert worker.stop(20) == 0
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
        received = set(re.findall(r'"path": "/sleep/\d+/([\d-]+)"', worker.stderr()))
    assert len(received) > 300
    assert received - answered == set()
    assert statuses <= {503}  # for what came after the signal


def test_sigterm_ends_endless_sessions_cleanly(server: Mongrel2) -> None:
    with (
        running(APP, server, drain_timeout_s=1) as worker,
        RawSocket(server.port, "/ws/x") as ws,
        ask(server, "/stream/y") as stream,
    ):
        ws.send(masked(0x81, b"there"))
        assert ws.receive() == (0x81, b"there")
        assert stream.recv(1024).startswith(b"HTTP/1.1 200")
        started_s = time.monotonic()
        worker.terminate()
        first, payload = ws.receive()
        assert (first, payload[:2]) == (0x88, (1001).to_bytes(2, "big"))
        assert worker.wait(10) == 0
        assert time.monotonic() - started_s < 6
        while stream.recv(65_536):
            pass  # the stream has an end


def read_to_the_end(client: socket.socket) -> None:
    with suppress(ConnectionResetError):
        while client.recv(1 << 20):
            pass


def test_sigterm_leaves_no_client_waiting(server: Mongrel2) -> None:
    """Mongrel2 closes nothing while it cannot tell of what it has written: somebody must still read that."""
    with running(APP, server, drain_timeout_s=1) as worker, ExitStack() as stack:
        paths = [f"/stream/{number}" for number in range(40)] + [f"/flood/{number}" for number in range(5)]
        clients = [stack.enter_context(ask(server, path)) for path in paths]
        for client in clients:
            assert client.recv(1024).startswith(b"HTTP/1.1 200")
        worker.terminate()
        assert worker.wait(10) == 0
        for client in clients:
            read_to_the_end(client)


def test_second_sigterm_stops_at_once(server: Mongrel2) -> None:
    with running(APP, server) as worker, ask(server, "/sleep/20000/x"):
        assert fetch(server, "/ok/there") == "there"
        started_s = time.monotonic()
        worker.terminate()
        wait_until(lambda: "draining" in worker.stderr(), "it drains")
        worker.terminate()
        assert worker.wait(10) == 0
        assert time.monotonic() - started_s < 8


@pytest.mark.checklist("mongrel2", 30)
def test_the_first_response_is_never_lost(server: Mongrel2) -> None:
    """Requests wait in Mongrel2 before the worker connects: each is answered, the very first too."""
    for _ in range(5):
        with ThreadPoolExecutor(10) as threads:
            waiting = [threads.submit(fetch, server, f"/ok/{number}", 15) for number in range(10)]
            with running(APP, server):
                assert [one.result(15) for one in waiting] == [str(number) for number in range(10)]


@pytest.mark.checklist("mongrel2", 31)
def test_two_servers_on_one_worker_keep_their_ids_apart() -> None:
    with mongrel2(uuid="left") as left, mongrel2(uuid="left-2") as right, running(APP, left, right):
        with ThreadPoolExecutor(40) as threads:
            waiting = [
                threads.submit(fetch, (left, right)[number % 2], f"/sleep/{200 + number}/{number}")
                for number in range(40)
            ]
            assert [one.result(15) for one in waiting] == [str(number) for number in range(40)]
        right.kill9()
        assert fetch(left, "/ok/still") == "still"
        right.start()
        assert fetch(right, "/ok/again") == "again"
