"""Client of Mongrel2's control port: ask a running server, close connections, reload, stop.

A request is a tnetstring ``[command, {arguments}]``, a reply a dictionary of headers and rows or of
a code and an error. The port knows no authentication: who reaches its socket rules the server.
Source: docs/reference/mongrel2-wire.md, "Control port".
"""

import select
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import tnetstring
import zmq

from m2gate.errors import M2GateError, WireError

CONTROL_TIMEOUT_S: Final = 5.0
KILL_ID_MAX: Final = 65_535  # conn_ids beyond it cannot be killed here; a worker's cancel can

Value = str | int
Row = dict[str, Value]


class ControlError(M2GateError):
    """The server refused a command; ``code`` is its word for it, such as ``INVALID_ARGUMENT``."""

    def __init__(self, command: str, code: str, text: str) -> None:
        super().__init__(f"control port: {command}: {code}: {text}")
        self.command = command
        self.code = code
        self.text = text


class ControlTimeout(M2GateError):
    """No answer in time: the server is gone, busy, or its control port was stopped."""

    def __init__(self, command: str, spec: str, timeout_s: float) -> None:
        super().__init__(f"control port: {command}: no answer from {spec} within {timeout_s:g} s; does the server run?")
        self.command = command
        self.spec = spec
        self.timeout_s = timeout_s


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStatus:
    """One TCP connection as the server sees it.

    conn_id: -1 before its first request. kind: 1 HTTP, 2 JSON socket, 3 WebSocket.
    last_*:  seconds ago, in steps of the server's tick (10 s); 0 also means never.
    bytes_*: totals of the connection.
    """

    conn_id: int
    fd: int
    kind: int
    last_ping_s: int
    last_read_s: int
    last_write_s: int
    bytes_read: int
    bytes_written: int


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """One coroutine of the server."""

    task_id: int
    system: int
    name: str
    state: str
    status: str


class ControlPort:
    """The control port of one server, at a ZeroMQ address such as ``ipc:///run/app/control``.

    Each command has a socket of its own, so that one that was not answered leaves nothing behind.
    Every method waits for the answer up to timeout_s seconds (a thread, or under gevent's monkey
    patching a greenlet), then raises ControlTimeout; ControlError if the server refuses,
    WireError for an answer that is none.
    """

    def __init__(self, spec: str, timeout_s: float = CONTROL_TIMEOUT_S) -> None:
        self.spec = spec
        self.timeout_s = timeout_s

    def help(self) -> dict[str, str]:
        """Return the commands that the server knows, with its own words for each."""
        return {str(row["name"]): str(row["help"]) for row in self.call("help")}

    def info(self) -> Row:
        """Return port, bind_addr, uuid, chroot, access_log, error_log, pid_file, default_hostname."""
        return self._one("info")

    def uuid(self) -> str:
        """Return the name of the server process."""
        return str(self._one("uuid")["uuid"])

    def time(self) -> int:
        """Return the server's clock, in seconds since 1970."""
        return int(self._one("time")["time"])

    def status_net(self) -> list[ConnectionStatus]:
        """Return the server's TCP connections."""
        return [_connection_status(row) for row in self.call("status", what="net")]

    def status_tasks(self) -> list[TaskStatus]:
        """Return the server's coroutines."""
        rows = self.call("status", what="tasks")
        return [
            TaskStatus(int(row["id"]), int(row["system"]), str(row["name"]), str(row["state"]), str(row["status"]))
            for row in rows
        ]

    def kill(self, conn_id: int) -> None:
        """Close a client's connection at once; its handler is not told.

        conn_id: 0 to KILL_ID_MAX, the server refuses others.
        """
        self._one("kill", id=conn_id)

    def reload(self) -> None:
        """Let the server open its logs and read its certificates again; nothing else changes."""
        self._one("reload")

    def stop(self) -> None:
        """End the server as SIGINT does."""
        self._one("stop")

    def terminate(self) -> None:
        """End the server as SIGTERM does."""
        self._one("terminate")

    def control_stop(self) -> None:
        """Close the control port until the server is started again."""
        self._one("control_stop")

    def call(self, command: str, **args: Value) -> list[Row]:
        """Send any command and return the rows of the answer, each by its headers."""
        return _parse_reply(command, self._exchange(command, tnetstring.dumps([command.encode(), _encode(args)])))

    def _one(self, command: str, **args: Value) -> Row:
        rows = self.call(command, **args)
        if len(rows) != 1:
            raise WireError(f"the answer to {command} is one row, not {len(rows)}", 0, b"")
        return rows[0]

    def _exchange(self, command: str, request: bytes) -> bytes:
        deadline_s = time.monotonic() + self.timeout_s
        socket: zmq.Socket[bytes]
        with zmq.Context.instance().socket(zmq.REQ) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(self.spec)
            socket.send(request)
            if not _wait_readable(socket, deadline_s):
                raise ControlTimeout(command, self.spec, self.timeout_s)
            answer: bytes = socket.recv()
            return answer


def _wait_readable(socket: "zmq.Socket[bytes]", deadline_s: float) -> bool:
    # zmq's own poll would stop all greenlets of a worker; poll() on the descriptor is what gevent
    # patches. It is edge triggered, so the events are asked first, each time.
    poller = select.poll()
    poller.register(int(socket.getsockopt(zmq.FD)), select.POLLIN)
    while not int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            return False
        poller.poll(left_s * 1000)
    return True


def _encode(args: Mapping[str, Value]) -> dict[bytes, bytes | int]:
    return {name.encode(): value.encode() if isinstance(value, str) else value for name, value in args.items()}


def _parse_reply(command: str, frame: bytes) -> list[Row]:
    try:
        reply = tnetstring.loads(frame)
    except ValueError as error:
        raise WireError("an answer of the control port is a tnetstring", 0, frame) from error
    if not isinstance(reply, dict):
        raise WireError("an answer of the control port is a dictionary", 0, frame)
    if b"error" in reply:
        # A wrong argument of "status" has no code.
        raise ControlError(command, _text(reply.get(b"code", b"INVALID_ARGUMENT")), _text(reply[b"error"]))
    headers, rows = reply.get(b"headers"), reply.get(b"rows")
    if not isinstance(headers, list) or not isinstance(rows, list):
        raise WireError("an answer of the control port has headers and rows", 0, frame)
    names = [_text(name) for name in headers]
    if any(not isinstance(row, list) or len(row) != len(names) for row in rows):
        raise WireError("a row of the control port's answer has a value for each header", 0, frame)
    return [{name: _value(value) for name, value in zip(names, row, strict=True)} for row in rows]


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _value(value: object) -> Value:
    return value if isinstance(value, int) else _text(value)


def _connection_status(row: Row) -> ConnectionStatus:
    return ConnectionStatus(
        conn_id=int(row["id"]),
        fd=int(row["fd"]),
        kind=int(row["type"]),
        last_ping_s=int(row["last_ping"]),
        last_read_s=int(row["last_read"]),
        last_write_s=int(row["last_write"]),
        bytes_read=int(row["bytes_read"]),
        bytes_written=int(row["bytes_written"]),
    )
