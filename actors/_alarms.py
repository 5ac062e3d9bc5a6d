"""Alarms: who has a timer that is due, and when.

The timers themselves are rows of the store; only the earliest are in memory. An alarm means nothing but that the actor is looked after: one
that comes for nothing does no harm, and none comes early.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable
from typing import Final, NamedTuple, final

from ..storage import settle
from ._clock import Alarm
from ._epoch import Epoch
from ._ids import ActorId
from ._persistence import read_wakes

WINDOW: Final = 4_096  # timers in memory that were read; what is set meanwhile comes on top
AT_ONCE: Final = 256  # actors that are woken in one go, before the host's loop gets a chance


class AlarmStatistics(NamedTuple):
    """Counts for tools."""

    pending: int
    fired: int
    lateness: float  # the largest, in seconds


@final
class Alarms:
    """The earliest timers of one epoch.

    `wake` is called for an actor when its own is due; `stage` puts what has changed into the open batch.
    """

    def __init__(self, epoch: Epoch, wake: Callable[[ActorId], None], stage: Callable[[], None]) -> None:
        self._epoch = epoch
        self._wake = wake
        self._stage = stage
        self._due: list[tuple[float, ActorId]] = []
        self._read = b""  # up to which row
        self._horizon = math.inf  # what is due later than this may stand in the store only
        self._alarm: tuple[float, Alarm] | None = None
        self._bell: asyncio.Future[None] | None = None
        self._fired = 0
        self._lateness = 0.0

    def __repr__(self) -> str:
        return f"<Alarms {self.statistics()}>"

    def statistics(self) -> AlarmStatistics:
        """What is due, and what was done in this epoch."""
        return AlarmStatistics(len(self._due), self._fired, self._lateness)

    @property
    def idle(self) -> bool:
        """Whether nobody is due now."""
        return not self._due or self._due[0][0] > self._epoch.clock.now()

    def set(self, actor: ActorId, due: float) -> None:
        """The actor is to be woken at `due`, in seconds since the epoch; the row of it is staged."""
        if due <= self._horizon:
            heapq.heappush(self._due, (due, actor))
            self._arm()

    async def run(self) -> None:
        """Wake whoever is due, until cancelled."""
        await self._refill()
        while True:
            while not self.idle:
                self._fire()
                await asyncio.sleep(0)
            if not self._due and self._horizon != math.inf:
                await self._refill()
                continue
            self._bell = asyncio.get_running_loop().create_future()
            self._arm()
            await self._bell

    def stop(self) -> None:
        """Wake nobody any more."""
        if self._alarm is not None:
            self._alarm[1].cancel()

    def _fire(self) -> None:
        now = self._epoch.clock.now()
        for _ in range(AT_ONCE):
            if not self._due or self._due[0][0] > now:
                return
            due, actor = heapq.heappop(self._due)
            self._fired += 1
            self._lateness = max(self._lateness, now - due)
            self._wake(actor)

    def _arm(self) -> None:
        """See to it that the bell rings when the earliest is due."""
        if not self._due:
            return
        due = self._due[0][0]
        if self._alarm is not None:
            if self._alarm[0] <= due:
                return
            self._alarm[1].cancel()
        self._alarm = due, self._epoch.clock.call_at(due, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._bell is not None:
            settle(self._bell, None)

    async def _refill(self) -> None:
        """Read the next rows. What is set meanwhile is kept, whenever it is due: the rows may have been read already."""
        self._horizon = math.inf
        self._stage()
        rows = await read_wakes(self._epoch.commit.overlay, self._read, WINDOW)
        for due, actor, _ in rows:
            heapq.heappush(self._due, (due, actor))
        if len(rows) == WINDOW:
            self._read = rows[-1][2]
            self._horizon = rows[-1][0]
