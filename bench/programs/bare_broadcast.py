"""The least that broadcasts: every item to all streams of its channel, 128 ids a message, within their credits."""

from collections import defaultdict

import tnetstring
import zmq

from bench.programs.items import CHUNK, STREAM_HEAD
from bench.programs.sockets import build_answer, open_sockets
from m2gate.wire.mongrel2 import CREDITS_INITIAL, TARGETS_MAX, build_targets


class Channel:
    """Who is on it, and ``sent``: bytes to each of them, since all get the same."""

    def __init__(self) -> None:
        self.streams: list[int] = []
        self.groups: list[list[int]] = []
        self.targets: list[bytes] = []
        self.floors: list[int] = []
        self.sent = 0

    def arrange(self, ident: bytes, returned: dict[int, int]) -> None:
        """Put the streams into groups for one message each."""
        self.groups = [self.streams[at : at + TARGETS_MAX] for at in range(0, len(self.streams), TARGETS_MAX)]
        self.targets = [build_targets(ident, group) for group in self.groups]
        self.floors = [min(returned[conn_id] for conn_id in group) for group in self.groups]


class Broadcast:
    """Holds whoever asks for /stream/CHANNEL, and sends /publish/COUNT/CHANNELS items, to one after the other."""

    def __init__(self) -> None:
        self.requests, self.replies = open_sockets()
        self.answer = build_answer()
        self.channels: dict[int, Channel] = defaultdict(Channel)
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
        elif path.startswith(b"/stream/"):
            self.channels[int(path[8:])].streams.append(int(conn_id))
            self.returned[int(conn_id)] = -len(STREAM_HEAD)
            self.reply(ident, [int(conn_id)], STREAM_HEAD)
        else:
            count, channels = map(int, path.split(b"/")[2:])
            self.publish(ident, count // channels, [self.channels[number] for number in range(channels)])
            self.reply(ident, [int(conn_id)], self.answer)

    def publish(self, ident: bytes, rounds: int, channels: list[Channel]) -> None:
        """Send so many items to each channel, as soon as the last one of a message has the credits."""
        for channel in channels:
            channel.arrange(ident, self.returned)
        for _ in range(rounds):
            for channel in channels:
                self.send(channel)
                self.take_waiting()

    def send(self, channel: Channel) -> None:
        """Send one item."""
        channel.sent += len(CHUNK)
        for number, group in enumerate(channel.groups):
            while channel.sent - channel.floors[number] > CREDITS_INITIAL:
                self.take(self.requests.recv())
                self.take_waiting()
                channel.floors[number] = min(self.returned[conn_id] for conn_id in group)
            self.replies.send(channel.targets[number] + CHUNK)

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
