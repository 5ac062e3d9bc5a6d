"""What an actor waits for is told while it waits, whether it is in memory or not."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from perdure.actors import (
    Client,
    Runtime,
    current_actor,
    durable_actor,
    on_event,
    on_timer,
    send_signal,
    set_timer,
    signal,
    wait_for_signal,
    wait_until,
    workflow,
)

from .conftest import MakeWorld

pytestmark = pytest.mark.anyio


@durable_actor
class Visitor:
    """Waits for whatever it is told to wait for."""

    called = signal()
    ready = False

    @workflow
    async def run(self, what: str) -> str:
        if what == "signal":
            await wait_for_signal(Visitor.called, timeout=timedelta(hours=1))
        elif what == "timer":
            await asyncio.sleep(60)
        elif what == "condition":
            await wait_until(self._is_ready)
        elif what == "result":
            await current_actor().start(Visitor.run, "other", "signal")
            await current_actor().ref(Visitor.run, "other").result()
        return what

    def _is_ready(self) -> bool:
        return self.ready

    @on_event
    def wind(self) -> None:
        set_timer(Visitor.strike, every=timedelta(hours=1))

    @on_timer
    def strike(self) -> None:
        self.ready = True


@pytest.mark.parametrize(
    ("what", "name"), [("signal", "called"), ("timer", ""), ("condition", "Visitor._is_ready"), ("result", "result of Visitor/other")]
)
async def test_an_info_says_what_is_waited_for(make_world: MakeWorld, what: str, name: str) -> None:
    world = await make_world(Visitor)
    visitor = await world.start(Visitor.run, "v", what)
    await world.settled()

    waits = (await visitor.info()).waits

    assert (what, name) in [(waiting.kind, waiting.name) for waiting in waits]


async def test_actors_are_listed_by_what_they_wait_for(make_world: MakeWorld) -> None:
    world = await make_world(Visitor)
    for key, what in (("a", "signal"), ("b", "timer"), ("c", "signal")):
        await world.start(Visitor.run, key, what)

    found = [info.id.key async for info in world.actors(Visitor, waiting_for="called")]

    assert found == ["a", "c"]


async def test_named_timers_are_told_with_their_next_time(make_world: MakeWorld) -> None:
    world = await make_world(Visitor)
    await world.ref(Visitor, "v").ask(Visitor.wind)
    begin = world.clock.now()

    await world.advance(timedelta(minutes=90))

    (timer,) = (await world.ref(Visitor, "v").info()).timers
    assert (timer.name, timer.due - begin, timer.every) == ("strike", 7200.0, 3600.0)


async def test_a_client_starts_a_workflow_and_has_its_result(tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path}/store"
    async with Runtime(url, [Visitor]), Client(url, [Visitor]) as client:
        visitor = await client.start(Visitor.run, "v", "signal")
        await send_signal(visitor, Visitor.called)

        assert await visitor.result() == "signal"
        assert await (await client.start(Visitor.run, "v", "signal")).result() == "signal"
