"""The decorator for records that are built once per message."""

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def wire_record(cls: type[T]) -> type[T]:
    """Frozen for the type checker, plain slots at run time: a quarter of a frozen record's cost.

    Not hashable: key dictionaries by (send_ident, conn_id), never by the record.
    """
    return dataclass(slots=True)(cls)
