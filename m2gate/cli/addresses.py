"""Where ``m2gate run`` listens besides its port: publish inputs and metrics, checked before anything starts."""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from m2gate.cli.options import parse_address
from m2gate.errors import ConfigError

PUBLISH_HTTP: Final = "127.0.0.1:5561"
PUBLISH_PULL: Final = "tcp://127.0.0.1:5560"
PUBLISH_SUB: Final = "tcp://127.0.0.1:5562"
IPC_MAX: Final = 107  # bytes of the path
_SPEC: Final = re.compile(r"(tcp|ipc)://(\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputAddresses:
    """Where items are published to, and where Prometheus asks; None for not at all."""

    publish_http: str | None = None
    publish_pull: str | None = None
    publish_sub: str | None = None
    metrics: str | None = None

    def settings(self) -> dict[str, str | None]:
        """Return them as the settings of a gateway or a direct worker have them."""
        return {
            "publish_http": self.publish_http,
            "publish_pull": self.publish_pull,
            "publish_sub": self.publish_sub,
            "metrics": self.metrics,
        }

    def environ(self) -> dict[str, str]:
        """Return what the workers' environment has for m2gate.publish."""
        if self.publish_http is None:
            return {}
        host, port = parse_address("--publish-http", self.publish_http)
        if is_any(host):
            host = "::1" if ":" in host else "127.0.0.1"
        return {"M2GATE_PUBLISH": f"http://{_join(host, port)}"}

    def tcp(self) -> list[tuple[str, str, str, int]]:
        """Return option, value, address and port of all that listen on TCP."""
        found = []
        for key, value in self.settings().items():
            option = f"--{key.replace('_', '-')}"
            if value is not None and not value.startswith("ipc:"):
                found.append((option, value, *parse_address(option, value.removeprefix("tcp://"))))
        return found

    def warnings(self) -> list[str]:
        """Return a line for each address that others than this machine reach."""
        found = []
        for option, value, host, _port in self.tcp():
            if not ipaddress.ip_address(host).is_loopback:
                what = "read the metrics" if option == "--metrics" else "publish to your channels"
                found.append(f"{option} = {value!r}: whoever reaches this address can {what}; let a firewall guard it")
        return found


def input_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options about publish inputs and metrics to a command."""
    for option in (
        click.option(
            "--metrics", metavar="ADDR:PORT", help="Let Prometheus ask here, at /metrics. Default: not at all."
        ),
        click.option(
            "--publish-sub",
            metavar="SPEC",
            help=f"Take items by ZeroMQ PUB that names channels. Default with another --publish-*: {PUBLISH_SUB}.",
        ),
        click.option(
            "--publish-pull",
            metavar="SPEC",
            help=f"Take items by ZeroMQ PUSH. Default with another --publish-*: {PUBLISH_PULL}.",
        ),
        click.option(
            "--publish-http",
            metavar="ADDR:PORT",
            help=f"Take items by HTTP POST. Default with another --publish-*: {PUBLISH_HTTP}; without: no inputs.",
        ),
    ):
        command = option(command)
    return command


def parse_inputs(
    publish_http: str | None, publish_pull: str | None, publish_sub: str | None, metrics: str | None
) -> InputAddresses:
    """Check these options; one publish input brings the others, at Pushpin's ports. Raises ConfigError."""
    if (publish_http, publish_pull, publish_sub) != (None, None, None):
        publish_http = parse_listener("--publish-http", publish_http or PUBLISH_HTTP)
        publish_pull = parse_spec("--publish-pull", publish_pull or PUBLISH_PULL)
        publish_sub = parse_spec("--publish-sub", publish_sub or PUBLISH_SUB)
    if metrics is not None:
        metrics = parse_listener("--metrics", metrics)
    return InputAddresses(
        publish_http=publish_http, publish_pull=publish_pull, publish_sub=publish_sub, metrics=metrics
    )


def parse_listener(option: str, text: str) -> str:
    """Return ADDR:PORT in its full form. Raises ConfigError."""
    host, port = parse_address(option, text)
    if port == 0:
        raise ConfigError(option, text, "nobody would know which port that is", "choose one from 1 to 65535")
    return _join(host, port)


def parse_spec(option: str, text: str) -> str:
    """Return the ZeroMQ address to bind, tcp or ipc. Raises ConfigError."""
    match = _SPEC.fullmatch(text)
    remedy = "write e.g. tcp://127.0.0.1:5560 or ipc:///run/shop/publish"
    if match is None:
        raise ConfigError(option, text, "no ZeroMQ address", remedy)
    if match[1] == "tcp":
        return f"tcp://{parse_listener(option, match[2].replace('*', '0.0.0.0', 1))}"  # noqa: S104 - asked for
    path = Path(match[2])
    if not path.is_absolute() or not path.parent.is_dir():
        raise ConfigError(option, text, "there is no such folder, or the path is not absolute", remedy)
    if len(str(path).encode()) > IPC_MAX:
        raise ConfigError(option, text, f"the path of a socket ends at {IPC_MAX} bytes", "use a shorter one")
    if path.exists() and not path.is_socket():
        raise ConfigError(option, text, "there is a file of this name, which is no socket", "use another path")
    return text


def is_any(host: str) -> bool:
    """Tell whether this IP address means all addresses of the machine."""
    return ipaddress.ip_address(host).is_unspecified


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
