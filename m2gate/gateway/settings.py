"""What a gateway process is told to do, as it is written in its settings file."""

import json
from dataclasses import dataclass
from pathlib import Path

from m2gate.errors import ConfigError
from m2gate.link.sockets import DirectServer


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """One gateway process.

    folder:          its sockets and the workers' mark tables lie there; short, as ipc paths end at 107 bytes.
    servers:         the Mongrel2 servers that it links; nobody else may pull from them.
    publish_http, publish_pull, publish_sub: where items are published to; None for not at all.
    metrics:         ADDR:PORT for Prometheus; None for none.
    access_log:      None, "-" for stderr, or a file.
    drain_timeout_s: after SIGTERM, workers that are there by then are left to themselves.
    queue_max:       requests that wait for a worker; further ones get 503.
    ready_fd:        where ``ready`` is written, for whoever started the process.
    """

    folder: str
    servers: tuple[DirectServer, ...]
    publish_http: str | None = None
    publish_pull: str | None = None
    publish_sub: str | None = None
    metrics: str | None = None
    access_log: str | None = None
    drain_timeout_s: float = 30.0
    queue_max: int = 10_000
    ready_fd: int | None = None

    @classmethod
    def read_json(cls, path: Path) -> "GatewaySettings":
        """Read a settings file (JSON). Raises ConfigError naming the file and key."""
        try:
            values = json.loads(path.read_text())
            servers = tuple(DirectServer(**one) for one in values.pop("servers"))
            return cls(servers=servers, **values)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError("settings", str(path), f"cannot be used: {error}", "write it as m2gate does") from error
