"""Who hosts a store: an `fcntl` lock on `owner.lock`, a file that nothing else ever opens.

The system gives such a lock to one process, drops it when that dies, and does not hand it to forked children. It drops it too when
the process closes *any* descriptor of the file, so a file that this process has locked is never opened a second time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from typing import Final, final

from ._errors import StoreError, StoreLocked

_PID_BYTES: Final = 20

_owned: set[tuple[int, int, int]] = set()  # process, device, inode; the process, since a forked child inherits the set and not the lock
_owning = threading.Lock()


@final
class Ownership:
    """The right of this process to host the store whose owner.lock is at `path`."""

    def __init__(self, path: str, store: str) -> None:
        self._path = path
        self._store = store
        self._file: int | None = None
        self._identity = (0, 0, 0)

    def __repr__(self) -> str:
        return f"<Ownership of {self._store}: {'held' if self.held else 'not held'}>"

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._file is not None

    def take(self) -> None:
        """Take the lock, if it is not held yet; raises `StoreLocked` with the holder's process id."""
        with _owning:
            while self._file is None:
                self._refuse_twice()
                self._try_to_lock()

    def give_back(self) -> None:
        """Let the lock go."""
        with _owning:
            if self._file is not None:
                _owned.discard(self._identity)
                os.close(self._file)
                self._file = None

    def _refuse_twice(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if _identity(os.stat(self._path)) in _owned:
                raise StoreLocked(self._store, os.getpid())

    def _try_to_lock(self) -> None:
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(self._store, f"owner.lock cannot be opened ({error})", "Check the permissions of its files.") from error
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(file, _PID_BYTES, 0).strip()
            os.close(file)
            raise StoreLocked(self._store, int(holder) if holder.isdigit() else 0) from None
        self._keep_if_current(file)

    def _keep_if_current(self, file: int) -> None:
        identity = _identity(os.fstat(file))
        try:
            current = _identity(os.stat(self._path)) == identity
        except FileNotFoundError:
            current = False
        if not current:  # it was replaced between opening and locking: try again with the new one
            os.close(file)
            return
        with contextlib.suppress(OSError):  # on a full disk: then a refused host hears no number
            os.pwrite(file, str(os.getpid()).encode().ljust(_PID_BYTES), 0)
        _owned.add(identity)
        self._file, self._identity = file, identity


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return os.getpid(), status.st_dev, status.st_ino
