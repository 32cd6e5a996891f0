"""A worker from its start to its last answer: one App behind the servers it is connected to."""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gevent
import zmq
from gevent import get_hub
from gevent.event import Event

from m2gate.app.application import App
from m2gate.app.user_code import user_errors
from m2gate.errors import ConfigError
from m2gate.hub.item import Item
from m2gate.hub.work import Receipt
from m2gate.inputs.publish import Inputs
from m2gate.inputs.views import Views
from m2gate.link.access_log import AccessLog
from m2gate.link.clock import Clock
from m2gate.link.exchange import Exchange
from m2gate.link.mailbox import Mailbox
from m2gate.link.server import LinkSettings, Server
from m2gate.link.sockets import closing_s
from m2gate.link.tally import Tally
from m2gate.worker.attached import AttachedSettings, AttachLink
from m2gate.worker.direct import DirectLink
from m2gate.worker.leaving import Departure
from m2gate.worker.pool import Pool
from m2gate.worker.report import Report
from m2gate.worker.settings import WorkerSettings
from m2gate.worker.target import load_target

logger = logging.getLogger(__name__)

TICK_S = 1.0
DRAIN_POLL_S = 0.02
DRAIN_OPEN_S = 0.5
DRAIN_QUIET_S = 0.1  # no request for so long: what Mongrel2 had handed over is answered


class Worker:
    """Runs one App. start(), then wait(); stop() drains."""

    def __init__(self, app: App, settings: WorkerSettings) -> None:
        self._app = app
        self._settings = settings
        self._clock = Clock()
        log = settings.access_log
        self._access_log = AccessLog(log, settings.label, settings.generation) if log else None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        handle = self._handler()
        if settings.max_requests is not None:
            handle = self._counted(handle, settings.max_requests)
        self._pool = Pool(handle, settings.max_handlers)
        if self._access_log is not None:
            self._pool.on_refused = self._access_log.begin
        link = LinkSettings(
            inbox_messages=settings.inbox_messages,
            inbox_bytes=settings.inbox_bytes,
            keepalive_s=settings.keepalive_s,
            body_timeout_s=settings.body_timeout_s,
            max_body=app.largest_body(),
        )
        tally = Tally()
        self._links = [
            DirectLink(self._context, one, self._pool, link, self._clock, tally=tally) for one in settings.servers
        ]
        self._attached: AttachLink | None = None
        if settings.gateway is not None:
            self._attached = self._attach(Path(settings.gateway.folder), link, tally)
        self._report = Report(settings, self._pool, self._links, app.broadcast, tally)
        broadcast = app.broadcast
        self._inputs = Inputs(self._context, settings, self._publish, broadcast.date, broadcast.is_congested)
        hub = app.broadcast.hub
        hub.on_opened, hub.on_emptied = self._inputs.opened, self._inputs.emptied
        self._report.inputs = self._inputs
        self._views = Views(self._context, self._report.document, status=settings.status, metrics=settings.metrics)
        self._ticker = get_hub().loop.timer(TICK_S, TICK_S)
        self._stop_requests = 0
        self._has_successor = False
        self._stop_now = Event()
        self._stop_wanted = Event()

    def _attach(self, folder: Path, link: LinkSettings, tally: Tally) -> AttachLink:
        settings = self._settings
        about = AttachedSettings(
            folder=folder,
            name=settings.label,
            generation=settings.generation,
            capacity=settings.max_handlers,
            handler=settings.gateway.handler if settings.gateway is not None else "",
        )
        attached = AttachLink(self._context, about, self._pool, link, clock=self._clock, tally=tally)
        for app in self._app.apps():
            app.broadcast = attached.broadcast
        return attached

    def _publish(self, item: Item) -> Receipt:
        return self._app.broadcast.publish(item)

    def _handler(self) -> Callable[[Exchange], None]:
        handle, log = self._app.handle, self._access_log
        if log is None:
            return handle
        begin = log.begin

        def handle_logged(exchange: Exchange) -> None:
            begin(exchange)
            handle(exchange)

        return handle_logged

    def _counted(self, handle: Callable[[Exchange], None], left: int) -> Callable[[Exchange], None]:
        """Wrap handle so that a fresh process is asked for when the last of ``left`` requests begins."""

        def handle_counted(exchange: Exchange) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                logger.info("spent requests=%d", self._settings.max_requests)
                tell(self._settings, b"spent\n")
            handle(exchange)

        return handle_counted

    def start(self) -> None:
        """Run the App's on_start and connect. Blocks the greenlet until all servers are there.

        Raises ConfigError for what a hook raises, and for a status or metrics address that cannot be had.
        """
        self._mailbox = self._app.mailbox = Mailbox(self._context, Path(self._settings.run_dir), self._app.secret)
        if self._attached is not None:
            self._attached.start()  # before on_start, which may publish
        try:
            self._views.start()
            with user_errors(self._settings.target):
                self._app.start()
            self._inputs.start()
        except ConfigError:
            if self._attached is not None:
                self._attached.stop()
            self._views.stop()
            self._mailbox.close()
            self._context.term()
            raise
        self._ticker.start(self._tick)
        for link in self._links:
            link.start()
        ready = [link.ready for link in self._links]
        if self._attached is not None:
            self._attached.may_serve.set()
            ready.append(self._attached.ready)
        gevent.wait([*ready, self._stop_wanted], count=len(ready))

    def _tick(self) -> None:
        self._clock.tick()
        for link in self._links:
            link.tick()
        if self._attached is not None:
            self._attached.tick()
        self._app.tick(self._clock.now_s)

    def request_stop(self) -> None:
        """Drain and stop; a second call stops at once. Callable from a signal handler."""
        self._stop_requests += 1
        self._stop_wanted.set()
        if self._stop_requests > 1:
            self._stop_now.set()

    def request_handover(self) -> None:
        """Drain and stop as request_stop does, for a successor that waits: nobody is refused meanwhile."""
        self._has_successor = True
        if self._attached is None:
            self.request_stop()
        else:
            self._stop_wanted.set()  # a stop may still be requested while what is open goes on

    def wait(self) -> None:
        """Blocks the greenlet until the worker is stopped and everything is delivered."""
        self._stop_wanted.wait()
        if self._attached is None:
            self._drain()
        else:
            self._depart(self._attached)
        self._inputs.stop()
        self._app.stop()
        self._ticker.stop()
        if self._attached is not None:
            self._attached.stop()
        for link in self._links:
            link.stop()
        self._views.stop()
        self._mailbox.close()
        # Waits for the last answers to leave, at most for the linger of their sockets.
        self._context.term()

    def _depart(self, link: AttachLink) -> None:
        """Leave the gateway: hand over if that is asked for, and stop when, or as soon as, that is."""
        departure = Departure(link, self._app, self._pool, self._settings.drain_timeout_s, self._stop_now)
        self._report.is_leaving = True
        if self._stop_requests == 0:
            departure.hand_over(lambda: self._stop_requests > 0)
        if self._stop_requests > 0:
            departure.stop()

    def _drain(self) -> None:
        """Let what was received be answered, then end what would go on for ever.

        For DRAIN_OPEN_S also what still comes is served; where it never ceases, what comes after
        that gets 503, so that the requests which were there before can be finished. With a
        successor that is put off until those of before are finished.
        """
        logger.info("draining busy=%d", self._pool.busy)
        if self._has_successor:
            self._inputs.stop()  # what has arrived reaches holds and streams before these end
            self._views.give_way()
        self._app.begin_drain()
        self._report.is_leaving = True
        for server in self._servers():
            server.begin_drain()
        before = self._unfinished() if self._has_successor else []
        started_s = time.monotonic()
        quiet_s = 0.0
        while quiet_s < DRAIN_QUIET_S and not self._stop_now.is_set():
            self._stop_now.wait(DRAIN_POLL_S)
            passed_s = time.monotonic() - started_s
            if passed_s >= self._settings.drain_timeout_s:
                logger.warning("drain timeout busy=%d", self._pool.busy)
                break
            if passed_s >= DRAIN_OPEN_S and all(exchange.ended for exchange in before):
                for server in self._servers():
                    server.is_refusing = True
            quiet_s = quiet_s + DRAIN_POLL_S if self._pool.busy == 0 else 0.0
        closed = sum(server.end_sessions(and_idle=not self._has_successor) for server in self._servers())
        gevent.sleep(closing_s(closed))
        slow = sum(server.cut_sessions() for server in self._servers())
        if slow:
            gevent.sleep(closing_s(slow))

    def _unfinished(self) -> list[Exchange]:
        connections = [one for server in self._servers() for one in server.connections.values()]
        return [one.current for one in connections if one.current is not None and not one.current.is_held]

    def _servers(self) -> list[Server]:
        return [link.server for link in self._links if link.server is not None]


def run(settings: WorkerSettings) -> int:
    """Load the target and run a worker until it is told to stop; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    app = load_target(settings.target)
    describe(app, Path(settings.run_dir))
    tell(settings, b"loaded\n")
    if settings.await_go and not sys.stdin.buffer.readline():
        return 0
    worker = Worker(app, settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, worker.request_stop)
    gevent.signal_handler(signal.SIGHUP, worker.request_handover)
    worker.start()
    if settings.output_fd is not None:
        take_output(settings.output_fd)
    tell(settings, b"ready\n")
    worker.wait()
    return 0


def tell(settings: WorkerSettings, line: bytes) -> None:
    """Tell whoever started this process how far it has come."""
    if settings.ready_fd is not None:
        os.write(settings.ready_fd, line)


def take_output(descriptor: int) -> None:
    """Write to this descriptor from now on: one of many attempts to start has come to something."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for number in (1, 2):
        os.dup2(descriptor, number)
    os.close(descriptor)


def describe(app: App, run_dir: Path) -> None:
    """Write what the starter of this process must know of the App: its JSON sockets and files."""
    files = {getattr(module, "__file__", None) for module in tuple(sys.modules.values())}
    document = {
        "json_sockets": sorted(app.json_sockets),
        "files": sorted(name for name in files if isinstance(name, str) and name.startswith(os.getcwd())),
    }
    (run_dir / "app.json").write_text(json.dumps(document))
