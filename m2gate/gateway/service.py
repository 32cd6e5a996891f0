"""The gateway from its start to its end: servers on one side, workers on the other, the hub between them."""

import logging
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import gevent
import zmq
from gevent import get_hub
from gevent.event import Event

from m2gate.errors import ConfigError, M2GateError
from m2gate.gateway.attachments import Attachments, expected_pids
from m2gate.gateway.counters import Counters
from m2gate.gateway.dispatch import Dispatcher
from m2gate.gateway.hub import GatewayHub
from m2gate.gateway.linked import LinkedServer
from m2gate.gateway.refusals import Asked
from m2gate.gateway.report import describe
from m2gate.gateway.routing import Router
from m2gate.gateway.sessions import Session
from m2gate.gateway.settings import GatewaySettings
from m2gate.gateway.uplink import Uplink
from m2gate.gateway.workers import WorkerPools
from m2gate.inputs.document import StatusDocument
from m2gate.inputs.metrics import MetricsServer
from m2gate.inputs.publish import Inputs
from m2gate.inputs.status import StatusServer
from m2gate.link.access_log import AccessLog
from m2gate.link.clock import Clock
from m2gate.link.control import ControlPort
from m2gate.link.orphans import close_orphans
from m2gate.link.server import LinkSettings
from m2gate.link.sockets import DirectServer, closing_s
from m2gate.wire.attach import build_read

logger = logging.getLogger(__name__)

TICK_S: Final = 0.5
LINK_S: Final = 1.0  # for all servers to be linked, before workers of a former gateway are told which there are
CLAIM_S: Final = 2.0  # workers that a former gateway had are waited for so long before messages are read
SETTLE_S: Final = 0.5  # after the first read, what Mongrel2 has read is compared with what workers have
ORPHAN_S: Final = 4.0  # and so long after that, connections that nobody has claimed are closed
OPEN_S: Final = 0.5  # a drain serves so long what still comes
WORKERS_S: Final = 3.0  # after the timeout of a drain, for workers to close what is open there
POLL_S: Final = 0.02
PUBLISH: Final = ("publish_http", "publish_pull", "publish_sub")
UNCHANGEABLE: Final = ("folder", *PUBLISH, "metrics", "access_log", "queue_max", "keepalive_s", "drain_timeout_s")


class Gateway:
    """Runs one gateway. start(), then wait(); request_stop() drains."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._folder = Path(settings.folder)
        self._started_s = time.monotonic()
        self._clock = Clock()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._expected = expected_pids(self._folder)
        self._pools = WorkerPools(settings.queue_max)
        self._dispatcher = Dispatcher(Router(settings.sites, self._pools), Counters())
        self._hub = GatewayHub(self._dispatcher)
        self._attachments = Attachments(self._context, self._folder, self._dispatcher, self._pools, self._hub)
        self._attachments.on_connected = self._read_if_ready
        self._uplinks = [self._uplink(address) for address in settings.servers]
        self._access_log = AccessLog(settings.access_log, "gateway", 0) if settings.access_log else None
        if self._access_log is not None:
            self._dispatcher.endings.on_refusal = self._log_refusal
            self._hub.log_to(self._access_log)
        self._metrics = MetricsServer(settings.metrics, self.document) if settings.metrics else None
        self._inputs = Inputs(self._context, settings, self._hub.publish, self._hub.date, self._hub.must_wait)
        self._hub.listen_for(self._inputs)
        self._status = StatusServer(self._context, self._folder / "status", self.document)
        self._ticker = get_hub().loop.timer(TICK_S, TICK_S)
        self._stop_requests = 0
        self._stop_wanted = Event()
        self._stop_now = Event()
        self._ticks = 0

    def _uplink(self, address: DirectServer) -> Uplink:
        return Uplink(
            self._context,
            address,
            self._dispatcher,
            settings=LinkSettings(keepalive_s=self._settings.keepalive_s),
            clock=self._clock,
            changed=self._servers_changed,
            flush=self._attachments.flush,
        )

    # -- life -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Bind all sockets and begin to link the servers. Raises ConfigError for what cannot be bound."""
        if self._expected:
            self._attachments.await_servers()
        try:
            self._attachments.start()
            self._status.start()
        except (zmq.ZMQError, OSError) as error:
            remedy = "stop the gateway that uses this folder, or name another one"
            raise ConfigError("folder", str(self._folder), f"cannot be used: {error}", remedy) from error
        if self._metrics is not None:
            self._metrics.start()
        self._inputs.start()
        self._ticker.start(self._tick)
        for uplink in self._uplinks:
            uplink.start()
        if self._expected:
            logger.warning("workers of a former gateway expected count=%d", len(self._expected))
            gevent.spawn_later(LINK_S, self._attachments.complete)
            gevent.spawn_later(CLAIM_S, self._expect_no_more)

    def request_stop(self) -> None:
        """Drain and stop; a second call stops at once. Callable from a signal handler."""
        self._stop_requests += 1
        self._stop_wanted.set()
        if self._stop_requests > 1:
            self._stop_now.set()

    def wait(self) -> None:
        """Blocks the greenlet until the gateway is stopped and everything is delivered."""
        self._stop_wanted.wait()
        self._drain()
        self._inputs.stop()
        self._ticker.stop()
        if self._metrics is not None:
            self._metrics.stop()
        self._status.stop()
        for uplink in self._uplinks:
            uplink.stop()
        self._attachments.close()
        self._context.term()

    def _drain(self) -> None:
        """Serve for OPEN_S what still comes, then refuse; until the workers are gone and what is held has ended."""
        logger.info("draining")
        self._pools.use_all()
        for server in self._dispatcher.servers.values():
            server.link.begin_drain()
        self._hub.begin_drain()
        self._stop_now.wait(OPEN_S)
        self._dispatcher.refuse_all()
        self._attachments.end_all()
        deadline_s = time.monotonic() + self._settings.drain_timeout_s + WORKERS_S
        while self._attachments.workers and time.monotonic() < deadline_s and not self._stop_now.is_set():
            self._stop_now.wait(POLL_S)
        if self._attachments.workers:
            logger.warning("drain timeout workers=%d", len(self._attachments.workers))
        gevent.sleep(closing_s(self._dispatcher.close_all()))

    def apply(self, settings: GatewaySettings) -> None:
        """Serve other servers and sites from now on; nothing else can change while it runs.

        What is open goes on where it is, unless its server is gone. Blocks the greenlet.
        """
        for key in UNCHANGEABLE:
            if getattr(settings, key) != getattr(self._settings, key):
                logger.warning("setting needs a restart of the gateway key=%s", key)
        self._dispatcher.router = Router(settings.sites, self._pools)
        known = {uplink.address for uplink in self._uplinks}
        gone = [uplink for uplink in self._uplinks if uplink.address not in settings.servers]
        self._uplinks = [uplink for uplink in self._uplinks if uplink not in gone]
        for uplink in gone:
            uplink.stop()
        for address in settings.servers:
            if address not in known:
                uplink = self._uplink(address)
                self._uplinks.append(uplink)
                uplink.start()
        if gone:
            self._servers_changed()
        logger.info("settings applied servers=%d sites=%d", len(settings.servers), len(settings.sites))

    # -- servers --------------------------------------------------------------------------------------------

    def _servers_changed(self) -> None:
        if all(uplink.server is not None for uplink in self._uplinks):
            self._attachments.complete()
        else:
            self._attachments.tell_servers()
        for uplink in self._uplinks:
            if uplink.server is not None and uplink.epoch == 1 and not uplink.is_checked:
                uplink.is_checked = True
                if uplink.address.control_spec is not None:
                    gevent.spawn(self._close_orphans, uplink, uplink.server, uplink.address.control_spec)

    def _close_orphans(self, uplink: Uplink, server: LinkedServer, control_spec: str) -> None:
        """Close what a former gateway had, once messages of this server are read."""
        count = close_orphans(server, control_spec, lambda: not uplink.is_reading, ORPHAN_S)
        self._dispatcher.counters.orphans += count

    def _read_if_ready(self, server: LinkedServer) -> None:
        """Read what a server sends once the workers that may have its sessions have claimed them."""
        pids = {worker.pid for worker in self._attachments.workers if server.number in worker.connected}
        if self._expected <= pids:
            self._read(server)

    def _expect_no_more(self) -> None:
        missing = self._expected - {worker.pid for worker in self._attachments.workers}
        if missing:
            logger.warning("workers of a former gateway did not come back pids=%s", sorted(missing))
        self._expected = set()
        for server in self._dispatcher.servers.values():
            if self._pools.can_reach(server.number):
                self._read(server)

    def _read(self, server: LinkedServer) -> None:
        for uplink in self._uplinks:
            if uplink.server is server and not uplink.is_reading:
                claimed = [one for one in server.sessions.values() if one.is_websocket]
                uplink.read()
                if claimed and uplink.address.control_spec is not None:
                    gevent.spawn(self._tell_read, server, uplink.address.control_spec, claimed)

    def _tell_read(self, server: LinkedServer, control_spec: str, claimed: list[Session]) -> None:
        """Tell the owners of claimed WebSockets how much was read from these, so that they see what was lost."""
        gevent.sleep(SETTLE_S)
        try:
            found = {one.conn_id: one.bytes_read for one in ControlPort(control_spec).status_net()}
        except M2GateError as error:
            logger.warning("lost messages are not looked for send_ident=%s error=%s", server.send_ident, error)
            return
        for worker in self._attachments.workers:
            mine = {one.conn_id for one in claimed if one.owner is worker}
            if mine:
                worker.send(build_read(server.number, {one: found[one] for one in mine & found.keys()}))
        self._attachments.flush()

    # -- time -------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._clock.tick()
        self._attachments.tick()
        self._dispatcher.tick()
        self._ticks += 1
        if self._ticks % 2 == 0:
            for server in self._dispatcher.servers.values():
                server.link.tick()
            self._hub.tick()
            self._attachments.beat()
            _write_beat(self._folder / "gateway.beat")
        self._attachments.flush()

    def _log_refusal(self, asked: Asked, status: int, request_id: str, since_s: float) -> None:
        if self._access_log is not None:
            self._access_log.write_line(
                request_id=request_id,
                client=asked.client.decode("latin-1"),
                method=asked.method.decode("latin-1"),
                path=asked.path.decode("latin-1"),
                status=status,
                size=0,
                started_s=since_s,
                gone=False,
            )

    # -- seeing in ----------------------------------------------------------------------------------------------

    def document(self) -> StatusDocument:
        """Return the status document."""
        return describe(
            self._dispatcher,
            self._uplinks,
            self._pools,
            self._attachments.workers,
            self._hub.part(),
            started_s=self._started_s,
            publish_rejected=self._hub.rejected + self._inputs.rejected,
        )


def _reload(gateway: Gateway, read_again: Callable[[], GatewaySettings]) -> None:
    try:
        gateway.apply(read_again())
    except M2GateError as error:
        logger.error("settings not applied: %s", error)


def _write_beat(path: Path) -> None:
    """Tell the supervisor that the loop turns: CLOCK_MONOTONIC in nanoseconds, little-endian."""
    path.write_bytes(struct.pack("<Q", time.monotonic_ns()))


def run(settings: GatewaySettings, read_again: Callable[[], GatewaySettings] | None = None) -> int:
    """Run a gateway until it is told to stop; return the exit status.

    read_again: returns the settings of now, at a SIGHUP; what raises M2GateError changes nothing.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    gateway = Gateway(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, gateway.request_stop)
    if read_again is not None:
        gevent.signal_handler(signal.SIGHUP, _reload, gateway, read_again)
    gateway.start()
    if settings.ready_fd is not None:
        os.write(settings.ready_fd, b"ready\n")
    gateway.wait()
    return 0
