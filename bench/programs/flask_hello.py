"""The same route for gunicorn."""

from flask import Flask, Response

app = Flask("hello")


@app.get("/hello/<name>")
def hello(name: str) -> Response:
    """Answer at once."""
    return Response(f"Hello {name}\n", mimetype="text/plain")
