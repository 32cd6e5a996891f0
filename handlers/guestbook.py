"""A guest book in Flask, mounted.

Flask knows nothing of Mongrel2, and nothing is changed for it.

A form, a session in a signed cookie, a message for the next page, and a redirect after each post. Any other WSGI
application is mounted just so.
"""

import secrets
from collections import deque
from typing import Final

from _page import PAGES, frame
from flask import Flask, Response, abort, flash, redirect, render_template_string, request, session, url_for
from flask.typing import ResponseReturnValue

from m2gate import App

KEPT: Final = 50  # entries; older ones are forgotten
NAME_MAX: Final = 40
TEXT_MAX: Final = 500

site = Flask(__name__)
site.config.update(SESSION_COOKIE_NAME="guestbook", SESSION_COOKIE_SAMESITE="Lax", MAX_CONTENT_LENGTH=65_536)
site.secret_key = secrets.token_bytes()  # sessions end with the worker, as the entries do
entries: deque[tuple[str, str]] = deque(maxlen=KEPT)


@site.get("/")
def show() -> Response:
    body = render_template_string((PAGES / "guestbook.html").read_text(), entries=entries)
    document, policy = frame(__file__, body)
    return Response(document, headers={"Content-Security-Policy": policy})


@site.post("/enter")
def enter() -> ResponseReturnValue:
    session["name"] = field("name", NAME_MAX)
    flash(f"Welcome, {session['name']}.")
    return back()


@site.post("/sign")
def sign() -> ResponseReturnValue:
    if "name" not in session:
        abort(403, "say who you are first")
    entries.appendleft((session["name"], field("text", TEXT_MAX)))
    flash("Thank you for signing.")
    return back()


@site.post("/leave")
def leave() -> ResponseReturnValue:
    session.clear()
    return back()


def field(name: str, longest: int) -> str:
    value = request.form.get(name, "").strip()
    if not 0 < len(value) <= longest:
        abort(400, f"{name}: 1 to {longest} characters")
    return value


def back() -> ResponseReturnValue:
    return redirect(url_for("show"), 303)


app = App()
app.mount("/", wsgi=site)
