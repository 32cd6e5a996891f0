"""One message on a JSON socket, and its answer."""

import json

from m2gate.link.exchange import STARTED, Exchange


class JsonExchange(Exchange):
    """A message on a JSON socket; the answer is raw bytes that Mongrel2 wraps."""

    is_json_socket = True

    def answer_refusal(self) -> None:
        """Answer a refused message as JSON, and close. Does not block."""
        if self.refusal is None:
            raise ValueError("the message was not refused")
        status, _, body = self.refusal
        self.close_after = True
        self.state, self.status = STARTED, status
        self.connection.post(json.dumps({"error": body.decode().strip()}).encode() + b"\0")
        self._end()

    def answer(self, body: bytes) -> None:
        """Send one reply and end the exchange. Blocks the greenlet only without credits.

        Mongrel2 strips the NUL and encodes base64, unless its handler has raw_payload, where the
        NUL is what ends the message for the client.
        """
        self.status = 200
        self.state = STARTED
        self.written = len(body)
        if not self.connection.gone:
            self._write(body + b"\0")
        self._end()
