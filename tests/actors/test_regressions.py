"""What once went wrong where lives, requests and endings of actors meet: each test is a defect that was found, and stays mended."""

from __future__ import annotations

import asyncio

import pytest
from perdure.actors import (
    ActorCancelled,
    continue_as_new,
    current_actor,
    durable_actor,
    on_event,
    query,
    send_signal,
    signal,
    wait_for_signal,
    workflow,
)

from .conftest import MakeWorld

pytestmark = pytest.mark.anyio


@durable_actor
class Traveller:
    """Goes from life to life; notes where each began."""

    on = signal()
    never = signal()

    def __init__(self) -> None:
        self.lives: list[int] = []

    @workflow
    async def run(self, life: int) -> int:
        self.lives.append(life)
        if life == 7:
            asyncio.create_task(_stay())  # noqa: RUF006  nobody is to look after it
        await wait_for_signal(Traveller.on)
        return life if life == 7 else continue_as_new(life + 1)

    @on_event
    async def rest(self) -> None:
        await wait_for_signal(Traveller.never)

    @query
    def begun(self) -> list[int]:
        return self.lives


@durable_actor
class Host:
    """Lets its callers wait until it hears."""

    heard = signal(str)

    @on_event
    async def answer(self) -> str:
        return await wait_for_signal(Host.heard)

    @on_event
    async def answer_badly_attended(self) -> str:
        asyncio.create_task(_fail("one"))  # noqa: RUF006
        asyncio.create_task(_fail("two"))  # noqa: RUF006
        return await wait_for_signal(Host.heard)


@durable_actor
class Guest:
    """Asks the same question twice."""

    def __init__(self) -> None:
        self.answers: list[str] = []

    @on_event
    async def ask(self) -> None:
        host = current_actor().ref(Host, "h").options(idempotency_key="k")
        self.answers = list(await asyncio.gather(host.ask(Host.answer), host.ask(Host.answer)))

    @query
    def heard(self) -> list[str]:
        return self.answers


async def _fail(reason: str) -> None:
    raise ValueError(reason)


async def _stay() -> None:
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            continue


async def test_a_handler_that_waits_is_cancelled_when_its_actor_continues_as_new(make_world: MakeWorld) -> None:
    world = await make_world(Traveller)
    traveller = await world.start(Traveller.run, "t", 1)
    resting = asyncio.create_task(traveller.ask(Traveller.rest))
    await world.settled()

    await send_signal(traveller, Traveller.on)

    with pytest.raises(ActorCancelled, match="continues as new"):
        await resting
    await world.settled()
    assert await traveller.query(Traveller.begun) == [1, 2]


async def test_an_actor_restarted_before_it_goes_on_has_one_workflow(make_world: MakeWorld) -> None:
    world = await make_world(Traveller)
    traveller = await world.start(Traveller.run, "t", 1)

    with world.slow_disk():
        going = asyncio.ensure_future(send_signal(traveller, Traveller.on))
        restarting = asyncio.ensure_future(world.options(if_exists="restart").start(Traveller.run, "t", 100))
        await asyncio.sleep(0.02)
    await asyncio.gather(going, restarting)

    await world.settled()
    assert await traveller.query(Traveller.begun) == [100]
    assert len((await traveller.info()).waits) == 1


async def test_a_task_that_swallows_its_cancellation_ends_with_the_workflow(make_world: MakeWorld) -> None:
    world = await make_world(Traveller)
    traveller = await world.start(Traveller.run, "t", 7)

    await send_signal(traveller, Traveller.on)

    assert await traveller.result() == 7
    info = await traveller.info()
    assert (info.status, info.waits) == ("completed", ())


async def test_actors_that_repeat_an_ask_under_one_key_are_all_answered(make_world: MakeWorld) -> None:
    world = await make_world(Host, Guest)
    guest = world.ref(Guest, "g")
    await guest.send_event(Guest.ask)
    await world.settled()
    await world.restart()

    await send_signal(world.ref(Host, "h"), Host.heard, "yes")

    await world.settled()
    assert await guest.query(Guest.heard) == ["yes", "yes"]


async def test_failures_of_stray_tasks_answer_nobody_and_are_all_kept(make_world: MakeWorld) -> None:
    world = await make_world(Host)
    host = world.ref(Host, "h")
    asking = asyncio.create_task(host.ask(Host.answer_badly_attended))
    await world.settled()

    await send_signal(host, Host.heard, "fine")

    assert await asking == "fine"
    letters = await world.dead_letters()
    assert sorted(letter.error for letter in letters) == ["ValueError: one", "ValueError: two"]
