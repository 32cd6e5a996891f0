"""URLs that somebody else may have written, read by one strict grammar.

A URL that two parsers read differently is how a request comes to reach what was meant to be out of
reach. So this reads a part of RFC 3986 and refuses all the rest: what it returns is used, and the
text is never given to another parser.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from m2gate.errors import UrlRefused

URL_MAX: Final = 8_192  # characters
PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^#]*)(?:#.*)?", re.DOTALL)
_AUTHORITY: Final = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(?::([^:]*))?")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_TARGET: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")
_NUMERIC: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
HOST_MAX: Final = 253

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Url:
    """The parts of a URL, each in one spelling only.

    scheme: http, https, ws or wss.
    host:   a name of A-labels in lower case without a dot at its end, or an address without brackets.
    port:   that of the scheme if none is given.
    target: path and query as they are sent, beginning with ``/``.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def address(self) -> Address | None:
        """The host, where it is an address and no name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.target}"


def parse_url(text: str) -> Url:
    """Return the parts of a URL. Raises UrlRefused, rule ``syntax``, for every odd spelling."""
    if len(text) > URL_MAX:
        raise _refuse(f"it has more than {URL_MAX:,} characters")
    odd = next((char for char in text if char <= " " or char in "\x7f\\"), None)
    if odd is not None:
        raise _refuse(f"{odd!r} has no place in a URL; write it as %{ord(odd):02X}")
    found = _URL.fullmatch(text)
    if found is None:
        raise _refuse("a URL begins with http://, https://, ws:// or wss:// and a host")
    scheme, authority, rest = found[1].lower(), found[2], found[3]
    if scheme not in PORTS:
        raise _refuse(f"the scheme {scheme!r} is none of {', '.join(PORTS)}")
    if "@" in authority:
        raise _refuse("user names and passwords have no place in a URL; send an Authorization header")
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None or not parts[1]:
        raise _refuse("host and port are written host:port, an IPv6 address in brackets")
    port = _port(parts[2], scheme)
    target = rest if rest.startswith("/") else f"/{rest}"
    if _TARGET.fullmatch(target) is None:
        raise _refuse("path and query have a character that must be percent-encoded")
    return Url(scheme, _host(parts[1]), port, target)


def _port(text: str | None, scheme: str) -> int:
    if text is None:
        return PORTS[scheme]
    if _PORT.fullmatch(text) is None or int(text) > 65_535:
        raise _refuse("a port is a whole number from 1 to 65535, without zeros before it")
    return int(text)


def _host(text: str) -> str:
    if text.startswith("["):
        try:
            return str(ipaddress.IPv6Address(_no_zone(text[1:-1])))
        except ValueError as error:
            raise _refuse("what stands in brackets is no IPv6 address") from error
    name = _ascii(text).lower()
    name = name.removesuffix(".")
    labels = name.split(".")
    # The system's resolver takes 127.1, 0x7f000001, 017700000001 and 2130706433 for addresses.
    if _NUMERIC.fullmatch(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(name))
        except ValueError as error:
            raise _refuse("an IPv4 address is four decimal numbers from 0 to 255, without zeros before them") from error
    if len(name) > HOST_MAX or not all(_LABEL.fullmatch(label) for label in labels):
        raise _refuse("this is no host name")
    return name


def _no_zone(text: str) -> str:
    if "%" in text:
        raise ValueError("a zone")
    return text


def _ascii(text: str) -> str:
    if text.isascii():
        return text
    try:
        return text.encode("idna").decode("ascii")  # maps look-alikes of "localhost" to it, before names are judged
    except UnicodeError as error:
        raise _refuse("this is no international host name") from error


def _refuse(reason: str) -> UrlRefused:
    return UrlRefused("syntax", reason)
