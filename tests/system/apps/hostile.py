"""An App that does with a client's data what careless handlers do."""

from typing import Any

from m2gate import App, Request, Response

app = App(max_memory=1 << 20)


@app.route("/echo/{rest:path}", methods=["GET", "POST", "PUT", "DELETE"])
def echo(request: Request, rest: str) -> dict[str, Any]:
    return {
        "rest": rest,
        "query": request.query.to_dict(flat=False),
        "cookies": request.cookies.to_dict(),
        "headers": sorted({name.lower() for name, _ in request.headers.items()}),
        "size": len(request.body),
        "client": request.client,
    }


@app.get("/header")
def header(request: Request) -> Response:
    return Response("ok", headers={"X-Echo": request.query["v"]})


@app.get("/name")
def header_name(request: Request) -> Response:
    return Response("ok", headers={request.query["v"]: "x"})


@app.get("/cookie")
def cookie(request: Request) -> Response:
    response = Response("ok")
    response.set_cookie("c", request.query["v"])
    return response


@app.get("/redirect")
def redirect(request: Request) -> Response:
    return Response.redirect(request.query["v"])


@app.get("/status")
def status(request: Request) -> tuple[str, int]:
    return "ok", int(request.query["v"])


@app.get("/type")
def content_type(request: Request) -> Response:
    return Response("ok", content_type=request.query["v"])


@app.post("/json")
def json_body(request: Request) -> str:
    return type(request.json).__name__


@app.post("/form")
def form(request: Request) -> dict[str, int]:
    return {"fields": len(request.form), "files": len(request.files)}


@app.get("/int/{n:int}")
def number(_request: Request, n: int) -> str:
    return str(n)


@app.get("/ok")
def ok(_request: Request) -> str:
    return "ok"
