"""What an actor emits is read in one order, from any position on, and never before it is durable."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest
from perdure.actors import (
    Client,
    DataLoss,
    NotDurable,
    Runtime,
    StreamItem,
    WorkflowRef,
    current_actor,
    durable_actor,
    emit,
    on_event,
    send_signal,
    signal,
    step,
    step_info,
    wait_for_signal,
    workflow,
)
from perdure.actors.testing import CrashPoint, World
from perdure.storage import CommitUncertain

from .conftest import MakeWorld

pytestmark = pytest.mark.anyio


@step
async def report_from_afar(text: str) -> None:
    step_info().emit("afar", text)


@durable_actor(stream_limit=4)
class Reporter:
    """Emits what it is told, until it is told nothing."""

    heard = signal(str)

    @workflow
    async def run(self) -> str:
        while text := await wait_for_signal(Reporter.heard):
            emit("heard", text)
        await report_from_afar("the end")
        return "silent"

    @on_event
    def tell(self, text: str) -> None:
        emit("told", text)

    @on_event
    def tell_and_fail(self, text: str) -> None:
        emit("told", text)
        raise RuntimeError(text)

    @on_event
    async def read_myself(self) -> None:
        async for _ in current_actor().ref(Reporter, current_actor().key).stream():
            pass


async def texts_of(ref: WorkflowRef[Reporter, str], *, after: int = 0) -> list[str]:
    return [item.payload async for item in ref.stream(after=after)]


async def a_reporter(world: World, *texts: str) -> WorkflowRef[Reporter, str]:
    reporter = await world.start(Reporter.run, "r")
    for text in texts:
        await send_signal(reporter, Reporter.heard, text)
    await world.settled()
    return reporter


@pytest.mark.promise("a-stream-misses-nothing")
async def test_a_stream_has_all_items_in_order_until_the_end(make_world: MakeWorld) -> None:
    world = await make_world(Reporter)
    reporter = await a_reporter(world, "one", "two", "")

    assert await texts_of(reporter) == ["one", "two", "the end"]


async def test_a_reader_is_told_what_comes_while_it_waits(make_world: MakeWorld) -> None:
    world = await make_world(Reporter)
    reporter = await a_reporter(world)
    reading = asyncio.create_task(texts_of(reporter))

    for text in ("one", "two", ""):
        await send_signal(reporter, Reporter.heard, text)

    assert await reading == ["one", "two", "the end"]


@pytest.mark.promise("a-stream-misses-nothing")
async def test_a_stream_is_resumed_behind_a_position_after_a_crash(make_world: MakeWorld) -> None:
    world = await make_world(Reporter)
    reporter = await a_reporter(world, "one", "two")
    await world.restart()

    await send_signal(reporter, Reporter.heard, "three")
    await send_signal(reporter, Reporter.heard, "")

    assert await texts_of(reporter, after=1) == ["two", "three", "the end"]


@pytest.mark.promise("atomic-turns")
async def test_a_turn_that_fails_emits_nothing(make_world: MakeWorld) -> None:
    world = await make_world(Reporter)
    reporter = await a_reporter(world)

    with pytest.raises(RuntimeError):
        await reporter.ask(Reporter.tell_and_fail, "never")
    await reporter.ask(Reporter.tell, "once")

    assert (await reporter.info()).emitted == 1


async def test_a_reader_whom_a_failed_commit_ends_leaves_no_error_behind(make_world: MakeWorld) -> None:
    world = await make_world(Reporter)
    reporter = await a_reporter(world, "one")
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context["message"]))

    world.crash_at(CrashPoint.BEFORE_COMMIT)
    waiting: list[asyncio.Task[object]] = []
    with world.slow_disk():
        for act in (lambda: reporter.ask(Reporter.tell, "two"), lambda: texts_of(reporter), lambda: reporter.ask(Reporter.tell, "three")):
            waiting.append(asyncio.create_task(act()))
            await asyncio.sleep(0.01)
    ends = [type(end) for end in await asyncio.gather(*waiting, return_exceptions=True)]

    waiting.clear()  # errors hold what they came through
    await world.settled()
    gc.collect()
    assert (ends, complaints) == ([CommitUncertain] * 3, [])


@pytest.mark.promise("nothing-leaves-before-durable")
async def test_an_item_is_read_only_when_it_is_durable(make_world: MakeWorld) -> None:
    world = await make_world(Reporter)
    reporter = await a_reporter(world)
    first: list[StreamItem] = []

    async def read_one() -> None:
        async for item in reporter.stream():
            first.append(item)
            return

    with world.slow_disk():
        telling = asyncio.create_task(reporter.ask(Reporter.tell, "soon"))
        reading = asyncio.create_task(read_one())
        for _ in range(50):
            await asyncio.sleep(0)
        assert not first
    await asyncio.gather(telling, reading)
    assert [(item.position, item.name, item.payload) for item in first] == [(1, "told", "soon")]


@pytest.mark.promise("a-stream-misses-nothing")
async def test_items_beyond_the_limit_are_missed_aloud(make_world: MakeWorld) -> None:
    world = await make_world(Reporter)
    reporter = await a_reporter(world, *"abcdef", "")

    with pytest.raises(DataLoss) as caught:
        await texts_of(reporter)

    assert await texts_of(reporter, after=caught.value.first - 1) == ["d", "e", "f", "the end"]


async def test_a_client_reads_a_stream_from_the_store(tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path}/store"
    async with Runtime(url, [Reporter]) as runtime, Client(url, [Reporter]) as client:
        reporter = await runtime.start(Reporter.run, "r")
        reading = asyncio.create_task(texts_of(client.ref(Reporter.run, "r")))

        for text in ("one", ""):
            await send_signal(reporter, Reporter.heard, text)

        assert await reading == ["one", "the end"]


async def test_an_actor_does_not_read_streams(make_world: MakeWorld) -> None:
    world = await make_world(Reporter)

    with pytest.raises(NotDurable):
        await world.ref(Reporter, "r").ask(Reporter.read_myself)
