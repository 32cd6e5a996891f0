"""What a check says."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong.

    name:   of the trap, stable for scripts.
    what:   was found.
    where:  the file, the folder, or the setting in it.
    remedy: what to do about it.
    """

    name: str
    what: str
    where: str
    remedy: str


def finding(name: str, where: str | Path, what: str, remedy: str) -> Finding:
    """Return a finding about a place."""
    return Finding(name=name, what=what, where=str(where), remedy=remedy)
