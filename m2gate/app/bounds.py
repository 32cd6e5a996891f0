"""The bounds and origins of an App: defaults, those it is given, and what holds where Apps are mounted."""

from collections.abc import Collection
from typing import Any, Final

MIB: Final = 1 << 20

# max_body, max_memory, max_message: bytes (of a body however it is read, of a body in memory,
# of one WebSocket message); origins: besides the own host.
DEFAULTS: Final[dict[str, Any]] = {
    "max_body": 100 * MIB,
    "max_memory": 16 * MIB,
    "max_message": 4 * MIB,
    "origins": (),
}


def check_bounds(given: dict[str, Any]) -> dict[str, Any]:
    """Return those of the given arguments that are not None. Raises ValueError, TypeError."""
    bounds = {name: value for name, value in given.items() if value is not None}
    for name, value in bounds.items():
        if name == "origins":
            bounds[name] = as_tuple(name, value)
        else:
            check_size(name, value)
    return bounds


def check_size(name: str, value: object) -> None:
    """Raise ValueError for what is no number of bytes."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} {value!r}: write a number of bytes, 0 or more, as in {name}=10 * 1024 * 1024")


def as_tuple(name: str, texts: Collection[str]) -> tuple[str, ...]:
    """Return a collection of texts as a tuple. Raises TypeError for a text, which is one of letters."""
    if isinstance(texts, str | bytes):
        raise TypeError(f"{name} {texts!r}: write a list, as in {name}=[{texts!r}]")
    return tuple(texts)
