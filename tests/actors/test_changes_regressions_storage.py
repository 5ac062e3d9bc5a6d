"""What was found wrong with stores, moving, keys and stampedes once, and is not wrong any more."""

from __future__ import annotations

import asyncio
import io
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from perdure.actors import (
    ActorCompleted,
    ActorNotFound,
    ExportUnreadable,
    Runtime,
    _archive,
    _dispatch,
    durable_actor,
    export_actors,
    import_actors,
    on_event,
    on_timer,
    query,
    send_signal,
    set_timer,
    signal,
    step,
    wait_for_signal,
    workflow,
)
from perdure.actors._breadcrumb import BreadcrumbFile, Phase
from perdure.actors._ids import MessageId
from perdure.actors._persistence import read_charges, scan_requests
from perdure.actors._records import RequestRow
from perdure.actors.testing import World
from perdure.storage import MemoryStore, backup, open_store, restore

from .conftest import MakeWorld

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


@durable_actor
class Bell:
    """Rings an hour later."""

    rung: int = 0

    @on_event
    def wind_up(self) -> None:
        set_timer(Bell.ring, after=HOUR)

    @on_timer
    def ring(self) -> None:
        self.rung += 1

    @query
    def rings(self) -> int:
        return self.rung


@step
async def pay() -> None:
    await asyncio.Event().wait()


@durable_actor
class Buyer:
    """Pays for ever."""

    @on_event
    async def buy(self) -> None:
        await pay()


@durable_actor(retention=timedelta(microseconds=1), mailbox_limit=10_000)
class Guest:
    """Goes when it is told, and is forgotten at once."""

    go = signal()

    @workflow
    async def stay(self) -> None:
        await wait_for_signal(Guest.go)

    @on_event
    async def listen(self) -> None:
        await wait_for_signal(Guest.go)


class Careful(io.BytesIO):
    """A file that nobody reads more of than it has: memory is reserved for what is asked for."""

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert size <= len(self.getvalue())
        return super().read(size)


async def test_what_fell_due_has_its_turn_where_it_is_always_crowded(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = await make_world(Bell)
    bells = [world.ref(Bell, f"{number}") for number in range(200)]
    for bell in bells:
        await bell.ask(Bell.wind_up)

    monkeypatch.setattr(_dispatch, "CROWD", -1)
    await world.advance(HOUR)

    assert [await bell.query(Bell.rings) for bell in bells] == [1] * 200


def test_no_memory_is_reserved_for_what_an_export_cannot_hold() -> None:
    file = Careful()
    writer = _archive.ArchiveWriter(file, "0")
    writer.close()
    damaged = Careful(file.getvalue()[:17] + (_archive.MAX_FRAME - 1).to_bytes(4, "little") + file.getvalue()[21:])

    assert list(_archive.read_archive(file)) == []
    with pytest.raises(ExportUnreadable, match="cut short"):
        list(_archive.read_archive(damaged))


@pytest.mark.promise("retention-takes-whole")
async def test_an_actor_is_not_forgotten_before_its_messages_have_an_outcome(make_world: MakeWorld) -> None:
    world = await make_world(Guest)
    guest = await world.start(Guest.stay, "g")
    keyed = [guest.options(idempotency_key=f"{number}") for number in range(2_000)]
    await asyncio.gather(guest.send_event(Guest.listen), *(each.send_event(Guest.listen) for each in keyed))

    await send_signal(guest, Guest.go)
    with suppress(ActorNotFound):
        while await guest.info():
            world.clock.move_to(world.clock.now() + 0.001)
            await world.runtime.sweep()

    for each in (keyed[0], keyed[-1]):
        with pytest.raises(ActorCompleted):
            await asyncio.wait_for(each.ask(Guest.listen), 5)


async def test_what_a_host_died_in_is_known_where_its_actors_go(tmp_path: Path) -> None:
    url, target, file = f"lmdb:{tmp_path}/store", MemoryStore(), io.BytesIO()
    async with World([Buyer], store=url) as world:
        await world.ref(Buyer, "b").send_event(Buyer.buy)
        await asyncio.sleep(0.05)  # a step that runs keeps a world from settling
    left = open_store(url)
    paying = [row.id async for _, row in scan_requests(left) if isinstance(row, RequestRow)]
    await left.close()
    crumbs = BreadcrumbFile(tmp_path / "store" / "breadcrumbs", 1)
    crumbs.enter(Phase.TURN, MessageId(b"deadly"))
    crumbs.enter_step(paying[0])

    await export_actors(url, file)
    await import_actors(target, file)

    assert [(charge.subject, charge.interrupted) for charge in await read_charges(target)] == [(b"deadly", 1)]
    rows = [row async for _, row in scan_requests(target)]
    assert [(row.uncertain, row.interrupted) for row in rows if isinstance(row, RequestRow)] == [(True, 1)]
    assert (crumbs.found(), crumbs.found_steps()) == (None, {})


@pytest.mark.promise("backups-are-one-moment")
async def test_of_a_restored_copy_nobody_knows_which_steps_ran(tmp_path: Path) -> None:
    url, copy, again = (f"lmdb:{tmp_path}/{name}" for name in ("store", "copy", "again"))
    async with Runtime(url, [Buyer]) as runtime:
        await runtime.ref(Buyer, "b").send_event(Buyer.buy)
        await asyncio.sleep(0.05)  # until the step runs
        await asyncio.to_thread(backup, url, copy.removeprefix("lmdb:"))
    await asyncio.to_thread(restore, copy, again.removeprefix("lmdb:"))

    async with Runtime(again, [Buyer]):
        await asyncio.sleep(0)
    store = open_store(again)
    rows = [row async for _, row in scan_requests(store)]
    await store.close()

    assert [row.uncertain for row in rows if isinstance(row, RequestRow)] == [True]
