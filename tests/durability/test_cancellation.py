"""Cancelled while anything is awaited, an actor cleans up once, ends, and leaves nothing outstanding, whoever crashes meanwhile."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
import pytest
from perdure.actors import (
    ActorCancelled,
    SignalTimeout,
    current_actor,
    durable_actor,
    on_signal,
    saga,
    send_signal,
    signal,
    spawn,
    step,
    wait_for_signal,
    wait_until,
    workflow,
)
from perdure.actors._activation import Activation
from perdure.actors._mailbox import Item
from perdure.actors._performance import Performer
from perdure.actors._persistence import PARTITION, Table
from perdure.actors.testing import CrashPoint, World
from perdure.storage import keys

from .conftest import COMPLAINTS
from .matrix import DAY, PATIENT, Account, Diary, flaky, lookup, note_this
from .script import KEY
from .stage import Ledger, jump, nothing, rest, surely

pytestmark = [pytest.mark.anyio, pytest.mark.promise("cancelled-once-and-clean")]

OUTSTANDING: Final = (Table.REQUEST, Table.LOG, Table.CHECKPOINT, Table.WAKE, Table.CHILD, Table.MAILBOX, Table.SIGNALS)
ENDED: Final = {"completed", "cancelled"}
PERFORM: Final = Performer.perform


@step
async def put_back(what: str) -> None:
    note_this()


@step(compensate=put_back)
async def take(what: str) -> str:
    note_this()
    return what


@durable_actor
class Child:
    """Waits for a day."""

    @workflow
    async def run(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "grown up"


@durable_actor
class Everything(Diary):
    """Waits in every way, one after the other, and cleans up."""

    approved = signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.heard = 0

    @on_signal
    def hear(self) -> None:
        self.heard += 1

    @workflow
    async def run(self) -> str:
        try:
            async with saga():
                await self.by_the_clock()
                await self.by_steps()
                await self.by_signals()
                await self.by_others()
                await self.by_tasks()
        finally:
            self.told.append("the end begins")
            await self.charge("the end")
        return "all of it"

    async def by_the_clock(self) -> None:
        await asyncio.sleep(5)
        async with asyncio.timeout(60):
            await asyncio.sleep(5)
        with anyio.move_on_after(5):
            await anyio.sleep(DAY)

    async def by_steps(self) -> None:
        self.told.append(await take("one"))
        self.told.append(await lookup("two"))
        self.told.append(await flaky("three"))
        with anyio.move_on_after(60):
            await flaky.options(retry=PATIENT)("four")
        self.told += await asyncio.gather(take("five"), take("six"))

    async def by_signals(self) -> None:
        me = current_actor().ref(Everything, KEY)
        try:
            await wait_for_signal(Everything.approved, timeout=timedelta(minutes=1))
        except SignalTimeout:
            await send_signal(me, Everything.approved, "me")
        self.told.append(await wait_for_signal(Everything.approved))
        await send_signal(me, Everything.hear)
        await wait_until(lambda: self.heard == 1)

    async def by_others(self) -> None:
        account = await current_actor().start(Account.run, "b-1", 1)
        await account.ask(Account.deposit, 5)
        self.told.append(str(await account.query(Account.worth)))
        self.told.append((await account.info()).status)
        self.told.append(await spawn(Child.run, None, 5.0).result())
        spawn(Child.run, "c-1", DAY)
        self.told.append(str(await account.result()))

    async def by_tasks(self) -> None:
        queue, lock, event = asyncio.Queue[str](), asyncio.Lock(), asyncio.Event()
        async with asyncio.TaskGroup() as tasks, lock:
            tasks.create_task(self.later(event.set))
            locked = tasks.create_task(lock.acquire())
            await event.wait()
            lock.release()
            await locked
        async with anyio.create_task_group() as group:
            group.start_soon(self.later, lambda: queue.put_nowait("tea"))
            self.told.append(await queue.get())
        with anyio.CancelScope(shield=True):
            await asyncio.shield(asyncio.sleep(5))

    async def later(self, act: Any) -> None:
        await asyncio.sleep(5)
        act()
        await self.charge("later")


class End(NamedTuple):
    """What can be known once it is over: how it ended, how often it has begun to clean up, what is left in the store, and who is alive."""

    status: str
    cleaned_up: int
    left: dict[str, int]
    alive: list[str]


CLEAN: Final = End("cancelled", 1, {}, [])


@asynccontextmanager
async def a_world(path: Path, max_active: int = 10_000) -> AsyncIterator[tuple[World, Ledger]]:
    """A world with the ledger of its steps."""
    ledger = Ledger(path)
    async with World([Everything, Account, Child], max_active=max_active, resources={"ledger": ledger}) as world:
        ledger.commits = lambda: world.store.commits
        yield world, ledger
    ledger.close()


async def finish(world: World) -> End:
    """Let everything come to its end."""
    ref = world.ref(Everything.run, KEY)
    await rest(world, nothing)
    while jump(world) or (await surely(ref.info)).status == "suspended":
        await rest(world, nothing)
    status = (await surely(ref.info)).status
    with suppress(ActorCancelled):
        assert await surely(ref.result) == "all of it"
    told = await surely(lambda: ref.query(Everything.diary))
    rows = {table.name: len(await world.store.scan(keys.below((PARTITION, table)), limit=100)) for table in OUTSTANDING}
    alive = [str(info.id) async for info in world.actors() if info.status not in ENDED]
    return End(status, told.count("the end begins"), {name: rows[name] for name in rows if rows[name]}, alive)


def heard_nothing(caplog: pytest.LogCaptureFixture) -> bool:
    """Whether nobody complains of what was left lying about; warnings are errors anyway."""
    gc.collect()
    return not any(complaint in caplog.text for complaint in COMPLAINTS)


@pytest.mark.parametrize("max_active", [10_000, 0])
async def test_whenever_it_is_cancelled_it_ends_once_and_clean(
    tmp_path: Path, max_active: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = list[End]()

    while not ends or ends[-1].status == "cancelled":
        async with a_world(tmp_path / str(len(ends)), max_active) as (world, _):
            cancelled = cancel_after(world, 1 + len(ends), monkeypatch)
            await world.start(Everything.run, KEY)
            ends.append(await finish(world))
            cancelled.cancel()

    assert len(ends) > 20
    assert set(map(str, ends)) == {str(CLEAN), str(CLEAN._replace(status="completed"))}
    assert heard_nothing(caplog)


def cancel_after(world: World, turns: int, monkeypatch: pytest.MonkeyPatch) -> asyncio.Task[None]:
    """Cancel it as soon as it has taken so many turns."""
    due, perform, taken = asyncio.Event(), PERFORM, count(1)

    def counted(performer: Performer, activation: Activation, item: Item) -> None:
        perform(performer, activation, item)
        if activation.actor.type == Everything.__name__ and next(taken) == turns:
            due.set()

    async def cancel() -> None:
        await due.wait()
        await world.ref(Everything, KEY).cancel("enough")

    monkeypatch.setattr(Performer, "perform", counted)
    return asyncio.create_task(cancel())


@pytest.mark.parametrize("max_active", [10_000, 0])
@pytest.mark.parametrize("point", CrashPoint)
async def test_a_crash_around_any_commit_of_a_cancellation_changes_nothing(tmp_path: Path, point: CrashPoint, max_active: int) -> None:
    for nth in count(1):
        async with a_world(tmp_path / str(nth), max_active) as (world, ledger):
            ref = await world.start(Everything.run, KEY)
            await world.advance(timedelta(seconds=40))  # until it waits for a step's next attempt, with others to be undone
            world.crash_at(point, nth)

            await surely(lambda ref=ref: ref.cancel("enough"))  # type: ignore[misc]
            found = await finish(world), await ref.query(Everything.diary)

            assert (nth, found) == (nth, (CLEAN, ["one", "two is found", "three at last", "the end begins", "the end is charged"]))
            assert len(ledger.read()) == 5
            assert ledger.doubled(1 + world.store.crashes) == {}
            if not world.store.crashes:
                assert nth > 4
                break
