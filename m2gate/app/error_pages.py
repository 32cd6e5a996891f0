"""The plain answer to what went wrong: status, reason, detail, and an id to quote."""

from m2gate.app.response import Response
from m2gate.errors import HTTPError
from m2gate.wire.http import REASONS


def error_response(error: HTTPError, request_id: str = "") -> Response:
    """Build the response of an HTTPError; with request_id for errors that the log has more about."""
    lines = [error.detail or REASONS.get(error.status, "Error")]
    headers = list(error.headers)
    if request_id:
        lines.append(f"request id: {request_id}")
        headers.append(("X-Request-Id", request_id))
    return Response("\n".join(lines) + "\n", error.status, headers)
