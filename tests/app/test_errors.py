"""Errors of handlers, error handlers and hooks."""

from typing import Any

import gevent
import pytest

from m2gate import App, HTTPError, Request, Response, TestClient
from tests.app.test_response import TEXT, answer


@pytest.fixture
def app() -> App:
    app = App()

    @app.get("/refuse/{status:int}")
    def refuse(request: Request, status: int) -> None:
        raise HTTPError(status, "because", {"X-Why": "so"})

    @app.get("/broken")
    def broken(request: Request) -> None:
        raise KeyError("on purpose")

    app.get("/fine")(lambda request: "fine")
    return app


def test_http_error_becomes_the_response(app: App) -> None:
    with TestClient(app) as client:
        got = client.get("/refuse/409")
        assert (got.status, got.text, got.headers["X-Why"], got.headers["Content-Type"]) == (
            409,
            "because",
            "so",
            TEXT,
        )
        assert client.get("/refuse/599").status == 599
        assert client.get("/unknown").text == "Not Found\n"


def test_an_exception_is_500_with_a_request_id_that_the_log_has(app: App, caplog: pytest.LogCaptureFixture) -> None:
    with TestClient(app) as client:
        got = client.get("/broken")
        assert client.get("/fine").text == "fine"
    request_id = got.headers["X-Request-Id"]
    assert got.text == f"Internal Server Error\nrequest id: {request_id}\n"
    assert "on purpose" not in got.text
    record = caplog.records[-1]
    assert request_id in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError


@pytest.mark.parametrize(
    ("kind", "is_logged"), [(KeyError, False), (LookupError, False), (Exception, True), (500, True), (404, True)]
)
def test_what_an_error_handler_expects_is_not_logged(
    app: App, kind: int | type[BaseException], is_logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app.error(kind)(lambda request, error: ("handled", 400))
    with TestClient(app) as client:
        client.get("/broken")
    assert ["handler failed" in record.getMessage() for record in caplog.records] == [True] * is_logged


def type_name(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize("error", [SystemExit(1), gevent.Timeout(), gevent.GreenletExit()], ids=type_name)
def test_exceptions_of_other_kinds_are_500(error: BaseException) -> None:
    def fail() -> None:
        raise error

    assert answer(fail).status == 500


@pytest.mark.checklist("mongrel2", 27)
@pytest.mark.parametrize(
    ("detail", "headers"),
    [("\ud800", {}), ("x", {"X-A": "a\r\nX-B: b"}), ("x", {"X-A": "€"})],
    ids=["text", "crlf", "euro"],
)
def test_an_http_error_that_cannot_be_sent_is_500(detail: str, headers: dict[str, str]) -> None:
    def fail() -> None:
        raise HTTPError(403, detail, headers)

    got = answer(fail)
    assert (got.status, got.headers.get("X-B")) == (500, None)


@pytest.mark.parametrize("value", ["\ud800", {"a": "\ud800"}], ids=["str", "dict"])
def test_text_that_is_none_is_500(value: Any) -> None:
    assert answer(value).status == 500


def test_errors_of_json_sockets() -> None:
    app = App()

    @app.json_socket("@calc")
    def calc(request: Request) -> Any:
        match request.json:
            case "refuse":
                raise HTTPError(400, "no \ud800")
            case "fail":
                raise KeyError("on purpose")
            case "unsendable":
                return {"a": object()}
            case value:
                return {"twice": value * 2}

    with TestClient(app) as client:
        assert client.json_socket("@calc", 2) == {"twice": 4}
        assert client.json_socket("@calc", "refuse")["error"] == "no ?"
        assert client.json_socket("@calc", "fail")["error"] == "internal error"
        assert client.json_socket("@calc", "unsendable")["error"] == "internal error"
        assert client.json_socket("@other", 1)["error"] == "no JSON socket @other"


def test_a_missing_field_is_400(app: App) -> None:
    app.get("/query")(lambda request: request.query["page"])
    app.get("/header")(lambda request: request.headers["X-Key"])
    app.post("/form")(lambda request: request.form["name"])
    with TestClient(app) as client:
        assert (client.get("/query").status, client.get("/query").text) == (400, "'page' is missing")
        assert client.get("/header").text == "'X-Key' is missing"
        assert client.post("/form", data={"a": "b"}).text == "'name' is missing"
        app.error(400)(lambda request, error: (error.detail, 422))
        assert (client.get("/query").status, client.get("/query").text) == (422, "'page' is missing")


def test_error_handlers(app: App) -> None:
    app.error(409)(lambda request, error: ({"status": error.status}, 410))
    app.error(LookupError)(lambda request, error: (f"{type(error).__name__} {request.path}", 503))
    app.error(404)(lambda request, error: None)
    with TestClient(app) as client:
        assert (client.get("/refuse/409").status, client.get("/refuse/409").json) == (410, {"status": 409})
        assert client.get("/refuse/403").text == "because"
        assert (client.get("/broken").status, client.get("/broken").text) == (503, "KeyError /broken")
        assert client.get("/unknown").status == 204


def test_an_error_handler_that_fails_is_500(app: App) -> None:
    def fail(request: Request, error: Exception) -> None:
        raise RuntimeError("again")

    app.error(404)(fail)
    with TestClient(app) as client:
        assert client.get("/unknown").status == 500
        assert client.get("/fine").text == "fine"


def test_before_may_answer_and_after_sees_all(app: App) -> None:
    seen: list[tuple[str, int]] = []

    @app.before
    def guard(request: Request) -> Any:
        return ("stop", 401) if request.headers.get("X-Stop") else None

    @app.after
    def note(request: Request, response: Response) -> Response:
        seen.append((request.path, response.status))
        response.add_header("X-After", "yes")
        return response

    with TestClient(app) as client:
        assert client.get("/fine").headers["X-After"] == "yes"
        stopped = client.get("/fine", headers={"X-Stop": "1"})
        assert (stopped.status, stopped.text, stopped.headers["X-After"]) == (401, "stop", "yes")
        assert client.get("/unknown").headers["X-After"] == "yes"
    assert seen == [("/fine", 200), ("/fine", 401), ("/unknown", 404)]


def test_after_may_return_another_response(app: App) -> None:
    app.after(lambda request, response: Response("other", 299))
    with TestClient(app) as client:
        assert (client.get("/fine").status, client.get("/fine").text) == (299, "other")


def test_after_that_returns_nothing_is_500(app: App) -> None:
    app.after(lambda request, response: None)  # type: ignore[arg-type,return-value]
    with TestClient(app) as client:
        assert client.get("/fine").status == 500


@pytest.mark.parametrize("name", ["before", "after"])
def test_a_hook_that_fails_is_500(app: App, name: str) -> None:
    def fail(*arguments: Any) -> Any:
        raise RuntimeError("on purpose")

    getattr(app, name)(fail)
    with TestClient(app) as client:
        assert client.get("/fine").status == 500
