"""Channels: publish an item once, and every WebSocket, stream and hold that joined gets it."""

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from m2gate.app.websocket import WebSocket
from m2gate.hub.building import Data, build_item
from m2gate.hub.form import WEBSOCKET
from m2gate.hub.policy import LIMIT_BYTES, Policy, Rule
from m2gate.link.broadcast import Broadcast, Feeding


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
