"""What the host is doing, kept where it outlives the process: so that a message, or a step, that kills its host is found out.

Crumbs are written into a memory-mapped file without fsync: they survive SIGKILL and `os._exit`, and whoever starts next reads what the
last host was in the middle of. After a power failure one may be stale or torn; then its checksum is wrong, and nobody is charged.
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
SLOT: Final = 64  # bytes
SLOTS: Final = 4_096


class Phase(IntEnum):
    """What a host was doing with the subject."""

    NONE = 0
    TURN = 1  # the subject is a message id
    DECODE = 2  # the subject is a digest of an actor's address
    STEP = 3  # the subject is a request's id
    ENDED = 4  # likewise; the attempt has ended, and what came of it is not durable yet


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

    def enter_step(self, subject: bytes) -> int:
        """Say that a step begins; returns the slot in which that stands."""
        ...

    def end_step(self, slot: int) -> None:
        """Say that the attempt of that slot has ended, and that this is not durable yet."""
        ...

    def leave_step(self, slot: int) -> None:
        """Say that what came of it is durable, or that nothing did."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


@final
class PassingBreadcrumbs:
    """For a store beside which there is no place for a file: of steps alone, and for the epochs of one process."""

    __slots__ = ("_slots", "_steps")

    def __init__(self) -> None:
        self._slots = 0
        self._steps: dict[int, tuple[bytes, Phase]] = {}

    def enter(self, phase: Phase, subject: bytes) -> None:
        """Nothing."""

    def leave(self) -> None:
        """Nothing."""

    def enter_step(self, subject: bytes) -> int:
        """As `Breadcrumbs.enter_step`."""
        self._slots += 1
        self._steps[self._slots] = subject, Phase.STEP
        return self._slots

    def end_step(self, slot: int) -> None:
        """As `Breadcrumbs.end_step`."""
        self._steps[slot] = self._steps[slot][0], Phase.ENDED

    def leave_step(self, slot: int) -> None:
        """As `Breadcrumbs.leave_step`."""
        self._steps.pop(slot, None)

    def close(self) -> None:
        """Nothing."""

    def found(self) -> None:
        """As `BreadcrumbFile.found`: nothing, for the process lives."""

    is_lost = False  # as `BreadcrumbFile.is_lost`

    def found_steps(self) -> dict[bytes, Phase]:
        """As `BreadcrumbFile.found_steps`."""
        return dict(self._steps.values())

    def forget_steps(self) -> None:
        """As `BreadcrumbFile.forget_steps`."""
        self._steps.clear()


@final
class BreadcrumbFile:
    """Slots in a small file, for one epoch of a host: the first for its turns, one for each step that runs.

    `is_lost` is whether there was no file: in a restored copy, nobody knows which steps ran.
    """

    __slots__ = ("_epoch", "_free", "_map", "_seed", "is_lost")

    def __init__(self, path: str | os.PathLike[str], epoch: int = 0) -> None:
        self._epoch = epoch
        self._seed = _seed(epoch)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self.is_lost = os.fstat(descriptor).st_size == 0
            os.ftruncate(descriptor, SLOTS * SLOT)
            self._map = mmap.mmap(descriptor, SLOTS * SLOT)
        finally:
            os.close(descriptor)
        self._free = list(range(SLOTS - 1, 0, -1))

    def enter(self, phase: Phase, subject: bytes) -> None:
        """As `Breadcrumbs.enter`."""
        _LAYOUT.pack_into(self._map, 0, phase, len(subject), subject, self._epoch, zlib.crc32(subject, self._seed))

    def leave(self) -> None:
        """As `Breadcrumbs.leave`."""
        self._map[0] = 0

    def enter_step(self, subject: bytes) -> int:
        """As `Breadcrumbs.enter_step`; 0 when there are more steps than slots: then nobody is charged for this one."""
        if not self._free:
            return 0
        slot = self._free.pop()
        _LAYOUT.pack_into(self._map, slot * SLOT, Phase.STEP, len(subject), subject, self._epoch, zlib.crc32(subject, self._seed))
        return slot

    def end_step(self, slot: int) -> None:
        """As `Breadcrumbs.end_step`."""
        if slot:
            self._map[slot * SLOT] = Phase.ENDED

    def leave_step(self, slot: int) -> None:
        """As `Breadcrumbs.leave_step`."""
        if slot:
            self._map[slot * SLOT] = 0
            self._free.append(slot)

    def close(self) -> None:
        """As `Breadcrumbs.close`."""
        self._map.close()

    def found(self) -> Crumb | None:
        """What the last host was in the middle of; None if it was idle, or if the file is torn."""
        crumb = self._read(0)
        return crumb if crumb is not None and crumb.phase in (Phase.TURN, Phase.DECODE) else None

    def found_steps(self) -> dict[bytes, Phase]:
        """The steps that were running when the last host died, and those whose end was not durable."""
        crumbs = [self._read(slot) for slot in range(1, SLOTS) if self._map[slot * SLOT]]
        return {crumb.subject: crumb.phase for crumb in crumbs if crumb is not None and crumb.phase in (Phase.STEP, Phase.ENDED)}

    def forget_steps(self) -> None:
        """They are charged."""
        for slot in range(1, SLOTS):
            if self._map[slot * SLOT]:
                self._map[slot * SLOT] = 0

    def _read(self, slot: int) -> Crumb | None:
        return _crumb_in(self._map, slot)


def crumbs_in(path: str | os.PathLike[str]) -> list[Crumb]:
    """What the host whose file this is does just now, for whoever looks on; nothing where there is no file."""
    try:
        with open(path, "rb") as file:
            content = file.read(SLOTS * SLOT)
    except FileNotFoundError:
        return []
    crumbs = [_crumb_in(content, slot) for slot in range(len(content) // SLOT) if content[slot * SLOT]]
    return [crumb for crumb in crumbs if crumb is not None]


def _crumb_in(content: bytes | mmap.mmap, slot: int) -> Crumb | None:
    phase, length, padded, epoch, checksum = _LAYOUT.unpack_from(content, slot * SLOT)
    subject: bytes = padded[: min(length, SUBJECT_BYTES)]
    if not Phase.TURN <= phase <= Phase.ENDED or zlib.crc32(subject, _seed(epoch)) != checksum:
        return None
    return Crumb(Phase(phase), subject, epoch)


def _seed(epoch: int) -> int:
    return zlib.crc32(epoch.to_bytes(8, "little"))
