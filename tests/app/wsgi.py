"""What the tests of the WSGI bridge have in common."""

from collections.abc import Callable, Iterable
from typing import Any

from m2gate import App, TestClient
from m2gate.app.client_side import TestResponse

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]
PLAIN = [("Content-Type", "text/plain")]


def mounted(application: Application, prefix: str = "/", **settings: Any) -> App:
    app = App(**settings)
    app.mount(prefix, wsgi=application)
    return app


def answer(application: Application, method: str = "GET", path: str = "/", **options: Any) -> TestResponse:
    with TestClient(mounted(application)) as client:
        return client.request(method, path, **options)
