"""The least that answers on gevent's loop: a watcher on the PULL socket, then NOBLOCK until EAGAIN."""

import tnetstring
import zmq
from gevent import get_hub
from gevent.event import Event

from bench.programs.sockets import build_answer, open_sockets


def main() -> None:
    """Answer every request alike; credits and leaves are ignored."""
    requests, replies = open_sockets()
    answer = build_answer()

    def drain() -> None:
        while True:
            try:
                frame = requests.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            ident, conn_id, path, rest = frame.split(b" ", 3)
            if path == b"@*":
                continue
            tnetstring.loads(rest)
            replies.send(b"%s %d:%s, %s" % (ident, len(conn_id), conn_id, answer), zmq.NOBLOCK)

    watcher = get_hub().loop.io(requests.fileno(), 1)
    watcher.start(drain)
    drain()
    Event().wait()


if __name__ == "__main__":
    main()
