"""Clients of all kinds at once, in a process of their own: ``python -m tests.system.load PORT SPEC.json``.

Each checks all that it gets: every request carries a token that only its own answer repeats, every
stream and WebSocket has numbers. SPEC says how many clients of each kind, and `tls`; they go on until a line
comes on stdin. Then a report is printed as one line of JSON: for each kind how much went well, and
every failure with its time, what it was, and the worker (X-Worker) that the client had last.
"""

import asyncio
import base64
import hashlib
import json
import os
import random
import ssl
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

HELD = 1  # in place of a worker: the gateway has it
ANSWER_S = 30.0  # nobody is to hang longer than this
STALL_S = 0.5
BURST = 100  # messages of one WebSocket that are under way at once
Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


class Broken(Exception):
    """The connection ended where it should not, or an answer is not what was asked for."""


class Kind:
    """What one kind of clients has seen."""

    def __init__(self) -> None:
        self.good = 0
        self.failures: list[dict[str, Any]] = []
        self.slowest_s = 0.0

    def fail(self, what: str, worker: int, began_s: float) -> None:
        now_s = time.monotonic()
        self.failures.append({"at_s": now_s, "what": what, "worker": worker, "waited_s": now_s - began_s})

    def report(self) -> dict[str, Any]:
        return {"good": self.good, "failures": self.failures, "slowest_s": self.slowest_s}


class Client:
    """One connection that is opened anew after each failure. tls: how, if it is encrypted."""

    tls: ssl.SSLContext | None = None

    def __init__(self, port: int, kind: Kind) -> None:
        self.port = port
        self.kind = kind
        self.worker = 0
        self.reader: Reader
        self.writer: Writer | None = None

    async def connect(self) -> Writer:
        # Mongrel2 itself may be away for a moment.
        for _ in range(500):
            if self.writer is not None:
                return self.writer
            with suppress(OSError):
                self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls)
                continue
            await asyncio.sleep(0.02)
        raise Broken("refused")

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    async def head(self) -> tuple[int, dict[str, str]]:
        raw = await self.reader.readuntil(b"\r\n\r\n")
        status, *fields = raw.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        if "x-worker" in headers:
            self.worker = int(headers["x-worker"])
        return int(status.split()[1]), headers

    async def chunk(self) -> bytes:
        size = int(await self.reader.readline(), 16)
        data = await self.reader.readexactly(size + 2)
        return data[:-2]

    async def answer(self) -> tuple[int, bytes]:
        status, headers = await self.head()
        if "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        else:
            parts = []
            while part := await self.chunk():
                parts.append(part)
            body = b"".join(parts)
        if headers.get("connection") == "close":
            self.close()
        return status, body


def name_of(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "hung"
    return str(error) if isinstance(error, Broken) else "closed"


FAILURES = (OSError, EOFError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, Broken, TimeoutError)


async def repeat(client: Client, stop: asyncio.Event, once: Callable[[Client], Awaitable[None]]) -> None:
    """Do it again and again, until stop; after a failure on a new connection."""
    while not stop.is_set():
        began_s = time.monotonic()
        try:
            await client.connect()
            await asyncio.wait_for(once(client), ANSWER_S)
            client.kind.good += 1
            client.kind.slowest_s = max(client.kind.slowest_s, time.monotonic() - began_s)
        except FAILURES as error:
            client.kind.fail(name_of(error), client.worker, began_s)
            client.close()
            client.worker = 0
            await asyncio.sleep(0.01)
    client.close()


def check(expected: bytes, status: int, body: bytes) -> None:
    if status != 200:
        raise Broken(str(status))
    if body != expected:
        raise Broken("wrong")


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


async def plain(client: Client, path: str = "/ok") -> None:
    token = random.randbytes(8).hex()
    writer = await client.connect()
    writer.write(get(f"{path}/{token}"))
    check(token.encode(), *await client.answer())


async def slow(client: Client) -> None:
    await plain(client, f"/sleep/{random.randrange(20, 400)}")


async def upload(client: Client) -> None:
    writer = await client.connect()
    hashed = hashlib.sha256()
    writer.write(b"POST /digest HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    size = random.randrange(1 << 20, 8 << 20)
    block = random.randbytes(60_000)
    reading = asyncio.ensure_future(client.answer())
    try:
        while size > 0 and not reading.done():
            piece = block[: min(size, random.randrange(1_000, 60_000))]
            size -= len(piece)
            hashed.update(piece)
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        if not writer.is_closing():  # else an answer that came early says why
            writer.write(b"0\r\n\r\n")
        check(hashed.hexdigest().encode(), *await reading)
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError, *FAILURES):
            await reading


BLOCK = bytes(range(256)) * 256


async def download(client: Client) -> None:
    """Numbered blocks, each of which names its request."""
    writer = await client.connect()
    count, token = random.randrange(20, 160), random.randbytes(8).hex()
    writer.write(get(f"/blocks/{count}/{token}"))
    check(b"".join(b"%b %d " % (token.encode(), number) + BLOCK for number in range(count)), *await client.answer())


async def burst(client: Client) -> None:
    """A WebSocket that says much before it listens, and ends."""
    writer = await shake(client, "/echo")
    token = random.randbytes(8).hex()
    said = [f"{token} {number} ".ljust(random.randrange(30, 3_000), "x").encode() for number in range(BURST)]
    for message in said:
        if writer.is_closing():
            raise EOFError
        writer.write(frame(1, message))
    for message in said:
        if await receive(client) != message:
            raise Broken("wrong")
    client.close()


# -- what lasts ---------------------------------------------------------------------------------------


async def last(client: Client, stop: asyncio.Event, talk: Callable[[Client, asyncio.Event], Awaitable[None]]) -> None:
    """Keep a stream or a WebSocket until stop; after a failure a new one."""
    while not stop.is_set():
        began_s = time.monotonic()
        try:
            await client.connect()
            await talk(client, stop)
        except FAILURES as error:
            if not stop.is_set():
                client.kind.fail(name_of(error), client.worker, began_s)
        client.close()
        client.worker = 0
        await asyncio.sleep(0.01)


async def next_or_stop(awaitable: Awaitable[bytes], stop: asyncio.Event, timeout_s: float) -> bytes | None:
    """Return what comes; None if it is time to stop. Raises TimeoutError."""
    task = asyncio.ensure_future(awaitable)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        done, _ = await asyncio.wait({task, stopping}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            return await task
        if not done:
            raise TimeoutError
        return None
    finally:
        for one in (task, stopping):
            one.cancel()
            with suppress(asyncio.CancelledError, *FAILURES):
                await one


async def ticks(client: Client, stop: asyncio.Event) -> None:
    writer = await client.connect()
    writer.write(get("/ticks"))
    status, _ = await asyncio.wait_for(client.head(), ANSWER_S)
    if status != 200:
        raise Broken(str(status))
    number = 0
    while (piece := await next_or_stop(client.chunk(), stop, ANSWER_S)) is not None:
        if not piece:
            raise Broken("ended")
        if piece.startswith(b"data: "):
            if int(piece[6:]) != number:
                raise Broken("wrong")
            number += 1
            client.kind.good += 1


async def events(client: Client, stop: asyncio.Event) -> None:
    """A held stream: the numbers of the publisher, none left out."""
    writer = await client.connect()
    writer.write(get("/events"))
    status, _ = await asyncio.wait_for(client.head(), ANSWER_S)
    if status != 200:
        raise Broken(str(status))
    client.worker = HELD
    number, rest = -1, b""
    while (piece := await next_or_stop(client.chunk(), stop, ANSWER_S)) is not None:
        if not piece:
            raise Broken("ended")
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data: "):
                number = follows(number, int(line[6:]))
                client.kind.good += 1


uncertain: set[int] = set()  # numbers whose publish failed, which may have been published all the same


def follows(number: int, new: int) -> int:
    expected = number + 1
    while expected != new and expected in uncertain:
        expected += 1
    if number >= 0 and new != expected:
        raise Broken(f"missed: {new} after {number}")
    return new


def frame(opcode: int, payload: bytes) -> bytes:
    mask = b"\0\0\0\0"
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack(">H", len(payload))
    return bytes([0x80 | opcode]) + size + mask + payload


async def receive(client: Client) -> bytes:
    first, size = await client.reader.readexactly(2)
    if size == 126:
        (size,) = struct.unpack(">H", await client.reader.readexactly(2))
    payload = await client.reader.readexactly(size)
    if first & 0x0F == 8:
        raise Broken(f"close {int.from_bytes(payload[:2], 'big')}")
    return payload


async def shake(client: Client, path: str) -> Writer:
    writer = await client.connect()
    key = base64.b64encode(random.randbytes(16)).decode()
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    status, _ = await asyncio.wait_for(client.head(), ANSWER_S)
    if status != 101:
        raise Broken(str(status))
    client.worker = int((await asyncio.wait_for(receive(client), ANSWER_S)).split()[1])
    return writer


async def sockets(client: Client, stop: asyncio.Event) -> None:
    """A WebSocket that gets back what it says."""
    writer = await shake(client, "/echo")
    while not stop.is_set():
        token = random.randbytes(random.randrange(8, 400)).hex().encode()
        writer.write(frame(1, token))
        if await asyncio.wait_for(receive(client), ANSWER_S) != token:
            raise Broken("wrong")
        client.kind.good += 1
        await asyncio.sleep(0.02)


async def rooms(client: Client, stop: asyncio.Event) -> None:
    """A WebSocket in the channel."""
    await shake(client, "/news")
    number = -1
    while (payload := await next_or_stop(receive(client), stop, ANSWER_S)) is not None:
        number = follows(number, int(payload))
        client.kind.good += 1


REPEATED = {"plain": plain, "slow": slow, "upload": upload, "download": download, "burst": burst}
LASTING = {"ticks": ticks, "events": events, "sockets": sockets, "rooms": rooms}


async def publish(port: int, kind: Kind, stop: asyncio.Event, pause_s: float) -> None:
    """Publish numbers, each once: of one that failed nobody knows whether it was published."""
    client = Client(port, kind)
    number = 0
    while not stop.is_set():
        began_s = time.monotonic()
        try:
            writer = await client.connect()
            text = str(number).encode()
            writer.write(
                b"POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)
            )
            status, _ = await asyncio.wait_for(client.answer(), ANSWER_S)
            if status != 200:
                raise Broken(str(status))
            kind.good += 1
        except FAILURES as error:
            uncertain.add(number)
            kind.fail(name_of(error), client.worker, began_s)
            client.close()
        number += 1
        await asyncio.sleep(pause_s)
    client.close()


async def watch(stalls: list[tuple[float, float]]) -> None:
    """Note when the machine has not run this process, and for how long."""
    while True:
        began_s = time.monotonic()
        await asyncio.sleep(STALL_S / 10)
        now_s = time.monotonic()
        if now_s - began_s > STALL_S:
            stalls.append((now_s, now_s - began_s))


async def main(port: int, spec: dict[str, Any]) -> None:
    kinds = {name: Kind() for name in (*REPEATED, *LASTING, "publish")}
    stop = asyncio.Event()
    tasks = []
    if "tls" in spec:
        Client.tls = ssl.create_default_context()
        Client.tls.check_hostname = False
        Client.tls.verify_mode = ssl.CERT_NONE
    for name, count in spec.items():
        for _ in range(count if name in REPEATED or name in LASTING else 0):
            client = Client(port, kinds[name])
            if name in REPEATED:
                tasks.append(asyncio.ensure_future(repeat(client, stop, REPEATED[name])))
            else:
                tasks.append(asyncio.ensure_future(last(client, stop, LASTING[name])))
            if len(tasks) % 50 == 0:
                await asyncio.sleep(0.05)
    if "publish_ms" in spec:
        tasks.append(asyncio.ensure_future(publish(port, kinds["publish"], stop, spec["publish_ms"] / 1000)))

    def told() -> None:
        os.read(0, 100)
        stop.set()

    asyncio.get_running_loop().add_reader(0, told)
    stalls: list[tuple[float, float]] = []
    watcher = asyncio.ensure_future(watch(stalls))
    print("running", flush=True)
    await stop.wait()
    await asyncio.wait_for(asyncio.gather(*tasks), ANSWER_S + 10)
    watcher.cancel()
    document = {"kinds": {name: kind.report() for name, kind in kinds.items()}, "stalls": stalls}
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), json.loads(sys.argv[2])))
