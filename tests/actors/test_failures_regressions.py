"""What has once gone wrong with children, cancels and sagas: messages that cross, lives that end half-way, steps that are cut off."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import suppress
from datetime import timedelta
from inspect import CORO_CREATED, getcoroutinestate, iscoroutine
from typing import Any

import pytest
from perdure.actors import (
    ActorCancelled,
    ActorFailed,
    ActorRef,
    OneForOne,
    Retry,
    Runtime,
    continue_as_new,
    durable_actor,
    on_event,
    saga,
    send_signal,
    signal,
    spawn,
    step,
    wait_for_signal,
    workflow,
)
from perdure.actors.testing import CrashPoint, World
from perdure.actors.testing._store import UnsteadyStore
from perdure.storage import CommitUncertain, open_store

from .conftest import MakeWorld

pytestmark = pytest.mark.anyio

DONE: list[str] = []
GATES: dict[str, asyncio.Event] = {}
RELEASED = threading.Event()


def gate(name: str) -> asyncio.Event:
    return GATES.setdefault(name, asyncio.Event())


@pytest.fixture(autouse=True)
def _anew() -> None:
    DONE.clear()
    GATES.clear()
    RELEASED.clear()


@step
async def undo(what: str) -> None:
    DONE.append(f"undo {what}")


@step
async def undo_slowly(what: str) -> None:
    await gate("undo").wait()
    DONE.append(f"undo {what}")


@step(compensate=undo)
async def do(what: str) -> None:
    DONE.append(what)


@step(compensate=undo_slowly)
async def do_heavily(what: str) -> None:
    DONE.append(what)


@step(compensate=undo)
def do_in_a_thread(what: str) -> None:
    DONE.append(what)
    RELEASED.wait(10)


@step
async def tidy() -> None:
    await gate("tidy").wait()


# --- lives that end half-way ---


@durable_actor
class Rolling:
    """Continues as new at each signal; a handler may be waiting for another one meanwhile."""

    go = signal()
    never = signal()

    @workflow
    async def run(self, life: int) -> None:
        await wait_for_signal(Rolling.go)
        continue_as_new(life + 1)

    @on_event
    async def hold(self) -> None:
        await wait_for_signal(Rolling.never)


async def test_a_cancel_before_the_next_life_begins_ends_it(make_world: MakeWorld) -> None:
    world = await make_world(Rolling)
    rolling = await world.start(Rolling.run, "r", 0)
    await world.settled()

    await asyncio.gather(send_signal(rolling, Rolling.go), rolling.cancel("enough"))
    await world.settled()

    assert (await rolling.info()).status == "cancelled"


async def test_a_cancel_while_a_life_hands_over_is_heeded(make_world: MakeWorld) -> None:
    world = await make_world(Rolling)
    rolling = await world.start(Rolling.run, "r", 0)
    await rolling.send_event(Rolling.hold)
    await send_signal(rolling, Rolling.go)
    await world.settled()

    await rolling.cancel("enough")
    await world.run_until_idle()

    with pytest.raises(ActorCancelled, match="enough"):
        await rolling.result()


@durable_actor
class Tidy:
    """Cleans up for ten seconds, while one of its tasks fails."""

    def __init__(self) -> None:
        self.is_tidy = False

    @workflow
    async def run(self) -> None:
        stray = asyncio.create_task(self.fail())
        try:
            await asyncio.sleep(1e6)
        finally:
            await asyncio.sleep(10)
            self.is_tidy = True
            del stray

    async def fail(self) -> None:
        await asyncio.sleep(5)
        raise ValueError("a task nobody awaits")


async def test_a_task_that_fails_does_not_cut_clean_up_short(make_world: MakeWorld) -> None:
    world = await make_world(Tidy)
    tidy_one = await world.start(Tidy.run, "t")
    await world.settled()

    await tidy_one.cancel()
    await world.advance(timedelta(seconds=8))

    assert (await tidy_one.info()).status == "suspended"


# --- a child that follows another one of its key ---


@durable_actor
class Heir:
    """Waits for a word, and cleans up for as long as it likes."""

    word = signal(str)

    @workflow
    async def run(self) -> str:
        try:
            return await wait_for_signal(Heir.word)
        finally:
            await tidy()


@durable_actor
class Testator:
    """Spawns a child of always the same key, and lives on its word."""

    @workflow
    async def run(self, word: str) -> str:
        heir = spawn(Heir.run, "heir")
        if word:
            await send_signal(heir, Heir.word, word)
        return await heir.result()


async def twice_begun(world: World, word: str) -> ActorRef[Any]:
    """A parent that was begun anew while its first child cleans up."""
    await world.start(Testator.run, "t", "")
    await world.settled()
    testator = await world.options(if_exists="restart").start(Testator.run, "t", word)
    await world.settled()
    return testator


async def test_what_is_said_to_a_child_to_come_waits_for_it(make_world: MakeWorld) -> None:
    world = await make_world(Heir, Testator)
    await twice_begun(world, "yes")

    gate("tidy").set()
    await world.settled()

    assert await world.ref(Testator.run, "t").result() == "yes"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_a_child_to_come_ends_with_its_parent(make_world: MakeWorld, how: str) -> None:
    world = await make_world(Heir, Testator)
    testator = await twice_begun(world, "")

    await getattr(testator, how)("no more")
    await world.settled()
    gate("tidy").set()
    await world.settled()

    assert (await world.ref(Heir, "heir").info()).status == "cancelled"


async def test_a_child_to_come_that_is_deleted_is_no_child(make_world: MakeWorld) -> None:
    world = await make_world(Heir, Testator)
    testator = await twice_begun(world, "")

    await world.ref(Heir, "heir").delete()
    await world.settled()

    assert (await testator.info()).children == ()


@durable_actor
class Spinning:
    """Its clean-up does not let its turn end, until it is mended."""

    never = signal()

    @workflow
    async def run(self) -> None:
        try:
            await wait_for_signal(Spinning.never)
        finally:
            while not gate("mended").is_set():  # noqa: ASYNC110  it is to spin
                await asyncio.sleep(0)


@durable_actor
class Ending:
    """Has one child."""

    @workflow
    async def run(self) -> None:
        spawn(Spinning.run, "s")
        await asyncio.sleep(1e6)


async def test_a_cancel_that_quarantines_a_child_still_counts_afterwards(make_world: MakeWorld) -> None:
    world = await make_world(Spinning, Ending)
    ending = await world.start(Ending.run, "e")
    await world.settled()
    await ending.cancel()
    await world.settled()

    gate("mended").set()
    await world.ref(Spinning, "s").retry()
    await world.settled()

    assert (await world.ref(Spinning, "s").info()).status == "cancelled"


# --- a parent whose type is not hosted ---


@durable_actor(on_poison="stop", retry=Retry(max_attempts=1))
class Frail:
    """Fails at once when it is told to, or when it is given what it cannot handle."""

    fail = signal()

    @workflow
    async def run(self) -> None:
        gate("frail").set()
        await wait_for_signal(Frail.fail)
        raise ValueError("frail")

    @on_event
    def choke(self) -> None:
        raise ValueError("poison")


@durable_actor(supervise=OneForOne())
class Warden:
    """Looks after one frail child."""

    @workflow
    async def run(self) -> None:
        spawn(Frail.run, "f")
        await asyncio.sleep(1e6)


@pytest.mark.parametrize("how", ["fail", "choke"])
async def test_a_failed_child_waits_for_no_unhosted_parent(tmp_path: Any, how: str) -> None:
    async with Runtime(f"lmdb:{tmp_path}/s", actors=[Frail, Warden]) as runtime:
        await runtime.start(Warden.run, "w")
        await gate("frail").wait()

    async with Runtime(f"lmdb:{tmp_path}/s", actors=[Frail]) as runtime:
        frail = runtime.ref(Frail.run, "f")
        await (send_signal(frail, Frail.fail) if how == "fail" else frail.send_event(Frail.choke))

        with pytest.raises(ActorFailed):
            await frail.result()


# --- sagas ---


@durable_actor
class Straggler:
    """Leaves a task behind that goes on when its saga has been left."""

    go = signal()

    @workflow
    async def run(self) -> None:
        tasks: list[asyncio.Task[None]] = []
        with suppress(ValueError):
            async with saga():
                tasks.append(asyncio.create_task(self.late()))
                await do("first")
                raise ValueError
        with suppress(asyncio.CancelledError):
            await tasks[0]

    async def late(self) -> None:
        await wait_for_signal(Straggler.go)
        await do("late")


async def test_a_step_after_its_saga_never_begins(make_world: MakeWorld) -> None:
    world = await make_world(Straggler)
    straggler = await world.start(Straggler.run, "s")
    await world.settled()

    await send_signal(straggler, Straggler.go)
    await straggler.result()

    assert DONE == ["first", "undo first"]


@durable_actor
class Party:
    """Books two trips at once, each a saga of its own, of which one fails."""

    go = signal()
    never = signal()

    @workflow
    async def run(self) -> None:
        with suppress(ValueError):
            async with saga():
                await asyncio.gather(self.trip("good"), self.trip("bad"))
        await wait_for_signal(Party.never)

    async def trip(self, which: str) -> None:
        async with saga():
            await do(which)
            if which == "bad":
                raise ValueError
            await wait_for_signal(Party.go)


async def test_a_saga_that_outlives_the_one_around_it_is_undone(make_world: MakeWorld) -> None:
    world = await make_world(Party)
    party = await world.start(Party.run, "p")
    await world.settled()

    await send_signal(party, Party.go)
    await world.settled()

    assert DONE == ["good", "bad", "undo bad", "undo good"]


@durable_actor(cancel_grace=timedelta(seconds=5))
class Hasty:
    """Has little time to clean up, and a step that nothing can end."""

    @workflow
    async def run(self) -> None:
        async with saga():
            await do("a")
            await do_in_a_thread("b")  # pyright: ignore[reportGeneralTypeIssues]


@pytest.mark.slow
async def test_a_step_that_does_not_end_keeps_no_saga_from_being_undone(make_world: MakeWorld) -> None:
    world = await make_world(Hasty)
    hasty = await world.start(Hasty.run, "h")
    await world.settled()

    await hasty.cancel()
    await world.advance(timedelta(seconds=11))
    RELEASED.set()
    await world.settled()

    assert DONE == ["a", "b", "undo b", "undo a"]


@durable_actor(cancel_grace=timedelta(seconds=5))
class Nested:
    """Between two sagas that are undone it waits for something else."""

    @workflow
    async def run(self) -> None:
        async with saga():
            await do("outer")
            try:
                async with saga():
                    await do_heavily("inner")
                    await asyncio.sleep(1e6)
            finally:
                await asyncio.sleep(100)


@pytest.mark.slow
async def test_a_saga_around_one_that_took_long_is_undone(make_world: MakeWorld) -> None:
    world = await make_world(Nested)
    nested = await world.start(Nested.run, "n")
    await world.settled()

    await nested.cancel()
    await world.advance(timedelta(seconds=6))
    gate("undo").set()
    await world.settled()

    assert DONE == ["outer", "inner", "undo inner", "undo outer"]


@step(compensate=undo, retry=Retry(max_attempts=1))
async def hesitate(what: str) -> None:
    DONE.append("attempt")
    gate("begun").set()
    await gate("hesitate").wait()
    raise ValueError("certainly not done, this time")


@durable_actor
class Deployed:
    """Its host is stopped in the middle of a step."""

    @workflow
    async def run(self) -> None:
        async with saga():
            await hesitate("hesitate")


async def test_an_attempt_that_a_stop_cut_off_may_have_been_it(tmp_path: Any) -> None:
    async with Runtime(f"lmdb:{tmp_path}/s", actors=[Deployed]) as runtime:
        await runtime.start(Deployed.run, "d")
        await gate("begun").wait()
    gate("hesitate").set()

    async with Runtime(f"lmdb:{tmp_path}/s", actors=[Deployed]) as runtime:
        with pytest.raises(ActorFailed):
            await runtime.ref(Deployed.run, "d").result()

    assert DONE == ["attempt", "attempt", "undo hesitate"]


@pytest.mark.parametrize("nth", [1, 2])
async def test_an_attempt_that_an_epoch_cut_off_may_have_been_it(make_world: MakeWorld, nth: int) -> None:
    world = await make_world(Deployed)
    deployed = await world.start(Deployed.run, "d")
    await gate("begun").wait()

    world.crash_at(CrashPoint.BEFORE_COMMIT, nth)
    for _ in range(3):
        with suppress(CommitUncertain, ActorCancelled):
            await deployed.cancel()
            await deployed.result()

    assert DONE[-1] == "undo hesitate"


# --- what a merge of lives and hosts leaves behind ---


@step(at_once=1)
async def queue_up(name: str) -> None:
    DONE.append(name)
    gate("begun").set()
    await gate(name).wait()


@durable_actor
class Queueing:
    """Asks for two steps, of which one waits for the other's place."""

    @workflow
    async def run(self) -> None:
        await asyncio.gather(queue_up("a"), queue_up("b"))

    @on_event
    def poke(self) -> None:
        """Nothing."""


async def test_an_epoch_that_ends_lets_no_further_step_in(make_world: MakeWorld) -> None:
    world = await make_world(Queueing)
    queueing = await world.start(Queueing.run, "q")
    await gate("begun").wait()
    gate("begun").clear()

    world.crash_at(CrashPoint.BEFORE_COMMIT)
    with suppress(CommitUncertain):
        await queueing.send_event(Queueing.poke)
    await gate("begun").wait()

    attempts = [each for each in gc.get_objects() if iscoroutine(each) and each.__qualname__ == "Steps._perform"]
    assert all(getcoroutinestate(each) != CORO_CREATED for each in attempts)


@durable_actor
class Rewriting:
    """Cancels its child for another one of the same key, and awaits that in its own next life."""

    def __init__(self) -> None:
        self.heir: Any = None

    @workflow
    async def run(self, life: int) -> str:
        if not life:
            await spawn(Heir.run, "heir").cancel()
            await asyncio.sleep(1)
            self.heir = spawn(Heir.run, "heir")
            await send_signal(self.heir, Heir.word, "yes")
            continue_as_new(1)
        return str(await self.heir.result())


@pytest.mark.slow
async def test_a_child_to_come_is_awaited_in_its_parents_next_life(make_world: MakeWorld) -> None:
    world = await make_world(Heir, Rewriting)
    rewriting = await world.start(Rewriting.run, "r", 0)
    await world.advance(timedelta(seconds=2))

    gate("tidy").set()
    await world.settled()

    assert await rewriting.result() == "yes"


@step
async def take_leave() -> None:
    gate("begun").set()
    try:
        await gate("never").wait()
    finally:
        await asyncio.sleep(0.05)
        cancels = max(task.cancelling() for task in asyncio.all_tasks())
        DONE.append("in peace" if cancels < 10 else f"cancelled {cancels} times")


@durable_actor
class Leaving:
    """Its step cleans up when the host ends."""

    @workflow
    async def run(self) -> None:
        await take_leave()


async def test_a_step_that_cleans_up_keeps_no_ending_host_busy() -> None:
    async with Runtime("memory:", actors=[Leaving]) as runtime:
        await runtime.start(Leaving.run, "l")
        await gate("begun").wait()

    assert DONE == ["in peace"]


async def test_a_start_that_is_cancelled_leaves_no_host_behind(tmp_path: Any) -> None:
    store = UnsteadyStore(open_store(f"lmdb:{tmp_path}/s"))
    store.hold()
    runtime = Runtime(store, actors=[Leaving])

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(runtime.__aenter__(), 0.05)
    store.flow()

    async with Runtime(store, actors=[Leaving]) as another:
        assert another.statistics().active == 0
    await store.close()
