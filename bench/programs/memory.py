"""What is kept open while memory is measured: connections without a request, held streams, WebSockets."""

from m2gate import App, Hold
from m2gate.app.request import Request
from m2gate.app.websocket import WebSocket

app = App()


@app.get("/idle")
def idle(_request: Request) -> str:
    """Answer at once: the connection stays, with nothing open."""
    return "idle\n"


@app.get("/held")
def held(_request: Request) -> Hold:
    """Hold the connection as a stream of a channel."""
    return Hold(channels=["board"], mode="stream")


@app.websocket("/talk")
def talk(ws: WebSocket) -> None:
    """Wait for messages that never come."""
    for _message in ws:
        pass
