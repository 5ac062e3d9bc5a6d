"""Timers: set, replaced, cancelled, on time to the last bit, and once each, whoever is in memory and whichever host runs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from perdure.actors import (
    Client,
    RuntimeNotRunning,
    SignalTimeout,
    cancel_timer,
    current_actor,
    durable_actor,
    on_event,
    on_timer,
    query,
    send_signal,
    set_timer,
    signal,
    step,
    step_info,
    wait_for_signal,
    workflow,
)
from perdure.actors import _alarms as alarms
from perdure.actors.testing import World

from .conftest import MakeWorld

pytestmark = pytest.mark.anyio

MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)


@step
async def dawdle_for_ever() -> None:
    step_info().resources["begun"].set()
    await asyncio.Event().wait()


@durable_actor
class Clockwork:
    """Notes when it is called, in seconds since it was made."""

    def __init__(self) -> None:
        self.made = 0.0
        self.struck: list[float] = []
        self.moments: list[datetime] = []
        self.failures = 0

    @on_event
    def set(
        self, after: timedelta | None = None, at: datetime | None = None, every: timedelta | None = None, catch_up: bool = False
    ) -> None:
        self.made = self.made or current_actor().now().timestamp()
        set_timer(Clockwork.strike, after=after, at=at, every=every, catch_up=catch_up)

    @on_event
    def set_the_other(self, after: timedelta) -> None:
        set_timer(Clockwork.strike_twice, after=after)

    @on_event
    def cancel(self) -> None:
        cancel_timer(Clockwork.strike)

    @on_event
    def set_and_fail(self) -> None:
        set_timer(Clockwork.strike, after=MINUTE)
        raise LookupError("never mind")

    @on_event
    def fail_so_often(self, failures: int) -> None:
        self.failures = failures

    @on_event
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @on_event
    async def dawdle(self) -> None:
        await dawdle_for_ever()

    @on_timer
    def strike(self) -> None:
        if self.failures and current_actor().attempt <= self.failures:
            raise ConnectionError("it is stuck")
        self.struck.append(round(current_actor().now().timestamp() - self.made, 6))
        self.moments.append(current_actor().now())

    @on_timer
    async def strike_twice(self) -> None:
        self.strike()
        await asyncio.sleep(1)
        self.strike()

    @query
    def strikes(self) -> list[float]:
        return self.struck

    @query
    def times(self) -> list[datetime]:
        return self.moments


@durable_actor
class Order:
    """Waits an hour for an approval."""

    approved = signal(str)

    @workflow
    async def run(self) -> str:
        try:
            return await wait_for_signal(Order.approved, timeout=HOUR)
        except SignalTimeout:
            return "nobody"


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    return await make_world(Clockwork, Order)


async def strikes(world: World) -> list[float]:
    return await world.ref(Clockwork, "c").query(Clockwork.strikes)


# --- when ---


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"after": MINUTE}, [60]),
        ({"after": timedelta(0)}, [0]),
        ({"every": MINUTE}, [60, 120, 180]),
        ({"every": MINUTE, "after": timedelta(0)}, [0, 60, 120, 180]),
        ({"every": MINUTE, "after": timedelta(seconds=90)}, [90, 150]),
    ],
    ids=str,
)
async def test_a_timer_calls_its_handler_when_it_is_due(world: World, how: dict[str, Any], expected: list[float]) -> None:
    await world.ref(Clockwork, "c").ask(Clockwork.set, **how)

    await world.advance(timedelta(seconds=200))

    assert await strikes(world) == expected


async def test_a_moment_is_kept_to_the_last_bit(world: World) -> None:
    moment = datetime.fromtimestamp(world.clock.now() + 0.1 + 0.2, UTC)

    await world.ref(Clockwork, "c").ask(Clockwork.set, at=moment)
    await world.run_until_idle()

    assert await world.ref(Clockwork, "c").query(Clockwork.times) == [moment]


async def test_a_moment_that_has_passed_is_due_at_once(world: World) -> None:
    await world.ref(Clockwork, "c").ask(Clockwork.set, at=datetime(2020, 1, 1, tzinfo=UTC))

    await world.settled()

    assert await strikes(world) == [0]


async def test_who_waits_until_nothing_is_due_is_told_of_the_hosts_end(make_world: MakeWorld) -> None:
    begun = asyncio.Event()
    world = await make_world(Clockwork, autojump=False, resources={"begun": begun})
    await world.ref(Clockwork, "c").ask(Clockwork.set, after=MINUTE)
    await world.ref(Clockwork, "c").send_event(Clockwork.dawdle)
    await begun.wait()
    settling = asyncio.create_task(world.runtime.settled())
    await asyncio.sleep(0)

    world.runtime.abort()
    world.clock.move_to(world.clock.now() + 60)

    with pytest.raises(RuntimeNotRunning):
        await asyncio.wait_for(settling, 5)


async def test_timers_fire_in_the_order_of_their_due_times(world: World) -> None:
    clockwork = world.ref(Clockwork, "c")
    await clockwork.ask(Clockwork.set, after=3 * MINUTE)
    await clockwork.ask(Clockwork.set_the_other, 2 * MINUTE)

    await world.run_until_idle()

    assert await strikes(world) == [120, 121, 180]


# --- set anew ---


@pytest.mark.promise("timers-fire-once-never-early")
async def test_a_timer_set_again_replaces_what_was_set(world: World) -> None:
    clockwork = world.ref(Clockwork, "c")
    await clockwork.ask(Clockwork.set, every=MINUTE)

    await world.advance(timedelta(seconds=90))
    await clockwork.ask(Clockwork.set, after=HOUR)
    await world.run_until_idle()

    assert await strikes(world) == [60, 3690]


async def test_a_timer_put_off_again_and_again_costs_no_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms, "WINDOW", 4)
    clockwork = world.ref(Clockwork, "c")

    for seconds in range(50, 0, -1):
        await clockwork.ask(Clockwork.set, after=timedelta(seconds=100 - seconds))
    await world.advance(timedelta(seconds=101))

    assert await strikes(world) == [99]


async def test_a_cancelled_timer_does_not_fire(world: World) -> None:
    clockwork = world.ref(Clockwork, "c")
    await clockwork.ask(Clockwork.set, every=MINUTE)
    await world.advance(timedelta(seconds=90))

    await clockwork.ask(Clockwork.cancel)
    await clockwork.ask(Clockwork.cancel)
    await world.run_until_idle()

    assert await strikes(world) == [60]


@pytest.mark.promise("atomic-turns")
async def test_a_handler_that_fails_has_set_no_timer(world: World) -> None:
    with pytest.raises(LookupError):
        await world.ref(Clockwork, "c").ask(Clockwork.set_and_fail)

    await world.run_until_idle()

    assert await strikes(world) == []


# --- as events ---


@pytest.mark.promise("one-piece-at-a-time")
async def test_a_timer_waits_for_the_event_before_it(world: World) -> None:
    clockwork = world.ref(Clockwork, "c")
    await clockwork.ask(Clockwork.set, after=MINUTE)
    await clockwork.send_event(Clockwork.sleep, 100.0)

    await world.run_until_idle()

    assert await strikes(world) == [100]


async def test_a_timer_handler_that_fails_is_tried_again(world: World) -> None:
    clockwork = world.ref(Clockwork, "c")
    await clockwork.ask(Clockwork.fail_so_often, 1)
    await clockwork.ask(Clockwork.set, after=MINUTE)

    await world.run_until_idle()

    (struck,) = await strikes(world)
    assert 60.5 <= struck <= 61


async def test_a_timer_handler_that_keeps_failing_is_a_dead_letter(world: World) -> None:
    clockwork = world.ref(Clockwork, "c")
    await clockwork.ask(Clockwork.fail_so_often, 99)
    await clockwork.ask(Clockwork.set, after=MINUTE)

    await world.run_until_idle()

    (letter,) = await world.dead_letters()
    assert (letter.handler, "it is stuck" in letter.error) == ("strike", True)


# --- restarts ---


@pytest.mark.promise("timers-fire-once-never-early")
@pytest.mark.parametrize(("catch_up", "expected"), [(False, 1), (True, 5)])
async def test_what_fell_due_while_no_host_ran_fires_at_start(world: World, catch_up: bool, expected: int) -> None:
    await world.ref(Clockwork, "c").ask(Clockwork.set, every=MINUTE, catch_up=catch_up)

    await _down_for(world, 330)
    before = await strikes(world)
    await world.advance(MINUTE)

    assert before == [330] * expected
    assert await strikes(world) == [*before, 360]


@pytest.mark.promise("timers-fire-once-never-early")
async def test_a_timer_fires_once_over_many_restarts(world: World) -> None:
    await world.ref(Clockwork, "c").ask(Clockwork.set, after=MINUTE)

    for _ in range(5):
        await _down_for(world, 25)

    assert await strikes(world) == [75]


async def _down_for(world: World, seconds: float) -> None:
    """Let time pass while no host runs."""
    await world.settled()
    world.clock.move_to(world.clock.now() + seconds)
    await world.restart()  # before the host has heard of the time
    await world.settled()


async def test_an_approval_that_came_in_time_wins_over_the_time_out(tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path}/store"
    async with World([Order], store=url) as before:
        await before.start(Order.run, "o-1")
    async with Client(url) as client:
        await send_signal(client.ref(Order, "o-1"), Order.approved, "ada")

    after = World([Order], store=url)
    after.clock.move_to(before.clock.now() + 7200)
    async with after:
        assert await after.ref(Order.run, "o-1").result() == "ada"


@pytest.mark.promise("timers-fire-once-never-early")
async def test_more_timers_than_memory_holds_fire_once_each(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms, "WINDOW", 4)
    refs = [world.ref(Clockwork, f"c-{number}") for number in range(60)]
    for number, ref in enumerate(refs):
        await ref.ask(Clockwork.set, after=timedelta(seconds=number * 37 % 60))  # most before those that are in memory
    await world.advance(timedelta(seconds=20))

    await world.restart()
    await world.run_until_idle()

    found = [await ref.query(Clockwork.strikes) for ref in refs]
    assert found == [[number * 37 % 60] for number in range(60)]


# --- mistakes ---


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ({"after": -MINUTE}, "in the past"),
        ({"every": -MINUTE}, "in the past"),
        ({"every": timedelta(0)}, "too short"),
        ({"after": timedelta.max}, "year 9999"),
        ({"every": timedelta.max}, "year 9999"),
        ({"at": datetime(2030, 1, 1, tzinfo=UTC).replace(tzinfo=None)}, "no time zone"),
        ({"at": datetime(2030, 1, 1, tzinfo=UTC), "after": MINUTE}, "takes after= or at="),
        ({}, "takes after= or at="),
    ],
    ids=str,
)
async def test_a_time_that_makes_no_sense_is_refused_at_the_call(world: World, how: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        await world.ref(Clockwork, "c").ask(Clockwork.set, **how)

    await world.run_until_idle()
    assert await strikes(world) == []
