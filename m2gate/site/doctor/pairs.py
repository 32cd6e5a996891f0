"""Certificates: what Mongrel2 would silently replace by its default pair, and what clients would refuse."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from m2gate.errors import ConfigError
from m2gate.site.certificates import DEFAULT_NAME, find_stem, read_pair
from m2gate.site.doctor.facts import Facts, Identity, ServerRow, is_closed
from m2gate.site.doctor.finding import Finding, finding
from m2gate.site.inventory import ListedPair, describe_mode, list_missing, list_pairs
from m2gate.site.model import Site

SOON_DAYS: Final = 14  # certbot renews 30 days before the end: with less something has failed for long
SHOWN_MAX: Final = 50
SHOWN_S: Final = 3.0
HUP: Final = "then: systemctl reload 'm2gate-mongrel2@*'"


def check_pairs(facts: Facts) -> Iterator[Finding]:
    """Each pair of the folder, and the hosts that have none."""
    certs = facts.places.certs
    if not certs.is_dir() or is_closed(certs):
        return
    try:
        pairs = list_pairs(certs, facts.sites)
        missing = list_missing(certs, facts.sites)
    except ConfigError as error:
        yield finding("certificates", error.key, error.problem, error.remedy)
        return
    for pair in pairs:
        yield from _check_pair(pair, facts)
    for one in missing:
        what = f"there is no pair for {one.host} of site {one.site}: clients get the default pair and refuse it"
        yield finding(
            "pair-missing", certs, what, f"m2gate cert hook enable, or put NAME.crt and NAME.key there, {HUP}"
        )
    yield from _check_defaults(facts, {pair.stem for pair in pairs})


def _check_defaults(facts: Facts, stems: set[str]) -> Iterator[Finding]:
    for server in facts.database.servers if facts.database else ():
        if server.use_ssl and server.uuid not in stems:
            what = f"the default pair {server.uuid}.crt and .key is missing: the server does not start"
            yield finding("default-pair", facts.places.certs, what, "m2gate config apply")


def check_shown(facts: Facts) -> Iterator[Finding]:
    """Running servers that show another certificate than the file has, of the first SHOWN_MAX names of each."""
    running = facts.running()
    for server in facts.wanted:
        if not server.use_ssl or server.uuid not in running:
            continue
        hosts = [host for site in facts.sites if server.uuid in _server_ids(site) for host in site.hosts]
        for host in hosts[:SHOWN_MAX]:
            yield from _check_host(facts, server, host)


def _server_ids(site: Site) -> set[str]:
    return {listen.server_id for listen in site.listen}


def _check_host(facts: Facts, server: ServerRow, host: str) -> Iterator[Finding]:
    certs = facts.places.certs
    stem = find_stem(host, {file.stem for file in certs.glob("*.crt")})
    shown = _shown(server, host.replace("*", "m2gate-doctor")) if stem else None
    if stem is None or shown is None or shown == _first(certs / f"{stem}.crt"):
        return
    try:
        read_pair(certs, stem, "doctor")
    except ConfigError:
        return  # why the default pair is shown stands in another finding
    unit = f"m2gate-mongrel2@{server.uuid}"
    what = f"{server.uuid} shows another certificate for {host} than this file has"
    yield finding("pair-stale", certs / f"{stem}.crt", what, f"systemctl reload {unit}; if that does not help: restart")


def _shown(server: ServerRow, name: str) -> bytes | None:
    """Return the certificate, DER, that a server shows; None if it does not answer."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to ask, not where to listen
    address = everywhere.get(server.bind_addr, server.bind_addr)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((address, server.port), timeout=SHOWN_S) as plain,
            context.wrap_socket(plain, server_hostname=name) as secure,
        ):
            return secure.getpeercert(binary_form=True)
    except OSError:
        return None


def _first(certificate: Path) -> bytes | None:
    """Return the first certificate of a file, DER; None if there is none that can be read."""
    head, end, _ = certificate.read_text(errors="replace").partition("-----END CERTIFICATE-----")
    try:
        return ssl.PEM_cert_to_DER_cert(head[head.index("-----BEGIN CERTIFICATE-----") :] + end)
    except ValueError:
        return None


def _check_pair(pair: ListedPair, facts: Facts) -> Iterator[Finding]:
    if pair.problem:
        what = f"{pair.problem}; Mongrel2 shows its default pair instead, without a word"
        yield finding("pair-broken", pair.certificate, what, f"put the right files there, {HUP}")
        return
    yield from _check_key(pair, facts.mongrel2)
    if pair.is_default:
        yield from _check_default(pair)
        return
    yield from _check_dates(pair, facts.now_s)
    if pair.leaf is not None and not pair.leaf.covers(pair.name):
        what = f"clients that ask for {pair.name} get a certificate for {', '.join(pair.leaf.names) or 'no name'}"
        yield finding("pair-name", pair.certificate, what, f"rename the files, or get the right certificate, {HUP}")
    if pair.chain not in ("complete", "self-signed", "unknown"):
        remedy = "append the intermediate certificates of the authority; if it is your own, let this machine know it"
        yield finding("pair-chain", pair.certificate, pair.chain, f"{remedy}, {HUP}")


def _check_default(pair: ListedPair) -> Iterator[Finding]:
    if pair.leaf is not None and pair.leaf.names != (DEFAULT_NAME,):
        names = ", ".join(pair.leaf.names)
        what = f"the default pair of a server has the name {names}: Mongrel2 never reads it again, so it will expire"
        remedy = (
            f"give {names} a pair of its own, remove {pair.certificate} and {pair.key}, m2gate config apply --restart"
        )
        yield finding("default-pair", pair.certificate, what, remedy)


def _check_dates(pair: ListedPair, now_s: float) -> Iterator[Finding]:
    if pair.leaf is None:
        return
    days = pair.days_left(now_s)
    if pair.leaf.begins_s > now_s:
        yield finding("pair-early", pair.certificate, "it is not valid yet", "wait, or correct this machine's clock")
    elif pair.leaf.expires_s <= now_s:
        yield finding("pair-expired", pair.certificate, "it has expired", f"renew it: certbot renew, {HUP}")
    elif days is not None and days < SOON_DAYS:
        yield finding("pair-expires", pair.certificate, f"it expires in {days} days", "renew it: certbot renew, " + HUP)


def _check_key(pair: ListedPair, user: Identity | None) -> Iterator[Finding]:
    status = pair.key.stat()
    if status.st_mode & 0o007:
        what = f"everybody may read this key: {describe_mode(pair.key)}"
        yield finding("key-mode", pair.key, what, f"chmod 640 {pair.key}")
    for file in (pair.certificate, pair.key):
        if user is not None and not user.may(file.stat(), 4):
            what = f"{user.name}, who runs Mongrel2, may not read it: {describe_mode(file)}"
            yield finding("key-mode", file, what, f"chgrp m2gate-www {file}; chmod 640 {file}; {HUP}")
