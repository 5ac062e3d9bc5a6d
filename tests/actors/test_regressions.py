"""What once went wrong where lives, requests and endings of actors meet: each test is a defect that was found, and stays mended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from perdure.actors import (
    ActorCancelled,
    ActorCompleted,
    ActorNotFound,
    RuntimeNotRunning,
    StreamItem,
    continue_as_new,
    current_actor,
    durable_actor,
    emit,
    on_event,
    query,
    send_signal,
    signal,
    step,
    step_info,
    wait_for_signal,
    workflow,
)
from perdure.actors.testing import World

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


@durable_actor
class Diary:
    """Is made with an id and a date; keeps its logger, and emits."""

    on = signal()
    page = 0

    def __init__(self) -> None:
        if Diary.page < 0:
            raise SystemExit(Diary.page)
        self.id = current_actor().uuid4()
        self.begun = current_actor().now()

    @workflow
    async def run(self) -> None:
        me, logger = current_actor(), current_actor().logger
        emit("page", 1)
        await wait_for_signal(Diary.on)
        logger.warning("one")
        me.logger.warning("two")

    @query
    def made(self) -> tuple[UUID, datetime]:
        return self.id, self.begun


class Bell:
    """What the steps below wait for, and which of them were ended."""

    def __init__(self) -> None:
        self.rung = asyncio.Event()
        self.begun = self.ended = 0


@step
async def wait_for_bell() -> None:
    bell: Bell = step_info().resources["bell"]
    bell.begun += 1
    try:
        await bell.rung.wait()
        step_info().emit("rung")
        step_info().heartbeat()
        await asyncio.Event().wait()
    finally:
        bell.ended += 1


@durable_actor
class Porter:
    """Waits for the bell, and stands still at what cannot be stored."""

    carry = signal()

    @on_event
    def nod(self) -> None: ...

    @on_event
    async def attend(self) -> None:
        waiting = asyncio.create_task(wait_for_bell())
        await wait_for_signal(Porter.carry)
        self.luggage = asyncio.current_task()
        await waiting


@durable_actor
class Caller:
    """Rings for the porter."""

    @workflow
    async def run(self) -> str:
        try:
            await current_actor().ref(Porter, "p").ask(Porter.attend)
        except ActorCompleted:
            return "gone"
        return "came"


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
    await world.advance(timedelta(seconds=31))

    with pytest.raises(ActorCancelled, match="continues as new"):
        await resting
    assert await traveller.query(Traveller.begun) == [1, 2]


@pytest.mark.promise("one-piece-at-a-time", "one-start-one-life")
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
    await world.advance(timedelta(seconds=31))

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


@pytest.mark.promise("same-course-everywhere")
async def test_what_init_draws_is_drawn_again_on_replay(make_world: MakeWorld, caplog: pytest.LogCaptureFixture) -> None:
    world = await make_world(Diary)
    diary, other = await world.start(Diary.run, "d"), await world.start(Diary.run, "e")
    made = await diary.query(Diary.made)
    await world.advance(timedelta(days=1))
    await world.restart()

    await send_signal(diary, Diary.on)
    await diary.result()

    assert await diary.query(Diary.made) == made != await other.query(Diary.made)
    assert not [record for record in caplog.records if "after replay" in record.message]


async def test_a_logger_that_was_kept_speaks_again_after_a_replay(make_world: MakeWorld, caplog: pytest.LogCaptureFixture) -> None:
    world = await make_world(Diary)
    diary = await world.start(Diary.run, "d")
    await world.restart()

    await send_signal(diary, Diary.on)
    await diary.result()

    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == ["one", "two"]


@pytest.mark.promise("quarantine-keeps-everything")
async def test_a_replay_that_exits_stands_still_and_spares_the_host(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = await make_world(Diary)
    diary = await world.start(Diary.run, "d")
    await world.restart()
    monkeypatch.setattr(Diary, "page", -1)
    await send_signal(diary, Diary.on)
    await world.settled()
    assert (await diary.info()).status == "quarantined"

    monkeypatch.undo()
    await diary.retry()

    await diary.result()


async def test_a_stream_ends_when_its_actor_is_deleted(make_world: MakeWorld) -> None:
    world = await make_world(Diary)
    diary = await world.start(Diary.run, "d")
    reading = asyncio.create_task(_read(diary.stream()))
    await world.settled()

    await diary.delete()

    assert await reading == ["page"]


@pytest.mark.promise("nobody-waits-in-vain")
async def test_a_reader_is_told_that_the_host_has_ended() -> None:
    async with World([Diary]) as world:
        reading = asyncio.create_task(_read((await world.start(Diary.run, "d")).stream()))
        await world.settled()

    with pytest.raises(RuntimeNotRunning):
        await reading


async def test_deleting_a_quarantined_actor_ends_its_steps_and_tells_who_waits(make_world: MakeWorld) -> None:
    bell = Bell()
    world = await make_world(Porter, Caller, resources={"bell": bell})
    caller, porter = await world.start(Caller.run, "c"), world.ref(Porter, "p")
    await asyncio.sleep(0.02)  # a step that does not end keeps the world from settling
    await send_signal(porter, Porter.carry)

    await porter.delete()

    assert await caller.result() == "gone"
    assert bell.ended == 1


async def test_an_item_of_a_late_step_does_not_bring_a_deleted_actor_back(make_world: MakeWorld) -> None:
    bell = Bell()
    world = await make_world(Porter, resources={"bell": bell})
    porter = world.ref(Porter, "p")
    await porter.send_event(Porter.attend)
    await asyncio.sleep(0.02)

    with world.slow_disk():
        deleting = asyncio.create_task(porter.delete())
        await asyncio.sleep(0.02)
        bell.rung.set()
        await asyncio.sleep(0.02)
    await deleting

    with pytest.raises(ActorNotFound):
        await porter.info()


@pytest.mark.promise("steps-recorded-once")
async def test_a_step_that_was_given_up_leaves_nothing_to_a_crash(make_world: MakeWorld) -> None:
    bell = Bell()
    world = await make_world(Porter, Caller, resources={"bell": bell})
    porter = world.ref(Porter, "p")
    await porter.send_event(Porter.attend)
    await asyncio.sleep(0.02)

    with world.slow_disk():
        deleting = asyncio.create_task(porter.delete())
        await asyncio.sleep(0.02)
        bell.rung.set()
        await asyncio.sleep(0.02)
    await deleting
    await world.restart()

    await world.settled()
    assert bell.begun == 1


async def test_a_step_that_is_given_up_before_it_began_keeps_nobody_waiting(make_world: MakeWorld) -> None:
    bell = Bell()
    world = await make_world(Porter, resources={"bell": bell})
    porter = world.ref(Porter, "p")

    with world.slow_disk():
        first = asyncio.ensure_future(world.ref(Porter, "other").send_event(Porter.nod))
        await asyncio.sleep(0.02)
        sending = [asyncio.ensure_future(porter.send_event(Porter.attend)), asyncio.ensure_future(porter.delete())]
        await asyncio.sleep(0.02)
    await asyncio.gather(first, *sending)

    await world.settled()
    assert bell.begun == 0


async def _read(stream: AsyncIterator[StreamItem]) -> list[str]:
    return [item.name async for item in stream]
