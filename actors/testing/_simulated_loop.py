"""An event loop in which no time passes: whenever nothing is ready, it is at once the time at which something is due.

Nothing outside of the program has a say: no file, socket or thread wakes it, and tasks stand in sets by their number, not by their address.
So what it runs runs alike each time.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from contextvars import Context
from itertools import count
from typing import Any, Final, final

from .._clock import Alarm
from ._clock import START

RESOLUTION: Final = 2.0**-22  # seconds: the distance of two floats at this time, so nothing that is due later counts as due

ROUNDS_AT_MOST: Final = 100_000  # of the loop at one time


class TimeStandsStill(Exception):
    """Raised where a simulation would go on for ever: everything waits and nothing is due, or something is always ready."""

    __module__ = "perdure.actors.testing"

    def __init__(self, time: float, why: str) -> None:
        super().__init__(time, why)

    def __str__(self) -> str:
        return f"it stays {self.args[0]} for ever: {self.args[1]}"


@final
class _Task(asyncio.Task[Any]):
    """A task that is told from others by its number."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], number: int, **options: Any) -> None:
        self._number = number  # asked for while the task is being made
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


@final
class _Jump(selectors.SelectSelector):
    """Waits by setting the time."""

    def __init__(self) -> None:
        super().__init__()
        self.time = START
        self._rounds = 0  # in which something was ready

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise TimeStandsStill(self.time, "everything waits, and nothing is due")
        if timeout > 0:
            self.time += timeout  # exact: both are whole multiples of the resolution
            self._rounds = 0
        self._rounds += 1
        if self._rounds > ROUNDS_AT_MOST:
            raise TimeStandsStill(self.time, f"in {ROUNDS_AT_MOST} rounds of the loop there was always something to do at once")
        return []


@final
class SimulatedLoop(asyncio.SelectorEventLoop):
    """`time()` is in seconds since the epoch, and begins where a `JumpingClock` does.

    Raises TimeStandsStill where it would go on for ever.
    """

    __module__ = "perdure.actors.testing"

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)
        self._clock_resolution = RESOLUTION
        self._numbers = count(1)
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        """The time to which it has jumped."""
        return self._jump.time

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, *, name: str | None = None, context: Context | None = None, **options: Any
    ) -> asyncio.Task[Any]:
        return _Task(coroutine, next(self._numbers), loop=loop, name=name, context=context, **options)


@final
class _Call:
    """A call at a time, some rounds of the loop after it is due."""

    __slots__ = ("_callback", "_handle", "_loop", "_rounds")

    def __init__(self, loop: asyncio.AbstractEventLoop, due: float, rounds: int, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._rounds = rounds
        self._callback = callback
        self._handle: asyncio.Handle = loop.call_at(due, self._come)

    def _come(self) -> None:
        if self._rounds:
            self._rounds -= 1
            self._handle = self._loop.call_soon(self._come)
        else:
            self._callback()

    def cancel(self) -> None:
        self._handle.cancel()


@final
class LoopClock:
    """A `Clock` by the time of the loop that runs. `rounds()` is how many rounds a due call waits: so no tie need be certain."""

    __module__ = "perdure.actors.testing"
    __slots__ = ("_rounds",)

    def __init__(self, rounds: Callable[[], int] = int) -> None:
        self._rounds = rounds

    def __repr__(self) -> str:
        return "<LoopClock>"

    def now(self) -> float:
        """Seconds since the epoch."""
        return asyncio.get_running_loop().time()

    def call_at(self, due: float, callback: Callable[[], None]) -> Alarm:
        """As `Clock.call_at`."""
        return _Call(asyncio.get_running_loop(), due, self._rounds(), callback)
