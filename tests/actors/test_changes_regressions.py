"""Changes, regressions: what once went wrong when versions, patches and retention met something else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pydantic
import pytest
from perdure.actors import (
    ActorFailed,
    ActorNotFound,
    ChildFailed,
    MigrationFailed,
    NonDeterminismError,
    NotDurable,
    VersionMismatch,
    WorkflowNotStarted,
    current_actor,
    durable_actor,
    emit,
    migrate,
    on_event,
    patched,
    query,
    send_signal,
    signal,
    spawn,
    wait_for_signal,
    workflow,
)
from perdure.actors._acceptance import KEPT_BEYOND
from perdure.actors._activation import Activation
from perdure.actors._persistence import OF_ONE_ACTOR
from perdure.actors._replaying import Replayer
from perdure.actors._retention import AT_ONCE
from perdure.actors.testing import World
from perdure.actors.testing._store import UnsteadyStore
from perdure.storage import Batch, Fence

from .conftest import Deploy

pytestmark = pytest.mark.anyio

MakeWorld = Callable[..., Awaitable[World]]


@durable_actor(name="Tally")
class Tally1:
    go = signal()

    def __init__(self) -> None:
        self.count = 0

    @on_event
    def add(self) -> int:
        self.count += 1
        return self.count

    @on_event
    async def add_later(self) -> None:
        await wait_for_signal(Tally1.go)
        self.count += 1


def tally(migration: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    @durable_actor(name="Tally", version=2)
    class Tally:
        go = signal()
        from_1 = migrate(1)(staticmethod(migration))

        def __init__(self) -> None:
            self.total = 0

        @on_event
        def add(self) -> int:
            self.total += 1
            return self.total

        @query
        def attributes(self) -> dict[str, Any]:
            return dict(vars(self))

    return Tally


@durable_actor(name="Tally", version=2)
class Unprepared:
    @on_event
    def add(self) -> int:
        return 0


def leave(state: dict[str, Any]) -> dict[str, Any]:
    raise SystemExit(state)


def hang(state: dict[str, Any]) -> dict[str, Any]:
    begun = time.monotonic()
    while time.monotonic() < begun + 5:
        pass
    return state


@pytest.mark.promise("quarantine-touches-no-other")
@pytest.mark.parametrize("migration", [leave, hang])
async def test_a_migration_that_leaves_or_hangs_stops_its_actor_alone(deploy: Deploy, migration: Any) -> None:
    async with deploy(Tally1) as world:
        await world.ref(Tally1, "old").ask(Tally1.add)

    async with deploy(now := tally(migration), turn_limit=0.2) as world:
        with pytest.raises(MigrationFailed, match=r"SystemExit|TurnDidNotEnd"):
            await world.ref(now, "old").query(now.attributes)
        with pytest.raises(MigrationFailed, match=r"SystemExit|TurnDidNotEnd"):
            await world.ref(now, "old").ask(now.add)

        assert await world.ref(now, "new").ask(now.add) == 1


async def test_no_query_reads_a_state_that_could_not_be_migrated(deploy: Deploy) -> None:
    async with deploy(Tally1) as world:
        await world.ref(Tally1, "t").send_event(Tally1.add_later)
        await world.settled()

    async with deploy(Tally1, now := tally(lambda state: {"total": state["sum"]})) as world:
        await send_signal(world.ref(now, "t"), now.go)
        await world.settled()

        with pytest.raises(MigrationFailed, match="sum"):
            await world.ref(now, "t").query(now.attributes)


async def test_what_stands_still_says_what_is_wrong_with_the_newest_deploy(deploy: Deploy) -> None:
    async with deploy(Tally1) as world:
        await world.ref(Tally1, "t").ask(Tally1.add)
    async with deploy(Unprepared) as world:
        with pytest.raises(VersionMismatch):
            await world.ref(Unprepared, "t").ask(Unprepared.add)

    async with deploy(now := tally(lambda state: {"total": state["sum"]})) as world:
        with pytest.raises(MigrationFailed, match="sum"):
            await world.ref(now, "t").ask(now.add)


async def test_no_query_reads_the_state_of_what_was_terminated_for_want_of_its_version(deploy: Deploy) -> None:
    async with deploy(Tally1) as world:
        await world.ref(Tally1, "t").send_event(Tally1.add_later)
        await world.settled()

    async with deploy(now := tally(lambda state: {"total": state["sum"]})) as world:
        await world.ref(now, "t").terminate()

        with pytest.raises(MigrationFailed, match="sum"):
            await world.ref(now, "t").query(now.attributes)


@durable_actor
class Asking:
    @on_event
    def asks(self) -> bool:
        return patched("x")

    @query
    def reads(self) -> bool:
        return patched("x")


async def test_a_query_never_learns_what_another_actor_was_told_of_a_patch(make_world: MakeWorld) -> None:
    world = await make_world(Asking)

    assert await world.ref(Asking, "a").ask(Asking.asks)

    with pytest.raises(NotDurable, match="patch x"):
        await world.ref(Asking, "b").query(Asking.reads)


@durable_actor(retention=timedelta(hours=1))
class Brief:
    @workflow
    async def run(self) -> str:
        return "done"


async def test_a_start_by_key_beside_retention_is_answered_whenever_it_is_repeated(make_world: MakeWorld) -> None:
    world = await make_world(Brief, max_active=0)
    await (await world.start(Brief.run, "b")).result()
    world.clock.move_to(world.clock.now() + 7200)
    starting = world.options(idempotency_key="k")

    await asyncio.gather(starting.start(Brief.run, "b"), world.runtime.sweep())
    await world.advance(timedelta(minutes=1))

    async with asyncio.timeout(5):
        await starting.start(Brief.run, "b")


@pytest.fixture
def deleted_at_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many ranges were deleted by each commit."""
    counts: list[int] = []
    commit = UnsteadyStore.commit

    async def counted(store: UnsteadyStore, batch: Batch, fence: Fence) -> bool:
        counts.append(len(batch.ranges))
        return await commit(store, batch, fence)

    monkeypatch.setattr(UnsteadyStore, "commit", counted)
    return counts


async def test_retention_forgets_a_few_at_a_time_however_many_there_are(make_world: MakeWorld, deleted_at_once: list[int]) -> None:
    world = await make_world(Brief)
    await asyncio.gather(*(world.start(Brief.run, str(number)) for number in range(300)))

    await world.advance(timedelta(hours=2))

    of_one = len({*OF_ONE_ACTOR} - KEPT_BEYOND)
    assert sum(deleted_at_once) == 300 * of_one
    assert max(deleted_at_once) <= 2 * AT_ONCE * of_one  # every read looks through all of them


@durable_actor
class Household:
    go = signal()

    @workflow
    async def run(self) -> str:
        child = spawn(Brief.run, "child")
        await wait_for_signal(Household.go)
        return await child.result()


async def test_a_parent_that_asks_too_late_hears_that_its_child_has_gone(make_world: MakeWorld) -> None:
    world = await make_world(Household, Brief)
    parent = await world.start(Household.run, "p")
    await world.advance(timedelta(hours=2))

    await send_signal(parent, Household.go)

    with pytest.raises(ActorFailed) as failed:
        await parent.result()
    assert isinstance(failed.value.__cause__, ChildFailed)
    assert "Brief/child has ended, or was deleted" in str(failed.value.__cause__)


async def test_asking_for_the_result_of_nobody_makes_nobody(make_world: MakeWorld) -> None:
    world = await make_world(Brief)

    with pytest.raises(WorkflowNotStarted):
        await world.ref(Brief.run, "b").result()

    with pytest.raises(ActorNotFound):
        await world.ref(Brief, "b").info()


def visit(version: int) -> Any:
    @durable_actor(name="Visit", version=version)
    class Visit:
        @workflow
        async def run(self) -> str:
            return f"under version {version}"

    return Visit


async def test_what_is_started_anew_begins_under_the_highest_version(deploy: Deploy) -> None:
    old, new = visit(1), visit(2)
    async with deploy(old) as world:
        await (await world.start(old.run, "v")).result()

    async with deploy(old, new) as world:
        again = await world.options(if_exists="restart").start(new.run, "v")

        assert await again.result() == "under version 2"


def letter(version: int, codec: str, *replays: int, migration: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> Any:
    @durable_actor(name="Letter", version=version, codec=codec, replays=replays)
    class Letter:
        signed = signal(str)
        if migration is not None:
            from_1 = migrate(1)(staticmethod(migration))

        def __init__(self) -> None:
            self.drafts = 0

        @on_event
        def revise(self) -> int:
            self.drafts += 1
            return self.drafts

        @workflow
        async def run(self) -> str:
            by = await wait_for_signal(Letter.signed)
            return f"{self.drafts} by {by}"

    return Letter


@pytest.mark.parametrize(("then", "now"), [("pickle", "msgspec"), ("msgspec-json", "pickle"), ("msgspec", "msgspec-json")])
async def test_code_that_waits_is_replayed_whichever_codec_wrote_its_state(deploy: Deploy, then: str, now: str) -> None:
    old, new = letter(1, then), letter(2, now, 1)
    async with deploy(old) as world:
        await world.ref(old, "l").ask(old.revise)
        await world.start(old.run, "l")
        await world.settled()

    async with deploy(new, max_active=0) as world:
        written = await world.start(new.run, "l")  # it has begun
        await written.ask(new.revise)
        await send_signal(written, new.signed, "ada")

        assert await written.result() == "2 by ada"


def parcel(version: int, weighed: str, *replays: int) -> Any:
    @durable_actor(name="Parcel", version=version, replays=replays)
    class Parcel:
        sent = signal()

        def __init__(self) -> None:
            self.grams = 0

        @migrate(version - 1)
        @staticmethod
        def unchanged(state: dict[str, Any]) -> dict[str, Any]:
            return state

        @on_event
        def weigh(self, grams: int) -> None:
            self.grams = grams

        @workflow
        async def run(self) -> int:
            emit(weighed, self.grams)
            await wait_for_signal(Parcel.sent)
            return self.grams

    return Parcel


@pytest.mark.promise("what-does-not-fit-goes-on-later")
async def test_the_code_of_before_takes_back_what_the_new_code_could_not_replay(deploy: Deploy) -> None:
    old, new = parcel(2, "weighed"), parcel(3, "weighted", 2)
    async with deploy(old) as world:
        await world.ref(old, "p").ask(old.weigh, 500)
        await world.start(old.run, "p")
        await world.settled()
    async with deploy(new) as world:
        with pytest.raises(NonDeterminismError):
            await world.ref(new, "p").ask(new.weigh, 0)

    async with deploy(old) as world:
        await world.ref(old, "p").retry()
        await send_signal(world.ref(old, "p"), old.sent)

        assert await (await world.start(old.run, "p")).result() == 500


async def test_a_migrated_actor_need_not_be_one_that_could_begin_today(deploy: Deploy) -> None:
    @durable_actor(name="Tally", version=2)
    class Numbered:
        from_1 = migrate(1)(staticmethod(lambda state: {"total": state["count"]}))

        def __init__(self) -> None:
            self.total = int(current_actor().key)

        @on_event
        def add(self) -> int:
            self.total += 1
            return self.total

    async with deploy(Tally1) as world:
        await world.ref(Tally1, "named").ask(Tally1.add)

    async with deploy(Numbered) as world:
        assert await world.ref(Numbered, "named").ask(Numbered.add) == 2


def modelled(given: dict[str, Any]) -> Any:
    @durable_actor(name="Tally", version=2)
    class Modelled(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow")
        count: int = 0
        _by: int = pydantic.PrivateAttr(default=1)

        @migrate(1)
        @staticmethod
        def from_1(state: dict[str, Any]) -> dict[str, Any]:
            return state | given

        @on_event
        def add(self) -> int:
            self.count += self._by
            self.latest = self.count
            return self.latest

    return Modelled


async def test_a_migration_gives_a_model_its_private_attributes(deploy: Deploy) -> None:
    async with deploy(Tally1) as world:
        await world.ref(Tally1, "t").ask(Tally1.add)
    async with deploy(forgetful := modelled({})) as world:
        with pytest.raises(MigrationFailed, match="it leaves out _by"):
            await world.ref(forgetful, "t").ask(forgetful.add)

    async with deploy(now := modelled({"_by": 10}), max_active=0) as world:
        assert await world.ref(now, "t").ask(now.add) == 11
        assert await world.ref(now, "t").ask(now.add) == 21


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whose log was replayed, each time."""
    whose: list[str] = []
    replay = Replayer.replay

    async def counted(self: Replayer, activation: Activation) -> None:
        whose.append(str(activation.actor))
        await replay(self, activation)

    monkeypatch.setattr(Replayer, "replay", counted)
    return whose


async def test_what_cannot_be_migrated_for_its_replay_is_replayed_once(deploy: Deploy, replays: list[str]) -> None:
    old, new = letter(1, "pickle"), letter(2, "pickle", 1, migration=leave)
    async with deploy(old) as world:
        await world.ref(old, "l").ask(old.revise)
        await world.start(old.run, "l")
        await world.settled()

    async with deploy(new) as world:
        await send_signal(world.ref(new, "l"), new.signed, "ada")
        await world.settled()

        assert (await world.ref(new, "l").info()).status == "quarantined"
        assert replays == ["Letter/l"]


def rooms(version: int, *replays: int) -> Any:
    @durable_actor(name="Rooms", version=version, replays=replays)
    class Rooms:
        left = signal()

        def __init__(self) -> None:
            self.guests: list[str] = []
            if version > 1:
                self.floors: list[int] = []

        if version > 1:
            from_1 = migrate(1)(staticmethod(lambda state: state | {"floors": [1]}))

        @workflow
        async def run(self) -> str:
            await wait_for_signal(Rooms.left)
            return f"left under version {version}"

    return Rooms


async def test_a_migration_that_says_else_than_init_is_put_right_by_the_next_deploy(deploy: Deploy) -> None:
    old, new = rooms(1), rooms(2, 1)
    async with deploy(old) as world:
        await world.start(old.run, "r")
    async with deploy(new) as world:
        guests: Any = world.ref(new.run, "r")
        await send_signal(guests, new.left)
        with pytest.raises(MigrationFailed, match=r"self.floors\[0\] is nothing after replay, and 1 in the snapshot that was migrated"):
            await guests.result()

    async with deploy(old, new) as world:
        guests = world.ref(new.run, "r")
        assert await guests.result() == "left under version 1"


def slowly(migrated: list[int]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def migration(state: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.005)
        migrated.append(state["count"])
        return {"total": state["count"]}

    return migration


async def test_asks_are_answered_while_many_actors_are_migrated(deploy: Deploy) -> None:
    async with deploy(Tally1) as world:
        await asyncio.gather(*(world.ref(Tally1, str(number)).ask(Tally1.add) for number in range(100)))

    migrated: list[int] = []
    async with deploy(now := tally(slowly(migrated)), Asking) as world:
        await world.ref(Asking, "a").ask(Asking.asks)
        asks = asyncio.gather(*(world.ref(now, str(number)).ask(now.add) for number in range(100)))
        while not migrated:  # noqa: ASYNC110  nothing says when the first one is
            await asyncio.sleep(0)
        await world.ref(Asking, "a").ask(Asking.asks)

        assert len(migrated) < 100
        assert await asks == [2] * 100
