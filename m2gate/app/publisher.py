"""Publishing from any process: a worker, a cron job, a shell; over HTTP, which counts, or over ZeroMQ."""

import http.client
import json
import os
import time
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import zmq

from m2gate.errors import BackendError, ConfigError
from m2gate.hub.building import Data, build_item
from m2gate.hub.grip import dump_item

DEFAULT_URL: Final = "http://127.0.0.1:5561"
ATTEMPT_S: Final = 10.0  # to reach whoever takes items
ANSWER_S: Final = 60.0  # of the HTTP input, which lets publishers wait for subscribers that are slow
ANSWER_MAX: Final = 1 << 20  # bytes
DELIVER_MS: Final = 2_000  # for what was pushed to leave when a Publisher is closed
_POLL_S: Final = 0.002
_REMEDY: Final = "use http://HOST:PORT, tcp://HOST:PORT or ipc:///PATH"


class Publisher:
    """Publishes to one gateway, or to one direct worker.

    url: ``http://HOST:PORT`` or https of an HTTP input, with or without a path that ends in /publish/:
         each publish is answered with its count. ``tcp://HOST:PORT`` or ``ipc:///PATH`` of a PULL input:
         nothing is answered. $M2GATE_PUBLISH if not given, else http://127.0.0.1:5561.
    Raises ConfigError for a url that is none of these.

    Greenlets may share one; threads only over HTTP, where each publish has a connection of its own.
    What was pushed has left after close(), which comes by itself when the interpreter ends.
    """

    def __init__(self, url: str | None = None) -> None:
        named = url or os.environ.get("M2GATE_PUBLISH")
        self._key = "url" if url or not named else "M2GATE_PUBLISH"
        self.url = named or DEFAULT_URL
        self._push: zmq.Socket[bytes] | None = None
        self._finish: weakref.finalize[Any, Any] | None = None
        self._is_http = False
        try:
            self._parse()
        except ValueError as error:
            raise ConfigError(self._key, self.url, str(error), _REMEDY) from error

    def _parse(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme == "ipc":
            path = self.url.removeprefix("ipc://")
            if not path.startswith("/") or len(path.encode()) > zmq.IPC_PATH_MAX_LEN:
                raise ValueError(f"the path of a socket is absolute and has at most {zmq.IPC_PATH_MAX_LEN} bytes")
            return
        if not parts.hostname or parts.username is not None or parts.query or parts.fragment:
            raise ValueError("no address that can be published to")
        if parts.scheme == "tcp":
            if not parts.port or parts.path:
                raise ValueError("no address that can be published to")
            return
        if parts.scheme not in ("http", "https"):
            raise ValueError("no address that can be published to")
        self._is_http = True
        self._tls = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._path = f"{parts.path.rstrip('/').removesuffix('/publish')}/publish/?receipt=1"

    def publish(
        self,
        channel: str,
        data: Data | None = None,
        *,
        event: str | None = None,
        id: str | None = None,  # noqa: A002 - the word of server-sent events
        prev_id: str | None = None,
        formats: Mapping[str, Any] | None = None,
    ) -> int | None:
        """Publish one item; return how many subscribers it matched, None over ZeroMQ, which does not say.

        The arguments are those of Channel.publish. Blocks for 10 s at most to reach somebody, and over
        HTTP for 60 s until the item is accepted; under monkey patching only the greenlet.
        Raises TypeError and ValueError as Channel.publish does, BackendError if nobody takes the item.
        """
        item = build_item(channel, data, formats, event=event, id=id, prev_id=prev_id, date="")
        document = dump_item(item)
        if self._is_http:
            return self._post(document)
        self._send(b"J" + json.dumps(document).encode())
        return None

    # -- HTTP -----------------------------------------------------------------------------------------

    def _post(self, document: dict[str, Any]) -> int | None:
        body = json.dumps({"items": [document]}).encode()
        kind = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=ATTEMPT_S)
        try:
            connection.connect()
            connection.sock.settimeout(ANSWER_S)
            connection.request("POST", self._path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read(ANSWER_MAX)
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise BackendError(f"{self.url}: nobody takes items there: {reason}; is --publish-http given?") from error
        finally:
            connection.close()
        if answer.status != 200:
            reason = text.decode(errors="replace").strip()
            if answer.status == 400:
                raise ValueError(reason)
            raise BackendError(f"{self.url}: {answer.status}: {reason}")
        try:
            document = json.loads(text)
            return int(document["receipt"][0]["matched"]) if "receipt" in document else None
        except (ValueError, KeyError, IndexError, TypeError) as error:
            if text.strip() == b"Published":
                return None  # Pushpin's input, which counts nothing
            raise BackendError(f"{self.url}: not the answer of an input; is it one of m2gate?") from error

    # -- ZeroMQ ---------------------------------------------------------------------------------------

    def _send(self, message: bytes) -> None:
        push = self._push or self._connect()
        deadline_s = time.monotonic() + ATTEMPT_S
        while True:
            try:
                push.send(message, zmq.NOBLOCK)
            except zmq.Again:
                if time.monotonic() >= deadline_s:
                    raise BackendError(f"{self.url}: nobody takes items there; is --publish-pull given?") from None
                time.sleep(_POLL_S)  # not zmq's own waiting, which would stop all greenlets
            else:
                return

    def _connect(self) -> "zmq.Socket[bytes]":
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        push = context.socket(zmq.PUSH)
        push.linger = DELIVER_MS
        push.immediate = True  # wait for somebody who is there, instead of filling a queue for nobody
        try:
            push.connect(self.url)
        except zmq.ZMQError as error:
            push.close(linger=0)
            context.term()
            raise ConfigError(self._key, self.url, str(error), _REMEDY) from error
        self._push = push
        self._finish = weakref.finalize(self, _close, context, push)
        return push

    def close(self) -> None:
        """Let what was pushed leave, for 2 s at most. Idempotent."""
        self._push = None
        if self._finish is not None:
            self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _close(context: "zmq.Context[zmq.Socket[bytes]]", push: "zmq.Socket[bytes]") -> None:
    push.close()
    context.term()


def publish(
    channel: str,
    data: Data | None = None,
    *,
    event: str | None = None,
    id: str | None = None,  # noqa: A002 - the word of server-sent events
    prev_id: str | None = None,
    formats: Mapping[str, Any] | None = None,
    to: str | None = None,
) -> int | None:
    """Publish one item from any process; return how many subscribers it matched, None where nobody says.

    to: a Publisher's url. Who publishes often over ZeroMQ keeps a Publisher, which stays connected.
    See Publisher.publish for the rest.
    """
    with Publisher(to) as publisher:
        return publisher.publish(channel, data, event=event, id=id, prev_id=prev_id, formats=formats)
