"""A message board by long polling.

A client asks for what came after the last number it has seen, and the answer waits until there is something.

If there is nothing yet, the handler returns a ``Hold``: the request waits in a channel, without a handler, until
somebody posts or the time is up. The cursor makes it whole: what comes between two polls is in the next answer.
The board keeps its last 100 messages.
"""

from collections import deque
from typing import Any, Final

from _page import html_page
from gevent.lock import RLock

from m2gate import App, Hold, HTTPError, Request, Response

app = App()
news = app.channel("board")

KEPT: Final = 100  # messages; older ones are forgotten
TEXT_MAX: Final = 1_000  # characters of a message; more is answered 400
WAIT_S: Final = 25.0  # below the half minute after which many proxies give up

Message = dict[str, Any]

messages: deque[Message] = deque(maxlen=KEPT)
posting = RLock()  # messages are published in the order of their numbers


@app.get("/")
def page(request: Request) -> Response:
    return html_page(__file__)


@app.get("/messages")
def poll(request: Request) -> dict[str, Any] | Hold:
    """Answer the messages after number ``?after=N``, at once or when there is one."""
    cursor = parse_cursor(request.query.get("after", "0"))
    if cursor > newest():  # of another life of this server: begin anew
        cursor = 0
    found = [message for message in messages if message["n"] > cursor]
    if found:
        return answer(found)
    return Hold(news, mode="response", timeout=WAIT_S, body={"messages": [], "next": cursor})


@app.post("/messages")
def post(request: Request) -> tuple[Message, int]:
    """Take ``{"text": ...}`` and tell everybody who waits."""
    sent = request.json
    text = sent.get("text") if isinstance(sent, dict) else None
    if not isinstance(text, str) or not 0 < len(text.strip()) <= TEXT_MAX:
        raise HTTPError(400, f'send {{"text": ...}} with 1 to {TEXT_MAX} characters')
    with posting:
        message = {"n": newest() + 1, "text": text.strip()}
        messages.append(message)
        news.publish(answer([message]))
    return message, 201


def newest() -> int:
    number: int = messages[-1]["n"] if messages else 0
    return number


def answer(found: list[Message]) -> dict[str, Any]:
    return {"messages": found, "next": found[-1]["n"]}


def parse_cursor(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise HTTPError(400, "after is the number of the last message seen, 0 for none")
    return int(text)
