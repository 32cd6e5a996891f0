"""A Flask application as one finds them; ``application`` for gunicorn, ``app`` for m2gate."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from time import sleep
from typing import Any

from flask import Flask, Response, abort, jsonify, redirect, request, session, url_for
from werkzeug.wrappers import Response as AnyResponse

from m2gate import App
from tests.system.shared import Ledger

flask = Flask(__name__, static_folder=str(Path(__file__).with_name("wsgi_static")), static_url_path="/static")
flask.secret_key = "not secret"


@flask.route("/", methods=["GET", "PUT", "PATCH", "DELETE"])
def index() -> str:
    return f"<h1>{request.method} ä</h1>"


@flask.get("/args")
def args() -> AnyResponse:
    return jsonify({key: request.args.getlist(key) for key in request.args})


@flask.get("/path/<path:rest>")
def path(rest: str) -> AnyResponse:
    return jsonify(rest=rest, raw=request.environ["PATH_INFO"], path=request.path, url=request.url)


@flask.get("/environ")
def environ() -> AnyResponse:
    names = ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "SERVER_PROTOCOL", "REMOTE_ADDR", "CONTENT_TYPE", "HTTP_HOST")
    return jsonify({name: request.environ.get(name) for name in names} | {"scheme": request.environ["wsgi.url_scheme"]})


@flask.get("/headers")
def headers() -> AnyResponse:
    return jsonify(
        {name: value for name, value in request.headers if name.startswith("X-") and "Forwarded" not in name}
    )


@flask.post("/form")
def form() -> AnyResponse:
    files = {
        name: [one.filename, one.content_type, hashlib.sha256(one.read()).hexdigest()]
        for name, one in request.files.items()
    }
    return jsonify(form=request.form.to_dict(flat=False), files=files)


@flask.post("/json")
def json() -> AnyResponse:
    return jsonify(got=request.get_json())


@flask.post("/digest")
def digest() -> AnyResponse:
    size, sha = 0, hashlib.sha256()
    while piece := request.stream.read(10_000):
        size += len(piece)
        sha.update(piece)
    return jsonify(size=size, sha=sha.hexdigest())


@flask.post("/unread")
def unread() -> str:
    return "not read"


@flask.post("/login")
def login() -> AnyResponse:
    session["user"] = request.form["user"]
    return redirect(url_for("whoami"))


@flask.get("/whoami")
def whoami() -> str:
    session["visits"] = session.get("visits", 0) + 1
    return f"{session.get('user')} {session['visits']}"


@flask.get("/logout")
def logout() -> AnyResponse:
    session.clear()
    return redirect(url_for("index", _external=True), 303)


@flask.get("/folder/")
def folder() -> str:
    return "a folder"


@flask.get("/stream")
def stream() -> Response:
    def produce() -> Iterator[str]:
        for i in range(5):
            yield f"line {i}\n"

    return Response(produce(), mimetype="text/plain")


ended = Ledger()


@flask.get("/endless")
def endless() -> Response:
    def produce() -> Iterator[str]:
        try:
            for i in count():
                yield f"line {i}\n"
                sleep(0.01)
        finally:
            ended.append(1)

    return Response(produce(), mimetype="text/plain")


@flask.get("/ended")
def how_many_ended() -> str:
    return str(len(ended.read()))


@flask.get("/sized-stream")
def sized_stream() -> Response:
    return Response((b"x" * 1000 for _ in range(1000)), headers={"Content-Length": "1000000"})


@flask.get("/empty")
def empty() -> tuple[str, int]:
    return "", 204


@flask.get("/cookies")
def cookies() -> Response:
    response = Response("yum")
    response.set_cookie("one", "a b", httponly=True)
    response.set_cookie("two", "ä", path="/args", max_age=60, samesite="Strict")
    response.delete_cookie("three")
    return response


@flask.get("/teapot")
def teapot() -> str:
    abort(418)


@flask.get("/boom")
def boom() -> str:
    raise RuntimeError("on purpose")


def application(environ: dict[str, Any], start_response: Callable[..., Callable[[bytes], object]]) -> Iterable[bytes]:
    """The Flask application, and one page that uses what few still do: write()."""
    if environ["PATH_INFO"] == "/write":
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"written, ")
        write(b"twice, ")
        return [b"and ", b"returned\n"]
    return flask(environ, start_response)


app = App()
app.mount("/", wsgi=application)
