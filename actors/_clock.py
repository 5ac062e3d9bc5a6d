"""The host's named sources of time and of identity; the test kit puts others in their place.

A clock never goes back: wall time is read once, and monotonic time is added to it, so that setting the machine's clock moves nothing.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Protocol, final


class Alarm(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Forget it."""
        ...


Alarm.__module__ = "perdure.actors"


class Clock(Protocol):
    """Tells the time and calls back, on the host's event loop."""

    def now(self) -> float:
        """Seconds since the epoch; never less than before."""
        ...

    def call_at(self, due: float, callback: Callable[[], None]) -> Alarm:
        """Call back once `now()` has reached `due`; at the next chance if it has already."""
        ...


Clock.__module__ = "perdure.actors"


@final
class SystemClock:
    """Wall time as it was at the start, plus monotonic time."""

    __module__ = "perdure.actors"
    __slots__ = ("_offset",)

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def __repr__(self) -> str:
        return "<SystemClock>"

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._offset + time.monotonic()

    def call_at(self, due: float, callback: Callable[[], None]) -> Alarm:
        """As `Clock.call_at`."""
        return asyncio.get_running_loop().call_later(max(0.0, due - self.now()), callback)


class Entropy(Protocol):
    """Where ids come from."""

    def token(self) -> bytes:
        """16 bytes that no other call returns, in any process."""
        ...


@final
class SystemEntropy:
    """16 bytes: 10 random ones, drawn once, and a counter; four times faster than a system call for each."""

    __slots__ = ("_count", "_prefix")

    def __init__(self) -> None:
        self._prefix = os.urandom(10)
        self._count = 0

    def token(self) -> bytes:
        """As `Entropy.token`."""
        self._count += 1
        return self._prefix + self._count.to_bytes(6, "big")
