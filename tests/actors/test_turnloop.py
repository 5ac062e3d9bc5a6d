"""The loop of one actor, without a host: the same program takes the same course whatever the addresses, hashes and order of memory are."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, Final, TypeAlias, final

import anyio
import anyio.to_thread
import pytest
from perdure.actors import ActorEvicted, NotDurable, TurnDidNotEnd
from perdure.actors._turnloop import TurnLoop, TurnTask, new_turn_loop

START: Final = 1_767_225_600.1  # seconds since the epoch
Trace: TypeAlias = list[object]
Program: TypeAlias = Callable[[Trace], Coroutine[Any, Any, object]]


@final
class Stage:
    """A loop and its journal, which moves every due time by `late` seconds; `trace` is what its programs write down."""

    def __init__(self) -> None:
        self.loop: TurnLoop = new_turn_loop(self)
        self.asked: list[float] = []
        self.late = 0.0
        self.closed = False
        self.turns = 0
        self.trace: Trace = []

    def timer(self, due: float) -> float:
        """As `Journal.timer`."""
        if self.closed:
            raise ActorEvicted("a timer")
        self.asked.append(due)
        return due + self.late

    def begin(self, coroutine: Coroutine[Any, Any, Any], at: float = START) -> TurnTask:
        """The task of a coroutine, after its first turn."""
        with self.loop.at(at):
            task = self.loop.create_task(coroutine)
            self.loop.run()
        self.turns += 1
        return task

    def fire(self) -> None:
        """The turn of whatever is due next."""
        due = self.loop.next_due()
        assert due is not None, f"it waits for ever: {self.loop!r}"
        with self.loop.at(due):
            self.loop.fire(due)
            self.loop.run()
        self.turns += 1

    def play(self, program: Program) -> Trace:
        """What a program has written down when it has come to its end."""
        task = self.begin(program(self.trace))
        while not task.done():
            self.fire()
        task.result()
        return self.trace

    def evict(self) -> None:
        """Put away whatever waits."""
        self.closed = True
        self.loop.evict()


@pytest.fixture
def stage() -> Stage:
    """An empty stage."""
    return Stage()


@pytest.fixture
def nothing_left(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever the test puts away is gone at its end: the garbage collector finds nothing to warn of, and nothing is logged."""
    with suppress(GeneratorExit):
        yield
    gc.collect()
    assert caplog.records == []


# --- programs whose order CPython and anyio leave to addresses ---


async def told(name: object, trace: Trace) -> None:
    """Waits until it is cancelled, and tells who was."""
    try:
        await asyncio.Event().wait()
    finally:
        trace.append(name)


async def failing(_: Trace) -> None:
    await asyncio.sleep(1)
    raise LookupError


async def abort_a_task_group(trace: Trace) -> None:
    with suppress(BaseExceptionGroup):
        async with asyncio.TaskGroup() as tasks:
            for name in range(20):
                tasks.create_task(told(name, trace))
            tasks.create_task(failing(trace))


async def abort_groups_in_groups(trace: Trace) -> None:
    async def group(name: int) -> None:
        async with asyncio.TaskGroup() as inner:
            for child in range(5):
                inner.create_task(told((name, child), trace))

    with suppress(BaseExceptionGroup):
        async with asyncio.TaskGroup() as tasks:
            for name in range(5):
                tasks.create_task(group(name))
            tasks.create_task(failing(trace))


async def wait_for_many(trace: Trace) -> None:
    tasks = [asyncio.create_task(asyncio.sleep(delay % 3, delay)) for delay in range(20)]
    pending = set(tasks)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        trace.extend(task.result() for task in done)


async def wait_for_futures(trace: Trace) -> None:
    loop = asyncio.get_running_loop()
    futures = {loop.create_future(): name for name in range(20)}
    for future in futures:
        loop.call_later(1, future.set_result, None)
    done, _ = await asyncio.wait(futures)
    trace.extend(futures[future] for future in done)


async def time_out_a_group(trace: Trace) -> None:
    with anyio.move_on_after(1):
        async with anyio.create_task_group() as tasks:
            for name in range(20):
                tasks.start_soon(told, name, trace)


async def scoped(name: object, trace: Trace) -> None:
    with anyio.CancelScope():
        await told(name, trace)


async def time_out_several_scopes(trace: Trace) -> None:
    with anyio.move_on_after(1):
        async with anyio.create_task_group() as tasks:
            for name in range(20):
                tasks.start_soon(scoped if name % 3 else told, name, trace)


async def fail_beside_groups_with_scopes(trace: Trace) -> None:
    async def group(name: int) -> None:
        async with anyio.create_task_group() as inner:
            for child in range(4):
                inner.start_soon(scoped, (name, child), trace)

    with suppress(BaseExceptionGroup):
        async with anyio.create_task_group() as tasks:
            for name in range(4):
                tasks.start_soon(group, name)
            tasks.start_soon(failing, trace)


ORDERED: Final[dict[str, Program]] = {
    program.__name__: program
    for program in (
        abort_a_task_group,
        abort_groups_in_groups,
        wait_for_many,
        wait_for_futures,
        time_out_a_group,
        time_out_several_scopes,
        fail_beside_groups_with_scopes,
    )
}


def traces(seed: int) -> dict[str, str]:
    """What each program writes down in a process whose memory is strewn with garbage, so that addresses are in no order."""
    chance = random.Random(seed)
    strewn = [bytearray(chance.randrange(1, 512)) for _ in range(50_000)]
    strewn = [piece for piece in strewn if chance.random() < 0.5]
    return {name: repr(Stage().play(program)) for name, program in ORDERED.items()}


@pytest.fixture(scope="module")
def elsewhere() -> list[dict[str, str]]:
    """The traces of three fresh processes with hash seeds and garbage of their own."""
    command = [sys.executable, __file__]
    runs = [
        subprocess.Popen([*command, str(seed)], env={**os.environ, "PYTHONHASHSEED": str(seed)}, stdout=subprocess.PIPE)
        for seed in (1, 2, 3)
    ]
    return [json.loads(run.communicate(timeout=50)[0]) for run in runs]


@pytest.mark.promise("same-course-everywhere")
@pytest.mark.parametrize("name", ORDERED)
def test_every_process_takes_the_same_course(elsewhere: list[dict[str, str]], stage: Stage, name: str) -> None:
    here = repr(stage.play(ORDERED[name]))

    assert [trace[name] for trace in elsewhere] == [here] * 3
    assert len(stage.trace) >= 16


def test_groups_are_aborted_in_the_order_of_their_tasks(stage: Stage) -> None:
    assert stage.play(time_out_several_scopes) == list(range(20))


def test_tasks_cancelled_between_callbacks_wake_once_each(stage: Stage) -> None:
    tasks = [stage.begin(told(name, stage.trace)) for name in range(5)]

    with stage.loop.at(START):
        for task in reversed(tasks):
            task.cancel()
        stage.loop.run()

    assert stage.trace == list(range(5))
    assert all(task.cancelled() for task in tasks)


# --- time ---


async def nap(trace: Trace) -> None:
    with anyio.fail_after(0.7):
        await anyio.sleep(0.1)
    trace.append(asyncio.get_running_loop().time())


def test_due_times_keep_every_digit_and_are_set_once(stage: Stage) -> None:
    stage.play(nap)

    assert stage.asked == [START + 0.7, START + 0.1]
    assert stage.trace == [START + 0.1]


def test_the_recorded_due_time_is_the_one_that_counts(stage: Stage) -> None:
    stage.late = 0.25

    stage.play(lambda trace: asyncio.sleep(1))

    assert (stage.asked, stage.loop.time()) == ([START + 1], START + 1.25)


def test_timers_due_together_fire_in_the_order_they_were_set(stage: Stage) -> None:
    async def run(trace: Trace) -> None:
        await asyncio.gather(*(note_after(1, name, trace) for name in range(50)))

    stage.play(run)

    assert stage.trace == list(range(50))
    assert stage.turns == 2


async def note_after(delay: float, name: object, trace: Trace) -> None:
    await asyncio.sleep(delay)
    trace.append(name)


@pytest.mark.parametrize("seconds", [float("nan"), 1e12])
def test_a_time_that_never_comes_is_refused(stage: Stage, seconds: float) -> None:
    with stage.loop.at(START), pytest.raises(ValueError, match="9999"):
        stage.loop.call_later(seconds, print)


def test_cancelled_timers_leave_the_loop_at_rest(stage: Stage) -> None:
    async def impatient(trace: Trace) -> None:
        for _ in range(500):
            async with asyncio.timeout(60):
                await asyncio.sleep(0)

    stage.play(impatient)

    assert stage.loop.at_rest
    assert len(stage.loop._timers) < 100


# --- names ---


async def names(trace: Trace) -> None:
    async def name() -> None:
        task = asyncio.current_task()
        trace.append(task and task.get_name())

    await asyncio.gather(name(), name(), asyncio.create_task(name(), name="mine"))


def test_task_names_count_from_the_actors_own_beginning(stage: Stage) -> None:
    other = Stage()
    other.play(nap)

    for each in (stage, other):
        each.trace.clear()
        each.loop.begin_at(5 << 12)

    assert stage.play(names) == other.play(names)
    assert "mine" in stage.trace


# --- what is refused ---


async def set_a_task_factory() -> None:
    asyncio.get_running_loop().set_task_factory(None)


async def wait_readable() -> None:
    await anyio.wait_readable(0)


async def hear_a_signal() -> None:
    with anyio.open_signal_receiver(signal.SIGINT):
        """Never reached."""


REFUSED: Final[dict[str, Callable[[], Coroutine[Any, Any, object]]]] = {
    "asyncio.to_thread": lambda: asyncio.to_thread(print),
    "asyncio.open_connection": lambda: asyncio.open_connection("localhost", 9),
    "asyncio.start_server": lambda: asyncio.start_server(print, "localhost", 0),
    "asyncio.create_subprocess_exec": lambda: asyncio.create_subprocess_exec("true"),
    "anyio.to_thread": lambda: anyio.to_thread.run_sync(print),
    "anyio.to_thread, abandoned": lambda: anyio.to_thread.run_sync(print, abandon_on_cancel=True),
    "anyio.Path": lambda: anyio.Path("/").exists(),
    "anyio.connect_tcp": lambda: anyio.connect_tcp("localhost", 9),
    "anyio.create_tcp_listener": lambda: anyio.create_tcp_listener(local_host="localhost"),
    "anyio.wait_readable": wait_readable,
    "anyio.run_process": lambda: anyio.run_process("true"),
    "set_task_factory": set_a_task_factory,
    "anyio.open_signal_receiver": hear_a_signal,
}


@pytest.mark.promise("not-durable-is-refused")
@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("name", REFUSED)
def test_what_a_crash_would_lose_is_refused_at_entry(stage: Stage, name: str) -> None:
    threads = threading.active_count()

    task = stage.begin(REFUSED[name]())

    with pytest.raises(NotDurable, match="@step"):
        task.result()
    assert threading.active_count() == threads


@pytest.mark.promise("not-durable-is-refused")
def test_a_thread_is_refused_within_a_task_group_too(stage: Stage) -> None:
    async def run(trace: Trace) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, print)

    with pytest.raises(ExceptionGroup) as refused:
        stage.play(run)

    assert [type(error) for error in refused.value.exceptions] == [NotDurable]


# --- turns that end, and one that does not ---


async def shielded(trace: Trace) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await asyncio.sleep(5)
        trace.append("cleaned up")


def test_a_shielded_clean_up_that_waits_ends_the_turn(stage: Stage) -> None:
    async def run(trace: Trace) -> None:
        with anyio.move_on_after(1):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(shielded, trace)
        trace.append("moved on")

    assert stage.play(run) == ["cleaned up", "moved on"]
    assert (stage.turns, stage.loop.time()) == (3, START + 1 + 5)


async def durable_clean_up(trace: Trace) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(5)
        trace.append("cleaned up")


def test_moving_on_from_a_task_group_waits_for_its_clean_up(stage: Stage) -> None:
    async def run(trace: Trace) -> None:
        with anyio.move_on_after(1) as scope:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(durable_clean_up(trace))
        task = asyncio.current_task()
        trace.append((scope.cancelled_caught, task and task.cancelling()))

    assert stage.play(run) == ["cleaned up", (True, 0)]
    assert stage.turns == 3


@pytest.mark.parametrize("times", [1, 50])
def test_whoever_swallows_its_cancellation_is_cancelled_again(stage: Stage, times: int) -> None:
    async def stubborn() -> None:
        for _ in range(times):
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    async def run(trace: Trace) -> None:
        with anyio.move_on_after(1):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stubborn)

    stage.play(run)

    assert stage.turns == 2


def test_asyncio_lets_a_child_swallow_its_cancellation(stage: Stage) -> None:
    async def stubborn(trace: Trace) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        trace.append(await asyncio.sleep(3, "slept"))

    async def run(trace: Trace) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(1), asyncio.TaskGroup() as tasks:
                tasks.create_task(stubborn(trace))

    assert stage.play(run) == ["slept"]
    assert stage.loop.time() == START + 1 + 3


@pytest.mark.promise("turns-end")
def test_a_turn_without_an_end_names_its_task_and_line(stage: Stage) -> None:
    async def spin(trace: Trace) -> None:
        while True:  # noqa: ASYNC110  a loop without an end is what this is about
            await asyncio.sleep(0)

    with pytest.raises(TurnDidNotEnd, match=r"test_turnloop\.py:\d+, in spin"):
        stage.play(spin)


# --- eviction ---


@pytest.mark.usefixtures("nothing_left")
def test_eviction_closes_the_latest_task_first(stage: Stage) -> None:
    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            for name in range(5):
                tasks.create_task(told(name, stage.trace))
            await told("parent", stage.trace)

    stage.begin(run())

    stage.evict()

    assert stage.trace == [4, 3, 2, 1, 0, "parent"]
    assert stage.loop.at_rest


@pytest.mark.usefixtures("nothing_left")
def test_clean_up_is_closed_wherever_it_waits(stage: Stage) -> None:
    async def run() -> None:
        try:
            await told("waits", stage.trace)
        finally:
            try:
                await asyncio.gather(told("never begins", stage.trace), asyncio.Event().wait())
            finally:
                await told("waits again", stage.trace)

    stage.begin(run())

    stage.evict()

    assert stage.trace == ["waits", "waits again"]


@pytest.mark.usefixtures("nothing_left")
def test_clean_up_that_asks_is_told_of_the_eviction(stage: Stage) -> None:
    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await asyncio.sleep(1)
            except ActorEvicted:
                stage.trace.append("evicted")

    stage.begin(run())

    stage.evict()

    assert stage.trace == ["evicted"]


@pytest.mark.usefixtures("nothing_left")
def test_eviction_runs_in_the_context_and_name_of_each_task(stage: Stage) -> None:
    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stage.trace.append(asyncio.current_task())

    task = stage.begin(run())

    stage.evict()

    assert stage.trace == [task]


@pytest.mark.usefixtures("nothing_left")
def test_a_child_that_swallows_everything_is_put_away(stage: Stage) -> None:
    async def stubborn() -> None:
        for _ in range(5):
            with suppress(BaseException):
                await asyncio.Event().wait()

    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stubborn())

    stage.begin(run())

    stage.evict()

    assert stage.loop.at_rest


# --- async generators ---


async def numbers(trace: Trace) -> AsyncIterator[int]:
    try:
        for number in range(3):
            yield number
    finally:
        trace.append("closed")


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("kept", [True, False])
def test_generators_are_closed_at_eviction(stage: Stage, kept: bool) -> None:
    held: list[object] = []

    async def run() -> None:
        generator = numbers(stage.trace)
        held.extend([generator] * kept)
        async for number in generator:
            stage.trace.append(number)
            await asyncio.Event().wait()

    stage.begin(run())

    stage.evict()

    assert stage.trace == [0, "closed"]


@pytest.mark.usefixtures("nothing_left")
def test_a_lost_generator_is_closed_within_the_turn(stage: Stage) -> None:
    async def run() -> None:
        async for _ in numbers(stage.trace):
            break
        await asyncio.Event().wait()

    stage.begin(run())

    assert stage.trace == ["closed"]
    stage.evict()


def test_the_hosts_own_generator_hooks_come_back(stage: Stage) -> None:
    hooks = sys.get_asyncgen_hooks()

    stage.begin(told("a", stage.trace))
    stage.evict()

    assert sys.get_asyncgen_hooks() == hooks


# --- what nobody hears of ---


async def failing_in_a_scope() -> None:
    with anyio.fail_after(5) as scope:
        await asyncio.sleep(1)
        raise LookupError(scope.deadline)


@pytest.mark.parametrize("fails", [lambda: failing([]), failing_in_a_scope])
def test_a_task_that_fails_unheard_is_kept_in_that_turn(stage: Stage, fails: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        asyncio.create_task(fails())  # noqa: RUF006  nobody holds it
        await asyncio.Event().wait()

    gc.disable()
    stage.begin(run())
    stage.fire()
    gc.enable()

    assert [type(error) for error in stage.loop.unretrieved or ()] == [LookupError]
    stage.evict()


def test_a_failed_task_may_be_awaited_much_later(stage: Stage) -> None:
    async def run(trace: Trace) -> None:
        task = asyncio.create_task(failing(trace))
        await asyncio.sleep(9)
        with pytest.raises(LookupError):
            await task

    stage.play(run)

    assert stage.loop.unretrieved is None


if __name__ == "__main__":
    print(json.dumps(traces(int(sys.argv[1]))))
