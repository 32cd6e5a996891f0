"""m2gate: handlers in Python behind Mongrel2."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from m2gate.version import __version__

if TYPE_CHECKING:
    from m2gate.app.application import App
    from m2gate.app.channel import Channel
    from m2gate.app.events import Event, EventStream
    from m2gate.app.hold import Hold
    from m2gate.app.publisher import Publisher, publish
    from m2gate.app.request import Request
    from m2gate.app.response import Response
    from m2gate.app.testing import TestClient
    from m2gate.app.tokens import Connection
    from m2gate.app.websocket import WebSocket
    from m2gate.errors import (
        BackendError,
        ConfigError,
        ConnectionGone,
        HTTPError,
        LimitReached,
        M2GateError,
        WireError,
    )

__all__ = [
    "App",
    "BackendError",
    "Channel",
    "ConfigError",
    "Connection",
    "ConnectionGone",
    "Event",
    "EventStream",
    "HTTPError",
    "Hold",
    "LimitReached",
    "M2GateError",
    "Publisher",
    "Request",
    "Response",
    "TestClient",
    "WebSocket",
    "WireError",
    "__version__",
    "publish",
]

# Imported on first use: a worker must patch the standard library before anything imports gevent,
# and ``m2gate --help`` need not pay for what it does not use.
_HOMES = {
    "App": "m2gate.app.application",
    "Channel": "m2gate.app.channel",
    "Connection": "m2gate.app.tokens",
    "Event": "m2gate.app.events",
    "EventStream": "m2gate.app.events",
    "Hold": "m2gate.app.hold",
    "Publisher": "m2gate.app.publisher",
    "Request": "m2gate.app.request",
    "Response": "m2gate.app.response",
    "TestClient": "m2gate.app.testing",
    "WebSocket": "m2gate.app.websocket",
    "publish": "m2gate.app.publisher",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'm2gate' has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "m2gate.errors")), name)
    globals()[name] = value
    return value
