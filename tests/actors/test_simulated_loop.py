"""On a simulated loop no time passes, and what would go on for ever is an error."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from perdure.actors.testing import LoopClock, SimulatedLoop, TimeStandsStill


def run(main: Coroutine[Any, Any, Any]) -> Any:
    loop = SimulatedLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


def test_a_year_of_sleep_takes_no_time_and_ends_on_the_second() -> None:
    async def sleep() -> float:
        begun = LoopClock().now()
        await asyncio.sleep(365 * 86400.5)
        return LoopClock().now() - begun

    assert run(sleep()) == 365 * 86400.5


def test_to_wait_for_what_never_comes_is_an_error() -> None:
    waiting = asyncio.Event().wait()

    with pytest.raises(TimeStandsStill, match="nothing is due"):
        run(waiting)


def test_to_be_busy_for_ever_at_one_time_is_an_error() -> None:
    async def spin() -> None:
        while True:  # noqa: ASYNC110  that is what it is about
            await asyncio.sleep(0)

    with pytest.raises(TimeStandsStill, match="always something to do"):
        run(spin())


def test_tasks_stand_in_sets_in_the_order_of_their_making() -> None:
    async def make() -> list[int]:
        tasks = {asyncio.create_task(asyncio.sleep(0), name=str(number)) for number in range(50)}
        await asyncio.gather(*tasks)
        return [int(task.get_name()) for task in tasks]

    assert run(make()) == [*range(50)]
