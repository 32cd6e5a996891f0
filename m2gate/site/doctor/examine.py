"""All checks over one installation."""

from collections.abc import Callable, Iterator
from typing import Final

from m2gate.site.doctor import database, folders, fronts, machine, pairs
from m2gate.site.doctor.facts import Facts, read_facts
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
    """Return all that is wrong; nothing is changed. Raises nothing for what it finds."""
    facts = read_facts(places)
    return [*check_software(software), *(one for check in CHECKS for one in check(facts))]
