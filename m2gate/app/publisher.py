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

from m2gate.errors import BackendError, ConfigError, LimitReached
from m2gate.hub.building import Data, build_item
from m2gate.hub.grip import dump_item

DEFAULT_URL: Final = "http://127.0.0.1:5561"
TIMEOUT_S: Final = 10.0  # to reach whoever takes items
ANSWER_TIMES: Final = (
    6  # so many times that for the answer of an input, which lets publishers wait for slow subscribers
)
ANSWER_MAX: Final = 1 << 20  # bytes
PUSH_MAX: Final = 16 << 20  # bytes of an item; the input would cut the connection
DELIVER_MS: Final = 2_000  # for what was pushed to leave when a Publisher is closed
_POLL_S: Final = 0.002
_REMEDY: Final = "use http://HOST:PORT, tcp://HOST:PORT or ipc:///PATH"


class Publisher:
    """Publishes to one gateway, or to one direct worker.

    url: ``http://HOST:PORT`` of an HTTP input: each publish is answered with its count. ``tcp://HOST:PORT``
         or ``ipc:///PATH`` of a PULL input: nothing is answered. $M2GATE_PUBLISH if not given, else
         http://127.0.0.1:5561.
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
        if parts.scheme == "http":
            is_good = bool(parts.hostname) and parts.port != 0 and parts.path in ("", "/", "/publish", "/publish/")
            self._is_http, self._address = True, (parts.hostname or "", parts.port)
        elif parts.scheme == "tcp":
            is_good = bool(parts.hostname and parts.port) and not parts.path
        else:
            is_good = self.url.startswith("ipc:///")
        if not is_good or parts.username is not None or parts.query or parts.fragment:
            raise ValueError("no address that can be published to")

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
        Raises TypeError and ValueError as Channel.publish does, BackendError if nobody takes the item,
        LimitReached for one of more than PUSH_MAX bytes over ZeroMQ; over HTTP the input says what is too large.
        """
        item = build_item(channel, data, formats, event=event, id=id, prev_id=prev_id, date="")
        document = dump_item(item)
        if self._is_http:
            return self._post(document)
        self._send(b"J" + json.dumps(document).encode())
        return None

    # -- HTTP -----------------------------------------------------------------------------------------

    def _post(self, document: dict[str, Any]) -> int:
        body = json.dumps({"items": [document]}).encode()
        connection = http.client.HTTPConnection(*self._address, timeout=TIMEOUT_S)
        try:
            connection.connect()
            connection.sock.settimeout(TIMEOUT_S * ANSWER_TIMES)
            connection.request("POST", "/publish/?receipt=1", body, {"Content-Type": "application/json"})
            with connection.getresponse() as answer:
                text = answer.read(ANSWER_MAX)
        except (OSError, http.client.HTTPException, UnicodeError) as error:  # the last for a host that is no name
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BackendError(f"{self.url}: nobody takes items there: {reason}; is --publish-http given?") from error
        finally:
            connection.close()
        if answer.status != 200:
            reason = text.decode(errors="replace").strip()
            if answer.status == 400:
                raise ValueError(reason)
            raise BackendError(f"{self.url}: {answer.status}: {reason}")
        try:
            return int(json.loads(text)["receipt"][0]["matched"])
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise BackendError(f"{self.url}: no receipt in the answer; is it a publish input of m2gate?") from error

    # -- ZeroMQ ---------------------------------------------------------------------------------------

    def _send(self, message: bytes) -> None:
        if len(message) > PUSH_MAX:
            raise LimitReached(PUSH_MAX, len(message), "bytes of an item")
        push = self._push or self._connect()
        deadline_s = time.monotonic() + TIMEOUT_S
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
