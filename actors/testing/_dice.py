"""Dice: one source of randomness for all that a host may choose, so that one seed makes all of its choices.

It decides who of those that are ready takes the next turn, after how long a slice of turns ends, how long steps take and in which order
they end, which of two timers comes first, and what ids are made of. Nothing of that may matter to a program.

Worlds and simulations throw the same dice; but a world, whose clock only jumps, has steps take rounds of the loop, not seconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Final, final

from .._step import Step
from ._chance import SeededEntropy, ShuffledQueue

SLICE_ENDS: Final = 0.1  # how likely a look at the stopwatch ends the slice
LONG: Final = 0.05  # how likely a step takes seconds, not milliseconds
ROUNDS: Final = 4  # of the loop, than which nobody waits as long for others to be first


@final
class Dice:
    """Makes `Settings.queue`, `.stopwatch`, `.around_steps` and `.entropy` of a seed, and a `LoopClock`'s ties. Times in seconds.

    `longest` is how long a step may be kept waiting before it runs, and after: less than half of any of their time-outs. `def` steps are
    called on the loop: a thread would have a will of its own.
    """

    def __init__(self, seed: int, longest: float = 2.0) -> None:
        self.random = Random(f"dice {seed}")
        self._longest = longest
        self.entropy = SeededEntropy(seed)
        self._stopwatch = 0.0

    def __repr__(self) -> str:
        return f"<Dice after {self._stopwatch:.3f} s of turns>"

    def queue(self) -> deque[Any]:
        """As `Settings.queue`."""
        return ShuffledQueue(self.random)

    def stopwatch(self) -> float:
        """As `Settings.stopwatch`: time that a machine takes, and that the loop's clock does not show."""
        self._stopwatch += 0.1 if self.random.random() < SLICE_ENDS else 1e-6
        return self._stopwatch

    async def around_steps(
        self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Awaitable[Any]], /
    ) -> Any:
        """As `Settings.around_steps`."""
        await asyncio.sleep(self._latency())
        answer = await run() if step.is_async else step.function(*args, **kwargs)
        await asyncio.sleep(self._latency())
        return answer

    def rounds(self) -> int:
        """For `LoopClock`: of two calls that are due at one time, either may come first."""
        return self.random.randrange(ROUNDS)

    async def dawdle(self, most: int = ROUNDS) -> None:
        """Let others be first, for fewer than so many rounds of the loop."""
        for _ in range(self.random.randrange(most)):
            await asyncio.sleep(0)

    def _latency(self) -> float:
        most = self._longest if self.random.random() < LONG else self._longest / 1000
        return self.random.random() * most
