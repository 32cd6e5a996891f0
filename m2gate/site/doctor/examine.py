"""All checks over one installation."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from m2gate.site.doctor import database, folders, fronts, machine, pairs
from m2gate.site.doctor.facts import Facts, is_closed, read_facts
from m2gate.site.doctor.finding import Finding, finding
from m2gate.site.doctor.software import Software, check_software
from m2gate.site.places import Places

Check = Callable[[Facts], Iterator[Finding]]


def check_sites(facts: Facts) -> Iterator[Finding]:
    """An enabled site or the settings cannot be read."""
    error = facts.site_error
    if error is not None:
        what = f"{error.key} = {error.value!r}: {error.problem}"
        yield finding("site", error.source or facts.places.enabled, what, error.remedy)


CHECKS: Final[tuple[Check, ...]] = (
    folders.check_user,
    folders.check_missing,
    folders.check_links,
    check_sites,
    database.check_file,
    database.check_age,
    database.check_settings,
    database.check_ident,
    database.check_specs,
    database.check_kill_limits,
    database.check_superpoll,
    database.check_certdir,
    pairs.check_pairs,
    pairs.check_shown,
    folders.check_control,
    folders.check_handlers,
    folders.check_pid_files,
    machine.check_open_files,
    machine.check_clock,
    machine.check_units,
    fronts.check_nginx,
    fronts.check_haproxy,
    fronts.check_zurl,
)


def examine(places: Places, software: Software) -> list[Finding]:
    """Return all that is wrong; nothing is changed. Raises nothing for what it finds.

    What this user may not enter is left out, see find_closed.
    """
    facts = read_facts(places)
    return [*check_software(software), *(one for check in CHECKS for one in _run(check, facts))]


def _run(check: Check, facts: Facts) -> Iterator[Finding]:
    try:
        yield from check(facts)
    except PermissionError:
        # Below a folder of find_closed, which is reported once and not as a fault of each thing in it.
        return
    except OSError as error:
        place = error.filename or facts.places.root
        yield finding("unreadable", place, f"it cannot be looked at: {error.strerror}", "repair it, or look again")


def find_closed(places: Places) -> list[Path]:
    """Return the folders that this user may not enter: what is in them is not looked at."""
    folders = (places.etc, places.certs, places.state, places.handlers, places.control, places.logs)
    return [folder for folder in folders if is_closed(folder)]
