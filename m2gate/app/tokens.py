"""Answering any connection at any time, from any process on the machine: ``Connection``."""

from m2gate.link import mailbox


class Connection:
    """A client's connection, known by the token that ``request.detach().token`` gave.

    What is sent are raw bytes as the client sees them: a whole HTTP response, or part of one.
    """

    def __init__(self, token: str) -> None:
        self.token = token

    def __repr__(self) -> str:
        return "<Connection by token>"  # the token itself is a secret

    @classmethod
    def from_token(cls, token: str) -> "Connection":
        """Return the connection of a token that another process made.

        Raises ValueError if this is no token; whether its connection lives, send tells.
        """
        mailbox.Token.parse(token)
        return cls(token)

    def send(self, data: bytes) -> None:
        """Send raw bytes to the client. Blocks the greenlet until the connection's owner has them.

        Raises ConnectionGone if the connection or its server is gone; BufferError if more than
        mailbox.QUEUED_MAX bytes wait for the client already.
        """
        if data:
            mailbox.send(self.token, data)

    def close(self) -> None:
        """Close the connection after what was sent. Raises ConnectionGone if it is gone."""
        mailbox.send(self.token, b"")
