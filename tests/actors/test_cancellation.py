"""Cancellation and termination: wherever an actor waits it can be asked to end, is told why, cleans up once, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, final

import anyio
import pytest
from perdure.actors import (
    ActorCancelled,
    ActorNotFound,
    ActorRef,
    Client,
    Retry,
    Runtime,
    Unknown,
    WorkflowRef,
    current_actor,
    durable_actor,
    on_event,
    query,
    saga,
    signal,
    spawn,
    step,
    step_info,
    wait_for_signal,
    wait_until,
    workflow,
)
from perdure.actors._persistence import PARTITION, Table
from perdure.actors.testing import World
from perdure.storage import keys

from .conftest import MakeWorld, eventually

pytestmark = pytest.mark.anyio

DAY: Final = 86_400.0
HOUR: Final = timedelta(hours=1)
PATIENT: Final = Retry(max_attempts=9, initial=HOUR, maximum=HOUR)
OUTSTANDING: Final = (Table.REQUEST, Table.LOG, Table.CHECKPOINT, Table.WAKE, Table.CHILD, Table.MAILBOX, Table.SIGNALS)


@final
class Log:
    """What the steps of a test have done."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.undone: list[Any] = []
        self.noted: list[str] = []
        self.go_on = threading.Event()

    async def has_begun(self, count: int = 1) -> None:
        """Return once so many attempts have begun."""
        await eventually(lambda: len(self.begun) >= count)


def log() -> Log:
    found: Log = step_info().resources["log"]
    return found


# --- steps ---


@step
async def undo(how: str) -> None:
    about = step_info().compensates
    assert about is not None
    log().undone.append((how, about.outcome))


@step
async def note(what: str) -> str:
    log().noted.append(what)
    return what


@step(compensate=undo)
async def hold(how: str) -> str:
    log().begun.append(how)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        log().cancelled.append(how)
        if how == "ends well":
            return how
        raise
    raise AssertionError("nobody sets that event")


@step(compensate=undo, retry=PATIENT)
async def fail(how: str) -> str:
    log().begun.append(how)
    raise ConnectionError(how)


@step(compensate=undo, at_once=1)
async def hold_one(how: str) -> str:
    held: str = await hold.function(how)
    return held


@step(compensate=undo)
def hold_a_thread(how: str) -> str:
    log().begun.append(how)
    log().go_on.wait(20)
    return how


@step(compensate=undo, executor="process")
def hold_a_process(how: str) -> str:
    threading.Event().wait(20)
    return how


# --- actors ---


@durable_actor
class Neighbour:
    """Somebody who keeps others waiting."""

    def __init__(self) -> None:
        self.asked = 0

    @on_event
    async def linger(self) -> None:
        self.asked += 1
        await asyncio.sleep(300 * DAY)

    @query
    def count(self) -> int:
        return self.asked

    @workflow
    async def run(self) -> None:
        await asyncio.sleep(300 * DAY)


Way = Callable[["Patient"], Awaitable[object]]
WAYS: Final[dict[str, Way]] = {}


def way(function: Way) -> Way:
    """One way to wait."""
    WAYS[function.__name__] = function
    return function


async def lie(patient: Patient, what: str) -> None:
    """A task that notes its end."""
    try:
        await asyncio.sleep(DAY)
    finally:
        patient.told.append(what)


@way
async def sleep(patient: Patient) -> None:
    await asyncio.sleep(DAY)


@way
async def timeout(patient: Patient) -> None:
    async with asyncio.timeout(DAY):
        await asyncio.sleep(2 * DAY)


@way
async def wait_for(patient: Patient) -> None:
    await asyncio.wait_for(lie(patient, "a task"), 2 * DAY)


@way
async def gather(patient: Patient) -> None:
    await asyncio.gather(lie(patient, "one"), lie(patient, "two"))


@way
async def task_group(patient: Patient) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(lie(patient, "one"))
        tasks.create_task(lie(patient, "two"))


@way
async def anyio_task_group(patient: Patient) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lie, patient, "one")
        tasks.start_soon(lie, patient, "two")


@way
async def anyio_scope(patient: Patient) -> None:
    with anyio.move_on_after(DAY):
        await anyio.sleep(2 * DAY)


@way
async def anyio_shield(patient: Patient) -> None:
    with anyio.CancelScope(shield=True):
        await anyio.sleep(DAY)


@way
async def shield(patient: Patient) -> None:
    await asyncio.shield(lie(patient, "shielded"))


@way
async def event(patient: Patient) -> None:
    await asyncio.Event().wait()


@way
async def lock(patient: Patient) -> None:
    lock = asyncio.Lock()
    async with lock, lock:
        pass


@way
async def queue(patient: Patient) -> None:
    await asyncio.Queue[int]().get()


@way
async def stream(patient: Patient) -> None:
    send, receive = anyio.create_memory_object_stream[int]()
    async with send, receive:
        await receive.receive()


@way
async def a_signal(patient: Patient) -> None:
    await wait_for_signal(Patient.approved)


@way
async def a_signal_in_time(patient: Patient) -> None:
    await wait_for_signal(Patient.approved, timeout=timedelta(days=1))


@way
async def a_condition(patient: Patient) -> None:
    await wait_until(lambda: "never" in patient.told)


@way
async def an_answer(patient: Patient) -> None:
    await current_actor().ref(Neighbour, "n").ask(Neighbour.linger)


@way
async def an_answer_in_time(patient: Patient) -> None:
    await current_actor().ref(Neighbour, "n").options(timeout=timedelta(days=1)).ask(Neighbour.linger)


@way
async def a_result(patient: Patient) -> None:
    neighbour = await current_actor().start(Neighbour.run, "n")
    await neighbour.result()


@way
async def a_child(patient: Patient) -> None:
    await spawn(Neighbour.run, "n").result()


@way
async def a_query(patient: Patient) -> None:
    while True:
        await current_actor().ref(Neighbour, "n").query(Neighbour.count)
        await asyncio.sleep(DAY)


@way
async def an_info(patient: Patient) -> None:
    neighbour = await current_actor().start(Neighbour.run, "n")
    while True:
        await neighbour.info()
        await asyncio.sleep(DAY)


@way
async def a_step(patient: Patient) -> None:
    await hold("a step")


@way
async def steps(patient: Patient) -> None:
    await asyncio.gather(hold("one"), hold("two"))


@way
async def a_step_that_ends_well(patient: Patient) -> None:
    await hold("ends well")


@way
async def a_retry(patient: Patient) -> None:
    await fail("a retry")


@way
async def a_turn(patient: Patient) -> None:
    await asyncio.gather(hold_one("one"), hold_one("two"))


@way
async def a_process(patient: Patient) -> None:
    await hold_a_process("a process")


@durable_actor
class Patient:
    """Waits in one of many ways, and cleans up."""

    approved = signal(str)

    def __init__(self) -> None:
        self.told: list[str] = []

    @query
    def diary(self) -> list[str]:
        return self.told

    @on_event
    async def wait(self, how: str) -> str:
        return await self.suffer(how)

    @workflow
    async def run(self, how: str) -> str:
        return await self.suffer(how)

    async def suffer(self, how: str) -> str:
        try:
            async with saga():
                await WAYS[how](self)
        except asyncio.CancelledError as cancelled:
            self.told.append(f"cancelled: {cancelled}")
            raise
        finally:
            self.told.append(await note("cleaned up"))
        return "well"


# --- what tests do ---


@pytest.fixture
def diary() -> Log:
    return Log()


@pytest.fixture
async def clinic(make_world: MakeWorld, diary: Log) -> World:
    return await make_world(Patient, Neighbour, resources={"log": diary})


async def told(patient: ActorRef[Patient]) -> list[str]:
    """What an actor tells, but for tasks of its own, which may end after it."""
    return [line for line in await patient.query(Patient.diary) if line not in {"shielded", "one", "two"}]


async def ended(ref: WorkflowRef[Any, Any]) -> str:
    """How a workflow was cancelled."""
    with pytest.raises(ActorCancelled) as cancelled:
        await ref.result()
    return cancelled.value.reason


async def left_behind(world: World, ref: ActorRef[Any]) -> dict[str, int]:
    """What still stands in the store for an actor, once everything has settled."""
    found = {}
    for table in OUTSTANDING:
        rows = [entry for entry in await world.store.scan(keys.below((PARTITION, table)), limit=1_000) if ref.key.encode() in entry.key]
        if rows:
            found[table.name] = len(rows)
    return found


async def a_while() -> None:
    """Let everything happen that can without the disk."""
    for _ in range(50):
        await asyncio.sleep(0)


# --- wherever it waits ---

FATES: Final[dict[str, tuple[list[str], list[Any]]]] = {
    "a_step": (["a step"], [("a step", Unknown)]),
    "steps": (["one", "two"], [("two", Unknown), ("one", Unknown)]),
    "a_retry": ([], []),
    "a_turn": (["one"], [("one", Unknown)]),
    "a_process": ([], [("a process", Unknown)]),
    "a_step_that_ends_well": (["ends well"], [("ends well", "ends well")]),
}


@pytest.mark.promise("cancelled-once-and-clean")
@pytest.mark.parametrize("how", list(WAYS))
async def test_whatever_is_awaited_is_cancelled_with_the_reason(clinic: World, diary: Log, how: str) -> None:
    patient = await clinic.start(Patient.run, "p-1", how)
    await clinic.settled()

    await patient.cancel("it was enough")
    await clinic.run_until_idle()

    assert await ended(patient) == "it was enough"
    assert (await told(patient))[-2:] == ["cancelled: it was enough", "cleaned up"]
    assert diary.noted == ["cleaned up"]
    assert (diary.cancelled, diary.undone) == FATES.get(how, ([], []))
    assert await left_behind(clinic, patient) == {}


@pytest.mark.parametrize("how", list(WAYS))
async def test_what_is_not_durable_yet_is_cancelled_before_it_begins(clinic: World, diary: Log, how: str) -> None:
    with clinic.slow_disk():
        started = asyncio.create_task(clinic.start(Patient.run, "p-1", how))
        await a_while()
        cancelled = asyncio.ensure_future(clinic.ref(Patient, "p-1").cancel("at once"))
        await a_while()
    patient = await started
    await cancelled
    await clinic.run_until_idle()

    assert await ended(patient) == "at once"
    assert (await told(patient))[-2:] == ["cancelled: at once", "cleaned up"]
    assert (diary.begun, diary.undone) == ([], [])
    assert await left_behind(clinic, patient) == {}


@pytest.mark.parametrize("how", list(WAYS))
async def test_a_handler_is_cancelled_like_a_workflow_and_its_asker_told(clinic: World, how: str) -> None:
    patient = clinic.ref(Patient, "p-1")
    asked = asyncio.create_task(patient.ask(Patient.wait, how))
    await clinic.settled()

    await patient.cancel("it was enough")
    await clinic.run_until_idle()

    with pytest.raises(ActorCancelled, match="it was enough"):
        await asked
    assert (await told(patient))[-2:] == ["cancelled: it was enough", "cleaned up"]
    assert (await patient.info()).status == "cancelled"
    assert await left_behind(clinic, patient) == {}


@pytest.mark.promise("cancelled-once-and-clean")
@pytest.mark.parametrize("how", list(WAYS))
async def test_a_termination_cleans_nothing_up_and_leaves_nothing(clinic: World, diary: Log, how: str) -> None:
    patient = await clinic.start(Patient.run, "p-1", how)
    await clinic.settled()

    await patient.terminate("now")
    await clinic.run_until_idle()

    assert await ended(patient) == "terminated: now"
    assert (await told(patient), diary.noted, diary.undone) == ([], [], [])
    assert diary.cancelled == FATES.get(how, ([], []))[0]
    assert (await patient.info()).status == "cancelled"
    assert await left_behind(clinic, patient) == {}


# --- what becomes of the step that was awaited ---


@step(compensate=undo)
async def refuse_to_end(how: str) -> str:
    log().begun.append(how)
    while not log().go_on.is_set():
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            log().cancelled.append(how)
    return how


@way
async def a_stubborn_step(patient: Patient) -> None:
    await refuse_to_end("stubborn")


@way
async def a_thread(patient: Patient) -> None:
    await hold_a_thread("a thread")


STUBBORN: Final = ["a_stubborn_step", "a_thread"]


@pytest.mark.slow
@pytest.mark.parametrize("how", STUBBORN)
async def test_the_end_of_a_step_that_takes_its_time_is_waited_for(clinic: World, diary: Log, how: str) -> None:
    patient = await clinic.start(Patient.run, "p-1", how)
    await diary.has_begun()
    await patient.cancel("it was enough")
    await clinic.settled()
    before = (await patient.info()).status

    diary.go_on.set()
    await clinic.settled()

    assert (before, await ended(patient)) == ("suspended", "it was enough")
    assert diary.undone == [(diary.begun[0], diary.begun[0])]


@pytest.mark.slow
@pytest.mark.parametrize("how", STUBBORN)
async def test_a_step_that_does_not_end_is_given_up_after_ten_seconds(clinic: World, diary: Log, how: str) -> None:
    patient = await clinic.start(Patient.run, "p-1", how)
    await diary.has_begun()
    await patient.cancel("it was enough")
    await clinic.settled()

    await clinic.advance(timedelta(seconds=9))
    before = (await patient.info()).status, list(diary.undone)
    await clinic.advance(timedelta(seconds=1))

    assert (before, await ended(patient)) == (("suspended", []), "it was enough")
    assert diary.undone == [(diary.begun[0], Unknown)]
    assert await left_behind(clinic, patient) == {}
    diary.go_on.set()


@pytest.mark.slow
async def test_a_second_cancel_waits_for_the_step_too(clinic: World, diary: Log) -> None:
    patient = await clinic.start(Patient.run, "p-1", "a_stubborn_step")
    await diary.has_begun()
    await patient.cancel("it was enough")
    await clinic.settled()

    await patient.cancel("now")
    await clinic.settled()
    before = (await patient.info()).status, list(diary.cancelled)
    diary.go_on.set()
    await clinic.settled()

    assert (before, await ended(patient)) == (("suspended", ["stubborn"]), "it was enough")


async def test_a_client_may_cancel_and_hears_how_it_ended(tmp_path: Path, diary: Log) -> None:
    url = f"lmdb:{tmp_path}/store"
    async with Runtime(url, [Patient, Neighbour], resources={"log": diary}) as runtime, Client(url, [Patient]) as client:
        await runtime.start(Patient.run, "p-1", "sleep")
        patient = client.ref(Patient.run, "p-1")

        await patient.cancel("from far away")

        assert await ended(patient) == "from far away"
        with pytest.raises(ActorNotFound):
            await client.ref(Patient, "p-2").cancel()
    assert diary.noted == ["cleaned up"]
