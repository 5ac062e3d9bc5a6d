"""What does a test of a workflow cost: a restart, a year of daily timers, a crash at every commit of ten steps? In memory, in one process.

Baseline: none; these are seconds that somebody waits for.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from perdure.actors import durable_actor, step, workflow
from perdure.actors.testing import World, survives_crashes

from .measure import Report, answer

DAY: Final = 86_400.0
TIMES: Final = 7


@step
async def add(total: int, more: int) -> int:
    return total + more


@durable_actor
class Sum:
    """Ten steps, one after the other."""

    @workflow
    async def run(self, count: int) -> int:
        total = 0
        for number in range(count):
            total = await add(total, number)
        return total


@durable_actor
class Calendar:
    """A timer a day."""

    @workflow
    async def run(self, days: int) -> int:
        for _ in range(days):
            await asyncio.sleep(DAY)
        return days


@survives_crashes
async def ten_steps(world: World) -> None:
    """Run again for every trouble."""
    assert await (await world.start(Sum.run, "s", 10)).result() == 45


async def a_year(world: World) -> None:
    """365 jumps of the clock."""
    assert await (await world.start(Calendar.run, "c", 365)).result() == 365


async def seconds(act: Callable[[], Awaitable[object]]) -> float:
    """The median of some times."""
    took = []
    for _ in range(TIMES):
        begun = time.perf_counter()
        await act()
        took.append(time.perf_counter() - begun)
    return statistics.median(took)


async def measure(report: Report, directory: Path) -> None:
    """All figures of this benchmark."""
    logging.getLogger("perdure.actors").setLevel(logging.CRITICAL)
    async with World() as world:
        await (await world.start(Sum.run, "s", 10)).result()
        report.add("world.restart()", 1000 * await seconds(world.restart), "ms", at_most=5)

    async def year() -> None:
        async with World() as world:
            await a_year(world)

    report.add("a year of daily timers", await seconds(year), "s", at_most=1)
    report.add("a trial of ten steps, all commits", await seconds(lambda: ten_steps(World())), "s", at_most=1)


if __name__ == "__main__":
    answer(__doc__, measure)
