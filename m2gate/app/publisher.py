"""Publishing from any process: a worker, a cron job, a shell; over HTTP, which counts, or over ZeroMQ."""

import http.client
import json
import os
import time
from base64 import b64encode
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import zmq

from m2gate.errors import BackendError, ConfigError
from m2gate.hub.building import Data, build_item
from m2gate.hub.item import Formats, Item

DEFAULT_URL: Final = "http://127.0.0.1:5561"
TIMEOUT_S: Final = 10.0
DELIVER_MS: Final = 2_000  # for what was pushed to leave when a Publisher is closed
_REMEDY: Final = "use http://HOST:PORT, tcp://HOST:PORT or ipc:///PATH"


class Publisher:
    """Publishes to one gateway, or to one direct worker.

    url: ``http://HOST:PORT`` of an HTTP input: each publish is answered with its count. ``tcp://`` or
         ``ipc://`` of a PULL input: nothing is answered. $M2GATE_PUBLISH if not given, else DEFAULT_URL.
    Raises ConfigError for a url that is none of these.

    Not for use by several threads or greenlets at a time over ZeroMQ; over HTTP each publish has a
    connection of its own.
    """

    def __init__(self, url: str | None = None) -> None:
        self.url = url or os.environ.get("M2GATE_PUBLISH") or DEFAULT_URL
        key = "url" if url else "M2GATE_PUBLISH" if os.environ.get("M2GATE_PUBLISH") else "url"
        self._push: zmq.Socket[bytes] | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        try:
            parts = urlsplit(self.url)
            self._address = (parts.hostname or "", parts.port or 80)
        except ValueError as error:
            raise ConfigError(key, self.url, str(error), _REMEDY) from error
        self._is_http = parts.scheme == "http"
        is_zmq = (parts.scheme == "tcp" and parts.port) or (parts.scheme == "ipc" and parts.path)
        if (self._is_http and not parts.hostname) or not (self._is_http or is_zmq):
            raise ConfigError(key, self.url, "no address that can be published to", _REMEDY)

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

        The arguments are those of Channel.publish. Blocks, under monkey patching only the greenlet.
        Raises TypeError and ValueError as Channel.publish does, BackendError if nobody takes the item.
        """
        item = build_item(channel, data, formats, event=event, id=id, prev_id=prev_id, date="")
        document = dump_grip(item)
        if self._is_http:
            return self._post(document)
        self._send(b"J" + json.dumps(document).encode())
        return None

    def _post(self, document: dict[str, Any]) -> int:
        body = json.dumps({"items": [document]}).encode()
        host, port = self._address
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", "/publish/?receipt=1", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise BackendError(f"{self.url}: nobody takes items there: {error}; is --publish-http given?") from error
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

    def _send(self, message: bytes) -> None:
        if self._push is None:
            self._context = zmq.Context()
            self._push = self._context.socket(zmq.PUSH)
            self._push.linger = DELIVER_MS
            self._push.immediate = True  # wait for somebody who is there, instead of filling a queue for nobody
            self._push.connect(self.url)
        deadline_s = time.monotonic() + TIMEOUT_S
        while True:
            try:
                self._push.send(message, zmq.NOBLOCK)
            except zmq.Again:
                if time.monotonic() >= deadline_s:
                    raise BackendError(f"{self.url}: nobody takes items there; is --publish-pull given?") from None
                time.sleep(0.005)
            else:
                return

    def close(self) -> None:
        """Let what was pushed leave, for DELIVER_MS at most. Idempotent."""
        push, self._push = self._push, None
        if push is not None and self._context is not None:
            push.close()
            self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
    """Publish one item to ``to``, by default $M2GATE_PUBLISH, else DEFAULT_URL; see Publisher.publish."""
    with Publisher(to) as publisher:
        return publisher.publish(channel, data, event=event, id=id, prev_id=prev_id, formats=formats)


def dump_grip(item: Item) -> dict[str, Any]:
    """Return an item as GRIP writes it, content that every form is made from under the key ``m2gate``."""
    formats = _dump_formats(item.formats)
    if item.content is not None:
        own: dict[str, Any] = _content("content", item.content)
        if item.content_type == "application/json" and isinstance(item.content, str):
            own = {"json": json.loads(item.content)}
        if item.event is not None:
            own["event"] = item.event
        formats["m2gate"] = own
    document: dict[str, Any] = {"channel": item.channel, "formats": formats}
    if item.id is not None:
        document["id"] = item.id
    if item.prev_id is not None:
        document["prev-id"] = item.prev_id
    return document


def _dump_formats(formats: Formats) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if formats.stream is not None:
        found["http-stream"] = _content("content", formats.stream)
    if formats.message is not None:
        found["ws-message"] = _content("content", formats.message)
    if formats.response is not None:
        response = formats.response
        headers = [list(field) for field in response.headers]
        found["http-response"] = {"code": response.status, "headers": headers, **_content("body", response.body)}
    return found


def _content(key: str, content: str | bytes) -> dict[str, Any]:
    if isinstance(content, str):
        return {key: content}
    return {f"{key}-bin": b64encode(content).decode()}
