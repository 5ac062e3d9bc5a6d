"""Space set aside: a file of real blocks that is given up when the disk is full.

LMDB copies on write, so on a full disk even a deletion fails. The blocks of the ballast let the batches under way through; as long as it is
not back, new work is refused above.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final, final

BALLAST_BYTES: Final = 4 << 20


@final
class Ballast:
    """The file at `path`, of `size` bytes; 0 is none. For the writer thread alone."""

    def __init__(self, path: str, size: int = BALLAST_BYTES) -> None:
        self._path = path
        self._size = size
        self.held = False

    def __repr__(self) -> str:
        return f"<Ballast of {self._size} bytes: {'held' if self.held else 'given up'}>"

    def take(self) -> bool:
        """Set the space aside, if it is not; returns whether it is."""
        if not self.held:
            self.held = self._size == 0 or self._allocate()
        return self.held

    def give_up(self) -> None:
        """Free the space."""
        self.held = False
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def _allocate(self) -> bool:
        if _size_of(self._path) == self._size:
            return True
        free = os.statvfs(os.path.dirname(self._path))
        if free.f_bavail * free.f_frsize < 2 * self._size:  # what else is free must last longer than until the next batch
            return False
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            _fill(file, self._size)
        except OSError:
            self.give_up()
            return False
        finally:
            os.close(file)
        return True


def has_room(directory: str, size: int) -> bool:
    """Whether `size` bytes can really be had in a directory."""
    probe = os.path.join(directory, f".room-{os.getpid()}")
    try:
        file = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        _fill(file, size)
    except OSError:
        return False
    finally:
        os.close(file)
        os.unlink(probe)
    return True


def _fill(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.pwrite(file, bytes(size), 0)


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
