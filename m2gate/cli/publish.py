"""``m2gate publish``: one item to a channel, from a shell."""

import json
import os
import sys
from base64 import b64encode
from typing import Any

import click

FORMATS = ("http-stream", "http-response", "ws-message", "sse", "json")


@click.command()
@click.argument("channel")
@click.argument("data", required=False)
@click.option(
    "--to",
    metavar="URL",
    help="Where to: http://HOST:PORT tells the count, tcp://HOST:PORT or ipc:///PATH does not."
    " Default: $M2GATE_PUBLISH, else http://127.0.0.1:5561.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    metavar="FORMAT",
    help="Only for streams (http-stream), held requests (http-response) or WebSockets (ws-message); or for all,"
    " as an event (sse) or as JSON (json). Default: text for all.",
)
@click.option("--event", metavar="TYPE", help="Type of the event, for those that read server-sent events.")
@click.option("--id", "name", metavar="ID", help="Names the item.")
@click.option("--prev-id", metavar="ID", help="Names the item before it on the channel.")
@click.option("--code", type=click.IntRange(200, 599), metavar="STATUS", help="Status, with --format http-response.")
@click.option("-H", "--header", multiple=True, metavar="NAME: VALUE", help="With --format http-response; repeatable.")
def command(
    *,
    channel: str,
    data: str | None,
    to: str | None,
    kind: str | None,
    event: str | None,
    name: str | None,
    prev_id: str | None,
    code: int | None,
    header: tuple[str, ...],
) -> None:
    """Publish DATA to CHANNEL and print how many subscribers it matched.

    DATA: text; - or none reads it from stdin. Nobody listening is no failure: it prints 0.

    m2gate publish news "hello"

    date | m2gate publish clock
    """
    from m2gate.app.publisher import Publisher  # zmq takes time that --help need not pay

    if (code is not None or header) and kind != "http-response":
        raise click.UsageError("--code and --header need --format http-response")
    text = _read(data)
    content, formats = _content(kind, text, code, header)
    with Publisher(to) as publisher:
        try:
            count = publisher.publish(channel, content, event=event, id=name, prev_id=prev_id, formats=formats)
        except (ValueError, TypeError) as error:
            raise click.UsageError(str(error)) from error
    if count is None:
        print(f"m2gate: sent to {publisher.url}, which does not tell who got it", file=sys.stderr)
    else:
        print(count)


def _read(data: str | None) -> str | bytes:
    if data is not None and data != "-":
        return _decode(os.fsencode(data))
    if data is None and sys.stdin.isatty():
        raise click.UsageError("Say what to publish: DATA, or - to read it from the terminal.")
    return _decode(sys.stdin.buffer.read())


def _decode(raw: bytes) -> str | bytes:
    """Return text, or as they are bytes that are none."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _content(
    kind: str | None, text: str | bytes, code: int | None, headers: tuple[str, ...]
) -> tuple[Any, dict[str, Any] | None]:
    """Return data and formats for Publisher.publish."""
    if kind in (None, "sse"):
        return text, None
    if kind == "json":
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise click.UsageError(f"DATA is no JSON: {error}") from error
        # Only objects and lists are sent as JSON by themselves.
        return (document if isinstance(document, dict | list) else json.dumps(document)), None
    if kind == "http-response":
        body = {"body": text} if isinstance(text, str) else {"body-bin": b64encode(text).decode()}
        fields = [_header(one) for one in headers]
        return None, {kind: {"code": code or 200, "headers": fields, **body}}
    return None, {str(kind): text}


def _header(line: str) -> tuple[str, str]:
    name, separator, value = line.partition(":")
    if not separator or not name.strip():
        raise click.UsageError(f"--header {line!r}: write NAME: VALUE")
    return name.strip(), value.strip()
