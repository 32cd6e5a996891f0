"""The plain answer to what went wrong: status, reason, detail, and an id to quote."""

from m2gate.app.response import Response
from m2gate.errors import HTTPError
from m2gate.wire.http import REASONS


def error_response(error: HTTPError, request_id: str = "") -> Response:
    """Build the response of an HTTPError: its detail as it is, without one the reason phrase.

    request_id: for errors that the log has more about.
    """
    text = error.detail or f"{REASONS.get(error.status, 'Error')}\n"
    headers = list(error.headers)
    if request_id:
        text += f"request id: {request_id}\n"
        headers.append(("X-Request-Id", request_id))
    return Response(text, error.status, headers)
