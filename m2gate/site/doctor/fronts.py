"""Proxies in front that buffer what should stream, and zurl's policy behind."""

import ipaddress
import re
from collections.abc import Iterator
from typing import Final

from m2gate.site.doctor.facts import Facts
from m2gate.site.doctor.finding import Finding, finding
from m2gate.site.doctor.nginx import Passed, find_passes, find_upstreams, parse

# Where these are on, which is their default, nginx buffers.
BUFFERS: Final = {
    "proxy_buffering": "responses: it takes whatever a handler sends, up to its disk, however slow the client is",
    "proxy_request_buffering": "uploads: a handler sees nothing before the last byte",
}

# What an outgoing request must not reach, beside what Debian's zurl.conf denies.
PRIVATE: Final = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
)


_ADDRESS: Final = re.compile(r"(\[[^]]*\]|[^:]*)(?::(\d+))?")


def check_nginx(facts: Facts) -> Iterator[Finding]:
    """An nginx in front of one of our ports buffers."""
    folder = facts.places.root / "etc/nginx"
    directives = parse(folder / "nginx.conf", folder, facts.places.root)
    upstreams = find_upstreams(directives)
    for one in find_passes(directives):
        if not _ports(one, upstreams) & facts.ports:
            continue
        for directive, what in BUFFERS.items():
            if one.settings.get(directive) != ("off",):
                where = f"{one.file}:{one.line}"
                yield finding("front-buffers", where, f"nginx buffers {what}", f"add there: {directive} off;")


def _ports(one: Passed, upstreams: dict[str, list[str]]) -> set[int]:
    """Return the ports of this machine to which a proxy_pass leads."""
    address = re.match(r"(https?)://([^/$]+)", one.url)
    if address is None:
        return set()
    ports = set()
    for server in upstreams.get(address[2], [address[2]]):
        match = _ADDRESS.fullmatch(server)
        if match is not None and _is_here(match[1].strip("[]")):
            ports.add(int(match[2] or (443 if address[1] == "https" else 80)))
    return ports


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_haproxy(facts: Facts) -> Iterator[Finding]:
    """An haproxy in front of one of our ports waits for whole requests, or cuts quiet streams."""
    file = facts.places.root / "etc/haproxy/haproxy.cfg"
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    sections = _sections(lines)
    for kind, body in sections:
        if kind not in ("backend", "listen") or not any(_server_port(words) in facts.ports for _, words in body):
            continue
        defaults = [line for other, others in sections if other == "defaults" for line in others]
        for at, words in [*defaults, *body]:
            if words[:2] == ["option", "http-buffer-request"]:
                what = f"haproxy buffers {BUFFERS['proxy_request_buffering']}"
                yield finding("front-buffers", f"{file}:{at}", what, "remove this line for this backend")


def _sections(lines: list[str]) -> list[tuple[str, list[tuple[int, list[str]]]]]:
    sections: list[tuple[str, list[tuple[int, list[str]]]]] = []
    for at, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if words and not line[0].isspace():
            sections.append((words[0], []))
        elif words and sections:
            sections[-1][1].append((at, words))
    return sections


def _server_port(words: list[str]) -> int | None:
    if words[0] != "server" or len(words) < 3:
        return None
    host, _, port = words[2].rpartition(":")
    return int(port) if port.isdecimal() and _is_here(host.strip("[]")) else None


def check_zurl(facts: Facts) -> Iterator[Finding]:
    """The installed zurl would fetch from this machine and its neighbours for whoever asks."""
    file = facts.places.root / "etc/zurl.conf"
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    settings = dict(re.findall(r"^[ \t]*(\w+)[ \t]*=[ \t]*(.*?)[ \t]*$", text, re.MULTILINE))
    denied = [one.strip() for one in settings.get("deny", "").split(",") if one.strip()]
    if settings.get("defpolicy", "allow") == "allow":
        open_ones = [network for network in PRIVATE if not _is_denied(network, denied)]
        if open_ones:
            what = f"outgoing requests may reach {', '.join(open_ones)}; 0.0.0.0 is this machine"
            yield finding("zurl-policy", file, what, f"deny={','.join([*PRIVATE, '*.local'])}")
        if settings.get("allow_ipv6", "false") == "true" and not any(":" in one for one in denied):
            what = "allow_ipv6 is on and deny has no IPv6 address: outgoing requests may reach [::1]"
            yield finding("zurl-policy", file, what, "allow_ipv6=false")
    mode = settings.get("ipc_file_mode", "")
    if re.fullmatch(r"0?[0-7]{3}", mode) and int(mode, 8) & 0o007:
        what = f"ipc_file_mode={mode}: everybody here may send requests, and ask it to ignore its policy"
        yield finding("zurl-policy", file, what, "ipc_file_mode=660")


def _is_denied(network: str, denied: list[str]) -> bool:
    wanted = ipaddress.ip_network(network)
    for one in denied:
        if one.endswith(".*"):  # zurl's own form: 127.* is 127.0.0.0/8
            parts = one.removesuffix(".*").split(".")
            one = ".".join([*parts, *["0"] * (4 - len(parts))]) + f"/{8 * len(parts)}"  # noqa: PLW2901 - the same in the other form
        try:
            given = ipaddress.ip_network(one, strict=False)
        except ValueError:
            continue
        if given.version == wanted.version and wanted.subnet_of(given):  # type: ignore[arg-type]  # of one version
            return True
    return False
