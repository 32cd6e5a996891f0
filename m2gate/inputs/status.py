"""The status socket: whoever may open it asks b"status" and gets the document as JSON."""

import json
import logging
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import zmq
from gevent import get_hub

from m2gate.errors import ConfigError
from m2gate.link.wait import READ

logger = logging.getLogger(__name__)

QUESTION: Final = b"status"
QUESTION_MAX: Final = 1_024  # bytes; who sends more is disconnected by libzmq
TURN_QUESTIONS: Final = 32  # answered before the loop gets its turn
UNREAD_MAX: Final = 4  # answers for one client that reads none of them; further ones are dropped
UNSEEN_MAX: Final = 64  # questions of one client that wait; then it waits


class StatusServer:
    """Answers questions at an ipc path; clients are REQ or DEALER sockets.

    document: returns what is answered, called in the loop; it must not block.
    ``rejected`` counts messages that are no question; nobody answers them.

    Who may ask is who may enter the folder: the socket's mode is 0660 where the folder's group may,
    else 0600. The path is taken over from a server that still has it: of two workers the successor
    answers from its start, and what its predecessor removes at its end is not the successor's.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        path: str | Path,
        document: Callable[[], Mapping[str, object]],
    ) -> None:
        self._context = context
        self._path = Path(path)
        self._document = document
        self._socket: zmq.Socket[bytes] | None = None
        self._watcher: Any = None
        self._inode = 0
        self.rejected = 0

    def start(self) -> None:
        """Bind and answer from now on. Raises ConfigError if the path cannot be bound."""
        # libzmq removes at its end the path that it was bound to; that must not be the public one,
        # which may be a successor's by then.
        own = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        socket = self._context.socket(zmq.ROUTER)
        socket.linger = 0
        socket.sndhwm = UNREAD_MAX
        socket.rcvhwm = UNSEEN_MAX
        socket.maxmsgsize = QUESTION_MAX
        try:
            socket.bind(f"ipc://{own}")
            shared = self._path.parent.stat().st_mode & stat.S_IXGRP
            own.chmod(0o660 if shared else 0o600)
            self._inode = own.stat().st_ino
            own.replace(self._path)
        except (zmq.ZMQError, OSError) as error:
            socket.close(linger=0)
            remedy = "the folder must exist, be writable, and its path have at most 90 bytes"
            raise ConfigError("status", str(self._path), str(error), remedy) from error
        self._socket = socket
        self._watcher = get_hub().loop.io(socket.fileno(), READ)
        self._watcher.start(self._answer_all)
        self._answer_all()

    def stop(self) -> None:
        """Answer no more. Idempotent."""
        socket, self._socket = self._socket, None
        if socket is None:
            return
        self._watcher.stop()
        self._watcher.close()
        socket.close(linger=0)
        with suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    def _answer_all(self) -> None:
        answer: bytes | None = None
        for _ in range(TURN_QUESTIONS):
            if self._socket is None:
                return
            try:
                message = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if message[1:] not in ([QUESTION], [b"", QUESTION]):
                self.rejected += 1
                continue
            answer = answer or self._encode()
            try:
                self._socket.send_multipart([*message[:-1], answer], zmq.NOBLOCK)
            except zmq.ZMQError as error:  # it left meanwhile
                logger.debug("status not answered error=%s", error)
        # The descriptor tells of new commands, not of messages that are left.
        get_hub().loop.run_callback(self._answer_all)

    def _encode(self) -> bytes:
        try:
            return json.dumps(self._document()).encode()
        except Exception:
            # A bug of ours, which must not end the loop's callback: the client runs into its timeout.
            logger.exception("status document failed")
            return b"{}"
