"""Folders, sockets, pid files and links: whether they are there, and who may use them."""

import grp
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from m2gate.site.doctor.facts import HANDLER_GROUP, MONGREL2_USER, Facts, is_mongrel2, read_pid
from m2gate.site.doctor.finding import Finding, finding
from m2gate.site.inventory import describe_mode

MAKE: Final = "make it as the package does: systemd-tmpfiles --create m2gate.conf"


def check_user(facts: Facts) -> Iterator[Finding]:
    """The package's user is missing: nobody could run Mongrel2."""
    if facts.mongrel2 is None:
        yield finding("user", MONGREL2_USER, "there is no such user", "systemd-sysusers m2gate.conf")


def check_missing(facts: Facts) -> Iterator[Finding]:
    """Folders that are not there."""
    places = facts.places
    for folder in (places.etc, places.fragments, places.available, places.enabled):
        if not folder.is_dir():
            yield finding("folder", folder, "this folder is missing", f"install -d -m 755 {folder}")
    for folder in (places.certs, places.state, places.handlers, places.control, places.logs):
        if not folder.is_dir():
            remedy = MAKE if facts.is_system else f"mkdir -p {folder}"
            yield finding("folder", folder, "this folder is missing", remedy)


def check_links(facts: Facts) -> Iterator[Finding]:
    """Enabled sites whose file is gone."""
    for link in _entries(facts.places.enabled):
        if link.is_symlink() and not link.exists():
            what = f"this link leads nowhere: {link.readlink()} is gone"
            yield finding("dangling-link", link, what, f"m2gate site disable {link.stem}, or put the file back")


def check_control(facts: Facts) -> Iterator[Finding]:
    """The control port knows no password: whoever reaches it can stop the server and cut connections."""
    folder = facts.places.control
    if folder.is_dir() and folder.stat().st_mode & 0o077:
        what = f"handlers can reach the control ports: {describe_mode(folder)}, but 0700 is needed"
        yield finding("control-port", folder, what, f"chmod 700 {folder}")
    for server in facts.database.servers if facts.database else ():
        if server.control_port != f"ipc://{folder}/{server.uuid}.control":
            what = f"control_port = {server.control_port!r} of {server.uuid}: outside of {folder} handlers reach it"
            yield finding("control-port", facts.places.database, what, "m2gate config apply --restart")


def check_handlers(facts: Facts) -> Iterator[Finding]:
    """The sockets between Mongrel2 and the gateway: nobody else may reach them."""
    folder = facts.places.handlers
    if folder.is_dir() and folder.stat().st_mode & 0o007:
        what = f"everybody can enter: {describe_mode(folder)}; whoever does can read requests and answer them"
        yield finding("handler-sockets", folder, what, f"chmod 2750 {folder}")
    for server_id in facts.running():
        for socket in (folder / f"{server_id}.req", folder / f"{server_id}.rep"):
            yield from _check_socket(facts, socket, server_id)
        control = facts.places.control / f"{server_id}.control"
        if not control.is_socket():
            yield _lost(control, server_id)


def _check_socket(facts: Facts, socket: Path, server_id: str) -> Iterator[Finding]:
    if not socket.is_socket():
        yield _lost(socket, server_id)
        return
    status = socket.stat()
    what = ""
    if status.st_mode & 0o002:
        what = f"everybody may connect: {describe_mode(socket)}"
    elif facts.is_system and not status.st_mode & 0o020:
        what = f"handlers may not connect: {describe_mode(socket)}"
    elif facts.is_system and status.st_gid not in _groups():
        what = f"it does not belong to group {HANDLER_GROUP}: {describe_mode(socket)}"
    if what:
        remedy = f"the folder is 2750 with group {HANDLER_GROUP}, the server's UMask 0007: restart {server_id}"
        yield finding("handler-sockets", socket, what, remedy)


def _lost(socket: Path, server_id: str) -> Finding:
    what = f"server {server_id} runs, but its socket is gone"
    return finding("socket-missing", socket, what, f"restart it: systemctl restart m2gate-mongrel2@{server_id}")


def _groups() -> set[int]:
    try:
        return {grp.getgrnam(HANDLER_GROUP).gr_gid}
    except KeyError:
        return set()


def check_pid_files(facts: Facts) -> Iterator[Finding]:
    """Pid files of servers that are gone."""
    for file in _entries(facts.places.control):
        if file.suffix != ".pid" or not stat.S_ISREG(file.lstat().st_mode):
            continue
        pid = read_pid(file)
        if pid is None or not is_mongrel2(pid):
            what = "no Mongrel2 runs under this number: it crashed, or was killed"
            remedy = (
                f"look into {facts.places.logs / file.stem}.error.log; rm {file}, or start the server, which removes it"
            )
            yield finding("stale-pid", file, what, remedy)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
