"""How many steps run at the same time, and how many begin in a time: first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import final

from ..storage import settle
from ._clock import Clock
from ._policy import Rate
from ._step import StepOptions


@final
class Turnstiles:
    """Those of one host: `at_once` for all its steps together, and each step's own. Times are the clock's."""

    __slots__ = ("_clock", "_free", "_of_step", "_queue", "_rates")

    def __init__(self, clock: Clock, at_once: int) -> None:
        self._clock = clock
        self._free = at_once
        self._queue: deque[asyncio.Future[None]] = deque()  # of those that wait for a place
        self._of_step: dict[str, asyncio.Semaphore] = {}
        self._rates: dict[str, deque[float]] = {}  # when the last ones began, or will

    def __repr__(self) -> str:
        return f"<Turnstiles of {len(self._of_step)} steps, {self._free} places free>"

    def enter(self, options: StepOptions) -> bool:
        """Take a place at once, if the step has no limits of its own and there is one; `leave` gives it back."""
        if options.at_once is not None or options.rate is not None or not self._free:
            return False
        self._free -= 1
        return True

    def leave(self) -> None:
        """Give a place back: whoever has waited longest gets it."""
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1

    @asynccontextmanager
    async def admitted(self, step: str, options: StepOptions) -> AsyncIterator[None]:
        """Inside, the step may run."""
        async with self._own(step, options.at_once):  # first, so that those who wait for it take no place of others
            await self._when_due(step, options.rate)
            await self._place()
            try:
                yield
            finally:
                self.leave()

    def _own(self, step: str, at_once: int | None) -> AbstractAsyncContextManager[object]:
        if at_once is None:
            return nullcontext()
        if step not in self._of_step:
            self._of_step[step] = asyncio.Semaphore(at_once)
        return self._of_step[step]

    async def _place(self) -> None:
        if self._free:
            self._free -= 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():  # it was given a place, and did not hear of it
                self.leave()
            raise

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
