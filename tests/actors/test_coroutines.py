"""An actor's code may wait: for asyncio, anyio, signals, time and itself, over evictions and restarts, and ends as it says."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, TypeAlias

import anyio
import pytest
from perdure.actors import (
    ActorCancelled,
    ActorCompleted,
    ActorEvicted,
    ActorFailed,
    NotSerializable,
    Retry,
    SignalTimeout,
    WorkflowAlreadyStarted,
    WorkflowNotStarted,
    continue_as_new,
    current_actor,
    durable_actor,
    on_event,
    on_signal,
    query,
    send_signal,
    signal,
    wait_for_signal,
    wait_until,
    workflow,
)
from perdure.actors.testing import World

from .conftest import MakeWorld

pytestmark = pytest.mark.anyio

Pause: TypeAlias = Callable[[World], Awaitable[None]]

KEY: Final = "k-1"
CALLER: contextvars.ContextVar[str] = contextvars.ContextVar("caller", default="nobody")


@durable_actor(retry=Retry(max_attempts=2, initial=timedelta(seconds=1)))
class Kitchen:
    """Cooks by recipes, which are plain coroutine functions; notes what happens."""

    order = signal(str)

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.queue: asyncio.Queue[str] = asyncio.Queue(1)
        self.stove = asyncio.Lock()
        self.opened = asyncio.Event()
        self.changed = asyncio.Condition()

    @workflow
    async def run(self, recipe: str, lives: int = 1) -> Any:
        answer = await RECIPES[recipe](self)
        if lives > 1:
            continue_as_new(recipe, lives - 1)
        return answer

    @on_event
    async def cook(self, recipe: str) -> Any:
        return await RECIPES[recipe](self)

    @on_event
    async def put(self, item: str) -> None:
        await self.queue.put(item)

    @on_event
    def tell(self, what: Any) -> int:
        self.told.append(what)
        return len(self.told)

    @on_event
    def break_a_plate(self) -> None:
        self.told.append("broken")
        raise LookupError("a plate")

    @on_event
    def keep_a_lock(self) -> None:
        self.told.append(threading.Lock())

    @on_signal
    def ring(self, what: str) -> None:
        self.told.append(what)

    @on_signal
    def open(self) -> None:
        self.opened.set()

    @query
    def all_told(self) -> list[Any]:
        return self.told


# --- recipes ---


async def after(seconds: float, answer: Any) -> Any:
    await asyncio.sleep(seconds)
    return answer


async def failing_after(seconds: float) -> None:
    await asyncio.sleep(seconds)
    raise LookupError("burnt")


async def gather(_: Kitchen) -> list[int]:
    return list(await asyncio.gather(after(3, 1), after(1, 2), after(2, 3)))


async def task_group(kitchen: Kitchen) -> list[str]:
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(failing_after(2))
            tasks.create_task(noted(kitchen, "cancelled"))
    except* LookupError as group:
        kitchen.told.append(str(group.exceptions[0]))
    return kitchen.told


async def noted(kitchen: Kitchen, what: str) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        await asyncio.sleep(1)
        kitchen.told.append(what)


async def timeout(kitchen: Kitchen) -> float:
    start = asyncio.get_running_loop().time()
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            await asyncio.wait_for(asyncio.shield(noted(kitchen, "")), 1.5)
    return asyncio.get_running_loop().time() - start


async def first_of_two(_: Kitchen) -> list[int]:
    tasks = [asyncio.create_task(after(seconds, seconds)) for seconds in (3, 1)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return [task.result() for task in done]


async def move_on(kitchen: Kitchen) -> list[str]:
    with anyio.move_on_after(2):
        async with anyio.create_task_group() as tasks:
            for name in "abc":
                tasks.start_soon(told_at_the_end, kitchen, name)
    return kitchen.told


async def told_at_the_end(kitchen: Kitchen, name: str) -> None:
    try:
        await anyio.sleep(60)
    finally:
        kitchen.told.append(name)


async def stream(kitchen: Kitchen) -> list[int]:
    send, receive = anyio.create_memory_object_stream[int](1)

    async def produce() -> None:
        async with send:
            for number in range(4):
                await asyncio.sleep(0.1 * number)
                await send.send(number)

    async with anyio.create_task_group() as tasks, receive:
        tasks.start_soon(produce)
        kitchen.told = [number async for number in receive]
    return kitchen.told


async def take_three(kitchen: Kitchen) -> list[str]:
    return [await kitchen.queue.get() for _ in range(3)]


async def hear(_: Kitchen) -> str:
    return await wait_for_signal(Kitchen.order)


async def hear_three(kitchen: Kitchen) -> list[str]:
    async with asyncio.TaskGroup() as tasks:
        waiters = [tasks.create_task(hear(kitchen)) for _ in "abc"]
    return [waiter.result() for waiter in waiters]


async def hear_in_vain(kitchen: Kitchen) -> str:
    try:
        return await wait_for_signal(Kitchen.order, timeout=timedelta(days=3))
    except SignalTimeout:
        kitchen.told.append("nobody ordered")
        return await hear(kitchen)


async def until_three(kitchen: Kitchen) -> list[str]:
    await wait_until(lambda: len(kitchen.told) >= 3, timeout=timedelta(days=1))
    return kitchen.told


async def one_wakes_the_other(kitchen: Kitchen) -> list[str]:
    async def second() -> None:
        await wait_until(lambda: kitchen.told == ["ring", "first"])
        kitchen.told.append("second")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(second())
        await wait_until(lambda: kitchen.told)
        kitchen.told.append("first")
    return kitchen.told


async def cook_on_the_stove(kitchen: Kitchen) -> None:
    async with kitchen.stove:
        await kitchen.opened.wait()
        kitchen.told.append("cooked")
        async with kitchen.changed:
            kitchen.changed.notify_all()


async def wait_for_a_change(kitchen: Kitchen) -> None:
    async with kitchen.changed:
        await kitchen.changed.wait()
    async with kitchen.stove:
        kitchen.told.append("changed")


async def leave_a_task(kitchen: Kitchen) -> str:
    kitchen.told.append("left")
    asyncio.create_task(later(kitchen))  # noqa: RUF006  that nobody holds it is what this is about
    return "at once"


async def later(kitchen: Kitchen) -> None:
    await asyncio.sleep(60)
    kitchen.told.append("later")


async def leave_a_failing_task(kitchen: Kitchen) -> None:
    asyncio.create_task(failing_after(1))  # noqa: RUF006
    kitchen.told.append("left")


async def with_a_failing_task(kitchen: Kitchen) -> str:
    await leave_a_failing_task(kitchen)
    return await hear(kitchen)


async def fail_later(kitchen: Kitchen) -> None:
    kitchen.told.append("before")
    await failing_after(1)


async def fail_at_once(kitchen: Kitchen) -> None:
    kitchen.told.append("before")
    raise LookupError("burnt")


async def who_called(_: Kitchen) -> list[str]:
    return [CALLER.get(), await after(1, CALLER.get())]


ENDED: Final[list[str]] = []


async def ask_in_clean_up(kitchen: Kitchen) -> str:
    try:
        return await hear(kitchen)
    finally:
        try:
            current_actor()
        except ActorEvicted:
            ENDED.append("evicted")


async def end_with_a_task(kitchen: Kitchen) -> str:
    asyncio.create_task(noted(kitchen, "cleaned up"))  # noqa: RUF006
    return await hear(kitchen)


RECIPES: Final[dict[str, Callable[[Kitchen], Awaitable[Any]]]] = {
    recipe.__name__: recipe
    for recipe in (
        *(gather, task_group, timeout, first_of_two, move_on, stream, take_three, hear, hear_three, hear_in_vain, until_three),
        *(one_wakes_the_other, cook_on_the_stove, wait_for_a_change, leave_a_task, leave_a_failing_task, with_a_failing_task),
        *(fail_later, fail_at_once, who_called, ask_in_clean_up, end_with_a_task),
    )
}


# --- worlds ---


@pytest.fixture(params=["stays", "is evicted", "is evicted, and the host restarted"])
def memory(request: pytest.FixtureRequest) -> str:
    """Whether actors stay in memory, and their host alive."""
    return str(request.param)


@pytest.fixture
def pause(memory: str) -> Pause:
    """Everything comes to rest; then the host may be killed."""

    async def paused(world: World) -> None:
        await world.settled()
        if "restarted" in memory:
            await world.restart()
            await world.settled()

    return paused


@pytest.fixture
async def kitchen(make_world: MakeWorld, memory: str) -> World:
    """A world of kitchens."""
    return await make_world(Kitchen, max_active=10_000 if memory == "stays" else 0)


async def play(world: World, pause: Pause) -> None:
    """Let everything happen that will, with a pause whenever there is nothing to do."""
    await pause(world)
    while (due := world.clock.next_due()) is not None:
        world.clock.move_to(due)
        await pause(world)


# --- plain asyncio and anyio ---


@pytest.mark.promise("what-waits-goes-on")
@pytest.mark.parametrize(
    ("recipe", "answer"),
    [
        ("gather", [1, 2, 3]),
        ("task_group", ["cancelled", "burnt"]),
        ("timeout", 1.5),
        ("first_of_two", [1]),
        ("move_on", ["a", "b", "c"]),
        ("stream", [0, 1, 2, 3]),
        ("who_called", ["nobody", "nobody"]),
    ],
)
async def test_plain_asyncio_and_anyio_outlive_their_host(kitchen: World, pause: Pause, recipe: str, answer: object) -> None:
    CALLER.set("a test")

    ref = await kitchen.start(Kitchen.run, KEY, recipe)
    await play(kitchen, pause)

    assert await ref.result() == answer


async def test_a_queue_in_self_joins_events_and_workflow(kitchen: World, pause: Pause) -> None:
    ref = await kitchen.start(Kitchen.run, KEY, "take_three")

    for item in "abc":
        await pause(kitchen)
        await ref.ask(Kitchen.put, item)

    assert await ref.result() == ["a", "b", "c"]


async def test_a_full_queue_holds_the_handler_that_puts(kitchen: World, pause: Pause) -> None:
    ref = kitchen.ref(Kitchen, KEY)
    for item in "abc":
        await ref.send_event(Kitchen.put, item)
    await pause(kitchen)

    assert (await ref.info()).events == 1
    started = await kitchen.start(Kitchen.run, KEY, "take_three")

    await pause(kitchen)
    assert await started.result() == ["a", "b", "c"]


@pytest.mark.promise("primitives-may-be-kept")
async def test_locks_events_and_conditions_in_self_outlive_the_host(kitchen: World, pause: Pause) -> None:
    ref = await kitchen.start(Kitchen.run, KEY, "cook_on_the_stove")
    await ref.send_event(Kitchen.cook, "wait_for_a_change")
    await pause(kitchen)
    assert await ref.query(Kitchen.all_told) == []

    await send_signal(ref, Kitchen.open)
    await pause(kitchen)

    assert (await ref.query(Kitchen.all_told))[0] == "cooked"
    assert (await ref.info()).status == "completed"


# --- signals and conditions ---


@pytest.mark.promise("signals-are-kept")
async def test_signals_go_to_the_longest_waiter_first(kitchen: World, pause: Pause) -> None:
    ref = await kitchen.start(Kitchen.run, KEY, "hear_three")

    for what in ("soup", "fish", "cake"):
        await pause(kitchen)
        await send_signal(ref, Kitchen.order, what)

    await pause(kitchen)
    assert await ref.result() == ["soup", "fish", "cake"]


@pytest.mark.promise("signals-are-kept")
async def test_early_signals_are_kept_in_order(kitchen: World, pause: Pause) -> None:
    ref = kitchen.ref(Kitchen, KEY)
    for what in ("soup", "fish", "cake"):
        await send_signal(ref, Kitchen.order, what)
    await pause(kitchen)

    started = await kitchen.start(Kitchen.run, KEY, "hear_three")

    await pause(kitchen)
    assert await started.result() == ["soup", "fish", "cake"]


@pytest.mark.promise("signals-are-kept")
async def test_a_wait_that_timed_out_takes_no_signal(kitchen: World, pause: Pause) -> None:
    ref = await kitchen.start(Kitchen.run, KEY, "hear_in_vain")
    await play(kitchen, pause)
    assert await ref.query(Kitchen.all_told) == ["nobody ordered"]

    await send_signal(ref, Kitchen.order, "soup")

    assert await ref.result() == "soup"


async def test_a_condition_is_looked_at_after_each_message(kitchen: World, pause: Pause) -> None:
    ref = await kitchen.start(Kitchen.run, KEY, "until_three")

    await ref.ask(Kitchen.tell, "event")
    await pause(kitchen)
    await send_signal(ref, Kitchen.ring, "signal")
    await pause(kitchen)
    await ref.ask(Kitchen.tell, "event")

    assert await ref.result() == ["event", "signal", "event"]


async def test_a_condition_that_never_holds_times_out(kitchen: World, pause: Pause) -> None:
    ref = await kitchen.start(Kitchen.run, KEY, "until_three")

    await play(kitchen, pause)

    with pytest.raises(ActorFailed, match="TimeoutError"):
        await ref.result()


async def test_conditions_wake_each_other_within_one_turn(kitchen: World, pause: Pause) -> None:
    ref = await kitchen.start(Kitchen.run, KEY, "one_wakes_the_other")
    await pause(kitchen)
    turn = (await ref.info()).turn

    await send_signal(ref, Kitchen.ring, "ring")

    await kitchen.settled()
    assert (await ref.info()).turn == turn + 1
    assert await ref.result() == ["ring", "first", "second"]


@pytest.mark.promise("one-piece-at-a-time", "signals-overtake-events")
async def test_events_wait_for_the_slot_while_signals_pass(kitchen: World, pause: Pause) -> None:
    ref = kitchen.ref(Kitchen, KEY)
    await ref.send_event(Kitchen.cook, "hear")
    await ref.send_event(Kitchen.tell, "event")
    await send_signal(ref, Kitchen.ring, "signal")
    await pause(kitchen)
    assert await ref.query(Kitchen.all_told) == ["signal"]

    await send_signal(ref, Kitchen.order, "soup")
    await pause(kitchen)

    assert await ref.query(Kitchen.all_told) == ["signal", "event"]


# --- tasks that nobody holds ---


async def test_a_task_that_outlives_its_handler_goes_on(kitchen: World, pause: Pause) -> None:
    ref = kitchen.ref(Kitchen, KEY)
    assert await ref.ask(Kitchen.cook, "leave_a_task") == "at once"
    await pause(kitchen)
    assert (await ref.info()).status == "suspended"

    await ref.ask(Kitchen.tell, "meanwhile")
    await play(kitchen, pause)

    assert await ref.query(Kitchen.all_told) == ["left", "meanwhile", "later"]
    assert (await ref.info()).status == "idle"


async def test_a_task_that_fails_unheard_fails_the_workflow(kitchen: World, pause: Pause) -> None:
    ref = await kitchen.start(Kitchen.run, KEY, "with_a_failing_task")

    await play(kitchen, pause)

    with pytest.raises(ActorFailed, match="LookupError: burnt"):
        await ref.result()


async def test_a_task_that_fails_unheard_is_a_dead_letter_elsewhere(kitchen: World, pause: Pause) -> None:
    ref = kitchen.ref(Kitchen, KEY)
    await ref.ask(Kitchen.cook, "leave_a_failing_task")

    await play(kitchen, pause)

    assert [letter.error for letter in await kitchen.dead_letters()] == ["LookupError: burnt"]
    assert await ref.ask(Kitchen.tell, "next") == 2


# --- failures while something waits ---


@pytest.mark.promise("failed-turn-leaves-no-trace")
@pytest.mark.parametrize(
    ("fails", "error"),
    [(("break_a_plate",), LookupError), (("cook", "fail_at_once"), LookupError), (("keep_a_lock",), NotSerializable)],
)
async def test_a_failed_event_leaves_no_trace_beside_a_workflow(
    kitchen: World, pause: Pause, fails: tuple[str, ...], error: type[Exception]
) -> None:
    ref = await kitchen.start(Kitchen.run, KEY, "hear")
    await pause(kitchen)

    with pytest.raises(error):
        await ref.ask(*fails)
    await pause(kitchen)
    await send_signal(ref, Kitchen.order, "soup")

    assert await ref.result() == "soup"
    assert await ref.query(Kitchen.all_told) == []


async def test_a_sent_event_is_retried_and_put_aside_beside_a_workflow(kitchen: World, pause: Pause) -> None:
    ref = await kitchen.start(Kitchen.run, KEY, "hear")
    await ref.send_event(Kitchen.break_a_plate)

    await play(kitchen, pause)

    assert [(letter.handler, letter.failed) for letter in await kitchen.dead_letters()] == [("break_a_plate", 2)]
    assert await ref.query(Kitchen.all_told) == []


@pytest.mark.promise("done-after-a-wait-is-done")
async def test_a_failure_after_a_wait_keeps_what_was_done(kitchen: World, pause: Pause) -> None:
    ref = kitchen.ref(Kitchen, KEY)
    await ref.send_event(Kitchen.cook, "fail_later")

    await play(kitchen, pause)

    assert [(letter.handler, letter.failed) for letter in await kitchen.dead_letters()] == [("cook", 1)]
    assert await ref.query(Kitchen.all_told) == ["before"]


@pytest.mark.promise("done-after-a-wait-is-done")
async def test_whoever_asked_is_told_of_a_failure_after_a_wait(kitchen: World) -> None:
    asking = asyncio.create_task(kitchen.ref(Kitchen, KEY).ask(Kitchen.cook, "fail_later"))

    await kitchen.run_until_idle()

    with pytest.raises(LookupError, match="burnt"):
        await asking
    assert await kitchen.dead_letters() == []


async def test_clean_up_at_eviction_is_told_of_it(make_world: MakeWorld) -> None:
    ENDED.clear()
    world = await make_world(Kitchen, max_active=0)
    ref = await world.start(Kitchen.run, KEY, "ask_in_clean_up")
    await world.settled()

    assert {*ENDED} == {"evicted"}
    await send_signal(ref, Kitchen.order, "soup")

    assert await ref.result() == "soup"


# --- the end ---


async def test_whoever_comes_after_the_end_is_told_so(kitchen: World, pause: Pause) -> None:
    ref = await kitchen.start(Kitchen.run, KEY, "end_with_a_task")
    await send_signal(ref, Kitchen.order, "soup")
    await play(kitchen, pause)
    assert await ref.result() == "soup"

    for late in (ref.ask(Kitchen.tell, "late"), ref.send_event(Kitchen.tell, "late"), send_signal(ref, Kitchen.order, "late")):
        with pytest.raises(ActorCompleted):
            await late

    assert await ref.query(Kitchen.all_told) == ["cleaned up"]


@pytest.mark.promise("nothing-is-dropped-silently")
async def test_events_that_wait_at_the_end_are_answered_or_put_aside(kitchen: World, pause: Pause) -> None:
    ref = await kitchen.start(Kitchen.run, KEY, "hear")
    await ref.send_event(Kitchen.cook, "take_three")
    await ref.send_event(Kitchen.tell, "sent")
    asking = asyncio.create_task(ref.ask(Kitchen.tell, "asked"))
    await kitchen.settled()

    await send_signal(ref, Kitchen.order, "soup")

    with pytest.raises(ActorCompleted):
        await asking
    await pause(kitchen)
    assert [letter.handler for letter in await kitchen.dead_letters()] == ["cook", "tell"]


@pytest.mark.promise("nothing-is-dropped-silently")
async def test_untaken_signals_are_dead_letters_at_the_end(kitchen: World, pause: Pause) -> None:
    ref = kitchen.ref(Kitchen, KEY)
    for what in ("soup", "fish"):
        await send_signal(ref, Kitchen.order, what)

    started = await kitchen.start(Kitchen.run, KEY, "hear")
    await pause(kitchen)

    assert await started.result() == "soup"
    assert [(letter.handler, letter.error.split(":")[0]) for letter in await kitchen.dead_letters()] == [
        ("order", "perdure.actors.ActorCompleted")
    ]


async def test_a_handler_that_waits_at_the_end_is_cancelled(kitchen: World, pause: Pause) -> None:
    ref = await kitchen.start(Kitchen.run, KEY, "hear")
    asking = asyncio.create_task(ref.ask(Kitchen.cook, "take_three"))
    await kitchen.settled()

    await send_signal(ref, Kitchen.order, "soup")

    with pytest.raises(ActorCancelled, match="its workflow has ended"):
        await asking
    await pause(kitchen)
    assert (await ref.info()).status == "completed"


@pytest.mark.promise("signals-are-kept")
async def test_a_new_life_keeps_state_events_and_signals(kitchen: World, pause: Pause) -> None:
    ref = await kitchen.start(Kitchen.run, KEY, "hear", 3)
    before = (await ref.info()).incarnation
    for what in ("soup", "fish", "cake"):
        await ref.ask(Kitchen.tell, what)
        await send_signal(ref, Kitchen.order, what)
        await pause(kitchen)

    assert await ref.result() == "cake"
    assert await ref.query(Kitchen.all_told) == ["soup", "fish", "cake"]
    assert (await ref.info()).incarnation != before


# --- starting, and the result ---


@pytest.mark.promise("one-start-one-life")
async def test_a_start_is_one_start_however_often_it_comes(kitchen: World, pause: Pause) -> None:
    ref = await kitchen.start(Kitchen.run, KEY, "hear")
    await pause(kitchen)
    again = await kitchen.start(Kitchen.run, KEY, recipe="hear")

    with pytest.raises(WorkflowAlreadyStarted):
        await kitchen.start(Kitchen.run, KEY, "hear_three")
    with pytest.raises(WorkflowAlreadyStarted):
        await kitchen.options(if_exists="fail").start(Kitchen.run, KEY, "hear")

    await send_signal(ref, Kitchen.order, "soup")
    assert await again.result() == "soup"


@pytest.mark.promise("one-start-one-life")
async def test_a_restart_keeps_waiting_messages_and_ends_the_old_life(kitchen: World, pause: Pause) -> None:
    ref = await kitchen.start(Kitchen.run, KEY, "take_three")
    await ref.ask(Kitchen.tell, "of the old life")
    await send_signal(ref, Kitchen.order, "soup")
    waiting = asyncio.create_task(ref.result())
    await kitchen.settled()

    again = await kitchen.options(if_exists="restart").start(Kitchen.run, KEY, "hear")

    with pytest.raises(ActorCancelled, match="started anew"):
        await waiting
    await pause(kitchen)
    assert (await again.result(), await again.query(Kitchen.all_told)) == ("soup", [])


async def test_the_result_is_told_before_and_after_the_end(kitchen: World, pause: Pause) -> None:
    ref = await kitchen.start(Kitchen.run, KEY, "hear")
    waiting = asyncio.create_task(ref.result())
    await kitchen.settled()

    await send_signal(ref, Kitchen.order, "soup")

    assert await waiting == "soup"
    await pause(kitchen)
    assert await kitchen.ref(Kitchen.run, KEY).result() == "soup"


async def test_an_actor_made_by_an_event_has_no_result_before_its_start(kitchen: World, pause: Pause) -> None:
    await kitchen.ref(Kitchen, KEY).ask(Kitchen.tell, "early")
    with pytest.raises(WorkflowNotStarted):
        await kitchen.ref(Kitchen.run, KEY).result()

    ref = await kitchen.start(Kitchen.run, KEY, "until_three")
    for _ in "ab":
        await ref.ask(Kitchen.tell, "late")
        await pause(kitchen)

    assert await ref.result() == ["early", "late", "late"]
