"""Reading what actors emit: in one order, from any position on, and no item before it is durable."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from ._ids import ActorId
from ._outcome_errors import DataLoss
from ._persistence import Reads, Stored, read_actors, read_stream
from ._records import DamagedRecord, StreamRow

PAGE: Final = 256  # items that are read at once


async def read_on(
    reads: Reads, actor: ActorId, after: int, settled: Callable[[], Awaitable[None]], more: Callable[[], Awaitable[None]]
) -> AsyncIterator[tuple[int, StreamRow]]:
    """The items of a stream behind a position, with theirs, until the actor has ended or is deleted.

    `settled` returns once what was read is durable, `more` when it is worth looking again. Raises DataLoss.
    """
    last, born = after, None
    while True:
        stored = (await read_actors(reads, [actor]))[0]  # first: what it emits before its end is seen by the reading that follows
        snapshot = None if isinstance(stored, DamagedRecord) else stored.snapshot
        if born is not None and isinstance(stored, Stored) and (snapshot is None or snapshot.created != born):
            return  # it was deleted, and what has its address now begins a stream of its own
        born = born if snapshot is None else snapshot.created
        rows = await read_stream(reads, actor, last, PAGE)
        await settled()
        if rows and rows[0][0] > last + 1:  # the last item is never removed
            raise DataLoss(actor, last, rows[0][0])
        for position, row in rows:
            last = position
            yield position, row
        if not rows:
            if snapshot is not None and snapshot.status.is_end:
                return
            await more()
