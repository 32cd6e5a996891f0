"""A stand-in for Mongrel2 that costs almost nothing, so that the handler side alone is measured.

It plays kept-alive clients: each sends its next request when the answer to the last one has come,
and before that Mongrel2 returns the answer's bytes as credits, one message per answer. That is what
download.flow_control does, so a handler takes in two messages for each request it answers. All
frames are prepared: recorded once from the real Mongrel2, then written for each connection.
"""

import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zmq

from bench.mongrel2 import mongrel2
from bench.process import BenchError
from m2gate.wire.mongrel2 import build_reply

FIRST_ID: Final = 10_000  # all ids have five digits, so an answer's id stands at a fixed place
TIMEOUT_MS: Final = 10_000

# What a browser sends with each request, beside Host.
BROWSER_HEADERS: Final = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
    "Accept-Language: en-US,en;q=0.5\r\n"
    "Accept-Encoding: gzip, deflate\r\n"
    "Connection: keep-alive\r\n"
    "Cookie: session=8f14e45fceea167a5a36dedd4bea2543; theme=dark\r\n"
    "Upgrade-Insecure-Requests: 1\r\n"
)

Socket = zmq.Socket[bytes]


@dataclass(frozen=True, slots=True)
class Recording:
    """Frames as Mongrel2 sent them for two requests on one connection.

    first:   the first request, with DOWNLOAD_CREDITS.
    next:    any further one.
    credits: what came back for an answer of ``credits_bytes`` bytes.
    """

    first: bytes
    next: bytes
    credits: bytes
    credits_bytes: int


def record(path: str, place: Path) -> Recording:
    """Record the frames for GET path from a real Mongrel2, asked with BROWSER_HEADERS."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    context = zmq.Context()
    try:
        with mongrel2(place) as server:
            replies: Socket = context.socket(zmq.PUB)
            replies.set(zmq.LINGER, 0)
            replies.connect(server.worker["recv_spec"])
            time.sleep(0.5)  # a reply before Mongrel2's subscription is here would be lost
            requests: Socket = context.socket(zmq.PULL)
            requests.set(zmq.RCVTIMEO, TIMEOUT_MS)
            requests.connect(server.worker["send_spec"])
            with socket.create_connection(("127.0.0.1", server.port), 10) as client:
                request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n{BROWSER_HEADERS}\r\n".encode()
                client.sendall(request)
                first = requests.recv()
                ident, conn_id = first.split(b" ", 2)[:2]
                replies.send(build_reply(ident, [int(conn_id)], answer))
                credits_back = requests.recv()
                client.recv(len(answer))
                client.sendall(request)
                following = requests.recv()
            frames = (first, following, credits_back)
    finally:
        context.destroy(linger=0)
    if not all(frame.startswith(b"%s %s " % (ident, conn_id)) for frame in frames):
        raise BenchError(f"unexpected frames: {frames}")
    return Recording(first, following, credits_back, len(answer))


class Feed:
    """The stand-in: binds what Mongrel2 binds, and knows how many requests were answered."""

    def __init__(self, recording: Recording, place: Path, connections: int) -> None:
        """Prepare the frames of so many connections."""
        self._recording = recording
        self._ids = [b"%d" % conn_id for conn_id in range(FIRST_ID, FIRST_ID + connections)]
        self._ident = recording.first.split(b" ", 1)[0]
        self._id_at = len(self._ident) + 3  # IDENT SP "5:" ID
        self._context = zmq.Context()
        self.requests: Socket = self._context.socket(zmq.PUSH)
        self.replies: Socket = self._context.socket(zmq.SUB)
        self.worker = {
            "send_spec": f"ipc://{place}/feed-requests",
            "recv_spec": f"ipc://{place}/feed-replies",
            "send_ident": self._ident.decode(),
        }
        for name, option in ((self.requests, zmq.SNDHWM), (self.replies, zmq.RCVHWM)):
            name.set(option, 0)
        self.replies.set(zmq.SUBSCRIBE, self._ident + b" ")
        self.requests.bind(self.worker["send_spec"])
        self.replies.bind(self.worker["recv_spec"])

    def close(self) -> None:
        """Close the sockets."""
        self._context.destroy(linger=0)

    def attend(self) -> None:
        """Let the sockets get on with a handler that connects: libzmq subscribes in calls like this only."""
        self.replies.poll(0)

    def open(self) -> None:
        """Open all connections: the first request of each is answered once, then they are idle.

        Raises BenchError if an answer is missing, or not all are of one length.
        """
        for conn_id in self._ids:
            self.requests.send(frame_for(conn_id, self._recording.first))
        answers = [self._answer() for _ in self._ids]
        sizes = {len(answer) - self._id_at - len(self._ids[0]) - 2 for answer in answers}
        if len(sizes) != 1 or {self._id_of(answer) for answer in answers} != set(self._ids):
            raise BenchError(f"{len(answers)} answers of {sizes} bytes to {len(self._ids)} connections")
        (size,) = sizes
        self._credits = {conn_id: credits_frame(self._recording, conn_id, size) for conn_id in self._ids}
        self._next = {conn_id: frame_for(conn_id, self._recording.next) for conn_id in self._ids}
        for conn_id in self._ids:
            self.requests.send(self._credits[conn_id])

    def run(self, requests: int) -> float:
        """Have all connections send requests, so many in all; return the seconds until all are answered.

        Raises BenchError if answers stop coming.
        """
        begin_s = time.perf_counter()
        for conn_id in self._ids:
            self.requests.send(self._next[conn_id])
        self._answer_each(requests - len(self._ids))
        for _ in self._ids:
            self.requests.send(self._credits[self._id_of(self._answer())])
        return time.perf_counter() - begin_s

    def _answer_each(self, requests: int) -> None:
        receive, send = self.replies.recv, self.requests.send
        credits_for, next_for = self._credits, self._next
        start = self._id_at
        end = start + len(self._ids[0])
        left = requests
        while left:
            if not self.replies.poll(TIMEOUT_MS):
                raise BenchError(f"{left} of {requests} requests were not answered")
            try:
                while left:
                    conn_id = receive(zmq.NOBLOCK)[start:end]
                    send(credits_for[conn_id])
                    send(next_for[conn_id])
                    left -= 1
            except zmq.Again:
                continue

    def _answer(self) -> bytes:
        if not self.replies.poll(TIMEOUT_MS):
            raise BenchError("a request was not answered")
        return self.replies.recv()

    def _id_of(self, answer: bytes) -> bytes:
        return answer[self._id_at : self._id_at + len(self._ids[0])]


def frame_for(conn_id: bytes, frame: bytes) -> bytes:
    """Return a recorded frame as another connection's."""
    ident, _recorded, rest = frame.split(b" ", 2)
    return b"%s %s %s" % (ident, conn_id, rest)


def credits_frame(recording: Recording, conn_id: bytes, size: int) -> bytes:
    """Return the credits of a connection for so many bytes, by the recorded ones."""
    old, new = b"%d" % recording.credits_bytes, b"%d" % size
    entry = b"16:DOWNLOAD_CREDITS,%d:%s,"
    frame = frame_for(conn_id, recording.credits)
    begin = frame.index(b"@* ") + 3
    length, _, rest = frame[begin:].partition(b":")
    headers, body = rest[: int(length)], rest[int(length) :]
    changed = headers.replace(entry % (len(old), old), entry % (len(new), new))
    if size != recording.credits_bytes and changed == headers:
        raise BenchError(f"no credits of {old!r} in {frame!r}")
    return b"%s%d:%s%s" % (frame[:begin], len(changed), changed, body)
