"""Hello: routes, parameters, JSON and errors.

A handler is a function, and what it returns is the answer.

What stands in braces in its path comes as an argument. Text is sent as text, a dict as JSON, and an ``HTTPError``
raised anywhere becomes the response.
"""

from typing import Any

from _page import html_page

from m2gate import App, HTTPError, Request, Response

app = App()


@app.get("/")
def page(request: Request) -> Response:
    return html_page(__file__)


@app.get("/greet/{name}")
def greet(request: Request, name: str) -> str:
    greeting = request.query.get("greeting", "Hello")
    return f"{greeting} {name}\n"


@app.get("/square/{n:int}")
def square(request: Request, n: int) -> dict[str, int]:
    return {"n": n, "square": n * n}


@app.post("/echo")
def echo(request: Request) -> dict[str, Any]:
    return {"you_sent": request.json, "from": request.client}


@app.get("/tea")
def tea(request: Request) -> str:
    raise HTTPError(418, "short and stout")
