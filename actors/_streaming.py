"""Reading what actors emit: in one order, from any position on, and no item before it is durable."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from ._ids import ActorId
from ._outcome_errors import DataLoss
from ._persistence import Reads, read_actors, read_stream
from ._records import DamagedRecord, StreamRow

PAGE: Final = 256  # items that are read at once


async def read_on(
    reads: Reads, actor: ActorId, after: int, settled: Callable[[], Awaitable[None]], more: Callable[[], Awaitable[None]]
) -> AsyncIterator[tuple[int, StreamRow]]:
    """The items of a stream behind a position, with theirs, until the actor has ended.

    `settled` returns once what was read is durable, `more` when it is worth looking again. Raises DataLoss.
    """
    last = after
    while True:
        has_ended = await _has_ended(reads, actor)  # first: what it emits before its end is seen by the reading that follows
        rows = await read_stream(reads, actor, last, PAGE)
        await settled()
        if rows and rows[0][0] > last + 1:  # the last item is never removed
            raise DataLoss(actor, last, rows[0][0])
        for position, row in rows:
            last = position
            yield position, row
        if not rows:
            if has_ended:
                return
            await more()


async def _has_ended(reads: Reads, actor: ActorId) -> bool:
    stored = (await read_actors(reads, [actor]))[0]
    return not isinstance(stored, DamagedRecord) and stored.snapshot is not None and stored.snapshot.status.is_end
