"""The order of the documentation, whole: it waits for a step, a person, another workflow and two weeks, and survives a crash in each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

import pytest
from perdure.actors import (
    Retry,
    current_actor,
    durable_actor,
    on_event,
    on_signal,
    query,
    send_signal,
    signal,
    step,
    wait_for_signal,
    workflow,
)
from perdure.actors.testing import CrashPoint, World
from perdure.storage import CommitUncertain

from .conftest import MakeWorld

pytestmark = pytest.mark.anyio

T = TypeVar("T")

TWO_WEEKS = 14 * 86400
charged: list[tuple[str, int]] = []


@step(retry=Retry(max_attempts=5), timeout=timedelta(seconds=10))
async def charge(order: str, cents: int) -> str:
    charged.append((order, cents))
    return f"receipt for {cents}"


@durable_actor
class Shipment:
    @workflow
    async def run(self, approved_by: str) -> str:
        await asyncio.sleep(3600)
        return f"label for {approved_by}"


@durable_actor(version=1)
class Order:
    approved = signal(str)

    def __init__(self) -> None:
        self.status = "new"
        self.lines: list[str] = []

    @on_event
    def add_line(self, sku: str) -> int:
        self.lines.append(sku)
        return len(self.lines)

    @workflow
    async def run(self, cents: int) -> str:
        order = current_actor().key
        await charge(order, cents)
        self.status = "waiting for approval"
        by = await wait_for_signal(Order.approved, timeout=timedelta(days=3))
        shipment = await current_actor().start(Shipment.run, order, by)
        label = await shipment.result()
        await asyncio.sleep(TWO_WEEKS)
        self.status = "closed"
        return label

    @on_signal
    def hurry(self, why: str) -> None:
        self.status += f", in a hurry: {why}"

    @query
    def progress(self) -> str:
        return self.status


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """Call again if a crash came between."""
    try:
        return await call()
    except CommitUncertain:
        return await call()


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    charged.clear()
    return await make_world(Order, Shipment)


async def test_the_order_of_the_design_runs_to_its_end(world: World) -> None:
    order = await world.start(Order.run, "o-42", 4200)
    await world.settled()

    assert await order.ask(Order.add_line, "sku-1") == 1
    await send_signal(order, Order.hurry, "a birthday")
    assert await order.query(Order.progress) == "waiting for approval, in a hurry: a birthday"
    await send_signal(order, Order.approved, "ada")
    await world.run_until_idle()

    assert (await order.result(), await order.query(Order.progress)) == ("label for ada", "closed")


async def test_the_order_takes_two_weeks_and_an_hour(world: World) -> None:
    order = await world.start(Order.run, "o-42", 4200)
    await send_signal(order, Order.approved, "ada")

    await world.advance(timedelta(seconds=TWO_WEEKS + 3599))
    before = (await order.info()).status
    await world.advance(timedelta(seconds=2))

    assert (before, (await order.info()).status) == ("suspended", "completed")


@pytest.mark.promise("what-waits-goes-on", "steps-recorded-once")
@pytest.mark.parametrize("point", CrashPoint)
@pytest.mark.parametrize("nth", range(1, 8))
async def test_a_crash_at_any_commit_changes_nothing_of_the_order(world: World, point: CrashPoint, nth: int) -> None:
    order = await world.start(Order.run, "o-42", 4200)
    world.crash_at(point, nth)

    await insist(lambda: send_signal(order.options(idempotency_key="yes"), Order.approved, "ada"))
    await insist(world.run_until_idle)

    assert await insist(order.result) == "label for ada"
    assert set(charged) == {("o-42", 4200)}


async def test_an_order_that_nobody_approves_fails_after_three_days(world: World) -> None:
    order = await world.start(Order.run, "o-42", 4200)

    await world.run_until_idle()

    info = await order.info()
    assert info.status == "failed"
    assert "waited 259200 s for the signal 'approved'" in str(info.error)
