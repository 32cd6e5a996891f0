"""What a worker process is told to do, as it is written in its settings file."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from m2gate.errors import ConfigError
from m2gate.link.sockets import DirectServer


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayPlace:
    """Where a gateway is at home: its socket for workers and their mark tables lie in folder.

    handler: the handler section whose requests the worker serves, "" for a gateway without sites.
    """

    folder: str
    handler: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """One worker process.

    target:          ``module:app``, ``path/to/file.py[:app]`` or a folder of such files.
    servers:         the Mongrel2 servers it is directly connected to; none with a gateway.
    gateway:         the gateway that it is attached to, which names the servers; None without one.
    run_dir:         where its own sockets lie; short, as ipc paths end at 107 bytes.
    patch:           make the standard library cooperate with gevent before TARGET is imported.
    access_log:      None, "-" for stderr, or a file.
    max_handlers:    handlers at once; at the bound requests wait.
    max_requests:    None, or after how many of them a fresh process is to take over.
    drain_timeout_s: after SIGTERM, what is open by then is closed.
    inbox_messages, inbox_bytes, keepalive_s, body_timeout_s: see LinkSettings.
    ready_fd:        where ``loaded`` and ``ready`` are written, for whoever started the process.
    await_go:        after ``loaded`` wait for a line on stdin before connecting.
    status:          path of the status socket, see docs/reference/status.md; None for none.
    metrics:         ``HOST:PORT`` where Prometheus may ask; None for none.
    publish_http, publish_pull, publish_sub: where items are published to; None for not at all.
    output_fd:       becomes stdout and stderr once the worker is ready; None leaves them as they are.
    name:            what logs and status call this worker; its pid if None.
    generation:      which code it runs, as counted by whoever started it.
    """

    target: str
    servers: tuple[DirectServer, ...]
    run_dir: str
    gateway: GatewayPlace | None = None
    patch: bool = True
    access_log: str | None = None
    max_handlers: int = 2_000
    max_requests: int | None = None
    drain_timeout_s: float = 30.0
    inbox_messages: int = 256
    inbox_bytes: int = 1 << 20
    keepalive_s: float = 45.0
    body_timeout_s: float = 60.0
    ready_fd: int | None = None
    await_go: bool = False
    status: str | None = None
    metrics: str | None = None
    publish_http: str | None = None
    publish_pull: str | None = None
    publish_sub: str | None = None
    output_fd: int | None = None
    name: str | None = None
    generation: int = 1

    @property
    def label(self) -> str:
        """What logs and status call this worker."""
        return self.name or str(os.getpid())

    @classmethod
    def read(cls, path: Path) -> "WorkerSettings":
        """Read a settings file (JSON). Raises ConfigError naming the file and key."""
        try:
            values = json.loads(path.read_text())
            if not isinstance(values, dict) or not isinstance(values.get("servers"), list):
                raise ValueError("must be an object with a list of servers")
            servers = tuple(DirectServer(**server) for server in values.pop("servers"))
            gateway = values.pop("gateway", None)
            if gateway is not None:
                gateway = GatewayPlace(**gateway)
            if servers and gateway is not None:
                raise ValueError("must name servers or a gateway, not both")
            return cls(servers=servers, gateway=gateway, **values)
        except (OSError, ValueError, TypeError) as error:
            remedy = "write what m2gate.worker.settings.WorkerSettings describes"
            raise ConfigError("settings", str(path), str(error), remedy, str(path)) from error
