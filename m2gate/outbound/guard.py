"""The guard of requests that leave: a URL is judged, resolved, and every address judged before anything is sent.

Whoever connects does so to one of the addresses that were judged, never to the name again: the next
answer may be another one. Each redirect is a new URL.
"""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from m2gate.errors import UrlRefused
from m2gate.outbound.policy import Policy
from m2gate.outbound.url import Address, Url, parse_url

ADDRESSES_MAX: Final = 16  # of one name; the rest of an answer is neither judged nor used

Resolver = Callable[[str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Step:
    """One rule that was looked at, and what it said. rule: syntax, policy, name, resolve or address."""

    rule: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the guard says of a URL, and why.

    url:       its parts; None if it is refused.
    addresses: the judged ones in the resolver's order; empty if it is refused.
    steps:     the rules in their order; the last one has decided.
    """

    url: Url | None
    addresses: tuple[Address, ...]
    steps: tuple[Step, ...]

    @property
    def is_allowed(self) -> bool:
        """True if a request may be sent to one of ``addresses``."""
        return self.url is not None


def resolve_by_system(host: str) -> list[str]:
    """Return the addresses of a name, as the system resolves it. Raises OSError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Guard:
    """Judges URLs by a policy.

    resolve: returns the addresses of a name, or raises OSError; called once for each URL at most, and
             only for names that the policy takes.
    """

    def __init__(self, policy: Policy | None = None, resolve: Resolver = resolve_by_system) -> None:
        self._policy = policy or Policy()
        self._resolve = resolve

    def check(self, text: str) -> tuple[Url, tuple[Address, ...]]:
        """Return the parts of a URL and the addresses that may be connected to. Raises UrlRefused."""
        return self._judge(text, [])

    def check_peer(self, address: str) -> None:
        """Judge the address that a socket is connected to. Raises UrlRefused."""
        reason = self._policy.refusal_of_address(ipaddress.ip_address(address))
        if reason:
            raise UrlRefused("address", f"{address}: {reason}")

    def examine(self, text: str) -> Decision:
        """Judge a URL and say why; never raises for what it refuses."""
        steps: list[Step] = []
        try:
            url, addresses = self._judge(text, steps)
        except UrlRefused as refusal:
            steps.append(Step(refusal.rule, refusal.reason))
            return Decision(url=None, addresses=(), steps=tuple(steps))
        return Decision(url=url, addresses=addresses, steps=tuple(steps))

    def _judge(self, text: str, steps: list[Step]) -> tuple[Url, tuple[Address, ...]]:
        url = parse_url(text)
        steps.append(Step("syntax", f"{url.scheme}, host {url.host}, port {url.port}, target {url.target}"))
        self._judge_url(url, steps)
        addresses = self._addresses(url, steps)
        self._judge_addresses(addresses, steps)
        return url, addresses

    def _judge_url(self, url: Url, steps: list[Step]) -> None:
        reason = self._policy.refusal_of_url(url)
        if reason:
            raise UrlRefused("policy", reason)
        steps.append(Step("policy", "scheme and port are allowed"))
        if url.address is not None:
            return
        reason = self._policy.refusal_of_name(url.host)
        if reason:
            raise UrlRefused("name", reason)
        steps.append(Step("name", f"nothing is known against {url.host}"))

    def _addresses(self, url: Url, steps: list[Step]) -> tuple[Address, ...]:
        if url.address is not None:
            return (url.address,)
        try:
            found = [ipaddress.ip_address(one) for one in self._resolve(url.host)]
        except (OSError, UnicodeError, ValueError) as error:
            raise UrlRefused("resolve", f"{url.host} cannot be resolved: {error}", may_pass_later=True) from error
        if not found:
            raise UrlRefused("resolve", f"{url.host} has no address", may_pass_later=True)
        steps.append(Step("resolve", ", ".join(map(str, found))))
        return tuple(found[:ADDRESSES_MAX])

    def _judge_addresses(self, addresses: Sequence[Address], steps: list[Step]) -> None:
        # One that is refused among others that are not is an attack or a mistake: none is used then.
        for address in addresses:
            reason = self._policy.refusal_of_address(address)
            if reason:
                raise UrlRefused("address", f"{address}: {reason}")
        steps.append(Step("address", f"{', '.join(map(str, addresses))} may be reached"))
