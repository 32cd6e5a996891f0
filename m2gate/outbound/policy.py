"""Which names, ports and addresses requests may go to: public ones, unless the operator says otherwise."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from m2gate.errors import ConfigError
from m2gate.outbound.url import PORTS, Address, Url

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# IANA's special-purpose registries, and multicast. Not ipaddress.is_global: what it says differs from one
# version of Python to the next, and is True for multicast, NAT64 and site-local addresses.
REFUSED_V4: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
    )
)
PUBLIC_V6: Final = ipaddress.IPv6Network("2000::/3")  # mapped, NAT64, site-local and multicast lie outside
REFUSED_V6: Final = tuple(
    ipaddress.IPv6Network(text)
    for text in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
# Names that never belong to a public host (RFC 6761, 6762, 7686, 8375, 9476; clusters' .svc).
INSIDE: Final = (
    "localhost",
    "localhost.localdomain",
    "local",
    "internal",
    "home.arpa",
    "onion",
    "test",
    "invalid",
    "example",
    "in-addr.arpa",
    "ip6.arpa",
    "svc",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the operator allows and denies; nothing in a request changes it.

    What is denied stays so even if it is also allowed.

    schemes:        of http, https, ws and wss.
    allow_ports:    the only ones; empty for any.
    deny_ports:     never.
    allow_hosts:    names that are taken although they look like inside, ``*.NAME`` for all below one; their
                    addresses are judged all the same.
    deny_hosts:     names that are refused, likewise.
    allow_networks: addresses that are taken although they are not public.
    deny_networks:  addresses that are refused although they are, such as the machine's own.
    """

    schemes: frozenset[str] = frozenset(PORTS)
    allow_ports: frozenset[int] = frozenset()
    deny_ports: frozenset[int] = frozenset()
    allow_hosts: tuple[str, ...] = ()
    deny_hosts: tuple[str, ...] = ()
    allow_networks: tuple[Network, ...] = ()
    deny_networks: tuple[Network, ...] = ()

    def refusal_of_url(self, url: Url) -> str:
        """Return why scheme and port are refused; "" if they are not."""
        if url.scheme not in self.schemes:
            return f"the scheme {url.scheme} is not among those that are allowed"
        if url.port in self.deny_ports:
            return f"port {url.port} is denied"
        if self.allow_ports and url.port not in self.allow_ports:
            return f"port {url.port} is not among those that are allowed"
        return ""

    def refusal_of_name(self, name: str) -> str:
        """Return why a host name is refused before it is resolved; "" if it is not."""
        denied = _matching(name, self.deny_hosts)
        if denied:
            return f"{denied} is denied"
        if _matching(name, self.allow_hosts):
            return ""
        if "." not in name:
            return "a name without a dot is one of the local network"
        inside = next((one for one in INSIDE if name == one or name.endswith(f".{one}")), "")
        if inside:
            return f"names of {inside} are not public"
        return "such a name is one of this machine" if name.startswith("ip6-") else ""

    def refusal_of_address(self, address: Address) -> str:
        """Return why an address is refused; "" if it is not."""
        for network in self.deny_networks:
            if address in network:
                return f"{network} is denied"
        if any(address in network for network in self.allow_networks):
            return ""
        if isinstance(address, ipaddress.IPv4Address):
            inside = next((network for network in REFUSED_V4 if address in network), None)
            return f"{inside} is not public" if inside else ""
        if address.scope_id is not None:
            return "an address with a zone is local"
        if address not in PUBLIC_V6:
            return f"only {PUBLIC_V6} is public"
        within = next((network for network in REFUSED_V6 if address in network), None)
        return f"{within} is not public" if within else ""


def _matching(name: str, patterns: Iterable[str]) -> str:
    for pattern in patterns:
        if name == pattern or (pattern.startswith("*.") and name.endswith(pattern[1:])):
            return pattern
    return ""


def parse_network(text: str, key: str) -> Network:
    """Return a network such as ``10.1.2.0/24``, or a single address. Raises ConfigError naming key."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        remedy = "write e.g. 10.1.2.0/24 or 2001:db8::/32, with zeros behind the prefix"
        raise ConfigError(key, text, "this is no network", remedy) from error
