"""Metrics as Prometheus reads them, over real sockets; and what a hostile client of that port can do."""

import gc
import socket
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
import zmq
from gevent import socket as gsocket
from prometheus_client.parser import text_string_to_metric_families

from m2gate.errors import ConfigError
from m2gate.inputs import listener as listener_module
from m2gate.inputs.listener import Listener, parse_address
from m2gate.inputs.metrics import CONNECTIONS_MAX, MetricsServer
from m2gate.inputs.views import Views
from tests.inputs.documents import gateway_document
from tests.system.processes import short_directory

DEADLINE_S = 10.0

# name: (type, labels); a contract, see docs/reference/status.md.
METRICS = {
    "m2gate_info": ("gauge", "role version"),
    "m2gate_uptime_seconds": ("gauge", ""),
    "m2gate_requests_started": ("counter", ""),
    "m2gate_requests_finished": ("counter", ""),
    "m2gate_requests_failed": ("counter", "reason"),
    "m2gate_requests_open": ("gauge", ""),
    "m2gate_queue_waiting": ("gauge", ""),
    "m2gate_queue_bytes": ("gauge", ""),
    "m2gate_orphans_closed": ("counter", ""),
    "m2gate_frames_rejected": ("counter", ""),
    "m2gate_server_connected": ("gauge", "server"),
    "m2gate_sessions": ("gauge", "server"),
    "m2gate_held_connections": ("gauge", "server"),
    "m2gate_worker_outstanding": ("gauge", "generation worker"),
    "m2gate_workers": ("gauge", "state"),
    "m2gate_worker_deaths": ("counter", "how"),
    "m2gate_channels": ("gauge", ""),
    "m2gate_channel_subscribers": ("gauge", ""),
    "m2gate_channel_lagging": ("gauge", ""),
    "m2gate_channel_queued_bytes": ("gauge", ""),
    "m2gate_items_published": ("counter", ""),
    "m2gate_publish_rejected": ("counter", ""),
    "m2gate_deliveries": ("counter", ""),
    "m2gate_drops": ("counter", "reason"),
}


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    server = MetricsServer("127.0.0.1:0", gateway_document)
    server.start()
    yield server
    server.stop()
    gc.collect()


def until(condition: Callable[[], object]) -> None:
    with gevent.Timeout(DEADLINE_S):
        while not condition():
            gevent.sleep(0.001)


def connect(server: Any) -> Any:
    return gsocket.create_connection(("127.0.0.1", server.port), DEADLINE_S)


def talk(server: Any, request: bytes) -> bytes:
    """Send a request and return everything that comes back until the end of the stream."""
    answer = b""
    with connect(server) as connection:
        connection.sendall(request)
        try:
            while piece := connection.recv(65_536):
                answer += piece
        except ConnectionResetError:
            pass  # it did not want to read all of the request
    return answer


def get(server: Any, path: str = "/metrics", method: str = "GET") -> tuple[bytes, str]:
    head, _, body = talk(server, f"{method} {path} HTTP/1.0\r\n\r\n".encode()).partition(b"\r\n\r\n")
    return head, body.decode()


def samples(text: str) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(one.labels.items()))
            found[f"{one.name}{{{labels}}}" if labels else one.name] = one.value
    return found


def test_names_types_and_labels_are_a_contract(server: MetricsServer) -> None:
    head, text = get(server)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Type: text/plain; version=" in head
    found = {
        family.name: (family.type, " ".join(sorted({label for one in family.samples for label in one.labels})))
        for family in text_string_to_metric_families(text)
    }
    own = {name: kind for name, kind in found.items() if name.startswith("m2gate_")}
    assert own == METRICS
    assert {"process_cpu_seconds", "process_resident_memory_bytes", "process_open_fds"} < found.keys()
    assert not any(name.startswith("python_") for name in found)


def test_each_number_is_that_of_the_document(server: MetricsServer) -> None:
    found = samples(get(server)[1])
    assert {name: value for name, value in found.items() if name.startswith("m2gate_")} == {
        "m2gate_info{role=gateway,version=0.2.0}": 1,
        "m2gate_uptime_seconds": 93_784.5,
        "m2gate_requests_started_total": 1_234_567,
        "m2gate_requests_finished_total": 1_234_500,
        "m2gate_requests_failed_total{reason=worker-died}": 40,
        "m2gate_requests_failed_total{reason=client-left}": 10,
        "m2gate_requests_failed_total{reason=queue-full}": 0,
        "m2gate_requests_open": 17,
        "m2gate_queue_waiting": 12,
        "m2gate_queue_bytes": 4_096,
        "m2gate_orphans_closed_total": 1,
        "m2gate_frames_rejected_total": 2,
        "m2gate_server_connected{server=m2gate-6767}": 1,
        "m2gate_server_connected{server=m2gate-443}": 0,
        "m2gate_sessions{server=m2gate-6767}": 1_234,
        "m2gate_sessions{server=m2gate-443}": 0,
        "m2gate_held_connections{server=m2gate-6767}": 900,
        "m2gate_held_connections{server=m2gate-443}": 0,
        "m2gate_worker_outstanding{generation=2,worker=w1}": 3,
        "m2gate_worker_outstanding{generation=2,worker=w2}": 1,
        "m2gate_worker_outstanding{generation=1,worker=w2}": 1,
        "m2gate_worker_outstanding{generation=2,worker=w3}": 0,
        "m2gate_workers{state=starting}": 0,
        "m2gate_workers{state=ready}": 2,
        "m2gate_workers{state=leaving}": 1,
        "m2gate_workers{state=lost}": 1,
        "m2gate_worker_deaths_total{how=exit}": 2,
        "m2gate_worker_deaths_total{how=hung}": 1,
        "m2gate_channels": 40,
        "m2gate_channel_subscribers": 1_239,
        "m2gate_channel_lagging": 3,
        "m2gate_channel_queued_bytes": 70_000,
        "m2gate_items_published_total": 4_400,
        "m2gate_publish_rejected_total": 5,
        "m2gate_deliveries_total": 5_300_000,
        "m2gate_drops_total{reason=over-limit}": 30,
        "m2gate_drops_total{reason=drop-oldest}": 0,
        "m2gate_drops_total{reason=latest}": 0,
        "m2gate_drops_total{reason=gone}": 4,
    }


def test_two_workers_in_one_place_are_one_series() -> None:
    document = gateway_document()
    document["workers"].append(document["workers"][0])
    server = MetricsServer("127.0.0.1:0", lambda: document)
    server.start()
    assert samples(get(server)[1])["m2gate_worker_outstanding{generation=2,worker=w1}"] == 6
    server.stop()


def test_the_document_is_read_at_each_scrape_and_not_before() -> None:
    reads = 0

    def document() -> Any:
        nonlocal reads
        reads += 1
        return gateway_document()

    server = MetricsServer("127.0.0.1:0", document)
    server.start()
    assert reads == 0
    get(server)
    get(server)
    assert reads == 2
    server.stop()


def test_other_paths_and_methods(server: MetricsServer) -> None:
    assert get(server, "/other")[0].startswith(b"HTTP/1.1 404 ")
    assert get(server, method="POST")[0].startswith(b"HTTP/1.1 405 ")
    head, body = get(server, method="HEAD")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == ""


JUNK = [
    pytest.param(b"\0\0\0\r\n\r\n", id="binary"),
    pytest.param(b"GET /metrics HTTP/9.9\r\n\r\n", id="version"),
    pytest.param(b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", id="long-line"),
    pytest.param(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n", id="many-headers"),
    pytest.param(b"GET / HTTP/1.1\r\nContent-Length: x\r\nConnection: close\r\n\r\n", id="length"),
    pytest.param(b"GET /%ff%00 HTTP/1.1\r\nConnection: close\r\n\r\n", id="path"),
    pytest.param(b"", id="nothing"),
]


@pytest.mark.parametrize("request_", JUNK)
def test_junk_leaves_no_trace(server: MetricsServer, request_: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with connect(server) as connection:
        try:
            connection.sendall(request_)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):
                pass
        except OSError:
            pass  # cut in the middle of it
    assert get(server)[0].startswith(b"HTTP/1.1 200 ")
    assert capfd.readouterr() == ("", "")


def test_slow_clients_hold_up_others_for_a_bounded_time(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(listener_module, "CONNECTION_S", 0.2)
    slow = [connect(server) for _ in range(CONNECTIONS_MAX)]
    for one in slow:
        one.sendall(b"GET /metrics HTT")
    assert get(server)[0].startswith(b"HTTP/1.1 200 ")  # once they have been cut
    for one in slow:
        assert one.recv(1) == b""
        one.close()
    assert capfd.readouterr() == ("", "")


def test_a_bug_of_ours_is_logged_and_the_server_goes_on(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    documents = iter([{}, gateway_document()])
    server = MetricsServer("127.0.0.1:0", lambda: next(documents))  # type: ignore[arg-type, return-value]
    server.start()
    talk(server, b"GET /metrics HTTP/1.1\r\n\r\n")
    assert "request of a tool failed" in caplog.text
    assert get(server)[0].startswith(b"HTTP/1.1 200 ")
    assert capfd.readouterr() == ("", "")
    server.stop()


def test_a_successor_gets_the_port_when_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    first = MetricsServer("127.0.0.1:0", gateway_document)
    first.start()
    second = MetricsServer(f"127.0.0.1:{first.port}", gateway_document)
    second.start()
    assert second.port is None
    port = first.port
    first.stop()
    first.stop()
    until(lambda: second.port == port)
    assert get(second)[0].startswith(b"HTTP/1.1 200 ")
    second.stop()


def test_a_port_that_stays_taken_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener_module, "RETRY_S", 0.001)
    monkeypatch.setattr(listener_module, "PATIENCE_S", 0.003)
    attempts = 0
    bind = Listener._bind

    def counted(self: Listener) -> bool:
        nonlocal attempts
        attempts += 1
        return bind(self)

    monkeypatch.setattr(Listener, "_bind", counted)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        server = MetricsServer(f"127.0.0.1:{other.getsockname()[1]}", gateway_document)
        server.start()
        until(lambda: attempts > 20)
        server.stop()
    assert caplog.text.count("address in use, trying again metrics=127.0.0.1:") == 1
    assert server.port is None


ADDRESSES = [
    pytest.param("127.0.0.1:9090", ("127.0.0.1", 9090), id="ipv4"),
    pytest.param("[::1]:9090", ("::1", 9090), id="ipv6"),
    pytest.param("localhost:0", ("127.0.0.1", 0), id="localhost"),
    pytest.param(":9090", ("127.0.0.1", 9090), id="port"),
]


@pytest.mark.parametrize(("text", "expected"), ADDRESSES)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert parse_address("metrics", text) == expected


@pytest.mark.parametrize("text", ["9090", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "shop.example:80", "", "::"])
def test_bad_addresses(text: str) -> None:
    with pytest.raises(ConfigError, match="metrics = "):
        MetricsServer(text, gateway_document)


def test_an_address_of_another_machine() -> None:
    with pytest.raises(ConfigError, match=r"metrics = '192\.0\.2\.1:9090'"):
        MetricsServer("192.0.2.1:9090", gateway_document).start()


def test_views_serve_what_is_asked_for() -> None:
    with zmq.Context() as context, short_directory() as folder:
        views = Views(context, gateway_document, status=f"{folder}/status", metrics="127.0.0.1:0")
        views.start()
        assert (folder / "status").is_socket()
        views.give_way()
        assert (folder / "status").is_socket()
        views.stop()
        assert not (folder / "status").exists()
        nothing = Views(context, gateway_document, status=None, metrics=None)
        nothing.start()
        nothing.give_way()
        nothing.stop()
