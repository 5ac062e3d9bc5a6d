"""Steps: what is recorded runs once, what fails is tried again as its policy says, and what is given up ends."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, final

import pytest
from perdure.actors import (
    ActorFailed,
    DefinitionError,
    NotInActor,
    Rate,
    Retry,
    StepFailed,
    durable_actor,
    on_event,
    step,
    step_info,
    workflow,
)
from perdure.actors import _steps as steps_module
from perdure.actors._step import STEPS
from perdure.actors.testing import World

from .conftest import MakeWorld, eventually

pytestmark = pytest.mark.anyio

SECOND: Final = timedelta(seconds=1)
STUBBORN: Final = Retry(max_attempts=9, initial=timedelta(hours=1), maximum=timedelta(hours=1))


@final
class Log:
    """What the steps of a test have done, and what they wait for."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.ended: list[Any] = []
        self.go_on = asyncio.Event()
        self.thread_goes_on = threading.Event()
        self.now: Callable[[], float] = lambda: 0.0

    async def has_begun(self, count: int = 1) -> None:
        """Return once so many attempts have begun."""
        await eventually(lambda: len(self.begun) >= count)


async def a_while() -> None:
    """Let everything happen that wants to."""
    for _ in range(50):
        await asyncio.sleep(0)


def log() -> Log:
    found: Log = step_info().resources["log"]
    return found


# --- steps ---


@step
async def succeed(value: Any) -> Any:
    log().begun.append(step_info().idempotency_key)
    return value


@step
async def fail(times: int) -> int:
    log().begun.append(log().now())
    if step_info().attempt <= times:
        raise ConnectionError("no route")
    return step_info().attempt


@step(retry=Retry(retry_on=(OSError,), give_up_on=(PermissionError,)))
async def raise_it(error: BaseException) -> None:
    log().begun.append(step_info().attempt)
    raise error


@step
async def hold() -> str:
    log().begun.append(step_info().attempt)
    try:
        await log().go_on.wait()
    finally:
        log().ended.append(step_info().attempt)
    return "held"


@step
async def hold_and_fail() -> None:
    try:
        await hold.function()
    except asyncio.CancelledError:
        raise ConnectionError("interrupted") from None


@step
async def return_a_lock() -> Any:
    return threading.Lock()


@step
async def cancel_itself() -> None:
    log().begun.append(step_info().attempt)
    raise asyncio.CancelledError


@step
def hang() -> int:
    log().begun.append(step_info().attempt)
    if step_info().attempt == 1:
        log().thread_goes_on.wait(5)
        step_info().heartbeat("too late")
    return step_info().attempt


@step
async def beat() -> Any:
    found = step_info().progress
    step_info().heartbeat((found or 0) + 1)
    if found is None or found < 2:
        raise ConnectionError
    return found


@step(at_once=2)
async def two_at_once() -> None:
    log().begun.append(step_info().attempt)
    await log().go_on.wait()


@step(rate=Rate(2, timedelta(minutes=1)))
async def twice_a_minute() -> None:
    log().begun.append(log().now())


@step(executor="process")
def elsewhere(value: int) -> tuple[int, int]:
    return value + 1, os.getpid()


@step
async def tell(what: str) -> None:
    step_info().emit("told", what)


OPTIONS: Final[dict[str, Any]] = {}


@durable_actor
class Worker:
    """Runs one step, in the way that the test asks for."""

    @workflow
    async def run(self, name: str, *args: Any) -> Any:
        return await _named(name)(*args)

    @on_event
    async def do(self, name: str, *args: Any) -> Any:
        return await _named(name)(*args)

    @on_event
    async def all(self, name: str, count: int) -> None:
        await asyncio.gather(*(_named(name)() for _ in range(count)))

    @on_event
    async def many(self, count: int) -> int:
        return sum([await succeed(1) for _ in range(count)])

    @on_event
    async def within(self, seconds: float, name: str) -> str:
        try:
            async with asyncio.timeout(seconds):
                return str(await _named(name)())
        except TimeoutError:
            return "too late"


def _named(name: str) -> Any:
    found = globals()[name]
    return found.options(**OPTIONS) if OPTIONS else found


@pytest.fixture
def options() -> Any:
    """How the steps of this test are to be tried."""
    yield OPTIONS
    OPTIONS.clear()


@pytest.fixture
def diary() -> Any:
    """What the steps of this test note; those that hang are let go at its end."""
    made = Log()
    yield made
    made.thread_goes_on.set()


@pytest.fixture
async def world(make_world: MakeWorld, diary: Log) -> World:
    made = await make_world(Worker, resources={"log": diary})
    diary.now = made.clock.now
    return made


# --- attempts ---


async def test_a_step_that_fails_is_tried_again_later_and_later(world: World, diary: Log) -> None:
    worker = await world.start(Worker.run, "w", "fail", 2)

    await world.run_until_idle()

    first, second, third = diary.begun
    assert 0.5 <= second - first <= 1 <= third - second <= 2
    assert await worker.result() == 3


async def test_a_step_fails_for_good_from_what_it_raised(world: World, diary: Log) -> None:
    worker = await world.start(Worker.run, "w", "fail", 9)

    await world.run_until_idle()
    with pytest.raises(ActorFailed) as caught:
        await worker.result()

    failed = caught.value.__cause__
    assert isinstance(failed, StepFailed)
    assert (failed.failed, failed.interrupted, len(diary.begun)) == (3, 0, 3)
    assert isinstance(failed.__cause__, ConnectionError)


@pytest.mark.parametrize(
    ("error", "attempts"),
    [(OSError("x"), 3), (PermissionError("x"), 1), (ValueError("x"), 1), (SystemExit(3), 1), (GeneratorExit(), 1)],
    ids=lambda value: type(value).__name__,
)
async def test_only_what_is_worth_it_is_tried_again(world: World, diary: Log, error: BaseException, attempts: int) -> None:
    worker = await world.start(Worker.run, "w", "raise_it", error)

    await world.run_until_idle()

    assert (await worker.info()).status == "failed"
    assert diary.begun == [1, 2, 3][:attempts]


async def test_a_step_that_cancels_itself_has_failed(world: World, diary: Log) -> None:
    worker = await world.start(Worker.run, "w", "cancel_itself")

    await world.run_until_idle()

    assert (await worker.info()).status == "failed"
    assert diary.begun == [1, 2, 3]


@pytest.mark.promise("step-attempts-are-counted")
async def test_failed_attempts_are_counted_over_a_restart(world: World, diary: Log) -> None:
    await world.start(Worker.run, "w", "fail", 9)
    await world.advance(SECOND)
    before = len(diary.begun)

    await world.restart()
    await world.run_until_idle()

    assert (before, len(diary.begun)) == (2, 3)


@pytest.mark.promise("step-keys-are-stable")
async def test_a_steps_key_is_never_used_for_another_asking(world: World, diary: Log) -> None:
    anew = world.options(if_exists="restart")
    for _ in range(2):
        await (await anew.start(Worker.run, "w", "succeed", 1)).result()
    await world.restart()
    await (await world.start(Worker.run, "other", "succeed", 1)).result()
    await world.ref(Worker, "idle").ask(Worker.many, 2)
    await world.ref(Worker, "w").delete()

    await (await world.start(Worker.run, "w", "succeed", 1)).result()

    assert len(set(diary.begun)) == len(diary.begun) == 6


async def test_options_of_the_call_are_recorded_with_it(world: World, diary: Log, options: dict[str, Any]) -> None:
    options["retry"] = STUBBORN
    worker = await world.start(Worker.run, "w", "fail", 5)
    await world.settled()

    await world.restart()
    await world.run_until_idle()

    assert await worker.result() == 6
    assert diary.begun[1] - diary.begun[0] >= 1800


async def test_an_outcome_that_cannot_be_stored_fails_and_names_its_key(world: World) -> None:
    worker = await world.start(Worker.run, "w", "return_a_lock")

    await world.run_until_idle()
    with pytest.raises(ActorFailed) as caught:
        await worker.result()

    failed = caught.value.__cause__
    assert isinstance(failed, StepFailed)
    assert (failed.failed, "return_a_lock()" in failed.reason, "lock" in failed.reason) == (0, True, True)
    assert failed.idempotency_key in str(failed)


# --- time ---


async def test_an_attempt_ends_with_its_time_and_the_next_begins(world: World, diary: Log, options: dict[str, Any]) -> None:
    options["timeout"] = 10 * SECOND
    worker = await world.start(Worker.run, "w", "hold")
    await diary.has_begun()

    world.clock.move_to(world.clock.now() + 10)
    await world.settled()
    diary.go_on.set()
    await world.run_until_idle()

    assert (diary.begun, diary.ended, await worker.result()) == ([1, 2], [1, 2], "held")


async def test_all_attempts_end_with_the_time_over_all(world: World, diary: Log, options: dict[str, Any]) -> None:
    options.update(retry=STUBBORN, timeout_over_all=timedelta(hours=2))
    worker = await world.start(Worker.run, "w", "fail", 9)

    await world.run_until_idle()

    assert (await worker.info()).status == "failed"
    assert diary.begun[-1] - diary.begun[0] < 7200


@pytest.mark.promise("step-attempts-are-counted")
async def test_the_time_over_all_goes_on_while_no_host_runs(world: World, diary: Log, options: dict[str, Any]) -> None:
    options["timeout_over_all"] = timedelta(hours=2)
    worker = await world.start(Worker.run, "w", "hold")
    await diary.has_begun()
    await world.ref(Worker, "other").ask(Worker.do, "succeed", 1)  # by then it is durable when the attempt began

    world.clock.move_to(world.clock.now() + 7201)
    await world.restart()
    with pytest.raises(ActorFailed, match="time over all, 7200 s, has passed"):
        await worker.result()

    assert diary.begun[0] == 1


async def test_a_thread_that_hangs_is_left_behind(world: World, diary: Log, options: dict[str, Any]) -> None:
    options["timeout"] = 10 * SECOND
    worker = await world.start(Worker.run, "w", "hang")
    await diary.has_begun()

    world.clock.move_to(world.clock.now() + 10)
    await world.run_until_idle()

    assert await worker.result() == 2


async def test_a_step_without_a_time_out_is_complained_of(
    world: World, diary: Log, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps_module, "COMPLAIN_EVERY", 0.01)
    await world.restart()
    await world.ref(Worker, "w").send_event(Worker.do, "hold")
    await diary.has_begun()

    world.clock.move_to(world.clock.now() + 3600)
    await eventually(lambda: "has been running for 3600 s and has no time-out" in caplog.text)

    assert f"Worker/w: the step {hold.name}" in caplog.text
    diary.go_on.set()


# --- what it costs, and when it begins ---


@pytest.mark.promise("steps-wait-for-the-disk")
async def test_a_step_begins_only_when_its_turn_is_durable(world: World, diary: Log) -> None:
    with world.slow_disk():
        asked = asyncio.create_task(world.ref(Worker, "w").ask(Worker.do, "succeed", 7))
        await a_while()
        before = list(diary.begun)

    assert await asked == 7
    assert (before, len(diary.begun)) == ([], 1)


async def test_a_step_costs_one_commit(world: World) -> None:
    await world.ref(Worker, "w").ask(Worker.many, 1)
    before = world.store.commits

    await world.ref(Worker, "w").ask(Worker.many, 20)

    assert world.store.commits - before <= 22


# --- giving up ---


@pytest.mark.promise("steps-recorded-once")
@pytest.mark.parametrize("name", ["hold", "hold_and_fail"])
async def test_a_step_that_is_given_up_ends_and_never_comes_back(world: World, diary: Log, name: str) -> None:
    asked = asyncio.create_task(world.ref(Worker, "w").ask(Worker.within, 10, name))
    await diary.has_begun()

    world.clock.move_to(world.clock.now() + 10)
    answer = await asked
    await world.settled()
    await world.restart()
    await world.run_until_idle()

    assert (answer, diary.begun, diary.ended) == ("too late", [1], [1])


@pytest.mark.promise("steps-wait-for-the-disk")
async def test_a_step_is_cancelled_only_when_that_is_durable(world: World, diary: Log) -> None:
    asked = asyncio.create_task(world.ref(Worker, "w").ask(Worker.within, 10, "hold"))
    await diary.has_begun()

    with world.slow_disk():
        world.clock.move_to(world.clock.now() + 10)
        await a_while()
        before = list(diary.ended)

    assert await asked == "too late"
    await world.settled()
    assert (before, diary.ended) == ([], [1])


async def test_a_failure_of_what_is_given_up_leaves_nothing_outstanding(world: World, diary: Log, options: dict[str, Any]) -> None:
    options["timeout"] = timedelta(seconds=10)
    asked = asyncio.create_task(world.ref(Worker, "w").ask(Worker.within, 10, "hold"))
    await diary.has_begun()

    with world.slow_disk():
        world.clock.move_to(world.clock.now() + 10)  # the attempt fails while its giving up is not durable yet
        await a_while()
    await asked
    await world.settled()
    await world.restart()
    await world.run_until_idle()

    assert diary.begun == [1]


# --- heartbeats, streams, resources ---


async def test_progress_is_handed_to_the_next_attempt(world: World) -> None:
    worker = await world.start(Worker.run, "w", "beat")

    await world.advance(SECOND)
    await world.restart()
    await world.run_until_idle()

    assert await worker.result() == 2


async def test_an_attempt_left_behind_says_nothing_any_more(world: World, diary: Log, options: dict[str, Any]) -> None:
    options["timeout"] = 10 * SECOND
    asked = asyncio.create_task(world.ref(Worker, "w").ask(Worker.do, "hang"))
    await diary.has_begun()
    before = world.store.commits

    world.clock.move_to(world.clock.now() + 10)
    await world.run_until_idle()
    diary.thread_goes_on.set()
    await asyncio.sleep(0.05)

    assert await asked == 2
    assert world.store.commits - before <= 3


async def test_what_a_step_emits_is_in_its_actors_stream(world: World) -> None:
    worker = world.ref(Worker, "w")

    await worker.ask(Worker.do, "tell", "here")
    await world.settled()

    async for item in worker.stream():
        assert (item.name, item.payload) == ("told", "here")
        break


# --- limits ---


async def test_no_more_run_at_once_than_the_step_allows(world: World, diary: Log) -> None:
    asked = asyncio.create_task(world.ref(Worker, "w").ask(Worker.all, "two_at_once", 5))
    await diary.has_begun(2)
    await a_while()
    before = len(diary.begun)

    diary.go_on.set()
    await asked

    assert (before, len(diary.begun)) == (2, 5)


async def test_no_more_begin_in_a_time_than_the_rate_says(world: World, diary: Log) -> None:
    asked = asyncio.create_task(world.ref(Worker, "w").ask(Worker.all, "twice_a_minute", 5))
    start = world.clock.now()

    await world.run_until_idle()
    await asked

    assert [begun - start for begun in diary.begun] == [0, 0, 60, 60, 120]


async def test_who_waits_for_a_rate_holds_up_no_other_step(world: World, diary: Log) -> None:
    asked = asyncio.create_task(world.ref(Worker, "w").ask(Worker.all, "twice_a_minute", 3))
    await world.settled()

    assert await world.ref(Worker, "other").ask(Worker.do, "succeed", 7) == 7
    await world.run_until_idle()
    await asked


async def test_a_step_runs_in_a_process_of_its_own(world: World) -> None:
    value, process = await world.ref(Worker, "w").ask(Worker.do, "elsewhere", 41)

    assert value == 42
    assert process != os.getpid()


# --- restarts ---


async def test_an_unknown_step_is_reported_and_goes_on_when_known(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await world.start(Worker.run, "w", "fail", 1)
    await world.settled()
    with monkeypatch.context() as without:
        without.delitem(STEPS, fail.name)
        await world.restart()
        await world.run_until_idle()
    reported = caplog.text

    await world.restart()
    await world.run_until_idle()

    assert f"no step is named {fail.name!r}" in reported
    assert await worker.result() == 2


# --- outside, and mistakes ---


async def test_a_step_outside_an_actor_runs_once_without_a_record() -> None:
    attempts: list[int] = []

    @step
    async def plain(value: int) -> int:
        attempts.append(value)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await plain(1)
    assert attempts == [1]


async def test_there_is_no_step_info_without_a_recorded_step() -> None:
    @step
    def plain() -> None:
        step_info()

    with pytest.raises(NotInActor, match=r"step_info\(\)"):
        await plain()


async def test_a_step_on_a_method_is_refused_with_the_cure() -> None:
    with pytest.raises((DefinitionError, RuntimeError)) as caught:

        class Wrong:
            @step
            async def charge(self) -> None: ...

    error = caught.value.__cause__ or caught.value
    assert "a step is no method" in str(error)


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": timedelta(0)},
        {"timeout": -SECOND},
        {"timeout": 10},
        {"timeout_over_all": -SECOND},
        {"retry": 3},
        {"rate": 5},
        {"at_once": 0},
        {"executor": "gpu"},
        {"colour": "red"},
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=next(iter(wrong))):
        step(**wrong)(lambda: None)


@pytest.mark.parametrize("wrong", [{"timeout": timedelta(0)}, {"timeout_over_all": -SECOND}, {"retry": 3}], ids=str)
def test_options_of_a_call_are_looked_at_too(wrong: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=next(iter(wrong))):
        succeed.options(**wrong)
