"""The entrance of an LMDB environment: whoever opens it passes, and whoever replaces its file finds nobody inside and shuts it meanwhile.

LMDB's own lock keeps others out, too, but those who wait at it must not be let in: they take the number of the last transaction from
lock.mdb, and by that number the empty one of the new file's two header pages for the latest (tried: they find no rows, and would write
over all of them). So the entrance is a file of its own, opening.lock, locked by `fcntl` as owner.lock is.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ._errors import StoreError, StoreLocked
from ._format import resemble

COMPACTING: Final = ("is compacting this store", "Open it again once that has ended.")
OPEN: Final = ("has this store open", "End that process first: it would go on with the old file.")

# `struct flock`: (type, whence, start, length, pid) on Linux, (start, length, pid, type, whence) on macOS.
_FLOCK: Final = struct.Struct("@qqihh" if sys.platform == "darwin" else "@hhqqi4x")
_PID: Final = 2 if sys.platform == "darwin" else 4
_PLACE_OF_TYPE: Final = 3 if sys.platform == "darwin" else 0

_shut: set[tuple[int, int, int]] = set()  # process, device, inode: the system would let the process that holds a lock pass it


@contextmanager
def passing(directory: str) -> Iterator[None]:
    """Open an environment in here, one at a time in a process. Raises `StoreLocked` while its file is being replaced."""
    if _identity(directory) in _shut:
        raise StoreLocked(directory, os.getpid(), *COMPACTING)
    file = locked(directory, "opening.lock", fcntl.LOCK_SH, COMPACTING)
    try:
        yield
    finally:
        os.close(file)


@contextmanager
def shut(directory: str) -> Iterator[None]:
    """Have an environment for oneself, of which this process has nothing open. Raises `StoreLocked` while another has."""
    identity = _identity(directory)
    if identity in _shut:
        raise StoreLocked(directory, os.getpid(), *COMPACTING)
    entrance = locked(directory, "opening.lock", fcntl.LOCK_EX, OPEN)
    try:
        inside = locked(directory, "lock.mdb", fcntl.LOCK_EX, OPEN)
    except BaseException:
        os.close(entrance)
        raise
    _shut.add(identity)
    try:
        if os.fstat(inside).st_size:
            os.pwrite(inside, bytes(8), 0)  # a tool that waits at LMDB's own lock by now is refused by LMDB; who comes later is not
        yield
    finally:
        os.close(inside)
        os.close(entrance)
        _shut.discard(identity)


def locked(directory: str, name: str, how: int, otherwise: tuple[str, str]) -> int:
    """A file of an environment's directory, open and locked until it is closed. Raises StoreLocked with the words of `otherwise`."""
    try:
        file = _opened(os.path.join(directory, name), os.path.join(directory, "data.mdb"))
    except OSError as error:
        raise StoreError(directory, f"{name} cannot be opened ({error})", "Check the permissions of its files.") from error
    try:
        fcntl.lockf(file, how | fcntl.LOCK_NB, 1)  # its first byte, as LMDB does
    except OSError:
        holder = _holder(file)
        os.close(file)
        raise StoreLocked(directory, holder, *otherwise) from None
    return file


def _opened(path: str, model: str) -> int:
    """A file, which is made if need be: for all who may use the environment, whoever is the first to come."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        resemble(file, model)
        return file


def _holder(file: int) -> int:
    """The process that holds a lock of a file's first byte, or 0 if that cannot be told."""
    asked: list[int] = [0, 1, 0, 0, 0] if sys.platform == "darwin" else [0, 0, 0, 1, 0]
    asked[_PLACE_OF_TYPE] = fcntl.F_WRLCK
    try:
        found: tuple[int, ...] = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, _FLOCK.pack(*asked)))
    except OSError:
        return 0
    return 0 if found[_PLACE_OF_TYPE] == fcntl.F_UNLCK else max(0, found[_PID])


def _identity(path: str) -> tuple[int, int, int]:
    status = os.stat(path)
    return os.getpid(), status.st_dev, status.st_ino
