"""Trials: what a test that survives crashes has been through, and what is said of one that does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

import pytest
from perdure.actors import (
    QueryChangedState,
    durable_actor,
    on_event,
    query,
    send_signal,
    signal,
    step,
    step_info,
    wait_for_signal,
    workflow,
)
from perdure.actors.testing import CrashPoint, DoesNotSurvive, Scenario, World, survives_crashes
from perdure.storage import CommitUncertain

pytestmark = [pytest.mark.anyio, pytest.mark.promise("survives-crashes")]

Trial = Callable[[World], Awaitable[None]]


@step
async def charge(cents: int) -> int:
    return cents


@step
async def add(number: int, more: int) -> int:
    return number + more


@durable_actor
class Order:
    approved = signal(str)

    def __init__(self) -> None:
        self.lines: list[str] = []

    @on_event
    def add_line(self, sku: str) -> int:
        self.lines.append(sku)
        return len(self.lines)

    @workflow
    async def run(self, cents: int) -> str:
        paid = await charge(cents)
        by = await wait_for_signal(Order.approved, timeout=timedelta(days=3))
        await asyncio.sleep(86_400)
        return f"{paid} by {by}"

    @query
    def count(self) -> int:
        return len(self.lines)

    @query
    def careless(self) -> int:
        self.lines.clear()
        return 0


@durable_actor
class Sum:
    @workflow
    async def run(self, count: int) -> int:
        total = 0
        for number in range(count):
            total = await add(total, number)
        return total


@durable_actor
class Watcher:
    def __init__(self) -> None:
        self.seen = 0.0

    @workflow
    async def run(self) -> float:
        await asyncio.sleep(1)
        return self.look()

    @on_event
    async def glance(self) -> None:
        self.look()

    def look(self) -> float:
        self.seen = time.time()
        return self.seen


@durable_actor
class Clerk:
    def __init__(self) -> None:
        self.has_learnt = False
        self.count = 0

    @on_event
    def file(self) -> None:
        if not self.has_learnt:
            raise LookupError("where?")
        self.count += 1

    @on_event
    def learn(self) -> None:
        self.has_learnt = True

    @query
    def filed(self) -> int:
        return self.count


@durable_actor
class Forgetful:
    made = 0  # how many objects were: another number after each replay

    def __init__(self) -> None:
        Forgetful.made += 1
        self.number = Forgetful.made

    @workflow
    async def run(self) -> None:
        self.number += 0
        await asyncio.sleep(1)
        await asyncio.sleep(self.number)


REMEMBERED: list[int] = []


@durable_actor
class Absent:
    """Asks once in the life of its process."""

    @workflow
    async def run(self) -> int:
        if not REMEMBERED:
            REMEMBERED.append(await charge(1))
        return REMEMBERED[0]


class Bank:
    """Charges once for each key; or, if it is careless, as often as it is asked to."""

    def __init__(self, *, careless: bool = False) -> None:
        self.total = 0
        self._careless = careless
        self._keys: set[str] = set()

    async def charge(self, cents: int) -> int:
        key = step_info().idempotency_key
        if self._careless or key not in self._keys:
            self.total += cents
        self._keys.add(key)
        return cents


async def order_something(world: World, bank: Bank) -> None:
    world.replace(charge, bank.charge)
    order = await world.start(Order.run, "o-1", 42)
    assert await order.ask(Order.add_line, "sku-1") == 1
    assert await order.ask(Order.add_line, "sku-1") == 2
    await send_signal(order, Order.approved, "ada")
    assert await order.result() == "42 by ada"
    assert await order.query(Order.count) == 2
    assert bank.total == 42


@survives_crashes
async def test_an_order_survives_whatever_happens_to_its_host(world: World) -> None:
    await order_something(world, Bank())


@pytest.mark.slow
@survives_crashes(seeds=1)
async def test_the_same_holds_on_a_disk(durable_world: World) -> None:
    await order_something(durable_world, Bank())


async def looks_around(world: World) -> None:
    order = await world.start(Order.run, "o-1", 42)
    assert [str(info.id) async for info in world.actors()] == ["Order/o-1"]
    await world.restart()
    assert await world.dead_letters() == []
    await world.advance(timedelta(days=2))
    await send_signal(order, Order.approved, "ada")
    await world.advance(timedelta(days=60))
    assert [info.status async for info in world.actors(Order)] == ["completed"]


async def leaves_early(world: World) -> None:
    await world.start(Order.run, "o-1", 42)


async def puts_right(world: World) -> None:
    clerk = world.ref(Clerk, "c")
    await clerk.send_event(Clerk.file)
    await world.run_until_idle()
    await clerk.ask(Clerk.learn)
    await clerk.redrive()
    await world.settled()
    assert await clerk.query(Clerk.filed) == 1
    assert await world.dead_letters() == []


async def crashes_by_itself(world: World) -> None:
    order = world.ref(Order, "o-1")
    world.crash_at(CrashPoint.AFTER_COMMIT)
    with suppress(CommitUncertain):
        await order.ask(Order.add_line, "sku-1")
    assert await order.query(Order.count) == 1


@pytest.mark.parametrize("test", [looks_around, leaves_early, puts_right, crashes_by_itself])
async def test_a_test_that_is_right_survives(test: Trial, scenarios: list[str]) -> None:
    await try_out(test, World(), scenarios)

    assert len(scenarios) < 60


@pytest.mark.parametrize("scenario", ["plain", "evict+seed-1", "crash-after-3+evict+seed-2", "crash-before-4"])
async def test_a_scenario_plays_the_same_again(scenario: str) -> None:
    async def play() -> list[str]:
        async with World(scenario=scenario) as world:
            sums = [await world.start(Sum.run, f"s-{number}", 4) for number in range(4)]
            orders = [await world.start(Order.run, f"o-{number}", number) for number in range(4)]
            await asyncio.gather(*(send_signal(order, Order.approved, "ada") for order in orders))
            await asyncio.gather(*(each.result() for each in [*sums, *orders]))
            return [str(world.commits), *[str(entry) for each in [*sums, *orders] for entry in await world.history(each)]]

    assert await play() == await play() == await play()


async def test_a_step_that_a_fixture_replaces_is_replaced_in_each_run(scenarios: list[str]) -> None:
    async def is_paid(world: World) -> None:
        assert await (await world.start(Sum.run, "s", 3)).result() == 42

    world = World()
    world.replace(add, lambda number, more: 42)

    await try_out(is_paid, world, scenarios)


async def test_a_world_that_a_fixture_has_begun_is_refused(scenarios: list[str]) -> None:
    async with World() as world:
        with pytest.raises(TypeError, match="a World that is in use already: each run has one of its own"):
            await try_out(leaves_early, world, scenarios)

    assert scenarios == []


@pytest.fixture
def scenarios() -> list[str]:
    """What befell the worlds in which a test was run."""
    return []


async def try_out(test: Trial, world: World, scenarios: list[str], **options: int) -> None:
    @survives_crashes(**options)
    async def noted(world: World) -> None:
        scenarios.append(str(world.scenario))
        await test(world)

    await noted(world)


async def test_a_trial_crashes_at_each_commit_and_does_everything_else_once(scenarios: list[str]) -> None:
    await try_out(lambda world: order_something(world, Bank()), World(), scenarios, seeds=2)

    crashes = [[name for name in scenarios if name.startswith(f"crash-{point.value}-") and "+" not in name] for point in CrashPoint]
    assert all(len(names) > 5 and names == [f"{names[0][:-2]}-{nth}" for nth in range(1, len(names) + 1)] for names in crashes)
    assert {"plain", "evict", "resend", "evict+resend", "seed-0", "seed-1"} <= {*scenarios}
    assert [name for name in scenarios if name.startswith("twice")] == [f"twice-{charge.name}"]
    assert sum(name.count("crash") == 2 for name in scenarios) == 2


async def test_a_step_whose_effect_doubles_is_pointed_out(scenarios: list[str]) -> None:
    with pytest.raises(DoesNotSurvive, match=rf"the step {charge.name} is not idempotent") as failed:
        await try_out(lambda world: order_something(world, Bank(careless=True)), World(), scenarios)

    assert scenarios == ["plain", f"twice-{charge.name}"]
    assert f"World(scenario='twice-{charge.name}')" in str(failed.value)


async def test_a_failure_tells_the_trouble_and_how_to_bring_it_back(scenarios: list[str]) -> None:
    async def counts_attempts(world: World) -> None:
        total = await world.start(Sum.run, "s", 3)
        assert await total.result() == 3
        assert world.calls(add) == 3

    with pytest.raises(DoesNotSurvive, match=f"for one asking {add.name} ran 2 times") as failed:
        await try_out(counts_attempts, World(), scenarios)

    assert f"a crash before commit {scenarios[-1].rpartition('-')[2]}" in str(failed.value)
    assert f" #1 start run: step {add.name} → suspended\n" in str(failed.value)
    with pytest.raises(DoesNotSurvive, match="AssertionError"):
        await try_out(counts_attempts, World(scenario=scenarios[-1]), [])


async def test_code_that_reads_the_wall_clock_is_pointed_out(scenarios: list[str]) -> None:
    async def looks_at_the_clock(world: World) -> None:
        await (await world.start(Watcher.run, "w")).result()

    with pytest.raises(DoesNotSurvive, match=r"test_survival\.py:\d+: `time\.time\(\)` reads a clock.*current_actor\(\)\.now\(\)"):
        await try_out(looks_at_the_clock, World(), scenarios)

    assert scenarios == ["plain"]


async def test_a_handler_that_is_never_replayed_may_read_the_clock() -> None:
    async def glances(world: World) -> None:
        await world.ref(Watcher, "w").ask(Watcher.glance)

    await try_out(glances, World(), [])


async def test_a_replay_that_comes_to_something_else_is_pointed_out(scenarios: list[str]) -> None:
    async def counts_objects(world: World) -> None:
        await (await world.start(Forgetful.run, "f")).result()

    with pytest.raises(DoesNotSurvive, match=r"Forgetful/f: after replay self\.number was not what it had been"):
        await try_out(counts_objects, World(), scenarios)

    assert scenarios[-1] == "evict"


async def test_code_that_remembers_beside_its_state_is_pointed_out(scenarios: list[str]) -> None:
    async def remembers(world: World) -> None:
        assert await (await world.start(Absent.run, "a")).result() == 1

    REMEMBERED.clear()
    with pytest.raises(DoesNotSurvive, match=r"what Absent/a did is not what a replay of it does"):
        await try_out(remembers, World(), scenarios)

    assert scenarios == ["plain"]


async def test_a_query_that_changes_state_fails_at_once(scenarios: list[str]) -> None:
    async def asks_the_wrong_one(world: World) -> None:
        order = world.ref(Order, "o")
        await order.ask(Order.add_line, "sku")
        await order.query(Order.careless)

    with pytest.raises(QueryChangedState):
        await try_out(asks_the_wrong_one, World(), scenarios)

    assert scenarios == ["plain"]


async def test_a_test_that_fails_without_trouble_fails_as_it_is(scenarios: list[str]) -> None:
    async def fails(world: World) -> None:
        raise LookupError("what?")

    with pytest.raises(LookupError, match="what"):
        await try_out(fails, World(), scenarios)


async def test_a_test_without_a_world_is_told_what_it_lacks() -> None:
    @survives_crashes
    async def lonely() -> None:
        raise AssertionError("never run")

    with pytest.raises(TypeError, match="it takes one, as `world: World`"):
        await lonely()


@pytest.mark.parametrize(
    "text", ["plain", "crash-before-3", "crash-after-1+crash-before-2+evict+resend+seed-7", "twice-shop.orders.charge-it"]
)
def test_a_scenario_is_read_as_it_is_written(text: str) -> None:
    assert str(Scenario.parse(text)) == text


@pytest.mark.parametrize("text", ["", "crash", "crash-in-3", "crash-before-x", "seed-", "evict-3", "twice"])
def test_what_is_no_scenario_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no part of a scenario: it is made of plain, crash-before-N"):
        Scenario.parse(text)


async def test_all_commit_points_of_ten_steps_are_tried_within_a_second() -> None:
    async def adds_up(world: World) -> None:
        assert await (await world.start(Sum.run, "s", 10)).result() == 45

    begun = time.process_time()
    tried: list[str] = []
    await try_out(adds_up, World(), tried)

    assert len(tried) > 30
    assert time.process_time() - begun < 1
