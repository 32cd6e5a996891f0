"""Certificates: what Mongrel2 would silently replace by its default pair, and what clients would refuse."""

from collections.abc import Iterator
from typing import Final

from m2gate.errors import ConfigError
from m2gate.site.certificates import DEFAULT_NAME
from m2gate.site.doctor.facts import Facts, Identity, is_closed
from m2gate.site.doctor.finding import Finding, finding
from m2gate.site.inventory import ListedPair, describe_mode, list_missing, list_pairs

SOON_DAYS: Final = 14  # certbot renews 30 days before the end: with less something has failed for long
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
