"""How many steps run at the same time, and how many begin in a time: first come, first served.

Whoever is let in has a place until it leaves. Whoever waits costs nothing but its ticket, and holds up nobody but the same step's others.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import final

from ._clock import Alarm, Clock
from ._step import StepOptions


@final
class Ticket:
    """Stands in a lane until it is let in; `cancel` takes it out."""

    __slots__ = ("go", "number")

    def __init__(self, go: Callable[[], None], number: int) -> None:
        self.go: Callable[[], None] | None = go
        self.number = number  # those with smaller ones came before, to whatever step

    def cancel(self) -> None:
        """Do not wait any longer."""
        self.go = None


@final
class _Lane:
    """One step's limits, how many of it are inside, and who waits for it."""

    __slots__ = ("alarm", "begun", "inside", "most", "rate", "waiting")

    def __init__(self, options: StepOptions) -> None:
        self.most = math.inf if options.at_once is None else options.at_once
        self.rate = options.rate
        self.inside = 0
        self.begun: deque[float] = deque(maxlen=1 if options.rate is None else options.rate.count)  # when the last ones were let in
        self.waiting: deque[Ticket] = deque()
        self.alarm: Alarm | None = None  # for when its rate lets the next one in

    def head(self) -> Ticket | None:
        """Who is next, unless as many as may be are inside."""
        while self.waiting and self.waiting[0].go is None:
            self.waiting.popleft()
        return self.waiting[0] if self.waiting and self.inside < self.most else None

    def due(self) -> float:
        """From when on the rate lets the next one in, in seconds since the epoch."""
        if self.rate is None or len(self.begun) < self.rate.count:
            return 0.0
        return self.begun[0] + self.rate.per.total_seconds()


@final
class Turnstiles:
    """Those of one host: `at_once` for all its steps together, and each step's own. Times are the clock's."""

    __slots__ = ("_clock", "_free", "_lanes", "_numbers")

    def __init__(self, clock: Clock, at_once: int) -> None:
        self._clock = clock
        self._free = at_once
        self._lanes: dict[str, _Lane] = {}  # of the steps that have limits, or had to wait for a place
        self._numbers = count()

    def __repr__(self) -> str:
        waiting = sum(ticket.go is not None for lane in self._lanes.values() for ticket in lane.waiting)
        return f"<Turnstiles: {self._free} places free, {waiting} wait>"

    def enter(self, step: str, options: StepOptions, go: Callable[[], None]) -> Ticket | None:
        """Call `go` as soon as the step may run, which may be now; returns what can be cancelled until then. `leave` ends its stay."""
        if self._free and options.at_once is None and options.rate is None:  # as most do
            self._free -= 1
            go()
            return None
        lane = self._lanes.get(step)
        if lane is None:
            lane = self._lanes[step] = _Lane(options)
        ticket = Ticket(go, next(self._numbers))
        lane.waiting.append(ticket)
        self._admit()
        return ticket

    def leave(self, step: str) -> None:
        """Give a place back: whoever has waited longest of those that may gets it."""
        self._free += 1
        if self._lanes:
            lane = self._lanes.get(step)
            if lane is not None:
                lane.inside -= 1
            self._admit()

    def stop(self) -> None:
        """Let nobody in any more."""
        for lane in self._lanes.values():
            lane.waiting.clear()
            if lane.alarm is not None:
                lane.alarm.cancel()

    def _admit(self) -> None:
        while self._free:
            now = self._clock.now()
            heads = [(head.number, lane) for lane in self._lanes.values() if (head := lane.head()) is not None and lane.due() <= now]
            if not heads:
                self._see_to_rates()
                return
            _, lane = min(heads, key=lambda each: each[0])
            go = lane.waiting.popleft().go
            assert go is not None
            self._free -= 1
            lane.inside += 1
            lane.begun.append(now)
            go()

    def _see_to_rates(self) -> None:
        for lane in self._lanes.values():
            if lane.alarm is None and lane.head() is not None:
                lane.alarm = self._clock.call_at(lane.due(), partial(self._when_due, lane))

    def _when_due(self, lane: _Lane) -> None:
        lane.alarm = None
        self._admit()
