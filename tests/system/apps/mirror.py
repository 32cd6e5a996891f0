"""An App that shows a request as its handler sees it."""

from typing import Any

from m2gate import App, Request

app = App()


@app.route("/mirror/{first}/{rest:path}", methods=["GET", "POST"])
def mirror(request: Request, first: str, rest: str) -> dict[str, Any]:
    return {
        "method": request.method,
        "first": first,
        "rest": rest,
        "path": request.path,
        "raw_path": request.raw_path,
        "query_string": request.query_string.decode("latin-1"),
        "query": list(request.query.items(multi=True)),
        "headers": [[name.lower(), value] for name, value in request.headers.items()],
        "cookies": request.cookies.to_dict(),
        "host": request.host,
        "url": request.url,
        "scheme": request.scheme,
        "client": request.client,
        "http_version": request.http_version,
        "server": request.server,
        "connected": request.connected,
        "body": request.body.decode("latin-1"),
    }


@app.get("/unicode")
def unicode(_request: Request) -> str:
    return "gr\u00fc\u00dfe \u2603 \U0001f600"


@app.get("/large")
def large(_request: Request) -> str:
    return "x" * 300_000
