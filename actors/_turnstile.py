"""How many steps run at the same time, and how many begin in a time: first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import final

from ..storage import settle
from ._clock import Clock
from ._policy import Rate
from ._step import StepOptions


@final
class Turnstiles:
    """Those of one host: `at_once` for all its steps together, and each step's own. Times are the clock's."""

    __slots__ = ("_all", "_clock", "_of_step", "_rates")

    def __init__(self, clock: Clock, at_once: int) -> None:
        self._clock = clock
        self._all = asyncio.Semaphore(at_once)
        self._of_step: dict[str, asyncio.Semaphore] = {}
        self._rates: dict[str, deque[float]] = {}  # when the last ones began, or will

    def __repr__(self) -> str:
        return f"<Turnstiles of {len(self._of_step)} steps{', all taken' if self._all.locked() else ''}>"

    @asynccontextmanager
    async def admitted(self, step: str, options: StepOptions) -> AsyncIterator[None]:
        """Inside, the step may run."""
        if options.at_once is None:
            await self._when_due(step, options.rate)
            async with self._all:
                yield
            return
        own = self._of_step.get(step)
        if own is None:
            own = self._of_step[step] = asyncio.Semaphore(options.at_once)
        async with own:  # first, so that those who wait for it take no place of others
            await self._when_due(step, options.rate)
            async with self._all:
                yield

    async def _when_due(self, step: str, rate: Rate | None) -> None:
        if rate is None:
            return
        begun = self._rates.setdefault(step, deque(maxlen=rate.count))
        now = self._clock.now()
        due = max(now, begun[0] + rate.per.total_seconds()) if len(begun) == rate.count else now
        begun.append(due)
        if due > now:
            passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            alarm = self._clock.call_at(due, lambda: settle(passed, None))
            try:
                await passed
            finally:
                alarm.cancel()
