"""The tape: chunks of bytes in order of time, the oldest of which go when they are too many or too old.

It is never the truth about anything: nothing of it is synced, and one that is damaged is put aside for a new one.

Chunks lie together in rows of some KiB, each of which begins with the marks of its chunks. There is no index: whoever looks for a mark goes
through all rows, in some 30 ms. For py-lmdb retakes the GIL after every put, so that a chunk with an index row for each of its marks would
wait for a busy loop as often; here it is one put. Rows are few, too, so that opening a tape can afford to walk through all of it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from struct import Struct, pack, unpack_from
from typing import Final, NamedTuple, TypeAlias, final

from ._entrance import locked
from ._environment import USE_ANEW, Environment, Transaction, acquire
from ._errors import StoreClosed, StoreCorrupt, StoreError, StoreFull, StoreLocked
from ._format import META_KEY, NUMBER, building_site, check_meta, first_rows, meta_record, put_in_place

log: Final = logging.getLogger("perdure.storage")

MAX_BYTES: Final = 256 << 20
MIN_BYTES: Final = 4 << 20
FIRST_MAP: Final = 1 << 20  # bytes; it doubles up to `max_bytes`
SMALL_ROW: Final = 8 << 10  # bytes; a shorter row takes in the next chunk: fewer rows to look through, and little to write again
MOST_DROPPED: Final = 64  # rows that one transaction drops
ATTEMPTS: Final = 4  # at a transaction that finds the map full, each after `MOST_DROPPED` more rows have gone
LONGEST: Final = 8  # a chunk may be this fraction of the tape
PATIENCE: Final = 0.25  # seconds that a chunk waits for other processes' turns
PAGE: Final = 1024  # rows that are looked at in one transaction, which keeps pages from being used again

LOCK: Final = "tape.lock"  # held by who writes; it also says that a directory is a tape
ASIDE: Final = ".damaged"  # what is put aside is called so
BUSY: Final = ("has been writing to it for too long", "Look for a stopped process that uses it.")

_ROW: Final = b"\1"  # + number
_END: Final = b"\2"
_HEAD: Final = Struct("<QQI")  # the earliest and the latest time, how many marks
_CHUNK: Final = Struct("<II")  # length, CRC-32

Buffer: TypeAlias = bytes | memoryview


class TapeRow(NamedTuple):
    """Chunks that lie together, in the order in which they were appended, and the times of the first and the last one."""

    number: int
    earliest: int
    latest: int
    chunks: list[bytes]


class TapeStatistics(NamedTuple):
    """What a tape holds; sizes in bytes."""

    rows: int
    used: int
    file_size: int


@final
class Tape:
    """A tape in a directory, which several threads and processes may write and read. It blocks, though never for long.

    `max_bytes` bounds its file, from 4 MiB up; `max_age` is in the unit of the times that `append` is given. `create=False` raises
    StoreError where there is none, and StoreCorrupt for a damaged one, which is put aside otherwise.
    """

    __module__ = "perdure.storage"

    def __init__(self, path: str, *, create: bool = True, max_bytes: int = MAX_BYTES, max_age: int | None = None) -> None:
        self.path: Final = os.path.realpath(path)
        self._may_create = create
        self._max_bytes = max(max_bytes, MIN_BYTES)
        self._max_age = max_age
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        self._environment: Environment | None = self._open()

    def __repr__(self) -> str:
        return f"<Tape {self.path}: {'closed' if self._closed else 'open'}, at most {self._max_bytes:,} bytes>"

    def append(self, chunk: bytes, marks: Collection[int], at: int) -> None:
        """Add a chunk, to be found by its marks (unsigned, 64 bits), and let go of what is too old by now or too much.

        Raises StoreFull, StoreLocked after a quarter of a second, or another StoreError; nothing was written then.
        """
        self._check_process()
        with self._lock:
            environment = self._sound()
            with _turn_to_write(self.path):
                self._append(environment, _as_row(chunk, marks, at), at)

    def newest_first(self, marks: Collection[int] = ()) -> Iterator[TapeRow]:
        """The rows below any of the marks (all, if none), while others may write. Chunks that are damaged are left out."""
        wanted, before = frozenset(marks), _END
        while before > _ROW:
            rows, before = self._used().view(partial(_look, before=before, wanted=wanted), buffers=True)
            yield from rows

    def statistics(self) -> TapeStatistics:
        """Counts and sizes, for tools."""
        environment = self._used()
        size = os.stat(os.path.join(self.path, "data.mdb")).st_size
        return TapeStatistics(environment.statistics()[0] - 1, environment.used(), size)

    def close(self) -> None:
        """End the use of it; again is nothing, and so it is in a forked child."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._closed = True
            self._let_go()

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise StoreClosed(self.path, f"it was opened by process {self._pid}, of which this is a forked child", USE_ANEW)

    def _used(self) -> Environment:
        self._check_process()
        environment = self._environment
        if environment is None:
            raise StoreClosed(self.path)
        return environment

    def _sound(self) -> Environment:
        """The environment to write to: another one, if a write to it has failed for good, or another process has put it aside."""
        if self._closed:
            raise StoreClosed(self.path)
        environment = self._environment
        if environment is not None and environment.is_in_place() and environment.broken is None:
            return environment
        self._let_go()
        if environment is not None and isinstance(environment.broken, StoreCorrupt):
            _put_aside(self.path, environment.broken, environment.is_in_place)
        self._environment = self._open()
        return self._environment

    def _let_go(self) -> None:
        environment, self._environment = self._environment, None
        if environment is not None:
            environment.let_go()

    def _open(self) -> Environment:
        if not self._may_create:
            return _acquire(self.path)
        _create(self.path)
        inode = _inode(self.path)
        try:
            return _acquire(self.path)
        except StoreCorrupt as damage:
            _put_aside(self.path, damage, lambda: _inode(self.path) == inode)
        _create(self.path)
        return _acquire(self.path)

    def _append(self, environment: Environment, row: bytes, at: int) -> None:
        if len(row) > self._max_bytes // LONGEST:
            raise StoreFull(self.path, f"a chunk of {len(row):,} bytes is too long for it")
        oldest = 0 if self._max_age is None else at - self._max_age
        excess = environment.used() + len(row) - self._max_bytes * 3 // 4  # the rest is for pages that are freed, and not yet free
        for attempt in range(ATTEMPTS):
            try:
                environment.write(partial(_put, row=row, oldest=oldest, excess=excess), _staged, self._max_bytes)
            except StoreFull:
                if attempt == ATTEMPTS - 1:
                    raise
                environment.check_readers()  # one that was killed keeps all pages of its time
                environment.write(partial(_drop, oldest=0, excess=self._max_bytes), _staged, self._max_bytes)
            else:
                return


def _acquire(path: str) -> Environment:
    if not os.path.exists(os.path.join(path, "data.mdb")):
        raise StoreError(path, "there is no tape", "Check the path.")
    if not os.path.exists(os.path.join(path, LOCK)):
        raise StoreError(path, "it is no tape, but something else", "Name a directory that is new or empty.")
    environment = acquire(path, FIRST_MAP, synced=False)
    try:
        check_meta(path, environment.read([META_KEY])[0], "tape")
    except BaseException:
        environment.let_go()
        raise
    return environment


def _inode(path: str) -> int:
    return os.stat(os.path.join(path, "data.mdb")).st_ino


def _create(path: str) -> None:
    """Make a new tape, unless there is one, by one rename."""
    if os.path.exists(os.path.join(path, "data.mdb")):
        return
    building = building_site(path)
    try:
        os.close(os.open(os.path.join(building, LOCK), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        first_rows(building, {META_KEY: meta_record("tape", uuid.uuid4().hex)})
        put_in_place(building, path)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _put_aside(path: str, damage: StoreCorrupt, is_still_there: Callable[[], bool]) -> None:
    """Rename a damaged tape, unless another process has been quicker; of earlier ones none is kept."""
    with _turn_to_write(path):
        if is_still_there():
            shutil.rmtree(path + ASIDE, ignore_errors=True)
            os.rename(path, path + ASIDE)
            log.warning("%s: %s. A new one is begun; the damaged one is in %s.", path, damage.what, path + ASIDE)


@contextmanager
def _turn_to_write(path: str) -> Iterator[None]:
    """Have the lock of a tape. LMDB's own cannot be waited for with patience, and a stopped process would hold it for ever."""
    until = time.monotonic() + PATIENCE
    lock: int | None = None
    while lock is None:
        try:
            lock = locked(path, LOCK, fcntl.LOCK_EX, BUSY)
        except StoreLocked:
            if time.monotonic() > until:
                raise
            time.sleep(0.002)
    try:
        yield
    finally:
        os.close(lock)


def _put(transaction: Transaction, row: bytes, oldest: int, excess: int) -> None:
    _drop(transaction, oldest, excess)
    with transaction.cursor() as cursor:
        number = 1
        if cursor.last() and cursor.key().startswith(_ROW):
            last = cursor.value()
            small = len(last) + len(row) <= SMALL_ROW and _is_sound(last)
            row = _joined(last, row) if small else row
            number = NUMBER.unpack_from(cursor.key(), len(_ROW))[0] + (not small)
        transaction.put(_ROW + NUMBER.pack(number), row)


def _drop(transaction: Transaction, oldest: int, excess: int) -> None:
    """Delete the first rows while they are older than that, or there are too many bytes."""
    with transaction.cursor() as cursor:
        found = cursor.set_range(_ROW)
        for _ in range(MOST_DROPPED):
            if not found:
                break
            value = cursor.value()
            if excess <= 0 and _is_sound(value) and _HEAD.unpack_from(value)[1] >= oldest:
                break
            excess -= len(value)
            found = cursor.delete()  # and stands on the next


def _as_row(chunk: bytes, marks: Collection[int], at: int) -> bytes:
    parts = (
        _HEAD.pack(at, at, len(marks)),
        *(mark.to_bytes(8, "little") for mark in marks),
        _CHUNK.pack(len(chunk), zlib.crc32(chunk)),
        chunk,
    )
    return b"".join(parts)


def _joined(first: bytes, second: bytes) -> bytes:
    (earliest, latest, _), (at, until, _) = _HEAD.unpack_from(first), _HEAD.unpack_from(second)
    head = _headed(min(earliest, at), max(latest, until), {*_marks(first), *_marks(second)})
    return b"".join((head, first[_content(first) :], second[_content(second) :]))


def _headed(earliest: int, latest: int, marks: Collection[int]) -> bytes:
    return _HEAD.pack(earliest, latest, len(marks)) + pack(f"<{len(marks)}Q", *marks)


def _marks(row: Buffer) -> tuple[int, ...]:
    return unpack_from(f"<{_HEAD.unpack_from(row)[2]}Q", row, _HEAD.size)


def _content(row: Buffer) -> int:
    """Where the chunks begin."""
    start: int = _HEAD.size + 8 * _HEAD.unpack_from(row)[2]
    return start


def _look(transaction: Transaction, before: bytes, wanted: frozenset[int]) -> tuple[list[TapeRow], bytes]:
    """What is wanted of some rows, from the last one before a key, and the key of the first of them."""
    found: list[TapeRow] = []
    with transaction.cursor() as cursor:
        more = cursor.prev() if cursor.set_range(before) else cursor.last()
        for _ in range(PAGE):
            key = bytes(cursor.key())
            if not more or key <= _ROW:
                return found, _ROW
            _take(key, cursor.value(), wanted, found)
            before, more = key, cursor.prev()
    return found, before


def _take(key: bytes, row: Buffer, wanted: frozenset[int], found: list[TapeRow]) -> None:
    if _is_sound(row) and (not wanted or not wanted.isdisjoint(_marks(row))):
        earliest, latest, _ = _HEAD.unpack_from(row)
        found.append(TapeRow(NUMBER.unpack_from(key, len(_ROW))[0], earliest, latest, list(_chunks(row))))


def _is_sound(row: Buffer) -> bool:
    """Whether its marks are in it; what is in its chunks has checksums."""
    return len(row) >= _HEAD.size and _content(row) <= len(row)


def _chunks(row: Buffer) -> Iterator[bytes]:
    start = _content(row)
    while start + _CHUNK.size <= len(row):
        length, checksum = _CHUNK.unpack_from(row, start)
        start += _CHUNK.size + length
        chunk = bytes(row[start - length : start])
        if zlib.crc32(chunk) == checksum:
            yield chunk


def _staged() -> None:
    """Nobody waits for the puts."""


for _public in (TapeRow, TapeStatistics):
    _public.__module__ = "perdure.storage"  # a named tuple takes none in its body
