"""Actors that wait for each other for ever, also by their children, are told so at once; those that only wait long are left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from itertools import count
from typing import Any

import anyio
import pytest
from perdure.actors import (
    ActorCancelled,
    ActorDeadlock,
    ActorId,
    ActorRef,
    AskTimeout,
    Backoff,
    OneForOne,
    Retry,
    StepFailed,
    current_actor,
    durable_actor,
    on_event,
    on_signal,
    send_signal,
    signal,
    spawn,
    step,
    step_info,
    wait_for_signal,
    workflow,
)
from perdure.actors._deadlock import Stand
from perdure.actors._suspicion import Suspicion
from perdure.actors.testing import World

from .conftest import MakeWorld

pytestmark = [pytest.mark.anyio, pytest.mark.promise("deadlocks-are-named")]


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


@step(retry=Retry(max_attempts=2, initial=timedelta(hours=1), maximum=timedelta(hours=1)))
async def look_around() -> str:
    if step_info().attempt == 1:
        raise LookupError("nothing is there yet")
    return "seen"


@step(retry=Retry(max_attempts=1))
async def stumble(key: str) -> None:
    lives: list[str] = step_info().resources["lives"]
    lives.append(key)
    if lives.count(key) == 1:
        raise LookupError("a stone")


@durable_actor(
    supervise=OneForOne(backoff=Backoff(timedelta(minutes=1)), directives={StepFailed: "restart"}, otherwise="stop"),
    cancel_grace=timedelta(minutes=5),
)
class Relative:
    """Goes on by a plan, of which each word says how; by its workflow or, when it is asked, in its event slot."""

    @workflow
    async def run(self, plan: list[str]) -> str:
        return await _go_on(plan)

    @on_event
    async def go_on(self, plan: list[str]) -> str:
        return await _go_on(plan)


async def _go_on(plan: list[str]) -> str:
    if not plan:
        return "done"
    (how, _, key), rest = plan[0].partition(" "), plan[1:]
    match how:
        case "ask":
            return await current_actor().ref(Relative, key).ask(Relative.go_on, rest)
        case "await":
            return await current_actor().ref(Relative.run, key).result()
        case "spawn":
            return await spawn(Relative.run, key, rest).result()
        case "beside-a-step":
            return await _first_of(look_around(), _go_on(rest))
        case "beside-a-timer":
            return await _first_of(asyncio.sleep(3600, "slept"), _go_on(rest))
        case "stumble":
            await stumble(current_actor().key)
            return await _go_on(rest)
        case _:
            return await _late(how, rest)


async def _late(how: str, plan: list[str]) -> str:
    try:
        async with asyncio.timeout(3600 if how == "at-most-an-hour" else None):
            return await (asyncio.Event().wait() if how == "clean-up" else _go_on(plan)) and "in time"
    except asyncio.CancelledError:
        return await _go_on(plan)
    except TimeoutError:
        return "late"


async def _first_of(*ways: Coroutine[Any, Any, str]) -> str:
    tasks = [asyncio.ensure_future(way) for way in ways]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks[1:]:
        task.cancel()
    return await tasks[0]


async def begin(world: World, plan: list[str], *, by_workflow: bool = False) -> asyncio.Future[str]:
    """Let the first one, "a", go on by the plan, asked or started."""
    if by_workflow:
        return asyncio.ensure_future((await world.start(Relative.run, "a", plan)).result())
    going = asyncio.ensure_future(world.ref(Relative, "a").ask(Relative.go_on, plan))
    await world.settled()
    return going


async def chain_told(going: asyncio.Future[str]) -> list[str]:
    """The keys of the actors in the deadlock that was the cause of the failure, from "a" on."""
    error: object = (await asyncio.gather(going, return_exceptions=True))[0]
    while isinstance(error, Exception) and not isinstance(error, ActorDeadlock):
        error = error.__cause__
    assert isinstance(error, ActorDeadlock)
    keys = [actor.removeprefix("Relative/") for actor in error.chain]
    assert keys[0] == keys[-1]
    return [*keys[keys.index("a") : -1], *keys[: keys.index("a")]]


def _next(key: str) -> ActorRef[Caller]:
    return current_actor().ref(Caller, key)


@pytest.mark.parametrize("keys", [["a"], ["b", "a"], ["b", "c", "a"]], ids=len)
async def test_actors_that_ask_in_a_circle_are_named(make_world: MakeWorld, keys: list[str]) -> None:
    world = await make_world(Caller)

    with pytest.raises(ActorDeadlock) as caught:
        await world.ref(Caller, "a").ask(Caller.ask_on, keys)

    assert len(caught.value.chain) == len(keys) + 1
    assert {f"Caller/{key}" for key in keys} == set(caught.value.chain)


async def test_a_circle_is_named_once_a_message_in_it_was_nothing(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    stands, looks = Suspicion._stands, count(1)

    async def disturbed(self: Suspicion, actors: list[ActorId]) -> dict[ActorId, Stand]:
        found, early = await stands(self, actors), next(looks) <= 12
        return {actor: stand._replace(has_messages=stand.has_messages or (early and actor.key == "a")) for actor, stand in found.items()}

    monkeypatch.setattr(Suspicion, "_stands", disturbed)
    world = await make_world(Caller)

    with pytest.raises(ActorDeadlock):
        await world.ref(Caller, "a").ask(Caller.ask_on, ["b", "c", "a"])


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


@pytest.mark.parametrize("third", ["ask a", "await a"])
@pytest.mark.parametrize("second", ["ask c", "spawn c"])
@pytest.mark.parametrize("first", ["ask b", "spawn b"])
async def test_three_that_wait_for_answers_and_children_are_named(make_world: MakeWorld, first: str, second: str, third: str) -> None:
    world = await make_world(Relative)

    going = await begin(world, [first, second, third], by_workflow=third == "await a")

    assert await chain_told(going) == ["a", "b", "c"]


async def test_a_child_may_ask_a_parent_whose_workflow_awaits_it(make_world: MakeWorld) -> None:
    world = await make_world(Relative)

    going = await begin(world, ["spawn b", "spawn c", "ask a"], by_workflow=True)

    assert await going == "done"


@pytest.mark.parametrize(
    ("way_out", "answer"), [("beside-a-step", "seen"), ("beside-a-timer", "slept"), ("at-most-an-hour", "late")], ids=lambda word: word
)
@pytest.mark.parametrize("place", range(3))
async def test_a_way_out_anywhere_in_the_circle_is_waited_for(make_world: MakeWorld, way_out: str, answer: str, place: int) -> None:
    world = await make_world(Relative)
    plan = ["spawn b", "ask c", "ask a"]
    going = await begin(world, [*plan[:place], way_out, *plan[place:]])
    assert not going.done()

    await world.run_until_idle()

    assert await going == answer


@pytest.mark.parametrize("plan", [["spawn b", "stumble", "ask c"], ["ask b", "spawn c", "stumble"]], ids=", ".join)
async def test_a_child_that_waits_for_its_restart_is_waited_for(make_world: MakeWorld, plan: list[str]) -> None:
    world = await make_world(Relative, resources={"lives": []})
    going = await begin(world, plan)
    assert not going.done()

    await world.run_until_idle()

    assert await going == "done"


async def test_a_circle_that_a_restart_closes_is_named_then(make_world: MakeWorld) -> None:
    world = await make_world(Relative, resources={"lives": []})
    going = await begin(world, ["spawn b", "spawn c", "stumble", "ask a"])
    assert not going.done()

    await world.run_until_idle()

    assert await chain_told(going) == ["a", "b", "c"]


async def test_a_child_that_cleans_up_is_waited_for_within_its_grace(make_world: MakeWorld) -> None:
    world = await make_world(Relative)
    going = await begin(world, ["spawn b", "spawn c", "clean-up", "ask a"])
    await world.ref(Relative, "c").cancel("enough")
    await world.settled()
    assert not going.done()

    await world.run_until_idle()

    with pytest.raises(Exception, match="enough") as caught:
        await going
    assert isinstance(caught.value, ActorCancelled) or isinstance(caught.value.__cause__, ActorCancelled)
