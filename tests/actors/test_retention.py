"""Retention: what has ended is forgotten when its time has passed, not before, and with nothing left behind."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from perdure.actors import (
    ActorNotFound,
    DefinitionError,
    WorkflowNotStarted,
    durable_actor,
    emit,
    on_event,
    send_signal,
    signal,
    wait_for_signal,
    workflow,
)
from perdure.actors._persistence import PARTITION, Table
from perdure.actors.testing import CrashPoint, World
from perdure.storage import CommitUncertain, keys

from .conftest import MakeWorld

pytestmark = [pytest.mark.anyio, pytest.mark.promise("retention-takes-whole")]


DAY = timedelta(days=1)
OF_THE_HOST = {Table.HOST, Table.REGISTRY}


@durable_actor(retention=timedelta(days=7))
class Order:
    paid = signal(int)
    never = signal(int)

    @workflow
    async def run(self, what: str) -> str:
        emit("begun", what)
        cents = await wait_for_signal(Order.paid)
        return f"{what} for {cents}"

    @on_event
    def note(self, text: str) -> None:
        raise ValueError(text)


async def ended(world: World, key: str) -> None:
    order = await world.start(Order.run, key, "tea")
    await send_signal(order, Order.never, 1)
    await send_signal(order, Order.paid, 100)
    await order.result()


async def left_in(world: World) -> set[Table]:
    entries = await world.store.scan(keys.below((PARTITION,)), limit=1_000)
    tables = [keys.unpack(entry.key)[1] for entry in entries]
    return {Table(table) for table in tables if isinstance(table, int)} - OF_THE_HOST


async def test_an_ended_actor_goes_with_all_of_its_own(make_world: MakeWorld) -> None:
    world = await make_world(Order)
    await ended(world, "o")

    await world.advance(6 * DAY)
    result = await world.ref(Order.run, "o").result()
    await world.advance(DAY)

    assert result == "tea for 100"
    with pytest.raises(ActorNotFound):
        await world.ref(Order, "o").info()
    assert await left_in(world) == set()


async def test_what_has_not_ended_is_kept(make_world: MakeWorld) -> None:
    world = await make_world(Order)
    order = await world.start(Order.run, "o", "tea")

    await world.advance(30 * DAY)
    await send_signal(order, Order.paid, 100)

    assert await order.result() == "tea for 100"


async def test_a_new_life_has_its_own_time(make_world: MakeWorld) -> None:
    world = await make_world(Order)
    await ended(world, "o")
    await world.advance(6 * DAY)
    order = await world.options(if_exists="restart").start(Order.run, "o", "ham")

    await world.advance(6 * DAY)
    await send_signal(order, Order.paid, 200)
    await world.advance(6 * DAY)

    assert await order.result() == "ham for 200"


@pytest.mark.promise("keys-outlive-their-actor")
async def test_its_idempotency_keys_outlive_it_until_they_expire(make_world: MakeWorld) -> None:
    @durable_actor(retention=timedelta(hours=1))
    class Brief:
        @workflow
        async def run(self) -> str:
            return "done"

        @on_event
        def work(self) -> int:
            done.append("work")
            return len(done)

    done: list[str] = []
    world = await make_world(Brief)
    brief = world.ref(Brief, "b").options(idempotency_key="k")
    await brief.ask(Brief.work)
    await world.start(Brief.run, "b")

    await world.advance(timedelta(hours=2))

    assert await brief.ask(Brief.work) == 1
    with pytest.raises(WorkflowNotStarted):
        await world.ref(Brief.run, "b").result()


@pytest.mark.parametrize("point", list(CrashPoint))
async def test_a_crash_while_it_goes_leaves_all_or_nothing(tmp_path: Path, point: CrashPoint) -> None:
    async with World([Order], store=f"lmdb:{tmp_path}/store") as world:
        await ended(world, "o")
        await world.settled()
        world.clock.move_to(world.clock.now() + 8 * 86400)
        world.crash_at(point)

        with suppress(CommitUncertain):
            await world.runtime.sweep()
            await world.settled()
        await world.advance(DAY)

        assert await left_in(world) == set()


async def test_a_type_that_is_not_served_keeps_its_actors(tmp_path: Path) -> None:
    @durable_actor
    class Other:
        @on_event
        def work(self) -> None:
            """Do nothing."""

    async with World([Order], store=f"lmdb:{tmp_path}/store") as world:
        await ended(world, "o")
    async with World([Other], store=f"lmdb:{tmp_path}/store") as world:
        await world.advance(30 * DAY)

    async with World([Order], store=f"lmdb:{tmp_path}/store") as world:
        assert await world.ref(Order.run, "o").result() == "tea for 100"


def test_a_retention_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(DefinitionError, match="keeps nothing"):
        durable_actor(retention=timedelta(0))
