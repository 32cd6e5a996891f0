"""The exceptions of the public contract; each class says who must act.

M2GateError
+-- ConfigError        the operator: a setting cannot work
+-- WireError          nobody: a peer's bytes break a rule, that message is dropped
+-- LimitReached       the client: a documented bound was hit
+-- ConnectionGone     nobody: the client left
+-- UrlRefused         whoever wrote the URL, or the operator: a request must not go there
+-- BackendError       the backend's operator
+-- HTTPError          nobody: a handler answers so
"""

from collections.abc import Iterable, Mapping

HeaderItems = Mapping[str, str] | Iterable[tuple[str, str]]


class M2GateError(Exception):
    """Base class of everything m2gate raises on purpose."""


class ConfigError(M2GateError):
    """A setting that cannot work; reported as one line, exit status 2, before anything starts.

    source: the file, or FILE:LINE, that has it; ``""`` where the key says enough, as an option does.
    """

    def __init__(self, key: str, value: object, problem: str, remedy: str, source: str = "") -> None:
        place = f"{source}: " if source not in ("", key) else ""
        super().__init__(f"{place}{key} = {value!r}: {problem}; {remedy}")
        self.key = key
        self.value = value
        self.problem = problem
        self.remedy = remedy
        self.source = source


class WireError(M2GateError):
    """A peer's bytes break a rule of the protocol; only that message is lost.

    rule:  the rule that was broken, as a sentence without the offending bytes.
    at:    byte offset in the frame where it was noticed.
    frame: the offending bytes.
    """

    def __init__(self, rule: str, at: int, frame: bytes) -> None:
        super().__init__(f"{rule} (at byte {at} of {len(frame)})")
        self.rule = rule
        self.at = at
        self.frame = frame


class LimitReached(M2GateError):
    """A documented bound was hit; ``key`` names the setting, ``limit`` its value."""

    def __init__(self, limit: int, value: int, key: str) -> None:
        super().__init__(f"{key}: {value} is over the limit of {limit}")
        self.limit = limit
        self.value = value
        self.key = key


class ConnectionGone(M2GateError):
    """The client of this connection has left; nothing more can be read or written."""

    def __init__(self, send_ident: str, conn_id: int) -> None:
        super().__init__(f"client has left: send_ident={send_ident} conn_id={conn_id}")
        self.send_ident = send_ident
        self.conn_id = conn_id


class UrlRefused(M2GateError):
    """A request must not go to this URL; nothing was sent.

    rule:           syntax, policy, name, resolve or address: what has refused it.
    may_pass_later: it could not be resolved now.
    """

    def __init__(self, rule: str, reason: str, *, may_pass_later: bool = False) -> None:
        super().__init__(f"{rule}: {reason}")
        self.rule = rule
        self.reason = reason
        self.may_pass_later = may_pass_later


class BackendError(M2GateError):
    """A backend, or the program that talks to it, failed; ``condition`` is its word for it."""

    def __init__(self, condition: str) -> None:
        super().__init__(condition)
        self.condition = condition


class HTTPError(M2GateError):
    """Raise it anywhere in a handler: it becomes the response.

    status:  100 to 599.
    detail:  the body, as text; ``""`` takes the reason phrase of the status.
    headers: further headers of the response, a mapping or pairs.
    Raises ValueError for a status outside 100..599.
    """

    def __init__(self, status: int, detail: str = "", headers: HeaderItems | None = None) -> None:
        if not 100 <= status <= 599:
            raise ValueError(f"status {status!r}: an HTTP status is a number from 100 to 599")
        super().__init__(f"{status} {detail}".rstrip())
        self.status = status
        self.detail = detail
        self.headers: list[tuple[str, str]] = list(headers.items() if isinstance(headers, Mapping) else headers or ())
