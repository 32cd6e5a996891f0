"""The control port's client against a server that answers as told."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tnetstring
import zmq

from m2gate.errors import WireError
from m2gate.link.control import ControlError, ControlPort, ControlTimeout

pytestmark = pytest.mark.checklist("mongrel2", 62)

Serve = Callable[[bytes], tuple[ControlPort, list[bytes]]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Answer one request with the given bytes; the list holds what was asked."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    threads: list[threading.Thread] = []

    def start(answer: bytes) -> tuple[ControlPort, list[bytes]]:
        spec = f"ipc://{tmp_path}/c"
        asked: list[bytes] = []
        rep = context.socket(zmq.REP)
        rep.bind(spec)

        def run() -> None:
            with rep:
                if rep.poll(5_000):
                    asked.append(rep.recv())
                    rep.send(answer)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return ControlPort(spec, timeout_s=5), asked

    yield start
    for thread in threads:
        thread.join(10)
    context.destroy(linger=1000)


def test_rows_are_named_by_the_headers(serve: Serve) -> None:
    control, asked = serve(tnetstring.dumps({b"headers": [b"name", b"n"], b"rows": [[b"a", 1], [b"b", 2]]}))
    assert control.call("anything", what="net", id=7) == [{"name": "a", "n": 1}, {"name": "b", "n": 2}]
    assert tnetstring.loads(asked[0]) == [b"anything", {b"what": b"net", b"id": 7}]


def test_no_arguments_are_an_empty_dictionary(serve: Serve) -> None:
    control, asked = serve(b"38:7:headers,7:4:uuid,]4:rows,8:5:2:t7,]]}")
    assert control.uuid() == "t7"
    assert asked == [b"10:4:uuid,0:}]"]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        pytest.param({b"code": b"NOT_CONNECTED", b"error": b"no client"}, "NOT_CONNECTED", id="code"),
        pytest.param({b"error": b"what?"}, "INVALID_ARGUMENT", id="no-code"),
    ],
)
def test_refusal(serve: Serve, answer: dict[bytes, bytes], code: str) -> None:
    control, _ = serve(tnetstring.dumps(answer))
    with pytest.raises(ControlError) as caught:
        control.kill(1)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"junk", id="junk"),
        pytest.param(b"0:]", id="list"),
        pytest.param(b"0:}", id="no-rows"),
        pytest.param(tnetstring.dumps({b"headers": [b"uuid"], b"rows": [[]]}), id="short-row"),
        pytest.param(tnetstring.dumps({b"headers": [b"uuid"], b"rows": []}), id="no-row"),
        pytest.param(tnetstring.dumps({b"headers": b"uuid", b"rows": [[b"a"]]}), id="headers-no-list"),
    ],
)
def test_answer_that_is_none(serve: Serve, answer: bytes) -> None:
    control, _ = serve(answer)
    with pytest.raises(WireError):
        control.uuid()


def test_timeout_leaves_a_usable_client(tmp_path: Path, serve: Serve) -> None:
    started = time.monotonic()
    with pytest.raises(ControlTimeout, match=r"uuid: no answer from ipc://.* within 0\.2 s"):
        ControlPort(f"ipc://{tmp_path}/c", timeout_s=0.2).uuid()
    assert 0.2 <= time.monotonic() - started < 2
    control, _ = serve(b"38:7:headers,7:4:uuid,]4:rows,8:5:2:t7,]]}")
    assert control.uuid() == "t7"


UNDER_GEVENT = """
from gevent import monkey
monkey.patch_all()
import sys, gevent
from m2gate.link.control import ControlPort, ControlTimeout
turns = []
def tick():
    while True:
        turns.append(1)
        gevent.sleep(0.01)
gevent.spawn(tick)
try:
    ControlPort(sys.argv[1], timeout_s=0.5).uuid()
except ControlTimeout:
    print(len(turns))
"""


def test_other_greenlets_run_meanwhile(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNDER_GEVENT, f"ipc://{tmp_path}/none"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5
