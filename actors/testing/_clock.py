"""A clock that stands still until it is told to jump: a test of a month takes no time, and the same time each run."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Final, final

START: Final = 1_767_225_600.0  # 2026-01-01T00:00:00Z, in seconds since the epoch


@final
class _Call:
    """One call that is due later; a cancelled one stays in the heap and does nothing."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


@final
class JumpingClock:
    """A `Clock` for tests. Times are seconds since the epoch; `lateness()` is how much later than due a jump may end, in seconds."""

    __module__ = "perdure.actors.testing"

    def __init__(self, start: float = START, lateness: Callable[[], float] = float) -> None:
        self._now = start
        self._lateness = lateness
        self._calls: list[tuple[float, int, _Call]] = []
        self._order = count()

    def __repr__(self) -> str:
        return f"<JumpingClock at {self._now}, {len(self._calls)} calls due>"

    def now(self) -> float:
        """The time it was set to."""
        return self._now

    def call_at(self, due: float, callback: Callable[[], None]) -> _Call:
        """Call back when the clock is moved to `due` or beyond; what is due already waits for the next move, however small."""
        call = _Call(callback)
        heapq.heappush(self._calls, (max(due, self._now), next(self._order), call))
        return call

    def next_due(self) -> float | None:
        """When the next call is due, or None."""
        while self._calls and self._calls[0][2].callback is None:
            heapq.heappop(self._calls)
        return self._calls[0][0] if self._calls else None

    def jump(self, due: float) -> None:
        """Move to when something is due, or a little later, as a host that is busy looks at it."""
        self.move_to(due + self._lateness())

    def move_to(self, time: float) -> None:
        """Set the time, and make the calls that are due by then, in the order of their due times. Times before now are ignored."""
        self._now = max(self._now, time)
        while (due := self.next_due()) is not None and due <= self._now:
            callback = heapq.heappop(self._calls)[2].callback
            if callback is not None:
                callback()
