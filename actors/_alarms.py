"""Alarms: who has a timer that is due, and when.

The timers themselves are rows of the store; only the earliest are in memory, and of each actor only its own earliest. An alarm means
nothing but that the actor is looked after: one that comes for nothing does no harm, and none comes early.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, final

from ..storage import settle
from ._clock import Alarm
from ._epoch import Epoch
from ._ids import ActorId
from ._persistence import Table, due_key, read_due

WINDOW: Final = 4_096  # actors whose timers are read at once; twice as many may be in memory
AT_ONCE: Final = 64  # actors that are woken in one go, before the host's loop gets a chance


class AlarmStatistics(NamedTuple):
    """Counts for tools."""

    pending: int
    fired: int
    lateness: float  # the largest, in seconds


@final
class Alarms:
    """The earliest timers of one epoch.

    `wake` is called for an actor when its own is due; `stage` puts what has changed into the open batch; `room` is awaited before more are
    woken.
    """

    def __init__(
        self, epoch: Epoch, wake: Callable[[ActorId], None], stage: Callable[[], None], room: Callable[[], Awaitable[None]]
    ) -> None:
        self._epoch = epoch
        self._wake = wake
        self._stage = stage
        self._room = room
        self._due: dict[ActorId, float] = {}
        self._order: list[tuple[float, ActorId]] = []  # a heap of the same; what does not agree with it was set anew
        self._read = b""  # up to which row
        self._horizon = math.inf  # what is due later than this may stand in the store only
        self._refilling = False
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
        return self._earliest > self._epoch.clock.now()

    @property
    def _earliest(self) -> float:
        return self._order[0][0] if self._order else math.inf

    def set(self, actor: ActorId, due: float) -> None:
        """The actor is to be woken at `due`, in seconds since the epoch; the row of it is staged."""
        if due > self._horizon:
            self._due.pop(actor, None)
        elif self._due.get(actor) != due:
            self._keep(actor, due)
            self._arm()

    async def run(self) -> None:
        """Wake whoever is due, until cancelled."""
        await self._refill()
        while True:
            while not self.idle:
                self._fire()
                await asyncio.sleep(0)
                await self._room()
            if self._earliest > self._horizon:
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
            if self._earliest > now:
                return
            due, actor = heapq.heappop(self._order)
            if self._due.get(actor) == due:
                del self._due[actor]
                self._fired += 1
                self._lateness = max(self._lateness, now - due)
                self._wake(actor)

    def _keep(self, actor: ActorId, due: float) -> None:
        self._due[actor] = due
        heapq.heappush(self._order, (due, actor))
        if len(self._due) > 2 * WINDOW and not self._refilling:
            self._forget_the_latest()
        if len(self._order) > 2 * len(self._due) + WINDOW:  # actors that set their timers again and again
            self._order = [(due, actor) for actor, due in self._due.items()]
            heapq.heapify(self._order)

    def _forget_the_latest(self) -> None:
        """Leave what is due later than the first ones to the store."""
        horizon = sorted(self._due.values())[WINDOW]
        if horizon < self._horizon:
            self._horizon = horizon
            self._read = due_key(Table.WAKE, horizon, b"\xff")  # behind every actor's at that time
            self._due = {actor: due for actor, due in self._due.items() if due <= horizon}

    def _arm(self) -> None:
        """See to it that the bell rings when the earliest is due."""
        due = self._earliest
        if due <= self._epoch.clock.now():
            self._ring()
            return
        if due == math.inf:
            return
        if self._alarm is not None:
            if self._alarm[0] <= due:
                return
            self._alarm[1].cancel()
        self._alarm = due, self._epoch.clock.call_at(due, self._when_due)

    def _when_due(self) -> None:
        self._alarm = None
        self._ring()

    def _ring(self) -> None:
        if self._bell is not None:
            settle(self._bell, None)

    async def _refill(self) -> None:
        """Read the next rows. What is set meanwhile is kept, whenever it is due: the rows may have been read already."""
        self._horizon = math.inf
        self._refilling = True
        self._stage()
        rows = await read_due(self._epoch.commit.overlay, Table.WAKE, self._read, WINDOW)
        for due, actor, _ in rows:
            if actor not in self._due:
                self._keep(actor, due)
        self._refilling = False
        if len(rows) == WINDOW:
            self._read = rows[-1][2]
            self._horizon = rows[-1][0]
