"""A big download.

A gigabyte if you like, produced as fast as the client takes it and no faster.

The handler returns a generator, and Mongrel2 says when there is room for more: a thousand slow clients do not fill
the memory. The digest is announced in a header before the first byte. Leave in the middle, and the producer stops.
"""

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import gevent
from _page import html_page

from m2gate import App, HTTPError, Request, Response

app = App()

MIB: Final = 1 << 20
LARGEST_MIB: Final = 1_024
PIECE: Final = 32_768
# Bytes without an obvious pattern, the same on each run.
BLOCK: Final = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(MIB // 32))
PIECES: Final = [BLOCK[start : start + PIECE] for start in range(0, MIB, PIECE)]


class Producers:
    """How many downloads this worker is producing."""

    count = 0


@app.get("/")
def page(request: Request) -> Response:
    return html_page(__file__)


@app.get("/file")
def download(request: Request) -> Response:
    """Stream ``?mb=N`` MiB, 1 to LARGEST_MIB."""
    text = request.query.get("mb", "100")
    if not text.isascii() or not text.isdigit() or len(text) > 4 or not 1 <= int(text) <= LARGEST_MIB:
        raise HTTPError(400, f"mb is a whole number from 1 to {LARGEST_MIB}")
    mib = int(text)
    # Hashing a GiB takes a second, so it is done in a thread while other handlers go on.
    digest = gevent.get_hub().threadpool.apply(digest_of, (mib,))
    headers = {
        "Content-Length": str(mib * MIB),
        "Content-Disposition": f'attachment; filename="sample-{mib}-mib.bin"',
        "Repr-Digest": f"sha-256=:{b64encode(digest).decode()}:",
    }
    return Response(produce(mib), headers=headers, content_type="application/octet-stream")


@app.get("/producers")
def producers(request: Request) -> dict[str, int]:
    return {"producers": Producers.count}


def produce(mib: int) -> Iterator[bytes]:
    Producers.count += 1
    try:
        for _ in range(mib):
            yield from PIECES
    finally:
        Producers.count -= 1


@lru_cache
def digest_of(mib: int) -> bytes:
    digest = hashlib.sha256()
    for _ in range(mib):
        digest.update(BLOCK)
    return digest.digest()
