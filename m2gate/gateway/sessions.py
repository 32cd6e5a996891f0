"""What the gateway knows of each connection: who owns it, what is open on it, what is not yet written."""

from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from m2gate.gateway.admission import Admission
    from m2gate.gateway.linked import LinkedServer

Opening = tuple[int, bytes, float]  # number of the frame that opened an exchange, that frame, and when it went out


class Held(Protocol):
    """A connection that the gateway's own hub feeds; its credits and its leave go there."""

    def granted(self, amount: int) -> None:
        """Take amount bytes of credits that came back."""

    def lose(self) -> None:
        """Hear that the client has left."""

    def cut(self) -> None:
        """Close the connection at once, as its client breaks a rule."""


class Owner(Protocol):
    """Who answers the requests of a session, such as an attached worker; whatever is ended by it is reported.

    ``is_leaving``  takes no further request.
    ``outstanding`` exchanges that are open there, over all sessions.
    ``in_flight``   bytes of frames that it has not read yet.
    ``sessions``    that it owns.
    """

    name: str
    is_leaving: bool
    outstanding: int
    in_flight: int
    served: int
    failed: int
    sessions: "set[Session]"

    def forward(self, frame: bytes) -> int:
        """Hand over one frame as Mongrel2 sent it; return its number there."""

    def release(self, session: "Session") -> None:
        """Hear that a session which it may still remember is no longer its own."""


class Upstream(Protocol):
    """Owners of one kind: it finds one for a request.

    ``queue``: where requests wait for one.
    """

    queue: "Admission"

    def find(self, session: "Session", now_s: float) -> Owner | None:
        """Return who is to answer the next request of session; None if nobody has room now.

        The session is bound to that owner, and taken from the one that it was bound to.
        """

    def can_reach(self, server_number: int) -> bool:
        """Tell whether some owner would take requests of this server, had it room."""


class Session:
    """One connection at one Mongrel2.

    ``upstream`` its newest request went there, or waits there. None before the first.
    ``owner``    pieces, WebSocket frames, credits and leaves go there. None between owners.
    ``held``     in place of an owner: the gateway's hub has it.
    ``open``     exchanges that the owner has not reported as ended; more than one only behind a
                 detached one.
    ``waiting``  requests that came while one was open or unwritten; at most PIPELINE_MAX, then the client is cut.
    ``balance``  bytes that were sent to the client since the last owner took over and have not come
                 back as credits; what the owner sends counts once the exchange is reported.
    ``is_queued`` it waits in the gateway's queue for an owner with room.
    ``is_pieces_done`` the last piece of the newest request's body has come.
    ``gone``     the client has left; kept until what is open has ended.
    """

    __slots__ = (
        "balance",
        "conn_id",
        "gone",
        "held",
        "idle_since_s",
        "is_detached",
        "is_pieces_done",
        "is_queued",
        "is_websocket",
        "open",
        "owner",
        "server",
        "unsettled_since_s",
        "upstream",
        "waiting",
    )

    def __init__(self, server: "LinkedServer", conn_id: int, now_s: float) -> None:
        self.server = server
        self.conn_id = conn_id
        self.upstream: Upstream | None = None
        self.owner: Owner | None = None
        self.held: Held | None = None
        self.open: list[Opening] = []
        self.waiting: deque[bytes] | None = None
        self.balance = 0
        self.idle_since_s = now_s
        self.unsettled_since_s = 0.0
        self.is_websocket = False
        self.is_detached = False
        self.is_pieces_done = True
        self.is_queued = False
        self.gone = False

    def is_stored_body(self, frame: bytes) -> bool:
        """Tell whether frame announces that the body of the request before it is in its file now."""
        return bool(self.server.address.upload_store) and b"x-mongrel2-upload-done" in frame

    def requests_waiting(self) -> int:
        """Return how many requests wait: of a stored body's two announcements the first is one."""
        return sum(not self.is_stored_body(frame) for frame in self.waiting or ())

    def __repr__(self) -> str:
        owner = "hub" if self.held is not None else self.owner.name if self.owner is not None else "nobody"
        return f"<Session {self.server.send_ident.decode()}/{self.conn_id} owner={owner} open={len(self.open)}>"


def unbind(session: Session, owner: Owner) -> None:
    """Take an idle session from its owner, which forgets it."""
    owner.sessions.discard(session)
    session.owner = None
    owner.release(session)
