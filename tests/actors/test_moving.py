"""Moving actors: whatever they are doing, they go on in another store where they stood in the first one."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Final

import pytest
from perdure.actors import (
    ActorNotFound,
    ActorQuarantined,
    ActorRef,
    ActorsExist,
    Client,
    ExportUnreadable,
    Moved,
    Retry,
    UnknownActorType,
    _archive,
    _moving,
    durable_actor,
    emit,
    export_actors,
    import_actors,
    on_activate,
    on_event,
    query,
    send_signal,
    signal,
    spawn,
    step,
    wait_for_signal,
    workflow,
)
from perdure.actors._persistence import PARTITION, Table
from perdure.actors.testing import CrashPoint, UnsteadyStore, World
from perdure.storage import CommitUncertain, Entry, Store, StoreError, StoreLocked, below, open_store

pytestmark = pytest.mark.anyio

INDEXES: Final = (Table.STATUS, Table.WAKE, Table.KEY_EXPIRY, Table.RETENTION)
booked: Final[list[str]] = []


@step
async def book(place: str) -> str:
    """Never ends in an office that is closed."""
    while Journey.is_closed:  # noqa: ASYNC110  what opens it is no part of the program
        await asyncio.sleep(0.01)
    booked.append(place)
    return place


@durable_actor(retention=timedelta(days=30))
class Leg:
    """A child: waits to arrive."""

    arrived = signal(str)

    @workflow
    async def run(self) -> str:
        return await wait_for_signal(Leg.arrived)


@durable_actor
class Journey:
    """Waits for a step, a signal, the clock and a child."""

    approved = signal(str)
    is_closed: ClassVar[bool] = False

    @workflow
    async def run(self, place: str) -> list[str]:
        leg = spawn(Leg.run, "leg")
        emit("begun")
        said = [await book(place), await wait_for_signal(Journey.approved)]
        await asyncio.sleep(3600)
        emit("left")
        return [*said, await leg.result()]


@durable_actor(retry=Retry(max_attempts=1))
class Diary:
    """Keeps what is written, refuses lies, and may not open."""

    is_locked: ClassVar[bool] = False

    def __init__(self) -> None:
        self.lines: list[str] = []

    @on_activate
    def open(self) -> None:
        if self.is_locked:
            raise RuntimeError("it is locked")

    @on_event
    def write(self, line: str) -> int:
        if line == "a lie":
            raise ValueError(line)
        self.lines.append(line)
        return len(self.lines)

    @query
    def read(self) -> list[str]:
        return self.lines


TYPES: Final = (Diary, Journey, Leg)


async def open_the_office(world: World) -> None:
    Journey.is_closed = False
    await world.settled()


async def approve(world: World) -> None:
    await send_signal(world.ref(Journey, "j-1"), Journey.approved, "ada")
    await world.settled()


async def pass_an_hour(world: World) -> None:
    await world.advance(timedelta(hours=1))


async def arrive(world: World) -> None:
    await send_signal(world.ref(Leg, "leg"), Leg.arrived, "there")
    await world.settled()


STAGES: Final[tuple[Callable[[World], Awaitable[None]], ...]] = (open_the_office, approve, pass_an_hour, arrive)


async def set_out(world: World) -> None:
    booked.clear()
    Journey.is_closed = True
    await world.start(Journey.run, "j-1", "Rome")
    await asyncio.sleep(0.05)  # a step that runs keeps a world from settling


async def lock(world: World, diary: ActorRef[Diary], patches: pytest.MonkeyPatch) -> None:
    await diary.ask(Diary.write, "before")
    patches.setattr(Diary, "is_locked", True)
    await world.restart()
    with pytest.raises(ActorQuarantined):
        await diary.ask(Diary.write, "while locked")
    await diary.send_event(Diary.write, "kept")
    patches.undo()


async def live(world: World, patches: pytest.MonkeyPatch) -> None:
    """One actor of every sort: ended, suspended, a child, idle with keys and letters, quarantined with messages."""
    await lock(world, world.ref(Diary, "locked"), patches)
    await set_out(world)
    await open_the_office(world)
    await world.start(Leg.run, "alone")
    await send_signal(world.ref(Leg, "alone"), Leg.arrived, "home")
    await (await world.start(Leg.run, "stopped")).cancel("enough")
    diary = world.ref(Diary, "d-1")
    assert await diary.options(idempotency_key="k").ask(Diary.write, "once") == 1
    await diary.send_event(Diary.write, "a lie")
    await world.run_until_idle()


def left_by(world: World) -> str | Store:
    """The store of a world that has ended."""
    return world._keeper.reopened()


async def carry(world: World, target: str | Store) -> Moved:
    file = io.BytesIO()
    await export_actors(left_by(world), file)
    return await import_actors(target, file)


async def entries_of(store: str | Store, *tables: Table) -> list[Entry]:
    opened = open_store(store) if isinstance(store, str) else store
    entries = [entry for table in tables for entry in await opened.scan(below((PARTITION, table)), limit=10_000)]
    await opened.close()
    return entries


async def exported(store: str | Store, *whose: str) -> bytes:
    file = io.BytesIO()
    await export_actors(store, file, *whose)
    return file.getvalue()


async def diaries(url: str, *keys: str) -> None:
    async with World([Diary], store=url) as world:
        for key in keys:
            await world.ref(Diary, key).ask(Diary.write, f"line of {key}")


def was_made(url: str) -> bool:
    return os.path.exists(url.removeprefix("lmdb:"))


@pytest.fixture
def target(tmp_path: Path) -> str:
    """Where actors go to."""
    return f"lmdb:{tmp_path}/target"


@pytest.fixture
def lived(tmp_path: Path) -> str:
    """The path of another store."""
    return f"lmdb:{tmp_path}/lived"


@pytest.mark.promise("moving-loses-nothing")
@pytest.mark.parametrize("done", range(len(STAGES) + 1))
async def test_a_workflow_goes_on_elsewhere_at_the_line_where_it_stood(store_url: str, target: str, done: int) -> None:
    async with World(TYPES, store=store_url) as here:
        await set_out(here)
        for pass_stage in STAGES[:done]:
            await pass_stage(here)
    await carry(here, target)

    async with World(TYPES, store=target) as there:
        for pass_stage in STAGES[done:]:
            await pass_stage(there)

        assert await there.ref(Journey.run, "j-1").result() == ["Rome", "ada", "there"]
        assert [item.name async for item in there.ref(Journey, "j-1").stream()] == ["begun", "left"]
    assert booked == ["Rome"]


@pytest.mark.promise("moving-loses-nothing")
async def test_actors_of_every_sort_arrive_as_they_were(store_url: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(TYPES, store=store_url) as here:
        await live(here, monkeypatch)
        before = [info async for info in here.actors()], await here.dead_letters()

    moved = await carry(here, target)

    assert await exported(target) == await exported(left_by(here))
    assert await entries_of(target, *INDEXES) == await entries_of(left_by(here), *INDEXES)
    async with World(TYPES, store=target) as there:
        assert ([info async for info in there.actors()], await there.dead_letters()) == before
    assert moved.actors == len(before[0]) == 6
    assert {info.status for info in before[0]} == {"idle", "suspended", "completed", "cancelled", "quarantined"}


async def test_what_was_put_aside_and_what_was_done_once_stay_so(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(TYPES) as here:
        await live(here, monkeypatch)
    await carry(here, target)

    async with World(TYPES, store=target) as there:
        await there.ref(Diary, "locked").retry()
        await there.settled()

        assert await there.ref(Diary, "d-1").options(idempotency_key="k").ask(Diary.write, "once") == 1
        assert await there.ref(Diary, "locked").query(Diary.read) == ["before", "while locked", "kept"]
        assert await there.ref(Diary, "d-1").redrive() == 1


async def test_messages_that_nobody_has_taken_travel_in_their_order(lived: str, target: str) -> None:
    async with World([Diary], store=lived, max_active=1) as here:
        with here.slow_disk():
            sending = [asyncio.ensure_future(here.ref(Diary, "d-1").send_event(Diary.write, str(n))) for n in range(3)]
            await asyncio.sleep(0.05)
        await asyncio.gather(*sending)
    async with Client(lived) as client:
        for n in range(3, 6):
            await client.ref(Diary, "d-1").send_event(Diary.write, str(n))
    await carry(here, target)

    async with World([Diary], store=target) as there:
        await there.settled()
        assert await there.ref(Diary, "d-1").query(Diary.read) == [str(n) for n in range(6)]


async def test_an_export_leaves_everything_where_it_was(lived: str) -> None:
    await diaries(lived, "d-1")
    async with Client(lived) as client:
        await client.ref(Diary, "d-1").send_event(Diary.write, "offered")

    first, second = await exported(lived), await exported(lived)

    async with World([Diary], store=lived) as world:
        await world.settled()
        assert await world.ref(Diary, "d-1").query(Diary.read) == ["line of d-1", "offered"]
    assert first == second
    assert b"offered" in first


async def test_one_type_or_one_actor_travels_alone(lived: str, target: str) -> None:
    async with World(TYPES, store=lived) as here:
        for key in ("a", "ab", "b"):
            await here.ref(Diary, key).ask(Diary.write, key)
        await here.start(Leg.run, "a")

    counts = [(await import_actors(f"{target}{len(whose)}", io.BytesIO(await exported(lived, *whose)))).actors for whose in WHOSE]

    assert counts == [4, 3, 1]


WHOSE: Final[tuple[tuple[str, ...], ...]] = ((), ("Diary",), ("Diary", "a"))


async def test_who_is_not_there_cannot_be_exported(lived: str) -> None:
    await diaries(lived, "d-1")

    with pytest.raises(UnknownActorType, match=r"'Dairy'. Did you mean 'Diary'"):
        await exported(lived, "Dairy")
    with pytest.raises(ActorNotFound, match="Diary/d-2"):
        await exported(lived, "Diary", "d-2")
    with pytest.raises(StoreError, match="there is no store"):
        await exported(f"{lived}-not")


async def test_neither_end_may_have_a_host_that_runs(lived: str, target: str) -> None:
    await diaries(lived, "d-1")
    export = await exported(lived)

    async with World([Diary], store=target):
        with pytest.raises(StoreLocked):
            await exported(target)
        with pytest.raises(StoreLocked):
            await import_actors(target, io.BytesIO(export))


@pytest.mark.promise("moving-loses-nothing")
@pytest.mark.parametrize("nth", range(1, 5))
@pytest.mark.parametrize("point", CrashPoint)
async def test_an_import_that_was_killed_is_finished_by_another(
    lived: str, target: str, monkeypatch: pytest.MonkeyPatch, point: CrashPoint, nth: int
) -> None:
    await diaries(lived, "a", "b", "c", "d")
    export = await exported(lived)
    monkeypatch.setattr(_moving, "BATCH_BYTES", 1)
    dying = UnsteadyStore(open_store(target))
    dying.crash_at(point, nth + 1)  # the first is the registry's
    with pytest.raises(CommitUncertain):
        await import_actors(dying, io.BytesIO(export))
    await dying.close()

    moved = await import_actors(target, io.BytesIO(export))

    assert (moved.actors, moved.present) == (4 - nth, nth) if point is CrashPoint.AFTER_COMMIT else (5 - nth, nth - 1)
    assert await exported(target) == export


@pytest.mark.promise("moving-loses-nothing")
async def test_an_actor_that_is_there_otherwise_keeps_all_of_them_out(lived: str, target: str) -> None:
    await diaries(lived, "a", "b")
    await diaries(target, "b", "c")
    before = await exported(target)

    with pytest.raises(ActorsExist) as caught:
        await import_actors(target, io.BytesIO(await exported(lived)))

    assert (caught.value.actors, caught.value.count) == (("Diary/b",), 1)
    assert await exported(target) == before


async def test_actors_join_others_that_are_there(lived: str, target: str) -> None:
    await diaries(lived, "a")
    await diaries(target, "b")

    await import_actors(target, io.BytesIO(await exported(lived)))

    async with World([Diary], store=target) as there:
        assert [info.id.key async for info in there.actors()] == ["a", "b"]


async def test_a_file_that_was_cut_short_anywhere_is_refused(lived: str, target: str) -> None:
    await diaries(lived, "a", "b")
    export = await exported(lived)

    for length in range(len(export)):
        with pytest.raises(ExportUnreadable):
            await import_actors(target, io.BytesIO(export[:length]))

    assert not was_made(target)


@pytest.mark.promise("moving-loses-nothing")
async def test_a_file_with_any_byte_changed_is_refused(lived: str, target: str) -> None:
    await diaries(lived, "a", "b")
    export = await exported(lived)

    for place in range(len(export)):
        changed = bytearray(export)
        changed[place] ^= 0x55
        with pytest.raises(ExportUnreadable):
            await import_actors(target, io.BytesIO(changed))
    with pytest.raises(ExportUnreadable, match="its end does not fit"):
        await import_actors(target, io.BytesIO(export + b"\0"))

    assert not was_made(target)


async def test_a_file_of_a_later_format_names_the_cure(lived: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await diaries(lived, "a")
    with monkeypatch.context() as later:
        later.setattr(_archive, "FORMAT", 2)
        export = await exported(lived)

    with pytest.raises(ExportUnreadable, match=r"format 2, and this release reads 1.*pip install --upgrade perdure"):
        await import_actors(target, io.BytesIO(export))


async def test_an_actor_with_many_rows_comes_in_parts(lived: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_archive, "PART_BYTES", 1)
    async with World(TYPES, store=lived) as here:
        await set_out(here)
        await open_the_office(here)

    moved = await carry(here, target)

    assert moved.rows > 2 * moved.actors
    assert await exported(target) == await exported(lived)


async def test_a_child_goes_on_alone_or_meets_its_parent_again(lived: str, target: str) -> None:
    async with World(TYPES, store=lived) as here:
        await set_out(here)
        for pass_stage in STAGES[:-1]:
            await pass_stage(here)

    for url, types in ((f"{target}-alone", ["Leg"]), (f"{target}-both", ["Leg", "Journey"])):
        for type_name in types:
            await import_actors(url, io.BytesIO(await exported(lived, type_name)))
        async with World(TYPES, store=url) as there:
            await arrive(there)
            statuses = {info.id.type: info.status async for info in there.actors()}
            assert statuses == dict.fromkeys(types, "completed")
