"""The database that Mongrel2 reads: values that make it lose replies, cut streams or serve nothing."""

from collections.abc import Iterator
from typing import Final

from m2gate.site.doctor.facts import Database, Facts, ServerRow
from m2gate.site.doctor.finding import Finding, finding
from m2gate.site.inventory import describe_mode
from m2gate.site.settings import DEFAULTS

APPLY: Final = "m2gate config apply --restart"
KEEPALIVE_MARGIN_S: Final = 15
FDS_MIN: Final = 1_024

# What Mongrel2 takes where the database says nothing.
MONGREL2_DEFAULTS: Final = {
    "limits.kill_limit": 2,
    "limits.min_ping": 120,
    "limits.min_read_rate": 300,
    "limits.min_write_rate": 300,
    "superpoll.max_fd": 10_240,
}

# Settings that m2gate always writes, and what goes wrong with another value.
NEEDED: Final = {
    "server.daemonize": ("daemonize", "Mongrel2 leaves its supervisor, which takes it for ended"),
    "download.flow_control": ("flow-control", "a slow client is cut off at the 17th message that waits"),
    "upload.stream": ("upload-stream", "bodies over limits.content_length are refused, or held as a whole"),
    "limits.content_length": ("upload-buffer", "uploads of both kinds on one connection arrive damaged"),
    "superpoll.hot_dividend": ("hot-dividend", "the server answers 502 when thousands of requests wait"),
    "no_clobber_xff": (
        "forwarded-for",
        "X-Forwarded-For of a trusted proxy is overwritten with the proxy's own address",
    ),
}


def number(database: Database, key: str) -> int | None:
    """Return a setting as a number; None if the database has something else there."""
    text = database.settings.get(key)
    if text is None:
        return MONGREL2_DEFAULTS.get(key)
    return int(text) if text.isdecimal() else None


def check_file(facts: Facts) -> Iterator[Finding]:
    """The file is missing or broken, or others than root can write it: it names code that Mongrel2 loads."""
    file = facts.places.database
    if facts.database_error:
        yield finding("database", file, f"it cannot be read: {facts.database_error}", "m2gate config apply")
    elif facts.database is None:
        if facts.sites:
            yield finding(
                "database", file, "sites are enabled, but Mongrel2 has no configuration", "m2gate config apply"
            )
        return
    for place, remedy in ((file, f"chown root {file}; chmod 644 {file}"), (file.parent, f"chmod 755 {file.parent}")):
        status = place.stat()
        is_open = status.st_mode & 0o022
        user = facts.mongrel2
        if is_open or (facts.is_system and user is not None and status.st_uid == user.uid):
            who = "others than its owner" if is_open else f"{user.name if user else ''}, who runs Mongrel2,"
            what = f"{who} can write it ({describe_mode(place)}), and it names code that Mongrel2 loads"
            yield finding("database-writable", place, what, remedy)


def check_settings(facts: Facts) -> Iterator[Finding]:
    """Settings that m2gate always writes have other values."""
    if facts.database is None or not facts.database.servers:
        return
    for key, (name, what) in NEEDED.items():
        value = facts.database.settings.get(key)
        if value != str(DEFAULTS[key]):
            text = "is not set" if value is None else f"= {value}"
            yield finding(name, facts.places.database, f"{key} {text}: {what}", f"set it to {DEFAULTS[key]}: {APPLY}")


def check_ident(facts: Facts) -> Iterator[Finding]:
    """Subscriptions without the blank: a server takes what is meant for one whose name begins alike."""
    for handler in facts.database.handlers if facts.database else ():
        if handler.recv_ident != f"{handler.send_ident} ":
            what = (
                f"recv_ident = {handler.recv_ident!r} of {handler.send_ident}: without exactly one blank "
                "behind the name a server gets replies that are meant for others, or none at all"
            )
            yield finding("recv-ident", facts.places.database, what, APPLY)


def check_specs(facts: Facts) -> Iterator[Finding]:
    """Sockets for handlers that other machines can reach."""
    for handler in facts.database.handlers if facts.database else ():
        for spec in (handler.send_spec, handler.recv_spec):
            if spec.startswith("tcp://") and not spec.startswith(("tcp://127.", "tcp://[::1]")):
                what = f"{spec} of {handler.send_ident} can be reached from other machines, without a password"
                yield finding("handler-sockets", facts.places.database, what, APPLY)


def check_kill_limits(facts: Facts) -> Iterator[Finding]:
    """Mongrel2 would kill streams and WebSockets between two keep-alives."""
    if facts.database is None or not facts.database.servers:
        return
    ping = number(facts.database, "limits.min_ping") or 0
    rates = [bool(number(facts.database, f"limits.min_{kind}_rate")) for kind in ("read", "write")]
    limit = number(facts.database, "limits.kill_limit") or 0
    if sum(rates) > limit:
        what = f"limits.kill_limit = {limit}: a connection is killed within seconds if it is slow in both directions"
        yield finding("kill-limit", facts.places.database, what, "use 2, or leave it out: " + APPLY)
    elif 0 < ping < (low := facts.keepalive_s + KEEPALIVE_MARGIN_S) and sum(rates) + 1 > limit:
        every = f"{facts.keepalive_s:g} s"
        what = (
            f"limits.min_ping = {ping}: quiet streams are killed before their next keep-alive, which comes each {every}"
        )
        yield finding("kill-limit", facts.places.database, what, f"use {low:g} or more, or 0: {APPLY}")


def check_superpoll(facts: Facts) -> Iterator[Finding]:
    """Mongrel2 would take few connections only."""
    if facts.database is None or not facts.database.servers:
        return
    limit = number(facts.database, "superpoll.max_fd")
    if limit is not None and limit < FDS_MIN:
        what = f"superpoll.max_fd = {limit}: no more connections than this are accepted"
        yield finding("file-limit", facts.places.database, what, f"use {FDS_MIN} to 65536: {APPLY}")


def check_certdir(facts: Facts) -> Iterator[Finding]:
    """The folder of certificates as Mongrel2 is told it: the slash at the end, and the right folder."""
    if facts.database is None or not facts.database.has_tls:
        return
    certdir = facts.database.settings.get("certdir", "")
    if not certdir.endswith("/"):
        what = f"certdir = {certdir!r}: Mongrel2 puts names right behind it, so without / at its end it does not start"
        yield finding("certdir", facts.places.database, what, APPLY)
    elif certdir != f"{facts.places.certs}/":
        what = f"certdir = {certdir!r}, but certificates are kept in {facts.places.certs}/"
        yield finding("certdir", facts.places.database, what, APPLY)


def check_age(facts: Facts) -> Iterator[Finding]:
    """The database has other servers, routes or settings than the enabled sites and m2gate.toml ask for."""
    if facts.database is None or facts.site_error is not None:
        return
    wanted = {one.uuid: _served(one) for one in facts.wanted}
    there = {one.uuid: _served(one) for one in facts.database.servers}
    names = sorted(name for name in {*wanted, *there} if wanted.get(name) != there.get(name))
    names += [key for key, value in facts.settings.items() if facts.database.settings.get(key) != str(value)]
    if names:
        what = f"it is older than the enabled sites and m2gate.toml: {', '.join(names)} would change"
        yield finding("database-outdated", facts.places.database, what, "m2gate config apply")


def _served(server: ServerRow) -> tuple[object, ...]:
    return (server.bind_addr, server.port, server.use_ssl, server.routes)
