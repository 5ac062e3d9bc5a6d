"""The memory store: the protocol in its plainest words, to be read as the specification and used in tests.

Its data are on a `MemoryDisk`, which outlives the store objects opened on it, as a real disk outlives processes.
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, final

from ._errors import Fenced, StoreClosed, StoreLocked
from ._protocol import Batch, Entry, Fence, Offer, Range, check_keys


class MemoryStatistics(NamedTuple):
    """What a memory disk holds."""

    entries: int
    size: int  # bytes of keys and values
    commits: int
    offers: int  # not accepted yet
    owners: int


@final
class MemoryDisk:
    """What survives: rows, epochs and offers. Give it to one `MemoryStore` after the other to play restarts."""

    __module__ = "perdure.storage"

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.keys: list[bytes] = []  # of the rows, sorted
        self.epochs: dict[int, int] = {}
        self.owners: dict[int, MemoryStore] = {}
        self.offers: dict[int, list[Offer]] = {}
        self.counters: dict[int, int] = {}  # number of the last offer
        self.positions: dict[int, int] = {}  # number of the last accepted offer
        self.commits = 0

    def __repr__(self) -> str:
        return f"<MemoryDisk: {self.statistics()}>"

    def statistics(self) -> MemoryStatistics:
        """Counts, for tools."""
        return MemoryStatistics(len(self.rows), self.size(), self.commits, sum(map(len, self.offers.values())), len(self.owners))

    def size(self) -> int:
        """As `MeasuredStore.size`, of keys and values."""
        return sum(len(key) + len(value) for key, value in self.rows.copy().items())  # a copy is made in one go, whoever writes meanwhile

    def crash(self) -> None:
        """End all ownership, as when the owning process dies: the stores that had it may write nothing more."""
        for owner in tuple(self.owners.values()):
            owner.die()

    def apply(self, batch: Batch, partition: int) -> None:
        """Change the rows as the batch says."""
        for range_ in batch.ranges:
            first, last = self.span(range_)
            for key in self.keys[first:last]:
                del self.rows[key]
            del self.keys[first:last]
        for key, value in batch.puts.items():
            self._set(key, value)
        if batch.accepted is not None:
            self.positions[partition] = batch.accepted
            self.offers[partition] = self.after(partition, batch.accepted)
        self.commits += 1

    def span(self, range_: Range) -> tuple[int, int]:
        """Where the keys of a range stand among the sorted keys."""
        first = bisect_left(self.keys, range_.start)
        return first, max(first, bisect_left(self.keys, range_.stop))

    def after(self, partition: int, position: int) -> list[Offer]:
        """The offers beyond a position."""
        return [offer for offer in self.offers.get(partition, ()) if offer.number > position]

    def _set(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            if self.rows.pop(key, None) is not None:
                del self.keys[bisect_left(self.keys, key)]
            return
        if key not in self.rows:
            insort(self.keys, key)
        self.rows[key] = value


@final
class MemoryStore:
    """A `Store` in memory. Without a disk of its own making it begins empty."""

    __module__ = "perdure.storage"

    def __init__(self, disk: MemoryDisk | None = None) -> None:
        self.disk = MemoryDisk() if disk is None else disk
        self._closed = False
        self._epochs: dict[int, int] = {}
        self._bell = asyncio.Event()

    def __str__(self) -> str:
        return "memory:"

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"owning {self._epochs}" if self._epochs else "open"
        return f"<MemoryStore: {state}, {len(self.disk.rows)} entries>"

    def statistics(self) -> MemoryStatistics:
        """Counts, for tools."""
        return self.disk.statistics()

    def size(self) -> int:
        """As `MeasuredStore.size`."""
        return self.disk.size()

    async def own(self, partition: int) -> Fence:
        """As `Store.own`; owning again begins a new epoch, and the one before may write no more."""
        self._check_usable()
        if self.disk.owners.get(partition, self) is not self:
            raise StoreLocked(str(self), os.getpid())
        epoch = self.disk.epochs.get(partition, 0) + 1
        self.disk.owners[partition] = self
        self.disk.epochs[partition] = self._epochs[partition] = epoch
        return Fence(partition, epoch)

    async def release(self, fence: Fence) -> None:
        """As `Store.release`."""
        self._check_usable()
        if self._epochs.get(fence.partition) == fence.epoch:
            self._give_back(fence.partition)

    async def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """As `Store.read`."""
        self._check_usable()
        check_keys(keys)
        return [self.disk.rows.get(key) for key in keys]

    async def scan(self, range_: Range, *, limit: int, reverse: bool = False) -> list[Entry]:
        """As `Store.scan`."""
        self._check_usable()
        first, last = self.disk.span(range_)
        first, last = (max(first, last - limit), last) if reverse else (first, min(last, first + limit))
        entries = [Entry(key, self.disk.rows[key]) for key in self.disk.keys[first:last]]
        return entries[::-1] if reverse else entries

    async def commit(self, batch: Batch, fence: Fence) -> bool:
        """As `Store.commit`; there is always room."""
        self._check_usable()
        check_keys(batch.puts)
        self._check_owned(fence)
        self.disk.apply(batch, fence.partition)
        await asyncio.sleep(0)  # others run meanwhile, as they do beside a disk
        return True

    async def offer(self, partition: int, payload: bytes) -> int:
        """As `Store.offer`."""
        self._check_usable()
        number = self.disk.counters[partition] = self.disk.counters.get(partition, 0) + 1
        self.disk.offers.setdefault(partition, []).append(Offer(number, payload))
        owner = self.disk.owners.get(partition)
        if owner is not None:
            owner.ring()
        await asyncio.sleep(0)
        return number

    async def watch(self, fence: Fence) -> AsyncIterator[list[Offer]]:
        """As `Store.watch`. Raises `Fenced` after `release`, `StoreClosed` after `close`."""
        self._check_usable()
        self._check_owned(fence)
        last = self.disk.positions.get(fence.partition, 0)
        behind = True
        while True:
            self._check_usable()
            self._check_owned(fence)
            self._bell.clear()
            offers = self.disk.after(fence.partition, last)
            if offers:
                last = offers[-1].number
                yield offers
            if behind:
                behind = False
                yield []
            elif not offers:
                await self._bell.wait()

    async def close(self) -> None:
        """As `Store.close`."""
        if not self._closed:
            self.die()

    def ring(self) -> None:
        """Wake who watches."""
        self._bell.set()

    def die(self) -> None:
        """Close without a word, as a process that is killed."""
        self._closed = True
        for partition in tuple(self._epochs):
            self._give_back(partition)

    def _give_back(self, partition: int) -> None:
        del self._epochs[partition], self.disk.owners[partition]
        self.disk.epochs[partition] += 1
        self.ring()

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreClosed(str(self))

    def _check_owned(self, fence: Fence) -> None:
        if self._epochs.get(fence.partition) != fence.epoch:
            raise Fenced(str(self), fence.epoch, self.disk.epochs.get(fence.partition, 0))


MemoryStatistics.__module__ = "perdure.storage"  # a named tuple takes none in its body
