"""Chat over a WebSocket.

Open this page in two windows and talk to yourself.

Whoever connects joins a channel, and what anybody says is published to it: one message to Mongrel2 for up to 128
people. Nothing is kept: who comes later has not heard it.
"""

from typing import Any, Final

from _page import html_page

from m2gate import App, HTTPError, Request, Response, WebSocket

app = App(max_message=8_192)
room = app.channel("chat")

NAME_MAX: Final = 32  # characters; a longer name is refused
TEXT_MAX: Final = 2_000  # characters; the rest of a longer message is cut off


@app.get("/")
def page(request: Request) -> Response:
    return html_page(__file__)


@app.websocket("/talk")
def talk(ws: WebSocket) -> None:
    """Let one person, known by ``?name=``, talk to all others."""
    name = ws.request.query.get("name", "").strip()
    if not 0 < len(name) <= NAME_MAX:
        raise HTTPError(400, f"say who you are: ?name=, 1 to {NAME_MAX} characters")
    with room.join(ws):
        say(name, "joined")
        try:
            for message in ws:
                if isinstance(message, str) and (text := message.strip()[:TEXT_MAX]):
                    say(name, "says", text)
        finally:
            say(name, "left")


def say(name: str, what: str, text: str = "") -> int:
    """Tell everybody in the room; return how many that are."""
    news: dict[str, Any] = {"name": name, "what": what, "text": text}
    return room.publish(news)
