"""Locks, events and queues in an actor's state go on working over turns, rests, lives and restarts, with one waiter after the other."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from perdure.actors import continue_as_new, durable_actor, on_event, on_signal, send_signal, workflow

from .conftest import MakeWorld

pytestmark = [pytest.mark.anyio, pytest.mark.promise("primitives-may-be-kept")]


@durable_actor
class Shelf:
    """A queue that events take from, and a signal puts to."""

    def __init__(self) -> None:
        self.items: asyncio.Queue[str] = asyncio.Queue()
        self.lock = asyncio.Lock()
        self.anyio_lock = anyio.Lock()

    @on_event
    async def take(self) -> str:
        return await self.items.get()

    @on_signal
    def put(self, item: str) -> None:
        self.items.put_nowait(item)

    @on_event
    async def contend(self) -> list[int]:
        order: list[int] = []

        async def hold(number: int) -> None:
            async with self.lock, self.anyio_lock:
                await asyncio.sleep(0)
                order.append(number)

        async with asyncio.TaskGroup() as tasks:
            for number in range(3):
                tasks.create_task(hold(number))
        return order


@durable_actor
class Belt:
    """Takes an item in each of its lives."""

    def __init__(self) -> None:
        self.items: asyncio.Queue[str] = asyncio.Queue()
        self.taken: list[str] = []

    @workflow
    async def run(self, left: int) -> list[str]:
        self.taken.append(await self.items.get())
        if left > 1:
            continue_as_new(left - 1)
        return self.taken

    @on_signal
    def put(self, item: str) -> None:
        self.items.put_nowait(item)


async def test_a_queue_is_waited_for_again_after_a_rest(make_world: MakeWorld) -> None:
    world = await make_world(Shelf)
    shelf = world.ref(Shelf, "s")

    for item in ("one", "two"):
        taking = asyncio.create_task(shelf.ask(Shelf.take))
        await world.settled()
        await send_signal(shelf, Shelf.put, item)

        assert await taking == item


@pytest.mark.promise("one-piece-at-a-time")
async def test_locks_are_contended_for_in_one_turn_after_the_other(make_world: MakeWorld) -> None:
    world = await make_world(Shelf)
    shelf = world.ref(Shelf, "s")

    orders = [await shelf.ask(Shelf.contend)]
    await world.ref(Shelf, "another").ask(Shelf.contend)
    orders.append(await shelf.ask(Shelf.contend))
    await world.restart()
    orders.append(await shelf.ask(Shelf.contend))

    assert orders == [[0, 1, 2]] * 3


async def test_a_queue_outlives_a_life_of_the_workflow(make_world: MakeWorld) -> None:
    world = await make_world(Belt)
    belt = await world.start(Belt.run, "b", 3)

    for item in ("one", "two", "three"):
        await world.settled()
        await send_signal(belt, Belt.put, item)

    assert await belt.result() == ["one", "two", "three"]
