"""A disk that fails as disks do, and the store on it: a log of records, each with its length and checksum.

What a commit has returned for is on the disk for good. Of what was written and not yet synced, the next owner finds any part, or rubbish
in its place, and drops from there on whatever has not the checksum that it says.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from random import Random
from typing import Final, NamedTuple, final

from ...storage import Batch, CommitUncertain, Entry, Fence, Fenced, MemoryDisk, MemoryStore, Offer, Range, StoreFull, check_keys

HEAD: Final = struct.Struct("<II")  # length of the record, CRC-32


class Faults(NamedTuple):
    """How likely each fault is at a commit (0 to 1), and what latency is drawn from; times in seconds.

    `uncertain`: it fails and may have been written (`fatal` of these end the runtime); `full`: there is no room for up to `full_for`;
    `slow`: it takes not some `latency` but up to a thousand times as long.
    """

    uncertain: float = 0.0
    fatal: float = 0.0
    full: float = 0.0
    full_for: float = 5.0
    slow: float = 0.0
    latency: float = 0.001


Faults.__module__ = "perdure.actors.testing"  # a named tuple takes none in its body
NO_FAULTS: Final = Faults(latency=0.0)


@final
class SimulatedDisk:
    """What survives. Give it to one `SimulatedStore` after the other.

    `synced`: bytes of the log that are there for good; `recoveries`: how often it was read. `observe(what, batch)` is told of each batch
    that became durable ("commit"), or was found ("found").
    """

    __module__ = "perdure.actors.testing"

    def __init__(self, seed: int = 0, observe: Callable[[str, Batch], None] | None = None) -> None:
        self.log = bytearray()
        self.synced = 0
        self.faults = NO_FAULTS
        self.index = MemoryDisk()  # what the log comes to, as far as it was read
        self.random = Random(f"disk {seed}")
        self.recoveries = 0
        self.observe = observe
        self._unsynced: list[tuple[Batch, int]] = []
        self._full_until = self._tight_until = 0.0

    def __repr__(self) -> str:
        return f"<SimulatedDisk: {self.synced} of {len(self.log)} bytes synced, {len(self.index.rows)} entries>"

    def write(self, batch: Batch, partition: int) -> None:
        """Put a record behind the others, without syncing."""
        record = packed(batch, partition)
        self._unsynced.append((batch, partition))
        self.log += HEAD.pack(len(record), zlib.crc32(record)) + record

    def _fail(self) -> None:
        """Lose what a disk that loses its power may lose: what is not synced is cut anywhere, or rubbish from there on."""
        cut = self.random.randint(self.synced, len(self.log))
        fate = self.random.randrange(4)
        if fate == 0:
            return
        rubbish = self.random.randbytes(len(self.log) - cut) if fate == 1 else b""
        self.log[cut:] = rubbish

    def recover(self) -> None:
        """Lose what may be lost, and read what was written since the last time, up to the first record that is not whole."""
        self.recoveries += 1
        self._fail()
        place = self.synced
        while (record := self._record_at(place)) is not None:
            place += HEAD.size + len(record)
            self._apply("found", *unpacked(record))
        self._unsynced.clear()
        del self.log[place:]
        self.synced = place

    def sync(self) -> None:
        """All that was written is there for good."""
        self.synced = len(self.log)
        for batch, partition in self._unsynced:
            self._apply("commit", batch, partition)
        self._unsynced.clear()

    def _record_at(self, place: int) -> bytes | None:
        if place + HEAD.size > len(self.log):
            return None
        length, checksum = HEAD.unpack_from(self.log, place)
        record = bytes(self.log[place + HEAD.size : place + HEAD.size + length])
        return record if len(record) == length and self.is_whole(record, checksum) else None

    def is_whole(self, record: bytes, checksum: int) -> bool:
        """Whether a record is what was written."""
        return bool(record) and zlib.crc32(record) == checksum

    def _apply(self, what: str, batch: Batch, partition: int) -> None:
        self.index.apply(batch, partition)
        if self.observe is not None:
            self.observe(what, batch)

    # --- what may happen at a commit ---

    def heal(self) -> None:
        """From now on no fault befalls it."""
        self.faults = NO_FAULTS
        self._full_until = self._tight_until = 0.0

    def latency(self) -> float:
        """Seconds that a sync takes this time; a few take very long (a Pareto distribution, cut)."""
        faults, random = self.faults, self.random
        if not faults.latency:
            return 0.0
        if random.random() < faults.slow:
            return faults.latency * min(random.paretovariate(0.6), 1000.0)
        return faults.latency * random.random()

    def is_full(self, now: float) -> bool:
        """Whether there is no room; that ends by itself."""
        if now >= self._tight_until and self.random.random() < self.faults.full:
            self._full_until = now + self.random.random() * self.faults.full_for
            self._tight_until = self._full_until + self.random.random() * self.faults.full_for
        return now < self._full_until

    def is_tight(self, now: float) -> bool:
        """Whether only the reserve is left."""
        return now < self._tight_until


def packed(batch: Batch, partition: int) -> bytes:
    """A batch as it stands in the log."""
    return pickle.dumps((partition, batch.ranges, batch.puts, batch.accepted), protocol=5)


def unpacked(record: bytes) -> tuple[Batch, int]:
    """The same, read."""
    batch = Batch()
    partition, batch.ranges, batch.puts, batch.accepted = pickle.loads(record)
    return batch, partition


@final
class SimulatedStore:
    """A `Store` on a simulated disk, whose faults befall it. All chance comes from the disk's seed."""

    __module__ = "perdure.actors.testing"

    def __init__(self, disk: SimulatedDisk) -> None:
        self.disk = disk
        self._beneath = MemoryStore(disk.index)  # it keeps ownership and offers; rows come to it through the log alone

    def __str__(self) -> str:
        return str(self._beneath)

    def __repr__(self) -> str:
        return f"<SimulatedStore on {self.disk!r}>"

    async def own(self, partition: int) -> Fence:
        """As `Store.own`; reads the log."""
        fence = await self._beneath.own(partition)
        self.disk.recover()
        return fence

    async def commit(self, batch: Batch, fence: Fence) -> bool:
        """As `Store.commit`, with the disk's faults."""
        await self._beneath.read(())  # refused once it is closed
        check_keys(batch.puts)
        self._check_owned(fence)
        disk, loop = self.disk, asyncio.get_running_loop()
        if disk.is_full(loop.time()):
            await asyncio.sleep(disk.latency())
            raise StoreFull(str(self), "the simulated disk is full")
        disk.write(batch, fence.partition)
        await asyncio.sleep(disk.latency())
        self._check_owned(fence)
        if disk.random.random() < disk.faults.uncertain:
            is_recoverable = disk.random.random() >= disk.faults.fatal
            raise CommitUncertain(str(self), "the simulated disk says EIO", recoverable=is_recoverable)
        disk.sync()
        await asyncio.sleep(disk.latency() / 2)  # it is durable, and nobody has been told
        return not disk.is_tight(loop.time())

    def _check_owned(self, fence: Fence) -> None:
        epochs, owner = self.disk.index.epochs, self.disk.index.owners.get(fence.partition)
        if owner is not self._beneath or epochs.get(fence.partition) != fence.epoch:
            raise Fenced(str(self), fence.epoch, epochs.get(fence.partition, 0))

    async def release(self, fence: Fence) -> None:
        """As `Store.release`."""
        await self._beneath.release(fence)

    async def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """As `Store.read`."""
        return await self._beneath.read(keys)

    async def scan(self, range_: Range, *, limit: int, reverse: bool = False) -> list[Entry]:
        """As `Store.scan`."""
        return await self._beneath.scan(range_, limit=limit, reverse=reverse)

    async def offer(self, partition: int, payload: bytes) -> int:
        """As `Store.offer`."""
        return await self._beneath.offer(partition, payload)

    def watch(self, fence: Fence) -> AsyncIterator[list[Offer]]:
        """As `Store.watch`."""
        return self._beneath.watch(fence)

    async def close(self) -> None:
        """As `Store.close`."""
        await self._beneath.close()
