"""The LMDB store: a directory that one host owns and any process of the machine may read and offer to.

    data.mdb, lock.mdb           the main environment: everything, and the store's own rows (below 0x01)
    inbox/{data,lock}.mdb        what other processes offer
    owner.lock                   whose lock says that there is a host
    [inbox/]opening.lock         whose lock says that nobody may open an environment now, since its file is being replaced
    ballast                      space to give up when the disk is full

Only the holder of owner.lock writes to the main environment, and each of its commits checks the epoch that it owns.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from itertools import islice
from typing import Final, NamedTuple, TypeAlias, final

import lmdb

from ._ballast import BALLAST_BYTES, Ballast
from ._doorbell import Doorbell, clear_away, ring
from ._environment import USE_ANEW, Environment, Transaction, acquire
from ._errors import Fenced, StoreClosed, StoreCorrupt, StoreError, StoreFull
from ._format import BELL_KEY, EPOCH_KEY, INBOX_KEY, META_KEY, NUMBER, POSITION_KEY, check_meta, create, numbered, release, signed
from ._inbox import Inbox
from ._ownership import Ownership
from ._protocol import FIRST_KEY, MAX_KEY_BYTES, Batch, Entry, Fence, Offer, Range, check_keys
from ._writer import Staged, Writer

_Change: TypeAlias = Callable[[Transaction], int]

log: Final = logging.getLogger("perdure.storage")

MAP_SIZE: Final = 4 << 30  # bytes of address space; the file is as long as what is in it, and the map doubles when it is full
FEW: Final = 8  # rows of a lone turn, or step: where more is going on, the batches are longer


class LmdbStatistics(NamedTuple):
    """What an LMDB store holds and has done."""

    entries: int
    file_size: int  # bytes
    map_size: int  # bytes
    readers: int  # slots in use, over all processes
    commits: int  # by this process, to the main environment
    offered: int  # by this process
    epochs: dict[int, int]  # partition: the epoch that is owned here
    ballast: bool


@final
class LmdbStore:
    """A `Store` in a directory. Opening never waits; the ownership is taken by `own`.

    `create=False` refuses a path where there is no store yet, as a client must. `map_size` and `ballast_size` are in bytes. Raises
    `StoreCorrupt` or `StoreVersionError` for a directory that is damaged or not a store of this release.
    """

    __module__ = "perdure.storage"

    def __init__(self, path: str, *, create: bool = True, map_size: int = MAP_SIZE, ballast_size: int = BALLAST_BYTES) -> None:
        self.path: Final = os.path.realpath(path)
        self._pid = os.getpid()
        self._closed = False
        self._epochs: dict[int, int] = {}
        self._bell: Doorbell | None = None
        self._main, self._inbox_environment = self._open(create, map_size)
        try:
            self.id: Final = check_meta(self.path, self._main.read([META_KEY])[0], "store")
            self._inbox = Inbox(self._inbox_environment, self._ring)
            self._check_inbox()
        except BaseException:
            self._inbox_environment.let_go()
            self._main.let_go()
            raise
        self._ownership = Ownership(os.path.join(self.path, "owner.lock"), str(self))
        self._ballast = Ballast(os.path.join(self.path, "ballast"), ballast_size)
        self._writer = Writer("perdure-commit", self._main.check_readers)

    def __str__(self) -> str:
        return f"lmdb:{self.path}"

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"owning {self._epochs}" if self._epochs else "open"
        return f"<LmdbStore {self.path}: {state}, {self._main.commits} commits>"

    def statistics(self) -> LmdbStatistics:
        """Counts and sizes, for tools."""
        self._check_usable()
        entries, map_size, readers = self._main.statistics()
        size = os.stat(os.path.join(self.path, "data.mdb")).st_size
        done = self._main.commits, self._inbox.offered, dict(self._epochs), self._ballast.held
        return LmdbStatistics(entries, size, map_size, readers, *done)

    def size(self) -> int:
        """As `MeasuredStore.size`: of the rows' file, and of the offers'."""
        return sum(os.stat(os.path.join(self.path, *names)).st_size for names in (("data.mdb",), ("inbox", "data.mdb")))

    async def own(self, partition: int) -> Fence:
        """As `Store.own`; owning again begins a new epoch, and the one before may write no more."""
        self._check_usable()
        self._ownership.take()
        try:
            if self._bell is None:
                clear_away((self._main.read([BELL_KEY])[0] or b"").decode(errors="replace"))
                self._bell = Doorbell()
            begin = partial(_begin_epoch, partition=partition, bell=self._bell.path, by=release())
            epoch = await self._writer.post(partial(self._begin_epoch, begin))
        except BaseException:
            if not self._epochs:
                self._step_down()
            raise
        self._epochs[partition] = epoch
        return Fence(partition, epoch)

    async def release(self, fence: Fence) -> None:
        """As `Store.release`."""
        self._check_usable()
        if self._epochs.get(fence.partition) == fence.epoch:
            await self._give_back([fence.partition])

    async def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """As `Store.read`."""
        self._check_usable()
        check_keys(keys)
        return self._main.read(keys)

    async def scan(self, range_: Range, *, limit: int, reverse: bool = False) -> list[Entry]:
        """As `Store.scan`."""
        self._check_usable()
        start = max(range_.start, FIRST_KEY)
        if limit <= 0 or start >= range_.stop:
            return []
        look = _scan_back if reverse else _scan
        return self._main.view(partial(look, start=start, stop=range_.stop, limit=limit))

    async def commit(self, batch: Batch, fence: Fence) -> bool:
        """As `Store.commit`; goes on to its end if the waiting task is cancelled."""
        self._check_usable()
        check_keys(batch.puts)
        if self._epochs.get(fence.partition) != fence.epoch:
            raise self._fenced(fence)
        roomy = await self._writer.post(partial(self._commit, batch, fence), alone=len(batch.puts) <= FEW)
        if batch.accepted is not None:
            self._inbox.trim_later(fence.partition, batch.accepted)
        return roomy

    async def offer(self, partition: int, payload: bytes) -> int:
        """As `Store.offer`."""
        self._check_usable()
        return await self._inbox.offer(partition, payload)

    async def watch(self, fence: Fence) -> AsyncIterator[list[Offer]]:
        """As `Store.watch`. Raises `StoreCorrupt` where an offer is missing, `Fenced` after `release`, `StoreClosed` after `close`.

        Raises StoreError within a minute after somebody removed a lock.mdb: with different ones nobody sees the other's writes.
        """
        self._check_owned(fence)
        last = self._position(fence.partition)
        self._inbox.trim_later(fence.partition, last)
        behind: int | None = self._inbox.newest(fence.partition)
        while True:
            bell = self._check_owned(fence)
            bell.listen()
            self._main.check_lock()
            self._inbox_environment.check_lock()
            offers = self._inbox.after(fence.partition, last)
            if offers:
                last = offers[-1].number
                yield offers
            if behind is not None and last >= behind:
                behind = None
                yield []
            elif not offers:
                await bell.wait()
                await self._look_after_bell(bell)

    async def close(self) -> None:
        """As `Store.close`; waits for what is under way."""
        if self._closed:
            return
        self._closed = True
        if self._pid != os.getpid():
            return
        try:
            if self._epochs:
                await self._give_back(tuple(self._epochs))
        finally:
            await self._let_go()

    def _open(self, may_create: bool, map_size: int) -> tuple[Environment, Environment]:
        if may_create:
            create(self.path)
        elif not os.path.exists(self.path):
            raise StoreError(str(self), "there is no store", "Check the path, or start the host first: it creates the store.")
        main = acquire(self.path, map_size)
        try:
            return main, acquire(os.path.join(self.path, "inbox"), map_size)
        except BaseException:
            main.let_go()
            raise

    def _check_inbox(self) -> None:
        expected = (self._main.read([INBOX_KEY])[0] or b"").decode(errors="replace")
        if expected != self._inbox.id:
            raise StoreCorrupt(str(self), f"its inbox is {self._inbox.id}, and not {expected}", "Put the store's own inbox directory back.")

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreClosed(str(self))
        if self._pid != os.getpid():
            raise StoreClosed(str(self), f"it was opened by process {self._pid}, of which this is a forked child", USE_ANEW)

    def _check_owned(self, fence: Fence) -> Doorbell:
        self._check_usable()
        if self._bell is None or self._epochs.get(fence.partition) != fence.epoch:
            raise self._fenced(fence)
        return self._bell

    def _fenced(self, fence: Fence) -> Fenced:
        epoch = self._main.read([numbered(EPOCH_KEY, fence.partition)])[0]
        return Fenced(str(self), fence.epoch, int.from_bytes(epoch or b"", "big"))

    def _position(self, partition: int) -> int:
        return int.from_bytes(self._main.read([numbered(POSITION_KEY, partition)])[0] or b"", "big")

    def _commit(self, batch: Batch, fence: Fence, staged: Staged) -> bool:
        try:
            self._main.write(partial(_apply, batch=batch, fence=fence, store=str(self)), staged)
        except StoreFull:
            self._ballast.give_up()
            raise
        return self._ballast.take()

    def _begin_epoch(self, begin: _Change, staged: Staged) -> int:
        try:
            epoch = self._main.write(begin, staged)
        except StoreFull:
            self._ballast.give_up()
            epoch = self._main.write(begin, staged)
        self._ballast.take()
        return epoch

    def _end_epochs(self, partitions: Sequence[int], last: bool, staged: Staged) -> None:
        """On the writer's thread, after the commit under way."""
        try:
            self._main.write(partial(_end_epochs, partitions=partitions), staged)
        except StoreError as error:
            log.info("%s", error)  # the row is a courtesy: the lock is what counts
        finally:
            if last:
                self._ownership.give_back()

    def _ring(self) -> None:
        path = self._main.read([BELL_KEY])[0]
        if path:
            ring(path.decode())

    async def _look_after_bell(self, bell: Doorbell) -> None:
        """Hang another bell if somebody deleted the socket."""
        if bell.path and not bell.works and self._bell is bell:
            self._bell = Doorbell()
            bell.take_down()
            note = partial(_note_bell, path=self._bell.path)
            await self._writer.post(lambda staged: self._main.write(note, staged))

    async def _give_back(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            del self._epochs[partition]
        last = not self._epochs
        if last:
            self._take_bell_down()
        await self._writer.post(partial(self._end_epochs, partitions, last))

    def _step_down(self) -> None:
        self._take_bell_down()
        self._ownership.give_back()

    def _take_bell_down(self) -> None:
        if self._bell is not None:
            self._bell.take_down()
            self._bell = None

    async def _let_go(self) -> None:
        try:
            if await self._inbox.close():
                self._inbox_environment.let_go()
        finally:
            try:
                await self._writer.rest()
            finally:
                self._main.let_go()


def _begin_epoch(transaction: Transaction, partition: int, bell: str, by: str) -> int:
    key = numbered(EPOCH_KEY, partition)
    epoch = int.from_bytes(transaction.get(key) or b"", "big") + 1
    transaction.put(key, NUMBER.pack(epoch))
    transaction.put(META_KEY, signed(transaction.get(META_KEY) or b"{}", by))
    return _note_bell(transaction, bell) or epoch


def _end_epochs(transaction: Transaction, partitions: Sequence[int]) -> int:
    for partition in partitions:
        key = numbered(EPOCH_KEY, partition)
        transaction.put(key, NUMBER.pack(int.from_bytes(transaction.get(key) or b"", "big") + 1))
    return 0


def _note_bell(transaction: Transaction, path: str) -> int:
    transaction.put(BELL_KEY, path.encode())
    return 0


def _apply(transaction: Transaction, batch: Batch, fence: Fence, store: str) -> int:
    epoch = int.from_bytes(transaction.get(numbered(EPOCH_KEY, fence.partition)) or b"", "big")
    if epoch != fence.epoch:
        raise Fenced(store, fence.epoch, epoch)
    if batch.accepted is not None:
        transaction.put(numbered(POSITION_KEY, fence.partition), NUMBER.pack(batch.accepted))
    with transaction.cursor() as cursor:
        for range_ in batch.ranges:
            _delete_range(cursor, range_)
        puts = sorted((key, value) for key, value in batch.puts.items() if value is not None)
        if puts:
            cursor.putmulti(puts)
    if len(puts) < len(batch.puts):
        for key, value in batch.puts.items():
            if value is None:
                transaction.delete(key)
    return 0


def _delete_range(cursor: lmdb.Cursor[bytes], range_: Range) -> None:
    found = _seek(cursor, max(range_.start, FIRST_KEY))
    while found and cursor.key() < range_.stop:
        found = cursor.delete()  # and stands on the next


def _seek(cursor: lmdb.Cursor[bytes], start: bytes) -> bool:
    """Go to the first key that is not less than `start`, which may be longer than keys are."""
    found = cursor.set_range(start[:MAX_KEY_BYTES])
    return cursor.next() if found and cursor.key() < start else found


def _scan(transaction: Transaction, start: bytes, stop: bytes, limit: int) -> list[Entry]:
    entries: list[Entry] = []
    with transaction.cursor() as cursor:
        if _seek(cursor, start):
            for key, value in islice(cursor, limit):
                if key >= stop:
                    break
                entries.append(Entry(key, value))
    return entries


def _scan_back(transaction: Transaction, start: bytes, stop: bytes, limit: int) -> list[Entry]:
    entries: list[Entry] = []
    with transaction.cursor() as cursor:
        if cursor.prev() if _seek(cursor, stop) else cursor.last():
            for key, value in islice(cursor.iterprev(), limit):
                if key < start:
                    break
                entries.append(Entry(key, value))
    return entries
