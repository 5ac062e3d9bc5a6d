"""Actors that wait for each other for ever are told so at once; those that only wait long are left alone."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import anyio
import pytest
from perdure.actors import (
    ActorDeadlock,
    ActorRef,
    AskTimeout,
    current_actor,
    durable_actor,
    on_event,
    on_signal,
    send_signal,
    signal,
    wait_for_signal,
    workflow,
)

from .conftest import MakeWorld

pytestmark = pytest.mark.anyio


@durable_actor
class Caller:
    """Asks others in a row, and holds its own event slot meanwhile."""

    released = signal()

    @on_event
    async def ask_on(self, keys: list[str]) -> str:
        if not keys:
            return "answered"
        return await _next(keys[0]).ask(Caller.ask_on, keys[1:])

    @on_event
    async def ask_on_and_sleep(self, keys: list[str]) -> str:
        answer = asyncio.create_task(_next(keys[0]).ask(Caller.ask_on, keys[1:]))
        await asyncio.sleep(60)
        return await answer

    @on_event
    async def ask_on_for_a_minute(self, keys: list[str]) -> str:
        return await _next(keys[0]).options(timeout=timedelta(minutes=1)).ask(Caller.ask_on, keys[1:])

    @on_event
    async def ask_on_or_be_freed(self, keys: list[str]) -> str:
        self.freed = asyncio.Event()
        ask = asyncio.ensure_future(_next(keys[0]).ask(Caller.ask_on, keys[1:]))
        event = asyncio.ensure_future(self.freed.wait())
        await asyncio.wait([ask, event], return_when=asyncio.FIRST_COMPLETED)
        ask.cancel()
        return "freed" if event.done() else "answered"

    @on_signal
    def free(self) -> None:
        self.freed.set()

    @on_event
    async def ask_on_in_a_group(self, keys: list[str]) -> str:
        async with anyio.create_task_group() as outer, asyncio.TaskGroup() as inner:
            outer.start_soon(asyncio.sleep, 0)
            inner.create_task(_next(keys[0]).ask(Caller.ask_on, keys[1:]))
        return "answered"

    @on_event
    async def ask_on_until_released(self, keys: list[str]) -> str:
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(_next(keys[0]).ask(Caller.ask_on, keys[1:]))
            await wait_for_signal(Caller.released)
            answer.cancel()
        return "released"


@durable_actor
class Pair:
    """Two of them wait for each other's result."""

    @workflow
    async def run(self, other: str) -> str:
        await current_actor().start(Pair.run, other, current_actor().key)
        return await current_actor().ref(Pair.run, other).result()


def _next(key: str) -> ActorRef[Caller]:
    return current_actor().ref(Caller, key)


@pytest.mark.parametrize("keys", [["a"], ["b", "a"], ["b", "c", "a"]], ids=len)
async def test_actors_that_ask_in_a_circle_are_named(make_world: MakeWorld, keys: list[str]) -> None:
    world = await make_world(Caller)

    with pytest.raises(ActorDeadlock) as caught:
        await world.ref(Caller, "a").ask(Caller.ask_on, keys)

    assert len(caught.value.chain) == len(keys) + 1
    assert {f"Caller/{key}" for key in keys} == set(caught.value.chain)


async def test_a_circle_is_named_once_its_last_way_out_has_closed(make_world: MakeWorld) -> None:
    world = await make_world(Caller)
    asking = asyncio.create_task(world.ref(Caller, "a").ask(Caller.ask_on_and_sleep, ["b", "a"]))
    await world.settled()
    assert not asking.done()

    await world.advance(timedelta(minutes=1))

    with pytest.raises(ActorDeadlock):
        await asking


async def test_a_long_chain_that_ends_is_no_deadlock(make_world: MakeWorld) -> None:
    world = await make_world(Caller)

    answer = await world.ref(Caller, "0").ask(Caller.ask_on, [f"{number}" for number in range(1, 50)])

    assert answer == "answered"


async def test_a_circle_with_a_time_out_waits_for_that(make_world: MakeWorld) -> None:
    world = await make_world(Caller)
    asked = asyncio.create_task(world.ref(Caller, "a").ask(Caller.ask_on_for_a_minute, ["b", "a"]))

    await world.run_until_idle()

    with pytest.raises(AskTimeout):
        await asked


async def test_a_circle_with_another_way_out_takes_it(make_world: MakeWorld) -> None:
    world = await make_world(Caller)
    asked = asyncio.create_task(world.ref(Caller, "a").ask(Caller.ask_on_until_released, ["b", "a"]))
    await world.settled()

    await send_signal(world.ref(Caller, "a"), Caller.released)

    assert await asked == "released"


async def test_a_lock_an_event_or_a_queue_is_another_way_out(make_world: MakeWorld) -> None:
    world = await make_world(Caller)
    asked = asyncio.create_task(world.ref(Caller, "a").ask(Caller.ask_on_or_be_freed, ["b", "a"]))
    await world.settled()

    await send_signal(world.ref(Caller, "a"), Caller.free)

    assert await asked == "freed"


async def test_a_circle_through_task_groups_is_named(make_world: MakeWorld) -> None:
    world = await make_world(Caller)

    with pytest.raises(BaseExceptionGroup) as caught:
        await world.ref(Caller, "a").ask(Caller.ask_on_in_a_group, ["b", "a"])

    assert caught.value.subgroup(ActorDeadlock) is not None


async def test_workflows_that_await_each_others_result_are_named(make_world: MakeWorld) -> None:
    world = await make_world(Pair)
    pair = await world.start(Pair.run, "a", "b")

    with pytest.raises(Exception, match="waits for") as caught:
        await pair.result()

    assert "Pair/a" in str(caught.value)
    assert "Pair/b" in str(caught.value)
