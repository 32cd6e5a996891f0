"""Status and metrics of a direct worker behind a real Mongrel2: every number is what the test did."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from m2gate.inputs.status_client import StatusClient
from m2gate.version import __version__
from tests.system.raw_socket import RawSocket
from tests.system.support import ROOT, Mongrel2, Served, environment, free_port, m2gate_run, running, wait_until

pytestmark = pytest.mark.shape("direct")

APP = ROOT / "tests/system/status_app.py"
NO_FAILURES = {"client-left": 0, "cut": 0, "refused": 0, "queue-full": 0, "stopping": 0, "subscriber-slow": 0}


class Watched:
    """A direct worker with everything that lets others see into it, and what it says."""

    def __init__(self, server: Mongrel2, worker: Served, folder: Path, metrics: int) -> None:
        self.server = server
        self.worker = worker
        self.folder = folder
        self._metrics = metrics

    def status(self) -> Any:
        return StatusClient(self.folder / "status", 10).ask()

    def counters(self) -> Any:
        return self.status()["counters"]

    def counts(self) -> tuple[int, int, int, int]:
        """Return started, finished, failed and open."""
        document = self.status()
        counters, (worker,) = document["counters"], document["workers"]
        started, finished = counters["requests_started"], counters["requests_finished"]
        failed = sum(counters["requests_failed"].values())
        assert worker["outstanding"] == started - finished - failed
        assert (worker["served"], worker["failed"]) == (finished, failed)
        return started, finished, failed, worker["outstanding"]

    def wait_counts(self, *expected: int) -> None:
        with suppress(AssertionError):
            wait_until(lambda: self.counts() == expected, f"{expected}", 10)
        assert self.counts() == expected

    def metrics(self) -> dict[str, float]:
        with closing(http.client.HTTPConnection("127.0.0.1", self._metrics, timeout=10)) as client:
            client.request("GET", "/metrics")
            text = client.getresponse().read().decode()
        samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
        return {
            one.name + "".join(f" {value}" for _, value in sorted(one.labels.items())): one.value for one in samples
        }

    def access_log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "access.log").read_text().splitlines()]

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)

    def ask(self, method: str, path: str, body: bytes | None = None) -> http.client.HTTPResponse:
        """Ask on a connection of its own, which the server closes after the answer."""
        with closing(self.connect()) as client:
            client.request(method, path, body, {"Connection": "close"})
            answer = client.getresponse()
            answer.text = answer.read().decode()  # type: ignore[attr-defined]
            return answer

    def begin(self, path: str) -> socket.socket:
        """Ask, and leave the answer unread."""
        client = socket.create_connection(("127.0.0.1", self.server.port), 10)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return client


@pytest.fixture
def watched(server: Mongrel2, short_tmp: Path) -> Iterator[Watched]:
    metrics = free_port()
    with running(
        APP,
        server,
        status=f"{short_tmp}/status",
        metrics=f"127.0.0.1:{metrics}",
        access_log=f"{short_tmp}/access.log",
        name="w7",
        generation=4,
        max_handlers=50,
    ) as worker:
        yield Watched(server, worker, short_tmp, metrics)


def test_a_worker_that_has_done_nothing(watched: Watched) -> None:
    document = watched.status()
    uptimes = [document.pop("uptime_s"), document["workers"][0].pop("uptime_s")]
    assert all(0 < one < 60 for one in uptimes)
    assert document == {
        "role": "worker",
        "version": __version__,
        "pid": watched.worker.pid,
        "servers": [
            {
                "send_ident": "test-1", "connected": True, "epoch": 1, "sessions": 0, "held": 0, "requests": 0,
                "frames_in": None, "rejected": 0,
            }
        ],
        "workers": [
            {
                "name": "w7", "pid": watched.worker.pid, "generation": 4, "state": "ready", "outstanding": 0,
                "served": 0, "failed": 0, "capacity": 50, "beat_age_s": None, "handler": "",
            }
        ],
        "queue": {"waiting": 0, "max": 10_000, "bytes": 0},
        "channels": [],
        "channels_total": 0,
        "subscribers_total": 0,
        "lagging_total": 0,
        "queued_bytes_total": 0,
        "counters": {
            "requests_started": 0, "requests_finished": 0, "requests_failed": NO_FAILURES, "items_published": 0,
            "deliveries": 0, "drops": {}, "worker_deaths": {}, "orphans_closed": 0, "frames_rejected": 0,
            "publish_rejected": 0,
        },
    }  # fmt: skip


def test_plain_requests(watched: Watched) -> None:
    with closing(watched.connect()) as client:
        for _ in range(20):
            client.request("GET", "/")
            assert client.getresponse().read() == b"here"
        assert watched.counts() == (20, 20, 0, 0)
        (row,) = watched.status()["servers"]
        assert (row["sessions"], row["requests"]) == (1, 20)
    assert watched.ask("POST", "/size", b"x" * 500_000).text == '{"size":500000}'  # type: ignore[attr-defined]
    assert watched.ask("GET", "/nothing").status == 404
    assert watched.ask("HEAD", "/").status == 200
    watched.wait_counts(23, 23, 0, 0)
    wait_until(lambda: watched.status()["servers"][0]["sessions"] == 0, "the sessions end", 10)
    found = watched.metrics()
    assert found["m2gate_requests_started_total"] == found["m2gate_requests_finished_total"] == 23
    assert found["m2gate_info worker " + __version__] == 1
    assert found["m2gate_server_connected test-1"] == 1


def test_an_id_that_the_client_can_quote(watched: Watched) -> None:
    answer = watched.ask("GET", "/fail")
    assert answer.status == 500
    request_id = answer.getheader("X-Request-Id")
    assert request_id
    assert answer.text == f"Internal Server Error\nrequest id: {request_id}\n"  # type: ignore[attr-defined]
    watched.wait_counts(1, 1, 0, 0)  # an answer is an answer, and the application's
    (line,) = watched.access_log()
    assert (line["request_id"], line["status"], line["gone"]) == (request_id, 500, False)
    assert (line["worker"], line["generation"]) == ("w7", 4)
    assert f"handler failed request_id={request_id} " in watched.worker.stderr()


def test_answers_that_fail(watched: Watched) -> None:
    with closing(watched.connect()) as client:
        client.request("GET", "/break")
        # Mongrel2 may close the connection before it has written the beginning.
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            client.getresponse().read()
    watched.wait_counts(1, 0, 1, 0)
    with closing(watched.begin("/wait")):
        watched.wait_counts(2, 0, 1, 1)
        assert watched.metrics()["m2gate_worker_outstanding 4 w7"] == 1
    watched.ask("GET", "/go")
    watched.wait_counts(3, 1, 2, 0)
    assert watched.counters()["requests_failed"] == NO_FAILURES | {"cut": 1, "client-left": 1}
    assert {(line["path"], line["gone"]) for line in watched.access_log()} == {
        ("/break", True),
        ("/wait", True),
        ("/go", False),
    }
    found = watched.metrics()
    assert found["m2gate_requests_failed_total cut"] == found["m2gate_requests_failed_total client-left"] == 1
    assert found["m2gate_requests_failed_total queue-full"] == 0


def test_channels_and_held_connections(watched: Watched) -> None:
    holders = [watched.begin("/hold") for _ in range(3)]
    wait_until(lambda: watched.status()["subscribers_total"] == 3, "they are subscribed", 10)
    assert watched.status()["servers"][0]["held"] == 3
    matched = json.loads(watched.ask("POST", "/publish/4").text)["matched"]  # type: ignore[attr-defined]
    assert matched == [3, 3, 3, 3]
    watched.wait_counts(4, 1, 0, 3)
    document = watched.status()
    assert document["channels"] == [{"name": "news", "subscribers": 3, "lagging": 0, "queued_bytes": 0, "published": 4}]
    assert (document["counters"]["items_published"], document["counters"]["deliveries"]) == (4, 12)
    found = watched.metrics()
    assert found["m2gate_channel_subscribers"] == found["m2gate_held_connections test-1"] == 3
    assert (found["m2gate_items_published_total"], found["m2gate_deliveries_total"]) == (4, 12)
    assert found["m2gate_channels"] == 1
    for holder in holders:
        holder.close()
    watched.wait_counts(4, 4, 0, 0)  # leaving is how a stream ends
    document = watched.status()
    assert (document["channels"], document["channels_total"], document["servers"][0]["held"]) == ([], 0, 0)


def test_a_websocket_is_one_request(watched: Watched) -> None:
    with RawSocket(watched.server.port, "/talk") as ws:
        assert ws.status == 101
        watched.wait_counts(1, 0, 0, 1)
    watched.wait_counts(1, 1, 0, 0)


def test_counts_go_on_when_mongrel2_is_started_anew(watched: Watched) -> None:
    def row() -> Any:
        return watched.status()["servers"][0]

    for _ in range(3):
        watched.ask("GET", "/")
    watched.wait_counts(3, 3, 0, 0)
    holder = watched.begin("/hold")
    watched.wait_counts(4, 3, 0, 1)
    watched.server.stop()
    wait_until(lambda: not row()["connected"], "the worker has noticed", 10)
    watched.wait_counts(4, 4, 0, 0)
    assert (row()["sessions"], row()["held"], row()["epoch"]) == (0, 0, 1)
    assert watched.metrics()["m2gate_server_connected test-1"] == 0
    watched.server.start()
    wait_until(lambda: row()["connected"], "it is back", 10)
    watched.ask("GET", "/")
    watched.wait_counts(5, 5, 0, 0)
    assert (row()["requests"], row()["epoch"]) == (5, 2)
    holder.close()


def test_a_draining_worker_says_so_and_takes_its_socket_along(watched: Watched) -> None:
    with closing(watched.begin("/wait")):
        watched.wait_counts(1, 0, 0, 1)
        watched.worker.terminate()
        wait_until(lambda: watched.status()["workers"][0]["state"] == "leaving", "it drains", 10)
        assert watched.counts() == (1, 0, 0, 1)
        watched.ask("GET", "/go")
        assert watched.worker.wait(20) == 0
    assert not (watched.folder / "status").exists()


def test_a_metrics_address_that_cannot_be_had(server: Mongrel2, short_tmp: Path) -> None:
    with pytest.raises(AssertionError, match="did not say"), running(APP, server, metrics="192.0.2.1:9090"):
        pass


# -- with m2gate run ----------------------------------------------------------------------------


def status_of(runtime: Path, *args: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "m2gate", "status", *args],
        env=environment(XDG_RUNTIME_DIR=str(runtime), COLUMNS="100"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_status_of_a_run_across_a_reload(app: Path) -> None:
    with m2gate_run(app) as run:
        before = json.loads(status_of(run.runtime, "--json").stdout)
        assert before["role"] == "worker"
        assert (before["supervisor"] or {}).get("url", run.url) == run.url
        done = status_of(run.runtime)
        assert done.returncode == 0
        assert f"\nm2gate-{run.port}  up " in done.stdout
        run.process.send_signal(signal.SIGHUP)
        wait_until(
            lambda: json.loads(status_of(run.runtime, "--json").stdout).get("pid", before["pid"]) != before["pid"],
            "the successor answers",
            15,
        )
        # What its predecessor removes at its end is not the successor's.
        wait_until(lambda: not Path(f"/proc/{before['pid']}").exists(), "the predecessor has ended", 20)
        assert status_of(run.runtime).returncode == 0
        runtime = run.runtime
        assert run.stop() == 0
        assert status_of(runtime).returncode == 1


def test_status_of_several_workers(app: Path) -> None:
    metrics = free_port()
    with m2gate_run(app, "--workers", "2", "--metrics", f"127.0.0.1:{metrics}") as run:

        def document() -> Any:
            return json.loads(status_of(run.runtime, "--json").stdout)

        with closing(http.client.HTTPConnection("127.0.0.1", run.port, timeout=10)) as client:
            for _ in range(10):
                client.request("GET", "/")
                client.getresponse().read()
            wait_until(lambda: document()["counters"]["requests_finished"] == 10, "ten are finished", 10)
            found = document()
            assert (found["role"], found["supervisor"]["mode"]) == ("gateway", "gateway")
            assert found["counters"]["requests_started"] == 10
            assert sum(found["counters"]["requests_failed"].values()) == 0
            assert sorted(one["served"] for one in found["workers"]) == [0, 10]
            assert {one["name"] for one in found["workers"]} == {"w1", "w2"}
            (server,) = found["servers"]
            assert (server["sessions"], server["requests"], server["connected"]) == (1, 10, True)
        text = status_of(run.runtime).stdout
        assert all(f"\n{one['name']}  " in text and f" {one['pid']} " in text for one in found["workers"])
        os.kill(found["workers"][0]["pid"], signal.SIGKILL)
        wait_until(lambda: document()["counters"]["worker_deaths"]["exit"] == 1, "the death is counted", 10)
        with closing(http.client.HTTPConnection("127.0.0.1", metrics, timeout=10)) as scraper:
            scraper.request("GET", "/metrics")
            lines = scraper.getresponse().read().decode().splitlines()
        assert 'm2gate_worker_deaths_total{how="exit"} 1.0' in lines
        assert "m2gate_requests_finished_total 10.0" in lines
