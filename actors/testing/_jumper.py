"""The jumper: while a test waits for an answer, and nothing can happen at this time, the clock goes on to what is due next.

Time stands still whenever the test, or anything else on its event loop, has something to do: a test that waits for nothing sees no time
pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, final

import anyio

from ._clock import JumpingClock

JUMPS_AT_MOST: Final = 100_000  # in one wait: more is a test that never ends
ROUNDS: Final = 3  # of the event loop, in which whoever was told something may do something about it
STUCK_AFTER: Final = 1.0  # seconds of real time in which nothing at all happens


@final
class NothingHappens(AssertionError):
    """A test waits for what cannot come: nobody has anything to do, and nothing is due."""

    __module__ = "perdure.actors.testing"


@final
class _Wait:
    """Somebody who waits for `what`; `problem` says why it is in vain."""

    __slots__ = ("problem", "scope", "what")

    def __init__(self, what: str) -> None:
        self.what = what
        self.scope = anyio.CancelScope()
        self.problem: str | None = None


@final
class Jumper:
    """Moves a clock. `at_rest()` returns True once no actor has anything to do now, False if some step goes on and on."""

    def __init__(self, clock: JumpingClock, at_rest: Callable[[], Awaitable[bool]], explain: Callable[[list[str]], Awaitable[str]]) -> None:
        self._clock = clock
        self._at_rest = at_rest
        self._explain = explain
        self._waits: dict[_Wait, None] = {}
        self._begun = 0  # waits, ever
        self._still = 0  # who wants it to stand still
        self._jumps = 0
        self._bell = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Jumper of {self._clock!r}, {len(self._waits)} waiting>"

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Inside, somebody waits for that. Raises NothingHappens if it was in vain."""
        wait = _Wait(what)
        with wait.scope:
            self._waits[wait] = None
            self._begun += 1
            self._jumps = 0
            self._bell.set()
            try:
                yield
            finally:
                del self._waits[wait]
        if wait.problem is not None:
            raise NothingHappens(wait.problem)

    @contextmanager
    def still(self) -> Iterator[None]:
        """Inside, the clock is somebody else's."""
        self._still += 1
        try:
            yield
        finally:
            self._still -= 1
            self._bell.set()

    async def run(self) -> None:
        """Jump whenever it is time to, until cancelled."""
        while True:
            while self._still or not self._waits:
                await self._next_ring()
            try:
                await self._look_once()
            except Exception:  # noqa: BLE001  the host has ended, of what it tells everybody itself; another one may follow
                await self._next_ring()

    async def _next_ring(self) -> None:
        self._bell.clear()
        await self._bell.wait()

    async def _look_once(self) -> None:
        """Jump if it is time to. Raises what the host has ended with."""
        begun = self._begun
        is_at_rest = await self._at_rest()
        if not await self._nothing_moves(begun):
            return
        due = self._clock.next_due()
        if due is None:
            if is_at_rest:
                await self._look_for_the_stuck()
        elif self._jumps >= JUMPS_AT_MOST:
            self._end_waits(f"after {JUMPS_AT_MOST:,} jumps of the clock there is still something due: {self._clock!r}")
        else:
            self._jumps += 1
            self._clock.jump(due)

    async def _nothing_moves(self, begun: int) -> bool:
        """Whether everybody on this loop waits, and goes on waiting."""
        for _ in range(ROUNDS):
            await asyncio.sleep(0)
            if self._still or begun != self._begun or not self._waits or not _all_wait():
                return False
        return True

    async def _look_for_the_stuck(self) -> None:
        """Nothing is due, and nobody does anything: that may be because of something outside; but not for long."""
        begun = self._begun
        with anyio.move_on_after(STUCK_AFTER):
            while begun == self._begun and not self._still and self._waits:  # noqa: ASYNC110  three things may end it, and it is rare
                await asyncio.sleep(STUCK_AFTER / 20)
            return
        if await self._at_rest():
            problem = await self._explain([wait.what for wait in self._waits])
            if await self._nothing_moves(begun) and self._clock.next_due() is None:
                self._end_waits(problem)

    def _end_waits(self, problem: str) -> None:
        for wait in self._waits:
            wait.problem = problem
            wait.scope.cancel()


def _all_wait() -> bool:
    """Whether every other task waits for something that has not happened (as `anyio.wait_all_tasks_blocked` looks)."""
    here = asyncio.current_task()
    for task in asyncio.all_tasks():
        waiter: asyncio.Future[object] | None = getattr(task, "_fut_waiter", None)
        if task is not here and (waiter is None or waiter.done()):
            return False
    return True
