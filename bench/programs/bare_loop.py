"""The least that answers behind Mongrel2: a blocking PULL, the headers decoded, a PUB; no gevent."""

import tnetstring

from bench.programs.sockets import build_answer, open_sockets


def main() -> None:
    """Answer every request alike; credits and leaves are ignored."""
    requests, replies = open_sockets()
    answer = build_answer()
    while True:
        ident, conn_id, path, rest = requests.recv().split(b" ", 3)
        if path == b"@*":
            continue
        tnetstring.loads(rest)
        replies.send(b"%s %d:%s, %s" % (ident, len(conn_id), conn_id, answer))


if __name__ == "__main__":
    main()
