"""The mark table of a worker: which exchanges have sent something, and whether its heart beats.

A file in the gateway's folder, mapped by both processes, so that it says the truth even of a worker
that was killed in the middle of a line. The worker marks an exchange just before its first byte
leaves; whoever finds it unmarked may still answer for it, as nothing can have been sent.
"""

import mmap
import os
import re
import struct
import time
from pathlib import Path
from typing import Final

SLOTS: Final = 1 << 18  # an exchange that is open while so many frames come may lose its slot to another
SLOT_MASK: Final = SLOTS - 1
CUT: Final = 1 << 63  # with the mark: a part of a unit was sent, the rest was not
HEADER_BYTES: Final = 64
TABLE_BYTES: Final = HEADER_BYTES + 8 * SLOTS
_HEADER: Final = struct.Struct("<QQ")  # pid, last beat
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}\.table")

UNSENT: Final = "unsent"
SENT: Final = "sent"
SENT_CUT: Final = "cut"
UNKNOWN: Final = "unknown"


class MarkTable:
    """One table; ``slots`` is indexed by an exchange's number & SLOT_MASK and holds that number.

    A slot holds the newest of the exchanges that share it: of an older one nothing is known then.
    """

    def __init__(self, path: Path, memory: mmap.mmap) -> None:
        self.path = path
        self._memory = memory
        self._view = memoryview(memory)
        self.slots = self._view[HEADER_BYTES:].cast("Q")

    @classmethod
    def create(cls, folder: Path, name: str) -> "MarkTable":
        """Make ``NAME.table`` in folder, for this process. Raises OSError."""
        path = folder / f"{name}.table"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o660)
        try:
            os.ftruncate(descriptor, TABLE_BYTES)  # sparse: a page costs memory once it is written to
            table = cls(path, mmap.mmap(descriptor, TABLE_BYTES))
        finally:
            os.close(descriptor)
        table.beat()
        return table

    @classmethod
    def open(cls, folder: Path, name: str) -> "MarkTable":
        """Map the table of another process, to read it.

        name: as that process told it. Raises OSError, ValueError for a name or a file that is none.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a mark table")
        path = folder / name
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if os.fstat(descriptor).st_size != TABLE_BYTES:
                raise ValueError(f"{name!r} has not the size of a mark table")
            return cls(path, mmap.mmap(descriptor, TABLE_BYTES, prot=mmap.PROT_READ))
        finally:
            os.close(descriptor)

    def beat(self) -> None:
        """Note that this process is alive; from any thread."""
        _HEADER.pack_into(self._memory, 0, os.getpid(), time.monotonic_ns())

    @property
    def beat_age_s(self) -> float:
        """Seconds since the last beat."""
        return (time.monotonic_ns() - int(_HEADER.unpack_from(self._memory)[1])) / 1e9

    @property
    def pid(self) -> int:
        """The process that the table belongs to."""
        return int(_HEADER.unpack_from(self._memory)[0])

    def look(self, number: int) -> str:
        """Return what is known of the exchange with this number: UNSENT, SENT, SENT_CUT or UNKNOWN."""
        value = self.slots[number & SLOT_MASK]
        marked = value & ~CUT
        if marked == number:
            return SENT_CUT if value & CUT else SENT
        return UNSENT if marked < number else UNKNOWN

    def close(self) -> None:
        """Unmap the table; the file stays. Idempotent."""
        self.slots.release()
        self._view.release()
        self._memory.close()
