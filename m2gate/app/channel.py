"""Channels: publish an item once, and every WebSocket, stream and hold that joined gets it."""

from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Protocol, Self

from m2gate.app.convert import encode_json
from m2gate.app.websocket import WebSocket
from m2gate.hub.form import WEBSOCKET
from m2gate.hub.item import NO_FORMATS, Fields, Formats, Item, ResponseFormat
from m2gate.hub.policy import LIMIT_BYTES, Policy, Rule
from m2gate.link.broadcast import Broadcast, Feeding
from m2gate.wire import http, sse

Data = str | bytes | dict[str, Any] | list[Any]

TEXT_TYPE: Final = "text/plain; charset=utf-8"
BINARY_TYPE: Final = "application/octet-stream"
JSON_TYPE: Final = "application/json"


class Membership:
    """One join: leave() ends it, and so does the end of a ``with``. Both are idempotent."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave: Callable[[], None] | None = leave

    def leave(self) -> None:
        """Get no more items from the channel; those published before are sent first."""
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()


class Fed:
    """A response that channels feed; base of EventStream and Hold.

    ``names`` of the channels it joins when it begins; ``held`` once it has begun.
    """

    def __init__(self, channels: "Iterable[Channel | str]") -> None:
        self.names: list[str] = []
        self.held: Feeding | None = None
        for channel in channels:
            self._name(channel if isinstance(channel, str) else channel.name)

    def _name(self, name: str) -> None:
        if name not in self.names:
            self.names.append(name)

    def join(self, name: str) -> Membership:
        """Join the channel of this name, now or when the response begins."""
        held = self.held
        if held is None:
            self._name(name)
            return Membership(lambda: self._leave(name))
        held.join(name)
        return Membership(lambda: held.leave(name))

    def _leave(self, name: str) -> None:
        if self.held is None:
            self.names = [one for one in self.names if one != name]
        else:
            self.held.leave(name)


class Owner(Protocol):
    """Whose channel it is: the App. Mounting one changes its broadcast, so it is asked each time."""

    broadcast: Broadcast


class Channel:
    """A name that items are published to; ``app.channel(name)`` makes one, as often as you like.

    policy: what becomes of subscribers that do not keep up: ``block``, ``drop-oldest`` or
            ``latest`` (see Policy); None leaves it as it is, ``block`` at first.
    limit:  bytes that may wait for one subscriber, 1 MiB if only the policy is given.
    Raises ValueError for another policy or a limit below 1.
    """

    def __init__(self, owner: Owner, name: str, policy: Rule | None = None, limit: int | None = None) -> None:
        self.name = name
        self._owner = owner
        self._policy: Policy | None = None
        if policy is not None or limit is not None:
            self._policy = Policy(policy or "block", LIMIT_BYTES if limit is None else limit)

    def __repr__(self) -> str:
        return f"Channel({self.name!r})"

    @property
    def _broadcast(self) -> Broadcast:
        return self._owner.broadcast

    def join(self, subscriber: WebSocket | Fed) -> Membership:
        """Let a WebSocket, an EventStream or a Hold have every item from now on.

        Use the result with ``with``, or call its leave(), or neither: it ends with the connection.
        Joining twice changes nothing. A WebSocket's handshake is completed by it.
        Raises ConnectionGone if the client has left or either side has closed, TypeError for anything else.
        """
        if isinstance(subscriber, Fed):
            return subscriber.join(self.name)
        if not isinstance(subscriber, WebSocket):
            raise TypeError(f"{subscriber!r} cannot join a channel: a WebSocket, an EventStream or a Hold can")
        broadcast = self._broadcast
        subscriber.accept()
        if not subscriber.connected:  # nothing may follow a close frame
            raise subscriber.exchange.connection.error()
        joined = broadcast.join(self.name, subscriber.exchange.connection, WEBSOCKET)
        return Membership(lambda: broadcast.leave(joined))

    def publish(
        self,
        data: Data | None = None,
        *,
        event: str | None = None,
        id: str | None = None,  # noqa: A002 - the word of server-sent events
        prev_id: str | None = None,
        formats: Mapping[str, Any] | None = None,
    ) -> int:
        """Publish one item; return how many subscribers it matched.

        Blocks the greenlet until the item is accepted: while most subscribers cannot take more, for
        a second at most after the last sign of life from them. It leaves at the end of the loop's
        turn, together with what else is published meanwhile: behind what a handler sends by itself.

        data:    str, bytes, dict or list (sent as JSON). A WebSocket gets a message, text or binary;
                 an EventStream an event; a raw stream the bytes; a response hold a response.
        event:   type of the event, for EventStreams.
        id:      names the item; an event carries it. prev_id: names the item before it.
        formats: says it per kind: ``{"http-stream": ..., "ws-message": ..., "http-response": ...}``.
                 A value is str, bytes, or a mapping in GRIP's words: content or content-bin (base64),
                 for a response code, headers, and body or body-bin. Kinds that it leaves out are
                 made from data, if there is any.
        Raises TypeError for data of other types, ValueError for a line end in event or id, a header
        that must not be sent, or a key that is not known.
        """
        item = build_item(self.name, data, formats, event=event, id=id, prev_id=prev_id, date=self._broadcast.date())
        if self._policy is not None:
            self._broadcast.configure(self.name, self._policy)
        return self._broadcast.publish(item).matched


def build_item(
    channel: str,
    data: Data | None,
    formats: Mapping[str, Any] | None,
    *,
    event: str | None,
    id: str | None,  # noqa: A002
    prev_id: str | None,
    date: str,
) -> Item:
    """Build the item that Channel.publish describes, with the same exceptions."""
    if event is not None or id is not None:
        sse.build_event("", event, id)
    for key, value in (("event", event), ("id", id), ("prev_id", prev_id)):
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{key} = {value!r}: must be str")
    if data is None and not formats:
        raise TypeError("an item needs data or formats")
    content, content_type = build_content(data) if data is not None else (None, "")
    return Item(
        channel=channel,
        content=content,
        content_type=content_type,
        event=event,
        id=id,
        prev_id=prev_id,
        formats=_parse_formats(formats) if formats else NO_FORMATS,
        date=date,
    )


def build_content(data: Data) -> tuple[str | bytes, str]:
    """Return what data is sent as, and its content type. Raises TypeError."""
    if isinstance(data, str):
        return data, TEXT_TYPE
    if isinstance(data, bytes):
        return data, BINARY_TYPE
    if isinstance(data, dict | list):
        return encode_json(data).decode(), JSON_TYPE
    raise TypeError(f"data is str, bytes, dict or list, not {type(data).__name__}")


def _parse_formats(formats: Mapping[str, Any]) -> Formats:
    _only_known("formats", formats, ("http-stream", "ws-message", "http-response"))
    stream = formats.get("http-stream")
    message = formats.get("ws-message")
    response = formats.get("http-response")
    return Formats(
        stream=None if stream is None else _as_bytes(_parse_content("http-stream", stream, "content")),
        message=None if message is None else _parse_content("ws-message", message, "content"),
        response=None if response is None else _parse_response(response),
    )


def _parse_content(name: str, value: object, key: str) -> str | bytes:
    if isinstance(value, Mapping):
        _only_known(name, value, (key, f"{key}-bin", "action", "code", "headers"))
        if value.get("action", "send") != "send":
            raise ValueError(f"formats {name!r}: action {value['action']!r}: only 'send' is known")
        binary = value.get(f"{key}-bin")
        value = value.get(key, "") if binary is None else b64decode(binary)
    if isinstance(value, str | bytes):
        return value
    raise TypeError(f"formats {name!r}: str, bytes or a mapping, not {type(value).__name__}")


def _parse_response(value: object) -> ResponseFormat:
    content = _parse_content("http-response", value, "body")
    status, headers = 200, ()
    if isinstance(value, Mapping):
        status, headers = int(value.get("code", 200)), value.get("headers", ())
    fields = parse_fields(headers)
    if not any(name.lower() == "content-type" for name, _ in fields) and not isinstance(value, Mapping):
        fields = (("Content-Type", build_content(content)[1]), *fields)
    http.status_line(status)
    return ResponseFormat(status, fields, _as_bytes(content))


def parse_fields(headers: Mapping[str, str] | Iterable[tuple[str, str]] | None) -> Fields:
    """Return headers, a mapping or pairs, as pairs. Raises ValueError for what must not be sent."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    fields = tuple((str(name), str(value)) for name, value in pairs)
    http.build_fields(fields)
    return fields


def _as_bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _only_known(name: str, value: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise ValueError(f"{name}: unknown key {unknown[0]!r}; known are {', '.join(known)}")
