"""What the gateway knows of each connection: who owns it, what is open on it, what is not yet written."""

from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from m2gate.gateway.linked import LinkedServer
    from m2gate.gateway.workers import AttachedWorker

Opening = tuple[int, bytes]  # the number of the frame that opened an exchange, and that frame


class Held(Protocol):
    """A connection that the gateway's own hub feeds; its credits and its leave go there."""

    def granted(self, amount: int) -> None:
        """Take amount bytes of credits that came back."""

    def lose(self) -> None:
        """Hear that the client has left."""

    def cut(self) -> None:
        """Close the connection at once, as its client breaks a rule."""


class Session:
    """One connection at one Mongrel2.

    ``worker``   owns it: pieces, WebSocket frames, credits and leaves go there. None between owners.
    ``held``     in place of a worker: the gateway's hub owns it.
    ``open``     exchanges that the worker has not reported as ended; more than one only behind a
                 detached one.
    ``waiting``  requests that came while one was open or unwritten; at most PIPELINE_MAX, then the client is cut.
    ``balance``  bytes that were sent to the client since the last owner took over and have not come
                 back as credits; what the worker sends counts once it has reported the exchange.
    ``is_queued`` it waits in the gateway's queue for a worker with room.
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
        "server",
        "unsettled_since_s",
        "waiting",
        "worker",
    )

    def __init__(self, server: "LinkedServer", conn_id: int, now_s: float) -> None:
        self.server = server
        self.conn_id = conn_id
        self.worker: AttachedWorker | None = None
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

    def __repr__(self) -> str:
        owner = "hub" if self.held is not None else self.worker.name if self.worker is not None else "nobody"
        return f"<Session {self.server.send_ident.decode()}/{self.conn_id} owner={owner} open={len(self.open)}>"
