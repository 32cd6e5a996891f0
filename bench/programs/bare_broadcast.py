"""The least that broadcasts: every item to all held streams in messages of 128 ids, within their credits."""

import tnetstring
import zmq

from bench.programs.items import CHUNK, STREAM_HEAD
from bench.programs.sockets import build_answer, open_sockets
from m2gate.wire.mongrel2 import CREDITS_INITIAL, TARGETS_MAX, build_targets


class Broadcast:
    """Holds whoever asks for /stream, and sends /publish/COUNT items to all of them."""

    def __init__(self) -> None:
        self.requests, self.replies = open_sockets()
        self.answer = build_answer()
        self.streams: list[int] = []
        self.sent = 0  # bytes to each stream: all get the same
        self.returned: dict[int, int] = {}  # bytes whose credits came back, by conn_id

    def serve(self) -> None:
        """Take in one message after the other, for ever."""
        while True:
            self.take(self.requests.recv())

    def take(self, frame: bytes) -> None:
        """Do what one message asks for."""
        ident, conn_id, path, rest = frame.split(b" ", 3)
        headers = tnetstring.loads(rest)
        if path == b"@*":
            number = int(conn_id)
            if number in self.returned:
                self.returned[number] += int(headers.get(b"DOWNLOAD_CREDITS", b"0"))
        elif path == b"/stream":
            self.streams.append(int(conn_id))
            self.returned[int(conn_id)] = -len(STREAM_HEAD)
            self.reply(ident, [int(conn_id)], STREAM_HEAD)
        else:
            self.publish(ident, int(path.rpartition(b"/")[2]))
            self.reply(ident, [int(conn_id)], self.answer)

    def publish(self, ident: bytes, count: int) -> None:
        """Send that many items to every stream, as soon as the last one of a message has the credits."""
        groups = [self.streams[at : at + TARGETS_MAX] for at in range(0, len(self.streams), TARGETS_MAX)]
        targets = [build_targets(ident, group) for group in groups]
        floors = [min(self.returned[conn_id] for conn_id in group) for group in groups]
        for _ in range(count):
            self.sent += len(CHUNK)
            for number, group in enumerate(groups):
                while self.sent - floors[number] > CREDITS_INITIAL:
                    self.take(self.requests.recv())
                    self.take_waiting()
                    floors[number] = min(self.returned[conn_id] for conn_id in group)
                self.replies.send(targets[number] + CHUNK)
            self.take_waiting()

    def take_waiting(self) -> None:
        """Take in what is there already."""
        while True:
            try:
                frame = self.requests.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.take(frame)

    def reply(self, ident: bytes, conn_ids: list[int], body: bytes) -> None:
        """Send one message."""
        self.replies.send(build_targets(ident, conn_ids) + body)


if __name__ == "__main__":
    Broadcast().serve()
