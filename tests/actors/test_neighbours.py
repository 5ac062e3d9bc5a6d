"""What one actor's code leaves behind, or does where it may not, is nothing to the next actor, nor to its own next life."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from perdure.actors import (
    DefinitionError,
    NotInActor,
    RemoteError,
    continue_as_new,
    current_actor,
    durable_actor,
    on_activate,
    on_event,
    on_timer,
    send_signal,
    set_timer,
    signal,
    step,
    wait_for_signal,
    workflow,
)

from .conftest import MakeWorld

pytestmark = pytest.mark.anyio

MET: list[str] = []


@durable_actor
class Litterer:
    """Starts a task where nobody may, and fails."""

    @on_activate
    def wake(self) -> None:
        asyncio.ensure_future(self._meddle())  # noqa: RUF006  that nobody holds it is the point
        raise RuntimeError("cannot wake")

    async def _meddle(self) -> None:
        MET.append(str(current_actor().id))

    @on_event
    def hello(self) -> None: ...


@durable_actor
class Crowd:
    """Has many tasks, of which one may fail unheard."""

    @on_event
    async def fill(self, count: int) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(count):
                tasks.create_task(asyncio.sleep(0))

    @workflow
    async def run(self, count: int, left: int) -> str:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(count):
                tasks.create_task(asyncio.sleep(1))
        if left:
            asyncio.ensure_future(self._fail())  # noqa: RUF006
            await asyncio.sleep(0)
            continue_as_new(count, left - 1)
        return "done"

    async def _fail(self) -> None:
        try:
            await asyncio.sleep(10)
        finally:
            raise LookupError("of an earlier life")

    @on_event
    async def go_on_elsewhere(self) -> None:
        continue_as_new(1, 1)


@durable_actor
class Spinner:
    """Its workflow never lets go of the loop, once it is told to."""

    spin = signal(bool)

    @workflow
    async def run(self) -> str:
        while await wait_for_signal(Spinner.spin):
            while not MET:
                pass
        return "let go"


@durable_actor
class Clock:
    """Strikes each second, as often as it was due."""

    struck = 0

    @on_event
    def wind(self) -> None:
        set_timer(Clock.strike, every=timedelta(seconds=1), catch_up=True)

    @on_timer
    def strike(self) -> None:
        self.struck += 1

    @on_event
    def read(self) -> int:
        return self.struck


@pytest.mark.promise("failed-turn-leaves-no-trace")
async def test_a_task_of_a_failed_activation_never_runs_as_another_actor(make_world: MakeWorld) -> None:
    MET.clear()
    world = await make_world(Litterer, Crowd)

    with pytest.raises(Exception, match="cannot wake"):
        await world.ref(Litterer, "l").ask(Litterer.hello)
    await world.ref(Crowd, "c").ask(Crowd.fill, 3)

    assert MET == []


async def test_a_busy_neighbour_changes_nothing_of_a_workflow(make_world: MakeWorld) -> None:
    world = await make_world(Crowd)
    await world.ref(Crowd, "neighbour").ask(Crowd.fill, 100)

    crowd = await world.start(Crowd.run, "c", 101, 0)
    await world.run_until_idle()

    assert await crowd.result() == "done"


@pytest.mark.promise("one-start-one-life")
async def test_a_life_does_not_fail_for_a_task_of_the_one_before(make_world: MakeWorld) -> None:
    world = await make_world(Crowd)
    crowd = await world.start(Crowd.run, "c", 2, 1)

    await world.run_until_idle()

    assert await crowd.result() == "done"
    assert ["of an earlier life" in letter.error for letter in await world.dead_letters()] == [True]


async def test_only_the_workflow_itself_continues_as_new(make_world: MakeWorld) -> None:
    world = await make_world(Crowd)

    with pytest.raises((NotInActor, RemoteError), match=r"Crowd\.run: return to it"):
        await world.ref(Crowd, "c").ask(Crowd.go_on_elsewhere)


async def test_a_timer_that_catches_up_misses_not_one_call(make_world: MakeWorld) -> None:
    world = await make_world(Clock)
    clock = world.ref(Clock, "c")
    await clock.ask(Clock.wind)

    await world.restart()
    world.clock.move_to(world.clock.now() + 2_500)
    await world.settled()

    assert await clock.ask(Clock.read) == 2_500


@pytest.mark.promise("turns-end")
async def test_a_workflow_that_never_lets_go_stands_still_and_goes_on_when_it_is_mended(make_world: MakeWorld) -> None:
    MET.clear()
    world = await make_world(Spinner, Clock, turn_limit=0.2)
    spinner = await world.start(Spinner.run, "s")
    await send_signal(spinner, Spinner.spin, True)
    await world.settled()

    info = await spinner.info()
    assert (info.status, "was not done after 0.2 s" in str(info.error)) == ("quarantined", True)
    assert await world.ref(Clock, "c").ask(Clock.read) == 0

    MET.append("mended")
    await spinner.retry()
    await send_signal(spinner, Spinner.spin, False)
    assert await spinner.result() == "let go"


def test_two_steps_of_one_given_name_are_refused() -> None:
    @step(name="neighbours.shared")
    async def first() -> None: ...

    with pytest.raises(DefinitionError, match=r"neighbours\.shared"):

        @step(name="neighbours.shared")
        async def second() -> None: ...
