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
from typing import Final, NamedTuple, Protocol, final

SUBJECT_BYTES: Final = 40
_LAYOUT: Final = struct.Struct(f"<BB{SUBJECT_BYTES}sQI")  # phase, length of the subject, subject, epoch, CRC-32 of epoch and subject


class Phase(IntEnum):
    """What a host was doing with the subject."""

    NONE = 0
    TURN = 1  # the subject is a message id
    DECODE = 2  # the subject is a digest of an actor's address


class Crumb(NamedTuple):
    """What was found of the last host, and the epoch in which it died."""

    phase: Phase
    subject: bytes
    epoch: int = 0


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
    """One slot in a small file, for one epoch of a host."""

    __slots__ = ("_epoch", "_map", "_seed")

    def __init__(self, path: str | os.PathLike[str], epoch: int = 0) -> None:
        self._epoch = epoch
        self._seed = _seed(epoch)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, mmap.PAGESIZE)
            self._map = mmap.mmap(descriptor, mmap.PAGESIZE)
        finally:
            os.close(descriptor)

    def enter(self, phase: Phase, subject: bytes) -> None:
        """As `Breadcrumbs.enter`."""
        _LAYOUT.pack_into(self._map, 0, phase, len(subject), subject, self._epoch, zlib.crc32(subject, self._seed))

    def leave(self) -> None:
        """As `Breadcrumbs.leave`."""
        self._map[0] = 0

    def close(self) -> None:
        """As `Breadcrumbs.close`."""
        self._map.close()

    def found(self) -> Crumb | None:
        """What the last host was in the middle of; None if it was idle, or if the file is torn."""
        phase, length, padded, epoch, checksum = _LAYOUT.unpack_from(self._map)
        subject: bytes = padded[: min(length, SUBJECT_BYTES)]
        if phase not in (Phase.TURN, Phase.DECODE) or zlib.crc32(subject, _seed(epoch)) != checksum:
            return None
        return Crumb(Phase(phase), subject, epoch)


def _seed(epoch: int) -> int:
    return zlib.crc32(epoch.to_bytes(8, "little"))
