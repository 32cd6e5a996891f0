"""The dispatcher by itself: what the gateway does with a request, without sockets and other processes."""

import time
from functools import partial
from pathlib import Path
from typing import Final

from bench.feed import FIRST_ID, Recording, credits_frame, frame_for, record
from bench.process import BenchError, folder
from bench.rounds import Figures, Side
from m2gate.gateway.counters import Counters
from m2gate.gateway.dispatch import Dispatcher
from m2gate.gateway.linked import LinkedServer
from m2gate.gateway.routing import Router
from m2gate.gateway.workers import AttachedWorker, WorkerPools
from m2gate.link.clock import Clock
from m2gate.link.marks import MarkTable
from m2gate.link.server import LinkSettings, Server
from m2gate.link.sockets import DirectServer
from m2gate.wire import attach as wire

DISPATCHER: Final = "dispatcher alone"

REQUESTS: Final = 200_000
CLIENTS: Final = 50
TURN: Final = 10  # requests that come in one turn of the loop, are forwarded in one message and reported in one
ANSWER_BYTES: Final = 150


def dispatcher_side() -> Side:
    """Return the dispatcher with one server and one worker that answers at once, both only noted."""
    with folder() as place:
        recording = record("/hello/friend", place)
    return Side(DISPATCHER, partial(_measure, recording))


def _measure(recording: Recording) -> Figures:
    with folder() as place:
        rig = Rig(recording, place)
        rig.run(CLIENTS * 10)
        before_s, begin_s = time.process_time(), time.perf_counter()
        rig.run(REQUESTS)
        cpu_s, seconds = time.process_time() - before_s, time.perf_counter() - begin_s
        rig.close()
    return Figures(REQUESTS / seconds, cpu_s / REQUESTS * 1e6)


class Rig:
    """A dispatcher that is called as the sockets' watchers call it: openers, a flush, a report, credits."""

    def __init__(self, recording: Recording, place: Path) -> None:
        ident = recording.first.split(b" ", 1)[0]
        address = DirectServer(send_spec="ipc://a", recv_spec="ipc://b", send_ident=ident.decode())
        pools = WorkerPools()
        self.dispatcher = Dispatcher(Router((), pools), Counters())
        link = Server(ident, _drop, _drop, LinkSettings(), Clock())
        self.server = LinkedServer(1, address, _drop, link)
        self.dispatcher.add(self.server)
        self.table = MarkTable.create(place, "w1")
        attach = wire.Attach("w1", 1, 1, self.table.path.name, 2_000, 0, False, [], [])
        self.worker = AttachedWorker(b"w1", attach, self.table, lambda _identity, _message: None, 0.0)
        self.worker.connected.add(1)
        pools.get("").workers[b"w1"] = self.worker
        ids = [b"%d" % conn_id for conn_id in range(FIRST_ID, FIRST_ID + CLIENTS)]
        self._turns = [
            (
                [frame_for(conn_id, recording.next) for conn_id in ids[at : at + TURN]],
                [
                    wire.RECORD.pack(1, wire.EXCHANGE_DONE, int(conn_id), ANSWER_BYTES)
                    for conn_id in ids[at : at + TURN]
                ],
                [credits_frame(recording, conn_id, ANSWER_BYTES) for conn_id in ids[at : at + TURN]],
            )
            for at in range(0, CLIENTS, TURN)
        ]
        firsts = [frame_for(conn_id, recording.first) for conn_id in ids]
        for _, records, credits_ in self._turns:
            self._turn(firsts[:TURN], records, credits_)
            del firsts[:TURN]

    def run(self, requests: int) -> None:
        """Serve that many requests, a multiple of CLIENTS. Raises BenchError if one was not finished."""
        wanted = self.dispatcher.counters.finished + requests
        for _ in range(requests // CLIENTS):
            for turn in self._turns:
                self._turn(*turn)
        if self.dispatcher.counters.finished != wanted:
            raise BenchError(f"{self.dispatcher.counters.finished} requests finished instead of {wanted}")

    def _turn(self, requests: list[bytes], records: list[bytes], credits_: list[bytes]) -> None:
        dispatcher, server, worker = self.dispatcher, self.server, self.worker
        for frame in requests:
            dispatcher.take(server, frame)
        worker.flush()
        # As Attachments does with it, but for the socket.
        seen, found = wire.parse_done(wire.build_done(1 << 40, records))
        worker.seen(seen)
        for number, what, conn_id, sent in found:
            dispatcher.ended(worker, number, conn_id, what, sent)
        for frame in credits_:
            dispatcher.take(server, frame)

    def close(self) -> None:
        """Unmap the table."""
        self.table.close()


def _drop(_anything: object) -> None:
    """Take the place of a socket, or of a pool."""
