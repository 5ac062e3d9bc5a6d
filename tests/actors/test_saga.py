"""Sagas: what steps have done, or may have done, is undone in reverse, whatever the block is left by and whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, TypeVar, final

import anyio
import pytest
from perdure.actors import (
    ActorCancelled,
    ActorFailed,
    Compensated,
    CompensationFailed,
    DefinitionError,
    NotInActor,
    Retry,
    StepFailed,
    Unknown,
    WrongArguments,
    continue_as_new,
    durable_actor,
    on_event,
    saga,
    spawn,
    step,
    step_info,
    workflow,
)
from perdure.actors.testing import World

from .conftest import MakeWorld, eventually

pytestmark = pytest.mark.anyio

T = TypeVar("T")
SECOND: Final = timedelta(seconds=1)
HOUR: Final = 3600.0
ONCE: Final = Retry(max_attempts=1)


@final
class Diary:
    """What the steps of a test have done, which of them are to fail, and what those that hang wait for."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.keys: dict[str, str] = {}
        self.undone: list[str] = []
        self.compensated: dict[str, Compensated | None] = {}
        self.cannot: dict[str, int] = {}  # how often it is not possible to undo something
        self.go_on = asyncio.Event()
        self.thread_goes_on = threading.Event()

    async def has(self, noted: list[str], *names: str) -> None:
        """Return once all of that has been noted."""
        await eventually(lambda: set(names) <= set(noted))


def diary() -> Diary:
    found: Diary = step_info().resources["diary"]
    return found


# --- steps ---


def _unbook(what: str) -> None:
    notes = diary()
    notes.undone.append(what)
    notes.compensated[what] = step_info().compensates
    if notes.cannot.get(what, 0) >= step_info().attempt:
        raise ConnectionError(f"{what} stays")


@step
async def unbook(what: str) -> None:
    _unbook(what)
    if what.startswith("sticky"):
        await diary().go_on.wait()


@step
def unbook_in_a_thread(what: str) -> None:
    _unbook(what)


def _book(what: str) -> str:
    notes = diary()
    notes.begun.append(what)
    notes.keys[what] = step_info().idempotency_key
    if what.startswith("full"):
        raise ConnectionError(f"{what} is full")
    return f"{what} is booked"


@step(compensate=unbook, retry=ONCE)
async def book(what: str) -> Any:
    answer = _book(what)
    if what.startswith("slow"):
        await diary().go_on.wait()
    return threading.Lock() if what.startswith("odd") else answer


@step(compensate=unbook, retry=ONCE, at_once=1)
async def book_alone(what: str) -> str:
    _book(what)
    await diary().go_on.wait()
    return what


@step(compensate=unbook_in_a_thread, retry=ONCE)
def book_in_a_thread(what: str) -> str:
    answer = _book(what)
    if what.startswith("slow"):
        diary().thread_goes_on.wait(5)
    return answer


@step(compensate=unbook, retry=ONCE, executor="process")
def book_in_a_process(what: str) -> int:
    if what == "deadly":
        os._exit(1)
    return os.getpid()


@step(executor="process")
def unpack(what: str) -> Any:
    if (undone := step_info().compensates) is None or what == "broken":
        raise ConnectionError(what)
    return [*undone]


@step(compensate=unpack, executor="process")
def pack(what: str) -> str:
    return what


@step(compensate=unbook)
async def book_rudely(what: str) -> None:
    _book(what)
    try:
        await diary().go_on.wait()
    except asyncio.CancelledError:
        raise ConnectionError("interrupted") from None


@step(compensate=unbook, retry=ONCE)
async def book_what_fills_up(what: str) -> None:
    if what in diary().begun:
        raise ConnectionError(f"{what} has filled up")
    _book(what)
    await diary().go_on.wait()


# --- what actors do ---

Plot = Callable[..., Awaitable[Any]]


@durable_actor(cancel_grace=timedelta(seconds=5))
class Trip:
    """Does what the test wants: one of the functions below."""

    @workflow
    async def run(self, plot: str, *args: Any) -> Any:
        return await globals()[plot](*args)

    @on_event
    async def do(self, plot: str, *args: Any) -> Any:
        return await globals()[plot](*args)


async def book_all(*names: str, error: str = "no more") -> None:
    async with saga():
        for name in names:
            await book(name)
        raise ValueError(error)


async def stay(*names: str) -> str:
    async with saga():
        for name in names:
            await book(name)
        await asyncio.sleep(HOUR)
    return "stayed"


async def leave(way: str, what: str = "hotel") -> str:
    try:
        if way == "asyncio.timeout":
            async with asyncio.timeout(60):
                await stay("train", what)
        elif way == "asyncio.wait_for":
            await asyncio.wait_for(stay("train", what), 60)
        elif way == "anyio.fail_after":
            with anyio.fail_after(60):
                await stay("train", what)
        elif way == "anyio.move_on_after":
            with anyio.move_on_after(60):
                await stay("train", what)
        else:
            task = asyncio.create_task(stay("train", what))
            await asyncio.sleep(60)
            task.cancel()
            await asyncio.wait([task])
    except TimeoutError:
        pass
    return "left"


WAYS: Final = ["asyncio.timeout", "asyncio.wait_for", "anyio.fail_after", "anyio.move_on_after", "a cancelled task"]


async def try_one(name: str, *args: Any) -> None:
    async with saga():
        await book("train")
        await globals()[name](*args)


async def book_in_time(what: str) -> None:
    await book.options(timeout=SECOND)(what)


async def book_in_options(what: str) -> None:
    await book.options(retry=Retry(max_attempts=2))(what)
    raise ValueError


async def wait_for_the_next_attempt() -> None:
    try:
        async with asyncio.timeout(60):
            await book.options(retry=Retry(initial=timedelta(hours=1), maximum=timedelta(hours=1)))("full")
    finally:
        await asyncio.sleep(1)


async def push_around() -> None:
    async with saga() as undo:
        undo.push(unbook, "before")
        await book("hotel")
        undo.push(unbook, what="after")
        raise ValueError


async def push_wrongly() -> str:
    async with saga() as undo:
        await book("hotel")
        try:
            undo.push(unbook, "one", "two")  # type: ignore[call-arg]
        except WrongArguments as wrong:
            return str(wrong)
    return ""


async def nest(*, inner_fails: bool, catch: bool = False, in_a_task: bool = False) -> None:
    async def inner() -> None:
        async with saga():
            await book("museum")
            await book("theatre")
            if inner_fails:
                raise LookupError

    async with saga():
        await book("train")
        try:
            await (asyncio.create_task(inner()) if in_a_task else inner())
        except LookupError:
            if not catch:
                raise
        await book("hotel")
        if not catch:
            raise ValueError


async def leave_an_inner_one_at_work(first: str, *, end_well: bool) -> None:
    async def inner() -> None:
        async with saga():
            await book(first)
            await asyncio.sleep(60)
            await book("museum")

    async with saga():
        await book("train")
        task = asyncio.create_task(inner())
        await asyncio.sleep(5)
        if not end_well:
            raise ValueError
    await asyncio.wait([task])


async def gather_three() -> None:
    async with saga():
        await asyncio.gather(book("train"), book("slow hotel"), fail_after_a_while())


async def fail_after_a_while() -> None:
    await asyncio.sleep(5)
    raise ValueError("no more")


async def gather_alone() -> None:
    async with saga():
        await asyncio.gather(book_alone("running"), book_alone("queued"), fail_after_a_while())


async def group_of_tasks(kind: str) -> None:
    async with saga():
        if kind == "asyncio":
            async with asyncio.TaskGroup() as tasks:
                for each in (book("train"), book("slow hotel"), fail_after_a_while()):
                    tasks.create_task(each)
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(book, "train")
                group.start_soon(book, "slow hotel")
                group.start_soon(fail_after_a_while)


async def stray_on() -> list[str]:
    told: list[str] = []

    async def stray() -> None:
        await asyncio.sleep(60)
        try:
            await book("too late")
        except asyncio.CancelledError as cancelled:
            told.append(str(cancelled))

    task: asyncio.Task[None] | None = None
    with suppress(ValueError):
        async with saga():
            task = asyncio.create_task(stray())
            await book("train")
            raise ValueError
    assert task is not None
    await task
    return told


async def leave_a_step_at_work() -> list[str]:
    async with saga():
        await book("train")
        task = asyncio.create_task(book("slow hotel"))
        await asyncio.sleep(5)
    return [str(type(each).__name__) for each in await asyncio.gather(task, return_exceptions=True)]


async def go_on(life: int, how: str = "") -> str:
    async with saga():
        await book(f"train {life}")
        if life == 1:
            if how == "in a group":
                async with asyncio.TaskGroup():
                    continue_as_new("go_on", 2)
            continue_as_new("go_on", 2)
    return f"life {life}"


async def raise_in_a_child() -> str:
    try:
        return str(await spawn(Trip.run, "child", "book_all", "train", "hotel").result())
    except Exception as failed:  # noqa: BLE001
        return f"{type(failed).__name__} from {type(failed.__cause__).__name__}"


async def have_none_around() -> str:
    return str(await book("train"))


async def undo_with_care() -> None:
    async with saga() as undo:
        await book("train")
        undo.push(unbook.options(timeout=SECOND, retry=Retry(max_attempts=2)), "sticky")
        raise ValueError


async def take_too_long() -> None:
    async with saga():
        await book_in_a_thread("train")
        await book_in_a_thread("slow hotel")


@pytest.fixture
def notes() -> Any:
    """What the steps of this test note; those that hang are let go at its end."""
    made = Diary()
    yield made
    made.thread_goes_on.set()


@pytest.fixture
async def world(make_world: MakeWorld, notes: Diary) -> World:
    return await make_world(Trip, resources={"diary": notes})


async def outcome(world: World, plot: str, *args: Any) -> Any:
    """What a trip comes to, when all that will has happened: what it returns, or what it was told instead."""
    trip = await world.start(Trip.run, "t", plot, *args)
    await world.run_until_idle()
    try:
        return await trip.result()
    except (ActorFailed, ActorCancelled) as error:
        return error


async def after(world: World, seconds: float) -> None:
    """Let the clock jump, once steps that hang have begun; then everything that will happen happens."""
    world.clock.move_to(world.clock.now() + seconds)
    await world.run_until_idle()


# --- what is undone, and in what order ---


async def test_what_was_done_is_undone_in_reverse(world: World, notes: Diary) -> None:
    failed = await outcome(world, "book_all", "train", "hotel", "museum")

    assert isinstance(failed, ActorFailed)
    assert failed.error == "ValueError: no more"
    assert notes.undone == ["museum", "hotel", "train"]


async def test_a_saga_that_ends_well_undoes_nothing(world: World, notes: Diary) -> None:
    assert await outcome(world, "stay", "train", "hotel") == "stayed"

    assert notes.undone == []


@pytest.mark.promise("step-keys-are-stable")
async def test_a_compensation_is_told_what_it_undoes(world: World, notes: Diary) -> None:
    await outcome(world, "book_all", "train")

    name = f"{book.function.__module__}.book"
    assert notes.compensated == {"train": Compensated(name, notes.keys["train"], "train is booked")}


@pytest.mark.promise("sagas-undo")
@pytest.mark.parametrize("way", WAYS)
async def test_every_way_out_undoes_what_was_done(world: World, notes: Diary, way: str) -> None:
    assert await outcome(world, "leave", way) == "left"

    assert notes.undone == ["hotel", "train"]


@pytest.mark.promise("sagas-undo")
@pytest.mark.parametrize("way", WAYS)
async def test_every_way_out_undoes_a_step_at_work(world: World, notes: Diary, way: str) -> None:
    trip = await world.start(Trip.run, "t", "leave", way, "slow hotel")
    await notes.has(notes.begun, "slow hotel")

    await after(world, 60)

    assert await trip.result() == "left"
    assert notes.undone == ["slow hotel", "train"]
    assert notes.compensated["slow hotel"] == Compensated(book.name, notes.keys["slow hotel"], Unknown)


async def test_a_cancelled_actor_undoes_what_was_done(world: World, notes: Diary) -> None:
    trip = await world.start(Trip.run, "t", "stay", "train", "hotel")
    await world.settled()

    await trip.cancel("no holidays")
    await world.run_until_idle()

    assert notes.undone == ["hotel", "train"]
    assert (await trip.info()).status == "cancelled"


@pytest.mark.promise("sagas-undo")
async def test_a_step_whose_attempts_all_raised_is_not_undone(world: World, notes: Diary) -> None:
    failed = await outcome(world, "book_all", "train", "full")

    assert isinstance(failed.__cause__, StepFailed)
    assert not failed.__cause__.uncertain
    assert notes.undone == ["train"]


async def test_a_step_that_took_too_long_is_undone(world: World, notes: Diary) -> None:
    trip = await world.start(Trip.run, "t", "try_one", "book_in_time", "slow hotel")
    await notes.has(notes.begun, "slow hotel")

    await after(world, 1)

    assert (await trip.info()).status == "failed"
    assert notes.undone == ["slow hotel", "train"]
    assert notes.compensated["slow hotel"] == Compensated(book.name, notes.keys["slow hotel"], Unknown)


async def test_a_step_whose_worker_died_is_undone(world: World, notes: Diary) -> None:
    failed = await outcome(world, "try_one", "book_in_a_process", "deadly")

    assert failed.__cause__.uncertain
    assert notes.undone == ["deadly", "train"]


async def test_a_step_whose_result_cannot_be_stored_is_undone(world: World, notes: Diary) -> None:
    failed = await outcome(world, "book_all", "train", "odd hotel")

    assert "it was done, but what it returned cannot be stored" in failed.error
    assert failed.__cause__.uncertain
    assert notes.undone == ["odd hotel", "train"]


async def test_a_step_that_answers_a_cancel_by_an_error_is_undone(world: World, notes: Diary) -> None:
    trip = await world.start(Trip.run, "t", "try_one", "book_rudely", "hotel")
    await notes.has(notes.begun, "hotel")

    await trip.cancel()
    await world.run_until_idle()

    assert notes.undone == ["hotel", "train"]


async def test_a_step_that_failed_and_waited_is_not_undone(world: World, notes: Diary) -> None:
    failed = await outcome(world, "try_one", "wait_for_the_next_attempt")

    assert failed.error.startswith("TimeoutError")
    assert (notes.begun, notes.undone) == (["train", "full"], ["train"])


async def test_a_step_that_a_restart_interrupted_is_undone(world: World, notes: Diary) -> None:
    trip = await world.start(Trip.run, "t", "try_one", "book_what_fills_up", "hotel")
    await notes.has(notes.begun, "hotel")

    await world.restart()
    await world.run_until_idle()

    with pytest.raises(ActorFailed, match="has filled up"):
        await trip.result()
    assert notes.undone == ["hotel", "train"]


async def test_what_was_pushed_is_run_in_its_place(world: World, notes: Diary) -> None:
    await outcome(world, "push_around")

    assert notes.undone == ["after", "hotel", "before"]
    assert notes.compensated["before"] is None is notes.compensated["after"]


async def test_pushing_wrong_arguments_raises_at_once(world: World, notes: Diary) -> None:
    told = await outcome(world, "push_wrongly")

    assert "unbook" in told
    assert notes.undone == []


async def test_without_a_saga_nothing_is_undone(world: World, notes: Diary) -> None:
    assert await outcome(world, "have_none_around") == "train is booked"

    assert (notes.begun, notes.undone) == (["train"], [])


async def test_steps_with_options_are_undone_as_well(world: World, notes: Diary) -> None:
    await outcome(world, "try_one", "book_in_options", "hotel")

    assert notes.undone == ["hotel", "train"]


async def test_def_steps_are_undone_in_threads(world: World, notes: Diary) -> None:
    await outcome(world, "try_one", "book_in_a_thread", "full")
    await world.ref(Trip, "u").send_event(Trip.do, "try_one", "book_then_fail_in_a_thread")
    await world.run_until_idle()

    assert notes.undone == ["train", "bus", "train"]
    assert notes.compensated["bus"] == Compensated(book_in_a_thread.name, notes.keys["bus"], "bus is booked")


async def book_then_fail_in_a_thread() -> None:
    await book_in_a_thread("bus")
    raise ValueError


async def test_compensations_run_in_processes_as_well(world: World) -> None:
    await outcome(world, "try_one", "pack_then_fail", "bag")

    assert await world.dead_letters() == []


async def pack_then_fail(what: str) -> None:
    await pack(what)
    raise ValueError


# --- sagas within each other ---


@pytest.mark.parametrize("in_a_task", [False, True])
async def test_an_inner_saga_that_ended_well_is_undone_by_the_outer(world: World, notes: Diary, in_a_task: bool) -> None:
    await outcome(world, "nested", False, False, in_a_task)

    assert notes.undone == ["hotel", "theatre", "museum", "train"]


@pytest.mark.parametrize("in_a_task", [False, True])
async def test_an_inner_saga_that_fails_is_undone_first(world: World, notes: Diary, in_a_task: bool) -> None:
    await outcome(world, "nested", True, False, in_a_task)

    assert notes.undone == ["theatre", "museum", "train"]


@pytest.mark.parametrize("in_a_task", [False, True])
async def test_an_inner_saga_alone_is_undone_if_its_error_is_caught(world: World, notes: Diary, in_a_task: bool) -> None:
    await outcome(world, "nested", True, True, in_a_task)

    assert notes.undone == ["theatre", "museum"]


async def nested(inner_fails: bool, catch: bool, in_a_task: bool) -> None:
    await nest(inner_fails=inner_fails, catch=catch, in_a_task=in_a_task)


@pytest.mark.parametrize("end_well", [False, True])
async def test_an_inner_saga_in_another_task_ends_with_the_outer(world: World, notes: Diary, end_well: bool) -> None:
    await outcome(world, "leaving_inner", "hotel", end_well)

    assert notes.begun == ["train", "hotel"]
    assert notes.undone == (["hotel"] if end_well else ["hotel", "train"])


async def test_a_step_of_an_inner_saga_at_work_is_undone_with_the_outer(world: World, notes: Diary) -> None:
    await world.start(Trip.run, "t", "leaving_inner", "slow hotel", False)
    await notes.has(notes.begun, "slow hotel")

    await after(world, 5)

    assert notes.undone == ["slow hotel", "train"]


async def leaving_inner(first: str, end_well: bool) -> None:
    await leave_an_inner_one_at_work(first, end_well=end_well)


# --- several tasks ---


async def test_a_gather_that_fails_releases_the_others(world: World, notes: Diary) -> None:
    await world.start(Trip.run, "t", "gather_three")
    await notes.has(notes.begun, "slow hotel", "train")

    await after(world, 5)

    assert notes.undone == ["slow hotel", "train"]
    assert [notes.compensated[name].outcome for name in notes.undone] == [Unknown, "train is booked"]  # type: ignore[union-attr]


async def test_a_queued_step_that_never_began_is_not_undone(world: World, notes: Diary) -> None:
    await world.start(Trip.run, "t", "gather_alone")
    await notes.has(notes.begun, "running")

    await after(world, 5)

    assert (notes.begun, notes.undone) == (["running"], ["running"])


@pytest.mark.parametrize("kind", ["asyncio", "anyio"])
async def test_a_task_group_that_fails_is_undone(world: World, notes: Diary, kind: str) -> None:
    await world.start(Trip.run, "t", "group_of_tasks", kind)
    await notes.has(notes.begun, "slow hotel", "train")

    await after(world, 5)

    assert notes.undone == ["slow hotel", "train"]


async def test_after_the_end_nothing_begins_that_could_not_be_undone(world: World, notes: Diary) -> None:
    assert await outcome(world, "stray_on") == ["the saga around it has been left"]

    assert (notes.begun, notes.undone) == (["train"], ["train"])


async def test_a_step_at_work_when_all_ends_well_is_undone(world: World, notes: Diary) -> None:
    trip = await world.start(Trip.run, "t", "leave_a_step_at_work")
    await notes.has(notes.begun, "slow hotel")

    await after(world, 5)

    assert await trip.result() == ["CancelledError"]
    assert notes.undone == ["slow hotel"]


# --- lives, events, children ---


@pytest.mark.parametrize("how", ["", "in a group"])
async def test_continue_as_new_keeps_what_was_done(world: World, notes: Diary, how: str) -> None:
    assert await outcome(world, "go_on", 1, how) == "life 2"

    assert (notes.begun, notes.undone) == (["train 1", "train 2"], [])


@pytest.mark.promise("done-after-a-wait-is-done")
async def test_an_event_that_was_undone_is_partly_applied(world: World, notes: Diary) -> None:
    with pytest.raises(ValueError, match="no more"):
        await world.ref(Trip, "t").ask(Trip.do, "book_all", "train", "hotel")
    await world.ref(Trip, "t").send_event(Trip.do, "book_all", "bus")
    await world.run_until_idle()

    *_, letter = await world.dead_letters()
    assert (letter.handler, letter.kind, letter.partly) == ("do", "event", True)
    assert notes.undone == ["hotel", "train", "bus"]


async def test_a_child_undoes_its_own(world: World, notes: Diary) -> None:
    assert await outcome(world, "raise_in_a_child") == "ChildFailed from ValueError"

    assert notes.undone == ["hotel", "train"]


# --- compensations that fail ---


async def test_the_others_are_undone_although_one_cannot_be(world: World, notes: Diary) -> None:
    notes.cannot["hotel"] = 9
    failed = await outcome(world, "book_all", "train", "hotel", "bus")

    assert notes.undone == ["bus", "hotel", "hotel", "hotel", "train"]
    assert [(each.step, each.failed) for each in failed.compensation_errors] == [(unbook.name, 3)]
    assert isinstance(failed.__cause__, CompensationFailed)
    assert isinstance(failed.__cause__.__cause__, ValueError)


@pytest.mark.promise("nothing-is-dropped-silently")
async def test_what_cannot_be_undone_is_in_the_dead_letters(world: World, notes: Diary) -> None:
    notes.cannot["hotel"] = 9
    await outcome(world, "book_all", "train", "hotel")

    (letter,) = await world.dead_letters()
    assert (letter.kind, letter.handler, letter.failed, letter.interrupted) == ("compensation", unbook.name, 3, 0)
    assert unbook.call.decode_call(letter.payload) == (("hotel",), {})
    assert "hotel stays" in letter.error


@pytest.mark.promise("sagas-undo")
@pytest.mark.parametrize("way", WAYS)
async def test_what_cannot_be_undone_is_told_whatever_the_way_out(world: World, notes: Diary, way: str) -> None:
    notes.cannot["hotel"] = 9
    told = await outcome(world, "leave", way)

    if way == "a cancelled task":  # nobody asked how it ended
        assert told == "left"
    else:
        assert [each.reason for each in told.compensation_errors] == ["ConnectionError: hotel stays"]
    assert [letter.kind for letter in await world.dead_letters()].count("compensation") == 1


async def test_an_actor_that_cannot_undo_has_failed_although_cancelled(world: World, notes: Diary) -> None:
    notes.cannot["hotel"] = 9
    trip = await world.start(Trip.run, "t", "stay", "train", "hotel")
    await world.settled()

    await trip.cancel()
    await world.run_until_idle()

    assert (await trip.info()).status == "failed"
    with pytest.raises(ActorFailed) as caught:
        await trip.result()
    assert [each.step for each in caught.value.compensation_errors] == [unbook.name]


async def test_a_compensation_is_tried_again_as_its_own_policy_says(world: World, notes: Diary) -> None:
    notes.cannot["hotel"] = 2
    failed = await outcome(world, "book_all", "hotel")

    assert notes.undone == ["hotel"] * 3
    assert failed.compensation_errors == ()


async def test_a_compensation_has_a_time_out_of_its_own(world: World, notes: Diary) -> None:
    trip = await world.start(Trip.run, "t", "undo_with_care")
    await notes.has(notes.undone, "sticky")
    for _ in range(4):
        world.clock.move_to(world.clock.now() + 1)
        await a_while()
    await notes.has(notes.undone, "train")

    with pytest.raises(ActorFailed) as caught:
        await trip.result()
    assert [each.reason for each in caught.value.compensation_errors] == ["TimeoutError: it took longer than 1 s"]
    assert notes.undone == ["sticky", "sticky", "train"]


# --- trouble while it is being undone ---


async def undoing(world: World, notes: Diary, *names: str) -> Any:
    """A trip that is being undone, and waits for a step of that which hangs."""
    trip = await world.start(Trip.run, "t", "book_all", *names)
    await eventually(lambda: any(name.startswith("sticky") for name in notes.undone))
    return trip


async def test_cancels_do_not_interrupt_undoing(world: World, notes: Diary) -> None:
    notes.go_on.set()
    notes.cannot["hotel"] = 1  # so that it waits for its second attempt
    trip = await world.start(Trip.run, "t", "book_all", "train", "hotel")
    await world.settled()

    await trip.cancel("once")
    await trip.cancel("twice")
    await world.run_until_idle()

    assert notes.undone == ["hotel", "hotel", "train"]
    assert (await trip.info()).status == "cancelled"


async def test_undoing_may_take_longer_than_the_grace(world: World, notes: Diary) -> None:
    notes.cannot |= {"hotel": 4}
    notes.go_on.set()
    trip = await world.start(Trip.run, "t", "undo_patiently")
    await world.settled()

    await trip.cancel()
    await world.run_until_idle()

    assert notes.undone == ["hotel"] * 5 + ["train"]
    assert (await trip.info()).status == "cancelled"


async def undo_patiently() -> None:
    async with saga() as undo:
        await book("train")
        undo.push(unbook.options(retry=Retry(max_attempts=5, initial=timedelta(hours=1), maximum=timedelta(hours=1))), "hotel")
        await asyncio.sleep(HOUR)


async def test_a_thread_that_outlasts_the_grace_is_undone(world: World, notes: Diary) -> None:
    trip = await world.start(Trip.run, "t", "take_too_long")
    await notes.has(notes.begun, "slow hotel")

    await trip.cancel()
    for _ in range(4):  # its end is waited for twice as long as the grace
        await a_while()
        world.clock.move_to(world.clock.now() + 4)
    await notes.has(notes.undone, "train")

    assert notes.undone == ["slow hotel", "train"]
    assert notes.compensated["slow hotel"].outcome is Unknown  # type: ignore[union-attr]


async def a_while() -> None:
    """Let everything happen that wants to."""
    for _ in range(50):
        await asyncio.sleep(0.001)


async def test_a_restart_goes_on_with_undoing(world: World, notes: Diary) -> None:
    trip = await undoing(world, notes, "train", "sticky", "bus")

    await world.restart()
    notes.go_on.set()
    await world.run_until_idle()

    with pytest.raises(ActorFailed):
        await trip.result()
    assert notes.undone == ["bus", "sticky", "sticky", "train"]


async def test_termination_ends_undoing(world: World, notes: Diary) -> None:
    trip = await undoing(world, notes, "train", "sticky")

    await trip.terminate("enough")
    await world.run_until_idle()

    assert notes.undone == ["sticky"]
    assert (await trip.info()).status == "cancelled"


# --- mistakes ---


def test_a_saga_is_for_actors_alone() -> None:
    with pytest.raises(NotInActor, match=r"saga\(\)"):
        saga()


async def test_outside_an_actor_a_compensated_step_is_a_plain_call() -> None:
    assert await unbooked("hotel") == "hotel"


@step(compensate=unbook)
async def unbooked(what: str) -> str:
    return what


def test_a_compensation_is_a_step() -> None:
    async def undo(what: str) -> None: ...

    with pytest.raises(DefinitionError, match=r"is no step.*Write @step above that function, too"):
        step(compensate=undo)(unbook.function)  # type: ignore[call-overload]


def test_a_compensation_takes_the_same_arguments() -> None:
    @step
    async def undo(what: str, twice: bool) -> None: ...

    async def do(what: str, cents: int = 1, *, how: str = "") -> None: ...

    with pytest.raises(DefinitionError) as caught:
        step(compensate=undo)(do)  # type: ignore[arg-type]

    assert "Let it take the same: def undo(what: 'str', cents: 'int' = 1, *, how: 'str' = '')" in str(caught.value)
    assert "or register it by hand: undo.push(undo, …)" in str(caught.value)


@durable_actor
class Careless:
    """Uses a saga as it is not meant."""

    @workflow
    async def run(self, how: str) -> str:
        undo = saga()
        async with undo:
            pass
        try:
            undo.push(unbook, "late") if how == "push" else await undo.__aenter__()
        except RuntimeError as refused:
            return str(refused)
        return "taken"


@pytest.mark.parametrize("how", ["push", "enter"])
async def test_a_saga_that_has_been_left_takes_nothing_more(make_world: MakeWorld, how: str) -> None:
    world = await make_world(Careless)

    careless = await world.start(Careless.run, how, how)

    assert "`async with saga()" in await careless.result()
