"""What the host is doing, kept where it outlives the process: so that a message that kills its host is found out.

The crumb is written into a memory-mapped file without fsync: it survives SIGKILL and `os._exit`, and whoever starts next reads what the
last host was in the middle of. After a power failure it may be stale or torn; then its checksum is wrong, and nobody is charged.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple, Protocol, final

SUBJECT_BYTES: Final = 40
_LAYOUT: Final = struct.Struct(f"<BB{SUBJECT_BYTES}sI")  # phase, length of the subject, subject, CRC-32 of the subject


class Phase(IntEnum):
    """What a host was doing with the subject."""

    NONE = 0
    TURN = 1  # the subject is a message id
    DECODE = 2  # the subject is a digest of an actor's address


class Crumb(NamedTuple):
    """What was found of the last host."""

    phase: Phase
    subject: bytes


class Breadcrumbs(Protocol):
    """Where a host says what it is doing."""

    def enter(self, phase: Phase, subject: bytes) -> None:
        """Say that work on the subject begins."""
        ...

    def leave(self) -> None:
        """Say that it has ended."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


@final
class NoBreadcrumbs:
    """For a store that does not outlive the process either."""

    def enter(self, phase: Phase, subject: bytes) -> None:
        """Nothing."""

    def leave(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


@final
class BreadcrumbFile:
    """One slot in a small file."""

    __slots__ = ("_map",)

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, mmap.PAGESIZE)
            self._map = mmap.mmap(descriptor, mmap.PAGESIZE)
        finally:
            os.close(descriptor)

    def enter(self, phase: Phase, subject: bytes) -> None:
        """As `Breadcrumbs.enter`."""
        _LAYOUT.pack_into(self._map, 0, phase, len(subject), subject, zlib.crc32(subject))

    def leave(self) -> None:
        """As `Breadcrumbs.leave`."""
        self._map[0] = 0

    def close(self) -> None:
        """As `Breadcrumbs.close`."""
        self._map.close()

    def found(self) -> Crumb | None:
        """What the last host was in the middle of; None if it was idle, or if the file is torn."""
        phase, length, padded, checksum = _LAYOUT.unpack_from(self._map)
        subject: bytes = padded[: min(length, SUBJECT_BYTES)]
        if phase not in (Phase.TURN, Phase.DECODE) or zlib.crc32(subject) != checksum:
            return None
        return Crumb(Phase(phase), subject)
