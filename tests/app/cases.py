"""Requests and their answers, once through TestClient and once through a real Mongrel2.

``app`` is the application; CASES are conversations over HTTP, SOCKETS over WebSockets. What a header
must be stands in the answer; others may be there.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from m2gate import App, Event, EventStream, HTTPError, Request, Response, WebSocket

FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
JSON: Final = {"Content-Type": "application/json"}
TEXT: Final = "text/plain; charset=utf-8"
BYTES: Final = "application/octet-stream"
MULTIPART: Final = {"Content-Type": "multipart/form-data; boundary=XX"}
PARTS: Final = (
    b'--XX\r\nContent-Disposition: form-data; name="note"\r\n\r\nhi\r\n'
    b'--XX\r\nContent-Disposition: form-data; name="doc"; filename="a.txt"\r\n'
    b"Content-Type: text/plain\r\n\r\nfile content\r\n--XX--\r\n"
)

DIGITS: Final = b"0123456789" * 40_000
DIGITS_SHA: Final = hashlib.sha256(DIGITS).hexdigest().encode()
DIGEST: Final = b'{"size":%d,"sha256":"%s"}'

app = App(
    max_body=2_000_000,
    max_memory=100_000,
    origins=["https://friend.example"],
    trusted_proxies=["127.0.0.1", "10.0.0.0/8"],
)
inner = App()
app.mount("/inner", app=inner)


@app.get("/hello/{name}")
def hello(request: Request, name: str) -> str:
    return f"Hello {name}\n"


@app.get("/number/{n:int}")
def number(request: Request, n: int) -> dict[str, int]:
    return {"n": n}


@app.get("/tree/{rest:path}")
def tree(request: Request, rest: str) -> list[str]:
    return rest.split("/")


@app.get("/bytes")
def raw(request: Request) -> bytes:
    return bytes(range(256))


@app.delete("/thing")
def thing(request: Request) -> None:
    """Answer with 204."""


@app.get("/teapot")
def teapot(request: Request) -> tuple[str, int, dict[str, str]]:
    return "short and stout", 418, {"X-Pot": "yes"}


@app.get("/query")
def query(request: Request) -> dict[str, list[str]]:
    return {key: request.query.getlist(key) for key in request.query}


@app.get("/headers")
def headers(request: Request) -> dict[str, list[str]]:
    names = {name for name, _ in request.headers if name.startswith("x-")}
    return {name: request.headers.getlist(name) for name in sorted(names)}


@app.get("/client")
def client(request: Request) -> str:
    return f"{request.scheme} {request.client}"


@app.get("/cookie")
def cookie(request: Request) -> Response:
    response = Response(request.cookies.get("seen", "nothing"))
    response.set_cookie("seen", "a b;c", httponly=True, samesite="Lax")
    return response


@app.post("/form")
def form(request: Request) -> dict[str, Any]:
    files = {name: [one.filename, one.read().decode()] for name, one in request.files.items()}
    return {"form": request.form.to_dict(), "files": files}


@app.post("/json")
def echo_json(request: Request) -> Any:
    return {"got": request.json}


@app.post("/text")
def echo_text(request: Request) -> str:
    return request.text


@app.post("/digest")
def digest(request: Request) -> dict[str, Any]:
    total, sha = 0, hashlib.sha256()
    for piece in request.stream:
        total += len(piece)
        sha.update(piece)
    return {"size": total, "sha256": sha.hexdigest()}


@app.route("/small", methods=["POST"], max_body=10)
def small(request: Request) -> bytes:
    return request.body


@app.get("/pieces")
def pieces(request: Request) -> Iterator[str]:
    return (f"piece {i}\n" for i in range(5))


@app.get("/long")
def long(request: Request) -> Iterator[bytes]:
    return (b"%08d" % i * 1000 for i in range(100))


@app.get("/events")
def events(request: Request) -> EventStream:
    return EventStream(Event(data=f"line {i}\nsecond", event="tick", id=str(i)) for i in range(2))


@app.get("/file")
def file(request: Request) -> Response:
    return Response.file(Path(__file__).with_name("digits.txt"))


@app.get("/away")
def away(request: Request) -> Response:
    return Response.redirect("/hello/ö?x=1", 303)


@app.get("/refuse")
def refuse(request: Request) -> None:
    raise HTTPError(403, "not you", {"X-Why": "because"})


@app.get("/broken")
def broken(request: Request) -> str:
    raise LookupError("no such luck")


@app.error(LookupError)
def lost(request: Request, error: LookupError) -> tuple[dict[str, str], int]:
    return {"error": str(error)}, 500


@inner.get("/where")
def where(request: Request) -> str:
    return request.path


@app.websocket("/echo", subprotocols=["b", "a"])
def echo(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)
        if message == "enough":
            ws.close(4001, "as you say")


@app.websocket("/room/{name}")
def room(ws: WebSocket, name: str) -> None:
    if name == "secret":
        raise HTTPError(403, "members only")
    channel = app.channel(name)
    with channel.join(ws):
        for message in ws:
            channel.publish(message)


@app.websocket("/crash")
def crash(ws: WebSocket) -> None:
    ws.receive()
    raise RuntimeError("on purpose")


@dataclass(frozen=True, slots=True)
class Ask:
    """One request; ``body`` is bytes, or a list of the chunks of a chunked body."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | list[bytes] = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes back: headers that are None must be missing."""

    status: int
    body: bytes
    headers: dict[str, str | None] = field(default_factory=dict)


CASES: Final[dict[str, list[tuple[Ask, Answer]]]] = {
    "parameter": [
        (Ask("GET", "/hello/World"), Answer(200, b"Hello World\n", {"Content-Type": TEXT, "Content-Length": "12"})),
    ],
    "utf8-parameter": [(Ask("GET", "/hello/W%C3%B6rld"), Answer(200, "Hello Wörld\n".encode()))],
    "escaped-slash": [(Ask("GET", "/hello/a%2Fb"), Answer(200, b"Hello a/b\n"))],
    "bad-utf8-parameter": [(Ask("GET", "/hello/%FF"), Answer(400, b"the path is no UTF-8"))],
    "int-and-path-parameters": [
        (Ask("GET", "/number/42"), Answer(200, b'{"n":42}', {"Content-Type": "application/json"})),
        (Ask("GET", "/number/x"), Answer(404, b"Not Found\n")),
        (Ask("GET", "/tree/a/b%20c"), Answer(200, b'["a","b c"]')),
    ],
    "head": [(Ask("HEAD", "/hello/World"), Answer(200, b"", {"Content-Length": "12", "Content-Type": TEXT}))],
    "options": [(Ask("OPTIONS", "/thing"), Answer(204, b"", {"Allow": "DELETE, OPTIONS", "Content-Length": None}))],
    "wrong-method": [(Ask("POST", "/hello/x"), Answer(405, b"Method Not Allowed\n", {"Allow": "GET, HEAD, OPTIONS"}))],
    "bytes": [(Ask("GET", "/bytes"), Answer(200, bytes(range(256)), {"Content-Type": BYTES}))],
    "nothing": [(Ask("DELETE", "/thing"), Answer(204, b"", {"Content-Type": None, "Content-Length": None}))],
    "tuple": [(Ask("GET", "/teapot"), Answer(418, b"short and stout", {"X-Pot": "yes"}))],
    "query": [(Ask("GET", "/query?a=1&b=%C3%A4&a=2&c"), Answer(200, '{"a":["1","2"],"b":["ä"],"c":[""]}'.encode()))],
    "forged-headers": [
        (
            Ask("GET", "/headers", {"X-One": "1", "X-Mongrel2-Upload-Done": "/etc/passwd", "METHOD": "PUT"}),
            Answer(200, b'{"x-one":["1"]}'),
        ),
    ],
    "client-behind-proxies": [
        (
            Ask("GET", "/client", {"X-Forwarded-For": "6.6.6.6, 1.2.3.4, 10.0.0.1", "X-Forwarded-Proto": "https"}),
            Answer(200, b"https 1.2.3.4"),
        ),
        (Ask("GET", "/client"), Answer(200, b"http 127.0.0.1")),
    ],
    "cookie": [
        (
            Ask("GET", "/cookie", {"Cookie": 'seen="x y"; other=1'}),
            Answer(200, b"x y", {"Set-Cookie": r'seen="a b\073c"; HttpOnly; Path=/; SameSite=Lax'}),
        ),
    ],
    "form": [
        (Ask("POST", "/form", FORM, b"a=1&b=%C3%A4"), Answer(200, '{"form":{"a":"1","b":"ä"},"files":{}}'.encode())),
    ],
    "multipart": [
        (
            Ask("POST", "/form", MULTIPART, PARTS),
            Answer(200, b'{"form":{"note":"hi"},"files":{"doc":["a.txt","file content"]}}'),
        ),
        (
            Ask("POST", "/form", MULTIPART, [PARTS[:70], PARTS[70:]]),
            Answer(200, b'{"form":{"note":"hi"},"files":{"doc":["a.txt","file content"]}}'),
        ),
    ],
    "no-form": [(Ask("POST", "/form", JSON, b"{}"), Answer(415, b"send a form"))],
    "json": [
        (Ask("POST", "/json", JSON, '{"ö": [1.5, null]}'.encode()), Answer(200, '{"got":{"ö":[1.5,null]}}'.encode()))
    ],
    "bad-json": [
        (Ask("POST", "/json", JSON, b"{"), Answer(400, b"the body is no JSON")),
        (Ask("POST", "/json", JSON, b"[" * 50_000), Answer(400, b"the body is no JSON")),
    ],
    "text-charset": [
        (Ask("POST", "/text", {"Content-Type": "text/plain; charset=latin-1"}, b"\xe4"), Answer(200, "ä".encode())),
        (Ask("POST", "/text", {}, b"\xe4"), Answer(400, b"the body is no utf-8")),
    ],
    "upload": [
        (
            Ask("POST", "/digest", {}, b"0123456789" * 100_000),
            Answer(
                200,
                b'{"size":1000000,"sha256":"%s"}' % hashlib.sha256(b"0123456789" * 100_000).hexdigest().encode(),
            ),
        ),
        (Ask("GET", "/hello/again"), Answer(200, b"Hello again\n")),
    ],
    "chunked-upload": [
        (
            Ask("POST", "/digest", {}, [b"x" * 40_000] * 5),
            Answer(200, b'{"size":200000,"sha256":"%s"}' % hashlib.sha256(b"x" * 200_000).hexdigest().encode()),
        ),
        (
            Ask("POST", "/digest", {}, []),
            Answer(200, b'{"size":0,"sha256":"%s"}' % hashlib.sha256().hexdigest().encode()),
        ),
    ],
    # Mongrel2 filled bodies with foreign bytes until limits.content_length was right (site/settings.py).
    "uploads-of-both-kinds": [
        (Ask("POST", "/digest", {}, body), Answer(200, DIGEST % (400_000, DIGITS_SHA)))
        for body in (DIGITS, [DIGITS[start : start + 50_000] for start in range(0, 400_000, 50_000)])
    ]
    * 10,
    "too-large": [
        (Ask("POST", "/small", {}, b"0123456789"), Answer(200, b"0123456789")),
        (Ask("POST", "/small", {}, b"0123456789a"), Answer(413, b"the limit is 10 bytes")),
    ],
    "too-large-for-memory": [(Ask("POST", "/text", {}, b"a" * 100_001), Answer(413, b"the limit is 100000 bytes"))],
    "stream": [
        (
            Ask("GET", "/pieces"),
            Answer(200, b"piece 0\npiece 1\npiece 2\npiece 3\npiece 4\n", {"Transfer-Encoding": "chunked"}),
        ),
        (Ask("HEAD", "/pieces"), Answer(200, b"", {"Transfer-Encoding": "chunked"})),
    ],
    "long-stream": [(Ask("GET", "/long"), Answer(200, b"".join(b"%08d" % i * 1000 for i in range(100))))],
    "events": [
        (
            Ask("GET", "/events"),
            Answer(
                200,
                b"event: tick\nid: 0\ndata: line 0\ndata: second\n\nevent: tick\nid: 1\ndata: line 1\ndata: second\n\n",
                {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"},
            ),
        ),
    ],
    "file": [
        (Ask("GET", "/file"), Answer(200, b"0123456789\n", {"Content-Type": TEXT, "Accept-Ranges": "bytes"})),
        (Ask("GET", "/file", {"Range": "bytes=2-4"}), Answer(206, b"234", {"Content-Range": "bytes 2-4/11"})),
        (Ask("GET", "/file", {"Range": "bytes=-3"}), Answer(206, b"89\n", {"Content-Range": "bytes 8-10/11"})),
        (
            Ask("GET", "/file", {"Range": "bytes=11-"}),
            Answer(416, b"Range Not Satisfiable\n", {"Content-Range": "bytes */11"}),
        ),
        (Ask("HEAD", "/file"), Answer(200, b"", {"Content-Length": "11"})),
        (Ask("GET", "/file", {"If-None-Match": "*"}), Answer(304, b"", {"Content-Length": None})),
    ],
    "redirect": [(Ask("GET", "/away"), Answer(303, b"", {"Location": "/hello/%C3%B6?x=1", "Content-Length": "0"}))],
    "error": [(Ask("GET", "/refuse"), Answer(403, b"not you", {"X-Why": "because", "Content-Type": TEXT}))],
    "error-handler": [(Ask("GET", "/broken"), Answer(500, b'{"error":"no such luck"}'))],
    "mounted-app": [
        (Ask("GET", "/inner/where"), Answer(200, b"/inner/where")),
        (Ask("GET", "/inner/nowhere"), Answer(404, b"Not Found\n")),
    ],
    "websocket-only": [
        (Ask("GET", "/echo"), Answer(426, b"this path speaks WebSocket only", {"Upgrade": "websocket"}))
    ],
}


@dataclass(frozen=True, slots=True)
class Talk:
    """A WebSocket: the handshake, what is said and heard, and how it ends.

    refused: the status of the answer to the handshake, 0 if it succeeds; its body is ``reason``.
    """

    path: str
    says: list[str | bytes] = field(default_factory=list)
    hears: list[str | bytes] = field(default_factory=list)
    origin: str | None = None
    subprotocols: list[str] = field(default_factory=list)
    subprotocol: str | None = None
    refused: int = 0
    code: int = 1000
    reason: str = ""


SOCKETS: Final[dict[str, Talk]] = {
    "echo": Talk("/echo", ["ä", b"\x00\xff", "x" * 70_000], ["ä", b"\x00\xff", "x" * 70_000]),
    "subprotocol": Talk("/echo", ["hi"], ["hi"], subprotocols=["a", "c"], subprotocol="a"),
    "server-closes": Talk("/echo", ["enough"], ["enough"], code=4001, reason="as you say"),
    "channel": Talk("/room/blue", ["one", "two"], ["one", "two"]),
    "refused": Talk("/room/secret", refused=403, reason="members only"),
    "foreign-origin": Talk("/echo", origin="https://evil.example", refused=403, reason="this origin may not connect"),
    "listed-origin": Talk("/echo", ["hi"], ["hi"], origin="https://friend.example"),
    "crash": Talk("/crash", ["boom"], [], code=1011),
    "unknown": Talk("/nowhere", refused=404, reason="Not Found\n"),
}
