"""What a world does for a test: it moves the clock while the test waits, counts and replaces steps, and takes in what it is shown."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path

import pytest
from perdure.actors import (
    AskTimeout,
    Retry,
    RuntimeNotRunning,
    current_actor,
    durable_actor,
    on_event,
    send_signal,
    signal,
    spawn,
    step,
    step_info,
    wait_for_signal,
    workflow,
)
from perdure.actors.testing import CrashPoint, NothingHappens, World
from perdure.storage import Batch, CommitUncertain, Fence

from .conftest import MakeWorld

pytestmark = pytest.mark.anyio

HOUR = 3600.0
YEAR = 365


@step(retry=Retry(max_attempts=3))
async def charge(order: str, cents: int) -> str:
    raise AssertionError("the bank itself")


@step
def label(order: str) -> str:
    return f"label of {order}"


@durable_actor
class Order:
    approved = signal(str)

    @workflow
    async def run(self, cents: int) -> str:
        paid = await charge(current_actor().key, cents)
        by = await wait_for_signal(Order.approved, timeout=timedelta(days=3))
        await asyncio.sleep(14 * 24 * HOUR)
        return f"{paid} by {by}, {await label(current_actor().key)}"


@durable_actor
class Sleeper:
    def __init__(self) -> None:
        self.days = 0

    @workflow
    async def run(self, days: int) -> int:
        for _ in range(days):
            await asyncio.sleep(24 * HOUR)
            self.days += 1
        return self.days

    @on_event
    async def nap(self) -> None:
        await asyncio.sleep(HOUR)


@durable_actor
class Parent:
    @workflow
    async def run(self) -> int:
        return await spawn(Sleeper.run, None, 2).result()


@durable_actor
class Patient:
    called = signal()

    @workflow
    async def run(self) -> None:
        await wait_for_signal(Patient.called)


@durable_actor
class Restless:
    @workflow
    async def run(self) -> None:
        while True:  # noqa: ASYNC110  that is what it is about
            await asyncio.sleep(1)


async def paid(order: str, cents: int) -> str:
    return f"{order} paid {cents}"


async def test_a_clock_jumps_while_a_test_waits_for_a_result(make_world: MakeWorld) -> None:
    world = await make_world(Order)
    world.replace(charge, paid)
    begun = world.clock.now()

    order = await world.start(Order.run, "o-1", 42)
    await send_signal(order, Order.approved, "ada")

    assert await order.result() == "o-1 paid 42 by ada, label of o-1"
    assert world.clock.now() - begun == 14 * 24 * HOUR


async def test_a_clock_stands_still_while_a_test_does_not_wait(make_world: MakeWorld) -> None:
    world = await make_world(Sleeper)
    begun = world.clock.now()

    sleeper = await world.start(Sleeper.run, "s", 1)
    await world.settled()
    await sleeper.info()
    await asyncio.sleep(0.02)

    assert world.clock.now() == begun


async def test_a_waiting_task_lets_no_time_pass_before_what_the_test_still_does(make_world: MakeWorld) -> None:
    world = await make_world(Order)
    world.replace(charge, paid)
    order = await world.start(Order.run, "o-1", 42)

    waiting = asyncio.create_task(order.result())
    await world.settled()
    await world.advance(timedelta(days=2))
    await send_signal(order, Order.approved, "bob")

    assert await waiting == "o-1 paid 42 by bob, label of o-1"


async def test_a_clock_that_only_the_test_moves_waits_for_it(make_world: MakeWorld) -> None:
    world = await make_world(Sleeper, autojump=False)
    nap = asyncio.create_task(world.ref(Sleeper, "s").ask(Sleeper.nap))

    await asyncio.wait([nap], timeout=0.05)
    assert not nap.done()

    await world.advance(timedelta(hours=1))
    await nap


async def test_an_asks_time_out_passes_at_once_and_first(make_world: MakeWorld) -> None:
    world = await make_world(Sleeper)
    begun = world.clock.now()

    with pytest.raises(AskTimeout):
        await world.ref(Sleeper, "s").options(timeout=timedelta(minutes=5)).ask(Sleeper.nap)

    assert world.clock.now() - begun == 300


async def test_waiting_in_vain_is_told_with_what_is_missing(make_world: MakeWorld) -> None:
    world = await make_world(Patient)
    patient = await world.start(Patient.run, "p")

    with pytest.raises(NothingHappens, match=r"waits for 'result' of Patient/p(?s:.)*Patient/p is suspended: it waits for signal called"):
        await patient.result()


async def test_a_timer_that_never_ends_is_told_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.actors.testing._jumper.JUMPS_AT_MOST", 20)
    async with World() as world:
        restless = await world.start(Restless.run, "r")

        with pytest.raises(NothingHappens, match="after 20 jumps of the clock there is still something due"):
            await restless.result()


async def test_a_world_takes_in_the_types_that_it_is_shown() -> None:
    async with World() as world:
        assert await (await world.start(Parent.run, "p")).result() == 2

        await world.restart()

        assert [str(info.id) async for info in world.actors(Parent)] == ["Parent/p"]


async def test_a_step_is_counted_and_replaced_over_restarts(make_world: MakeWorld) -> None:
    world = await make_world(Order)
    keys = []

    def unlucky(order: str, cents: int) -> str:
        keys.append(step_info().idempotency_key)
        if len(keys) < 3:
            raise ConnectionError("the line is cut")
        return "paid at last"

    world.replace(charge, unlucky)
    order = await world.start(Order.run, "o-1", 42)
    await world.settled()
    await world.restart()
    await send_signal(order, Order.approved, "ada")

    assert await order.result() == "paid at last by ada, label of o-1"
    assert (world.calls(charge), len(set(keys)), world.calls(label)) == (3, 1, 1)


async def test_a_recorded_step_is_never_run_again_after_a_crash(make_world: MakeWorld) -> None:
    world = await make_world(Order)
    world.replace(charge, paid)
    order = await world.start(Order.run, "o-1", 42)
    world.crash_at(CrashPoint.AFTER_COMMIT, nth=2)  # that of the outcome is the first

    await send_signal(order, Order.approved, "ada")
    await world.run_until_idle()

    assert (world.store.crashes, world.calls(charge), await order.result()) == (1, 1, "o-1 paid 42 by ada, label of o-1")


async def test_who_waits_through_a_crash_is_told_and_nobody_else(make_world: MakeWorld) -> None:
    world = await make_world(Sleeper)
    world.crash_at(CrashPoint.BEFORE_COMMIT)

    with pytest.raises(CommitUncertain):
        await world.start(Sleeper.run, "s", 1)
    await world.settled()

    assert await (await world.start(Sleeper.run, "s", 1)).result() == 1


async def test_a_restart_while_somebody_waits_leaves_the_clock_jumping(make_world: MakeWorld) -> None:
    world = await make_world(Order)
    world.replace(charge, paid)
    order = await world.start(Order.run, "o-1", 42)

    await world.restart()
    await send_signal(order, Order.approved, "ada")
    await world.restart()

    assert await order.result() == "o-1 paid 42 by ada, label of o-1"


async def test_what_comes_while_a_wait_is_given_up_is_not_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    told = asyncio.Event()

    async def explain_late(self: World, awaited: list[str]) -> str:
        await send_signal(self.ref(Patient, "p"), Patient.called)
        told.set()
        return "in vain"

    monkeypatch.setattr(World, "_explain", explain_late)
    monkeypatch.setattr("perdure.actors.testing._jumper.STUCK_AFTER", 0.01)
    async with World() as world:
        await (await world.start(Patient.run, "p")).result()

        assert told.is_set()


async def test_a_disk_that_takes_its_time_moves_no_clock(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.actors.testing._world.PATIENCE", 0.01)
    world = await make_world(Order)
    world.replace(charge, paid)
    order = await world.start(Order.run, "o-1", 42)
    await world.settled()
    begun = world.clock.now()
    commit = world.store._beneath.commit

    async def late(batch: Batch, fence: Fence) -> bool:
        await asyncio.sleep(0.05)
        return await commit(batch, fence)

    monkeypatch.setattr(world.store._beneath, "commit", late)
    await send_signal(order, Order.approved, "ada")

    assert world.clock.now() == begun


@pytest.mark.parametrize("rounds", [0, 1, 5])
async def test_a_world_that_is_cancelled_leaves_no_store_locked(rounds: int, tmp_path: Path) -> None:
    async def enter() -> None:
        async with World(store=f"lmdb:{tmp_path}/store"):
            pass

    entering = asyncio.create_task(enter())
    for _ in range(1 + rounds):
        await asyncio.sleep(0)
    entering.cancel()
    await asyncio.wait([entering])

    await enter()


async def test_a_world_that_was_left_says_so() -> None:
    async with World() as world:
        sleeper = await world.start(Sleeper.run, "s", 1)

    with pytest.raises(RuntimeNotRunning, match="a world that has been left"):
        await sleeper.result()


async def test_a_world_may_begin_in_one_task_and_end_in_another() -> None:
    world = World()

    sleeper = await asyncio.create_task(world.start(Sleeper.run, "s", 3))
    assert await asyncio.create_task(sleeper.result()) == 3

    async with world:
        assert (await sleeper.info()).status == "completed"


async def test_a_year_of_days_passes_within_a_second() -> None:
    async with World() as world:
        begun = time.process_time()

        assert await (await world.start(Sleeper.run, "s", YEAR)).result() == YEAR

        assert time.process_time() - begun < 1
