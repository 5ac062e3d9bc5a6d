"""A year of days, each of which ends with continue_as_new: the store is no larger after it than after its first month."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from perdure.actors import (
    continue_as_new,
    durable_actor,
    emit,
    on_event,
    on_timer,
    query,
    send_signal,
    set_timer,
    signal,
    spawn,
    step,
    wait_for_signal,
    workflow,
)
from perdure.actors._persistence import PARTITION, Table, scan_pages
from perdure.actors._ref import make_ref
from perdure.actors.testing import World
from perdure.storage import _inbox, keys

from .goldens.postbox import Postbox, offer

pytestmark = pytest.mark.anyio

DAY = timedelta(days=1)
MONTH = 28  # days


@step
async def weigh(what: str) -> str:
    return f"{what} is weighed"


@durable_actor(retention=timedelta(days=3))
class Errand:
    """What a day sends somebody for."""

    @workflow
    async def run(self, what: str) -> str:
        await asyncio.sleep(60)
        return await weigh(what)


@durable_actor(stream_limit=5, dedupe_for=timedelta(days=3))
class Shop:
    """Opens every day anew."""

    delivered = signal(str)

    def __init__(self) -> None:
        self.sold = 0

    @workflow
    async def run(self, day: int) -> None:
        goods = await wait_for_signal(Shop.delivered)
        emit("weighed", await weigh(goods))
        emit("fetched", await spawn(Errand.run, None, "change").result())
        set_timer(Shop.close, after=timedelta(hours=8))
        await asyncio.sleep(DAY.total_seconds())
        continue_as_new(day + 1)

    @on_event
    def sell(self, count: int) -> int:
        self.sold += count
        return self.sold

    @on_timer
    def close(self) -> None:
        emit("closed", self.sold)

    @query
    def sold_in_all(self) -> int:
        return self.sold


async def live(world: World, days: range) -> None:
    """Sell every day, twice with each key, and once to another process that never comes back for the answer; restart every week."""
    shop = world.ref(Shop, "shop")
    for day in days:
        sale = shop.options(idempotency_key=f"sale of day {day:03}")
        assert await sale.ask(Shop.sell, 1) == await sale.ask(Shop.sell, 1)
        elsewhere = Postbox(world.store, world.registry, day + 1, world.clock.now())
        await offer(make_ref(world.registry, Shop, "shop", elsewhere).ask(Shop.sell, 1))
        await send_signal(shop, Shop.delivered, "tea")
        await world.advance(DAY + timedelta(minutes=2))
        if day % 7 == 6:
            await world.restart()
            await world.settled()


async def rows(world: World) -> Counter[str]:
    """How many rows there are of each table."""
    found = Counter[str]()
    async for page in scan_pages(world.store, keys.below((PARTITION,))):
        tables = [keys.unpack(entry.key)[1] for entry in page]
        found.update(Table(table).name if isinstance(table, int) else str(table) for table in tables)
    return found


async def content(world: World) -> int:
    """How many bytes the rows have."""
    return sum([len(entry.key) + len(entry.value) async for page in scan_pages(world.store, keys.below((PARTITION,))) for entry in page])


def pages(place: Path) -> int:
    """How long the files of a store are, the inbox's too, in pages of LMDB."""
    return sum(path.stat().st_size for path in place.rglob("data.mdb")) // 4096


@pytest.mark.promise("bounds-are-kept")
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["memory", "lmdb"])
async def test_a_store_is_as_large_after_a_year_as_after_a_month(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setattr(_inbox, "TRIM_DELAY", 0.0)  # of real time, of which a day here has 10 ms
    store = "memory:" if scheme == "memory" else f"lmdb:{tmp_path}/store"
    async with World([Shop, Errand], store=store, keep_history=0) as world:
        await world.start(Shop.run, "shop", 0)
        await live(world, range(MONTH))
        first, bytes_then, pages_then = await rows(world), await content(world), pages(tmp_path)

        await live(world, range(MONTH, 13 * MONTH))

        assert await rows(world) == first
        assert await content(world) - bytes_then <= 128  # of numbers that have grown: turns, seqs, days, epochs, what was sold
        assert pages(tmp_path) - pages_then <= 8  # LMDB reuses pages two transactions later; what it has free depends on their order
        assert await world.ref(Shop, "shop").query(Shop.sold_in_all) == 2 * 13 * MONTH
