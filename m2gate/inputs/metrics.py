"""Metrics for Prometheus, read from the status document at each scrape.

Names and labels are stable. Series are bounded: no label has a value that a client can choose, so
there is none for channels; ``m2gate status`` names them. Source: docs/reference/status.md.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from m2gate.inputs.document import CountersStatus, StatusDocument
from m2gate.inputs.listener import Listener

CONNECTIONS_MAX: Final = 20

Labels = tuple[str, ...]
Samples = Iterable[tuple[Labels, float]]


class DocumentCollector(Collector):
    """Turns the document of this moment into metrics."""

    def __init__(self, document: Callable[[], StatusDocument]) -> None:
        self._document = document

    def describe(self) -> list[Metric]:
        """Return nothing: so the document is not read before somebody scrapes."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics of the process."""
        document = self._document()
        info = (document["role"], document["version"])
        yield _gauge("info", "Always 1; what runs here.", ("role", "version"), [(info, 1)])
        yield _gauge("uptime_seconds", "Since the start of the process.", (), [((), document["uptime_s"])])
        yield from _requests(document)
        yield from _servers(document)
        yield from _workers(document)
        yield from _channels(document)


def _gauge(name: str, text: str, labels: Labels, samples: Samples) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"m2gate_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _counter(name: str, text: str, labels: Labels, samples: Samples) -> CounterMetricFamily:
    family = CounterMetricFamily(f"m2gate_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _total(name: str, text: str, value: float) -> CounterMetricFamily:
    return _counter(name, text, (), [((), value)])


def _by(counts: dict[str, int]) -> Samples:
    return [((key,), count) for key, count in sorted(counts.items())]


def _requests(document: StatusDocument) -> Iterator[Metric]:
    counters: CountersStatus = document["counters"]
    failed = counters["requests_failed"]
    is_open = counters["requests_started"] - counters["requests_finished"] - sum(failed.values())
    yield _total("requests_started", "Requests taken in.", counters["requests_started"])
    yield _total("requests_finished", "Requests that ended as the application wanted.", counters["requests_finished"])
    yield _counter("requests_failed", "Requests that ended otherwise.", ("reason",), _by(failed))
    yield _gauge("requests_open", "Requests that have not ended.", (), [((), is_open)])
    yield _gauge("queue_waiting", "Requests that no worker has begun.", (), [((), document["queue"]["waiting"])])
    yield _gauge("queue_bytes", "Bytes that these hold.", (), [((), document["queue"]["bytes"])])
    yield _total("orphans_closed", "Connections of a former process that were closed.", counters["orphans_closed"])
    yield _total("frames_rejected", "Messages of Mongrel2 that broke a rule.", counters["frames_rejected"])


def _servers(document: StatusDocument) -> Iterator[Metric]:
    rows = [((one["send_ident"],), one) for one in document["servers"]]
    labels = ("server",)
    yield _gauge(
        "server_connected", "1 while Mongrel2 is there.", labels, [(key, one["connected"]) for key, one in rows]
    )
    yield _gauge("sessions", "Client connections.", labels, [(key, one["sessions"]) for key, one in rows])
    text = "Connections that channels feed."
    yield _gauge("held_connections", text, labels, [(key, one["held"]) for key, one in rows])


def _workers(document: StatusDocument) -> Iterator[Metric]:
    labels = ("worker", "generation")
    workers = document["workers"]
    text = "Requests that are open in a worker."
    # A worker and its successor in the same place and generation: one series, so they are added up.
    outstanding: dict[Labels, float] = {}
    for one in workers:
        key = (one["name"], str(one["generation"]))
        outstanding[key] = outstanding.get(key, 0) + one["outstanding"]
    yield _gauge("worker_outstanding", text, labels, outstanding.items())
    states: dict[str, int] = {"starting": 0, "ready": 0, "leaving": 0, "lost": 0}
    for one in workers:
        states[one["state"]] += 1
    yield _gauge("workers", "Workers by what they do.", ("state",), [((state,), n) for state, n in states.items()])
    deaths = {"exit": 0, "hung": 0} | document["counters"]["worker_deaths"]
    yield _counter("worker_deaths", "Workers that died while they were attached.", ("how",), _by(deaths))


def _channels(document: StatusDocument) -> Iterator[Metric]:
    counters = document["counters"]
    yield _gauge("channels", "Channels that have subscribers.", (), [((), document["channels_total"])])
    text = "Subscriptions, of all channels."
    yield _gauge("channel_subscribers", text, (), [((), document["subscribers_total"])])
    yield _gauge("channel_lagging", "Those of them that lag.", (), [((), document["lagging_total"])])
    text = "Bytes that wait for subscribers that lag."
    yield _gauge("channel_queued_bytes", text, (), [((), document["queued_bytes_total"])])
    yield _total("items_published", "Items that were accepted.", counters["items_published"])
    yield _total("publish_rejected", "Items that were not.", counters["publish_rejected"])
    yield _total("deliveries", "Items times the subscribers that they matched.", counters["deliveries"])
    reasons = {"over-limit": 0, "drop-oldest": 0, "latest": 0, "gone": 0}
    yield _counter("drops", "Deliveries that were lost.", ("reason",), _by(reasons | counters["drops"]))


class MetricsServer:
    """Serves ``GET /metrics`` at an address of this machine; everything else is 404 or 405.

    address:  ``HOST:PORT``. Raises ConfigError if it is none.
    document: called in the loop, at each scrape; must not block.
    Bounds: those of Listener, and CONNECTIONS_MAX connections.
    """

    def __init__(self, address: str, document: Callable[[], StatusDocument]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(DocumentCollector(document))
        ProcessCollector(registry=self._registry)
        self._listener = Listener("metrics", address, self._answer, connections_max=CONNECTIONS_MAX)

    @property
    def port(self) -> int | None:
        """The port that it listens on; None while that is not so."""
        return self._listener.port

    def start(self) -> None:
        """Listen, now or as soon as the port is free. Raises ConfigError if that cannot become true."""
        self._listener.start()

    def stop(self) -> None:
        """Listen no more. Blocks the greenlet. Idempotent."""
        self._listener.stop()

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] not in ("/metrics", "/"):
            status, kind, body = "404 Not Found", "text/plain; charset=utf-8", b"see /metrics\n"
        elif environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            status, kind, body = "405 Method Not Allowed", "text/plain; charset=utf-8", b"use GET\n"
        else:
            status, kind, body = "200 OK", CONTENT_TYPE_LATEST, generate_latest(self._registry)
        start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
