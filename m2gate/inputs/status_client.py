"""The asking side of the status socket; without gevent, so that a command starts quickly."""

import json
from pathlib import Path
from typing import Final

import zmq

from m2gate.errors import M2GateError
from m2gate.inputs.document import StatusDocument, check_document

QUESTION: Final = b"status"
TIMEOUT_S: Final = 2.0
ANSWER_MAX: Final = 16 << 20  # bytes; a longer answer is none of ours


class StatusClient:
    """Asks one status socket. Blocks the thread, so it is not for greenlets.

    path:      of the socket.
    timeout_s: for each answer.
    """

    def __init__(self, path: str | Path, timeout_s: float = TIMEOUT_S) -> None:
        self._path = Path(path)
        self._timeout_s = timeout_s

    def ask(self) -> StatusDocument:
        """Return the document as of now.

        Raises M2GateError if nobody answers in time, or something that is no document.
        """
        if not self._path.is_socket():
            raise M2GateError(f"{self._path}: nobody listens there")
        return self._parse(self._exchange())

    def _exchange(self) -> bytes:
        # A socket for each question: one that was not answered leaves nothing behind.
        socket: zmq.Socket[bytes]
        with zmq.Context() as context, context.socket(zmq.REQ) as socket:
            socket.linger = 0
            socket.maxmsgsize = ANSWER_MAX
            try:
                socket.connect(f"ipc://{self._path}")
            except zmq.ZMQError as error:
                raise M2GateError(f"{self._path}: cannot be asked: {error}") from error
            socket.send(QUESTION)
            if not socket.poll(int(self._timeout_s * 1000)):
                raise M2GateError(f"{self._path}: no answer within {self._timeout_s:g} s")
            return socket.recv()

    def _parse(self, answer: bytes) -> StatusDocument:
        try:
            document = json.loads(answer)
        except (ValueError, RecursionError) as error:
            raise M2GateError(f"{self._path}: the answer is no JSON: {error}") from error
        return check_document(document)
