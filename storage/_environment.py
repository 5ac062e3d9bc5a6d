"""One LMDB environment of this process.

LMDB forbids opening a file twice in a process, so whoever opens one again shares it. The map is replaced only while no transaction is
open in the process: who writes holds `_writing`, a copy `_copying`, who reads `_reading`; who replaces the map all three, in this order.
"""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, TypeAlias, TypeVar, cast, final

import lmdb

from ._ballast import has_room
from ._entrance import OPEN, passing, shut
from ._errors import CommitUncertain, StoreClosed, StoreCorrupt, StoreError, StoreFull, StoreLocked
from ._format import check_file
from ._structure import check_tree

T = TypeVar("T")
Transaction: TypeAlias = "lmdb.Transaction[bytes]"

ENGINE: Final = 0  # py-lmdb's bundled 0.9: the file format of 1.0 is another one
MAX_READERS: Final = 1024  # transactions at once, over all processes
FULL: Final = frozenset((errno.ENOSPC, errno.EFBIG, errno.EDQUOT))
DAMAGED: Final = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.IncompatibleError, lmdb.BadValsizeError)
PATIENCE: Final = 1.0  # seconds that a reader waits for a writer, where it must take over a map that another process has grown
ROOM: Final = 1 << 20  # bytes; a disk that has less is full

USE_ANEW: Final = "Use it in a process that was started anew, as multiprocessing's spawn method does."
FORKED: Final = ("had it open when it forked this one", USE_ANEW)

_opened: dict[tuple[int, int, int], Environment] = {}  # by process, device and inode of the data file
_opening = threading.Lock()


@final
class Environment:
    """An open environment: transactions, growth, copies, and the errors of LMDB in the words of a store."""

    def __init__(self, path: str, identity: tuple[int, int, int], map_size: int, synced: bool = True) -> None:
        self.path = path
        self.broken: StoreError | None = None  # why nothing more is written
        self.commits = 0
        self._identity = identity
        self._users = 0
        self._writing = threading.Lock()
        self._copying = threading.Lock()
        self._reading = threading.Lock()
        check_file(os.path.join(path, "data.mdb"))
        self._lmdb = _open(path, map_size, synced)
        self._lock_file = _identity_of(os.path.join(path, "lock.mdb"))

    def __repr__(self) -> str:
        return f"<Environment {self.path}: {self._users} users, {self.commits} commits{', broken' if self.broken else ''}>"

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of the keys as of the latest commit."""
        return self.view(lambda transaction: [transaction.get(key) for key in keys])

    def view(self, look: Callable[[Transaction], T], *, buffers: bool = False) -> T:
        """What `look` finds in a read transaction, which sees the latest commit and ends with this call.

        With `buffers` it finds no bytes but views of the map, which end with the transaction.
        """
        try:
            with self._reading, cast("Transaction", self._lmdb.begin(buffers=True)) if buffers else self._lmdb.begin() as transaction:
                return look(transaction)
        except lmdb.MapResizedError:
            self._adopt_map()
            return self.view(look, buffers=buffers)
        except lmdb.Error as error:
            raise self.read_error(error) from error

    def write(self, change: Callable[[Transaction], T], staged: Callable[[], None], limit: int | None = None) -> T:
        """Apply a change in one transaction, growing the map as needed; `staged` is called when only the commit is left.

        For the writer thread alone. The map grows to `limit` bytes at most. Raises `StoreFull` (nothing was written), or what ends all
        writing: `CommitUncertain`, `StoreCorrupt`. What `change` itself raises leaves no trace.
        """
        with self._writing:
            if self.broken is not None:
                raise StoreClosed(self.path, f"it writes nothing more since {self.broken.what}")
            while True:
                try:
                    return self._write_once(change, staged)
                except lmdb.MapFullError:
                    self._grow(limit)
                except lmdb.MapResizedError:
                    self._replace_map(0)
                except lmdb.Error as error:
                    raise self._write_error(error) from error

    def copy(self, directory: str) -> None:
        """Write a compact copy, as of one moment, into an empty directory; readers and commits go on, growth waits."""
        try:
            with self._copying:
                self._lmdb.copy(directory, compact=True)
        except lmdb.Error as error:
            raise StoreFull(directory) if _is_full(error) or not has_room(directory, ROOM) else self.read_error(error) from error

    def check_lock(self) -> None:
        """Raise StoreError if somebody took lock.mdb away: who opens now has another, and neither sees the other's commits."""
        if _identity_of(os.path.join(self.path, "lock.mdb")) != self._lock_file:
            raise StoreError(self.path, "its lock.mdb was removed while it is in use", "Start each process that uses the store afresh.")

    def check_readers(self) -> int:
        """Free the slots of readers that died, whose pages are otherwise kept for ever; returns how many there were."""
        return self._lmdb.reader_check()

    def is_in_place(self) -> bool:
        """Whether the file is still the one that is found in its directory."""
        return _identity_of(os.path.join(self.path, "data.mdb")) == self._identity[1:]

    def used(self) -> int:
        """Bytes of the pages that hold something, as of the latest commit."""
        stat = self._lmdb.stat()
        return (stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]) * stat["psize"]

    def statistics(self) -> tuple[int, int, int]:
        """Entries, bytes of the map, and readers' slots in use over all processes."""
        info = self._lmdb.info()
        return self._lmdb.stat()["entries"], info["map_size"], info["num_readers"]

    def let_go(self) -> None:
        """End one use; the last user closes the files, and so does any if nothing can be written any more; never a forked child."""
        if self._identity[0] != os.getpid():
            return
        with _opening:
            self._users -= 1
            if _opened.get(self._identity) is not self or (self._users and self.broken is None):
                return
            del _opened[self._identity]
            with self._writing, self._copying, self._reading:  # still alone: two at once of one file lose LMDB's locks when one closes
                self._lmdb.close()

    def read_error(self, error: lmdb.Error) -> StoreError:
        """What a failed look or opening means."""
        what = f"LMDB cannot read it ({error})"
        if isinstance(error, DAMAGED):
            return StoreCorrupt(self.path, what)
        if isinstance(error, lmdb.ReadersFullError):
            return StoreError(self.path, f"more than {MAX_READERS} reads at once", "Close some of the processes that read it.")
        if "closed" in str(error):
            return StoreClosed(self.path)
        if isinstance(error, lmdb.PanicError):  # a commit has failed at its last write, and has perhaps not said so yet
            return self.broken or CommitUncertain(self.path, str(error), recoverable=False)
        return StoreError(self.path, what, "Check its disk and its permissions.")

    def _write_once(self, change: Callable[[Transaction], T], staged: Callable[[], None]) -> T:
        transaction = self._lmdb.begin(write=True)
        try:
            result = change(transaction)
            staged()
            transaction.commit()
        except BaseException:
            transaction.abort()
            raise
        self.commits += 1
        return result

    def _write_error(self, error: lmdb.Error) -> StoreError:
        if _is_full(error) or (_code(error) == errno.EIO and self._is_full()):
            return StoreFull(self.path)
        if isinstance(error, (*DAMAGED, lmdb.ReadersFullError)):
            self.broken = self.read_error(error)
        else:
            # The kernel may have dropped the pages of a failed sync, and the next sync succeeds as if nothing were: never try again.
            self.broken = CommitUncertain(self.path, str(error), recoverable=not _is_of_the_disk(error))
        return self.broken

    def _is_full(self) -> bool:
        """Whether no room is left: a write that the disk takes only in part is an input/output error to LMDB."""
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = os.stat(os.path.join(self.path, "data.mdb")).st_size
        return (limit != resource.RLIM_INFINITY and size + ROOM > limit) or not has_room(self.path, ROOM)

    def _grow(self, limit: int | None) -> None:
        size = self._lmdb.info()["map_size"]
        if limit is not None and size >= limit:
            raise StoreFull(self.path, f"it may take {limit:,} bytes, and they are full") from None
        self._replace_map(size * 2 if limit is None else min(size * 2, limit))

    def _replace_map(self, size: int) -> None:
        with self._copying, self._reading:
            self._lmdb.set_mapsize(size)

    def _adopt_map(self) -> None:
        """Take over the size that another process has given the map, when no write transaction is open here."""
        if not self._writing.acquire(timeout=PATIENCE):
            raise StoreError(self.path, "a reader waits for a writer that does not go on", "Look for a stopped process that uses it.")
        try:
            self._replace_map(0)
        finally:
            self._writing.release()


def _is_of_the_disk(error: lmdb.Error) -> bool:
    return _code(error) == errno.EIO or isinstance(error, lmdb.PanicError)


def acquire(path: str, map_size: int, *, synced: bool = True) -> Environment:
    """The environment in a directory, shared within this process; end with `let_go`. `map_size`: bytes at first, it grows.

    One that is not `synced` survives the end of any process, but not of the machine: for what may be lost, and is made anew if damaged.
    Raises `StoreCorrupt` or `StoreVersionError` for what is damaged or not ours, before LMDB maps it.
    """
    with _opening:
        _refuse_inherited(path)
        environment = _opened.get(_identity_here(path))
        if environment is None:
            with passing(path):
                identity = _identity_here(path)  # it may have been replaced before
                environment = _opened[identity] = Environment(path, identity, map_size, synced)
        environment._users += 1
        return environment


@contextmanager
def alone(path: str) -> Iterator[None]:
    """Nobody has the environment in a directory open, or opens it, inside of `with`. Raises `StoreLocked` where somebody has."""
    with ExitStack() as shutting:
        with _opening:
            _refuse_inherited(path)
            if _identity_here(path) in _opened:
                raise StoreLocked(path, os.getpid(), *OPEN)
            shutting.enter_context(shut(path))
        yield


def _identity_here(path: str) -> tuple[int, int, int]:
    try:
        status = os.stat(os.path.join(path, "data.mdb"))
    except FileNotFoundError:
        raise StoreCorrupt(path, "data.mdb is missing") from None
    return os.getpid(), status.st_dev, status.st_ino


def _refuse_inherited(path: str) -> None:
    """In a forked child: raise StoreLocked for what the parent had open, which LMDB does not open again beside it."""
    _, *file = _identity_here(path)
    for parent, *inherited in _opened:
        if inherited == file and parent != os.getpid():
            raise StoreLocked(path, parent, *FORKED)


def _keep_inherited() -> None:
    """In a forked child: never close what the parent has open, not even at the end.

    To close it would wait for a lock of a thread that was not forked, or free the places that the parent's readers have in the lock file.
    """
    import ctypes

    global _opening  # noqa: PLW0603  another thread may have held it
    _opening = threading.Lock()
    for environment in _opened.values():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(environment._lmdb))


os.register_at_fork(after_in_child=_keep_inherited)


def _open(path: str, map_size: int, synced: bool) -> lmdb.Environment:
    # Never writemap (a full disk would be SIGBUS), or metasync off. Sync is off for a tape alone: a power failure loses what it was told.
    try:
        opened = lmdb.open(
            path, map_size, create=False, mode=0o600, max_readers=MAX_READERS, max_spare_txns=4, lib_version=ENGINE, sync=synced
        )
    except lmdb.DiskError as error:
        raise StoreFull(path) from error
    except (lmdb.Error, OSError) as error:
        raise StoreCorrupt(path, f"LMDB cannot open it ({error})") from error
    try:
        opened.reader_check()
        with opened.begin() as transaction:  # keeps the pages of this moment from being used again during the look
            check_tree(os.path.join(path, "data.mdb"), transaction.id())
    except BaseException as error:
        opened.close()
        if isinstance(error, lmdb.Error):
            raise StoreCorrupt(path, f"LMDB cannot read it ({error})") from error
        raise
    return opened


def _identity_of(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return 0, 0
    return status.st_dev, status.st_ino


def _is_full(error: lmdb.Error) -> bool:
    return isinstance(error, lmdb.DiskError) or _code(error) in FULL


def _code(error: lmdb.Error) -> int:
    return getattr(error, "code", 0)
