"""A store that fails and waits when it is told to, in front of any other store.

A crash is told to the host as a commit with an unknown outcome: it drops everything it has in memory, and starts again from what the store
beneath has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import final

from ...storage import Batch, CommitUncertain, Entry, Fence, MeasuredStore, Offer, Range, Store
from ._scenario import Crash, CrashPoint


@final
class UnsteadyStore:
    """A `Store` in front of another one, or after a restart of the same one opened anew.

    `commits` counts the batches that were asked for since the first was made, `crashes` those that did not get through.
    """

    __module__ = "perdure.actors.testing"

    def __init__(self, beneath: Store, before: UnsteadyStore | None = None) -> None:
        self.commits: int = 0 if before is None else before.commits
        self.crashes: int = 0 if before is None else before.crashes
        self._beneath = beneath
        self._crashes: set[Crash] = set() if before is None else before._crashes
        self._under_way = 0
        self._flowing = asyncio.Event()
        self._flowing.set()

    def __str__(self) -> str:
        return str(self._beneath)

    def __repr__(self) -> str:
        return f"<UnsteadyStore {self.commits} commits, {self.crashes} crashes, on {self._beneath!r}>"

    def crash_at(self, point: CrashPoint, nth: int) -> None:
        """Crash at the nth commit from now, 1 being the next."""
        self._crashes.add(Crash(point, self.commits + nth))

    def hold(self) -> None:
        """Let no commit reach the store beneath, until `flow`: a disk whose fsync takes its time."""
        self._flowing.clear()

    def flow(self) -> None:
        """Let commits through again."""
        self._flowing.set()

    @property
    def flows(self) -> bool:
        """Whether commits get through."""
        return self._flowing.is_set()

    @property
    def is_busy(self) -> bool:
        """Whether a commit is under way."""
        return self._under_way > 0

    async def commit(self, batch: Batch, fence: Fence) -> bool:
        """As `Store.commit`, with the crashes that were asked for."""
        self.commits += 1
        number = self.commits
        self._under_way += 1
        try:
            await self._flowing.wait()
            self._crash_if(CrashPoint.BEFORE_COMMIT, number)
            roomy = await self._beneath.commit(batch, fence)
            self._crash_if(CrashPoint.AFTER_COMMIT, number)
        finally:
            self._under_way -= 1
        return roomy

    def _crash_if(self, point: CrashPoint, number: int) -> None:
        if Crash(point, number) in self._crashes:
            self.crashes += 1
            raise CommitUncertain(str(self), f"a crash {point.value} commit {number}, as the test asked for", recoverable=True)

    def size(self) -> int:
        """As `MeasuredStore.size`; 0 where the store beneath does not know."""
        return self._beneath.size() if isinstance(self._beneath, MeasuredStore) else 0

    async def own(self, partition: int) -> Fence:
        """As `Store.own`."""
        return await self._beneath.own(partition)

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
