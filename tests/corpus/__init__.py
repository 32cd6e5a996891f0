"""Messages recorded from a real Mongrel2: ``mongrel2/NNN-name-PROTOCOL.frame`` and what each means in ``.json``.

``.json``: ``client``, what a client sent to cause the message, and ``message``, the record it parses to. All bytes are
written as latin-1 text. ``scripts/record-corpus`` makes the files anew; review the difference.
"""

import json
from pathlib import Path
from typing import Any, Final

from m2gate.wire.mongrel2 import Credits, HeaderValue, Leave, Message, Request

FOLDER: Final = Path(__file__).parent / "mongrel2"


def frames() -> dict[str, bytes]:
    """Return all recorded frames by their names, in order."""
    return {file.stem: file.read_bytes() for file in sorted(FOLDER.glob("*.frame"))}


def expectation(name: str) -> dict[str, Any]:
    """Return what the frame of that name must parse to, as describe() writes it."""
    message = json.loads((FOLDER / f"{name}.json").read_text())["message"]
    assert isinstance(message, dict)
    return message


def describe(message: Message) -> dict[str, Any]:
    """Write a record as JSON types."""
    found: dict[str, Any] = {
        "type": type(message).__name__,
        "send_ident": message.send_ident.decode(),
        "conn_id": message.conn_id,
    }
    match message:
        case Credits():
            found["amount"] = message.amount
        case Request():
            found["path"] = message.path.decode("latin-1")
            found["headers"] = {name.decode("latin-1"): _text(value) for name, value in sorted(message.headers.items())}
            found["body"] = message.body.decode("latin-1")
        case Leave():
            pass
    return found


def _text(value: HeaderValue) -> str | list[str]:
    if isinstance(value, list):
        return [one.decode("latin-1") for one in value]
    return value.decode("latin-1")
