"""A publisher by ZeroMQ, ``push_items SPEC ITEMS CHANNELS``: at a line on stdin it sends, channel after channel."""

import sys

from bench.programs.items import ITEM
from m2gate.app.publisher import Publisher


def main() -> None:
    """Send the items as fast as they are taken."""
    spec, items, channels = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with Publisher(spec) as publisher:
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(items):
            publisher.publish(str(number % channels), formats={"http-stream": ITEM})


if __name__ == "__main__":
    main()
