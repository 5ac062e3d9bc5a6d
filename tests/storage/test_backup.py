"""A backup loses nothing that was acknowledged before it began, and a restore begins where it ends."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest
from perdure.storage import Batch, Entry, Fence, MemoryStore, Range, StoreCorrupt, StoreError, backup, restore
from perdure.storage._lmdb import LmdbStore

from .stores import Elsewhere, batch_of

pytestmark = pytest.mark.anyio

ROUNDS = 20
ROWS = Range(b"row", b"rox")

COPY = """
import sys
from perdure.storage import backup
backup("lmdb:" + sys.argv[1], sys.argv[2])
print("copied", flush=True)
"""


class Traffic:
    """Commits and offers without end; row n and offer n are acknowledged once `committed` and `offered` say so."""

    def __init__(self, store: LmdbStore, fence: Fence) -> None:
        self.committed = self.offered = self.accepted = 0
        self._store = store
        self._fence = fence

    async def commit(self) -> None:
        async for offers in self._store.watch(self._fence):
            batch = Batch()
            for offer in offers:
                batch.put(b"row%06d" % offer.number, offer.payload)
                batch.accept(offer.number)
            await self._store.commit(batch, self._fence)
            self.committed += 1
            self.accepted = batch.accepted or self.accepted

    async def offer(self) -> None:
        while True:
            self.offered = await self._store.offer(0, b"payload")


async def recovered(path: str) -> list[int]:
    """The numbers of the rows and of the offers not accepted, as the next host finds them."""
    store = LmdbStore(path, create=False)
    rows = await store.scan(ROWS, limit=1_000_000)
    offers = await anext(store.watch(await store.own(0)))
    await store.close()
    return [int(key[3:]) for key, _ in rows] + [offer.number for offer in offers]


@pytest.mark.promise("backups-are-one-moment")
async def test_a_backup_under_fire_loses_nothing_acknowledged(store: LmdbStore, fence: Fence, tmp_path: Path) -> None:
    traffic = Traffic(store, fence)
    work = [asyncio.ensure_future(traffic.commit()), *(asyncio.ensure_future(traffic.offer()) for _ in range(4))]
    acknowledged: list[int] = []
    for number in range(ROUNDS):
        await asyncio.sleep(0.005)
        acknowledged.append(traffic.offered)
        await asyncio.to_thread(backup, store, str(tmp_path / f"copy{number}"))
    for task in work:
        task.cancel()
    await asyncio.gather(*work, return_exceptions=True)

    for number in range(ROUNDS):
        restore(str(tmp_path / f"copy{number}"), str(tmp_path / f"restored{number}"))
        found = await recovered(str(tmp_path / f"restored{number}"))
        assert found == list(range(1, len(found) + 1))
        assert len(found) >= acknowledged[number]


@pytest.mark.promise("backups-are-one-moment")
async def test_another_process_copies_the_store_of_a_running_host(
    store: LmdbStore, fence: Fence, place: str, tmp_path: Path, elsewhere: Elsewhere
) -> None:
    await store.commit(batch_of(a=b"1"), fence)
    copier = elsewhere(COPY, place, str(tmp_path / "copy"))
    assert copier.reads() == "copied"

    restore(str(tmp_path / "copy"), str(tmp_path / "restored"))

    restored = LmdbStore(str(tmp_path / "restored"))
    assert await restored.scan(Range(b"", b"\xff"), limit=9) == [Entry(b"a", b"1")]
    await restored.close()
    assert await store.commit(batch_of(b=b"1"), fence)


@pytest.mark.promise("backups-are-one-moment")
async def test_a_restored_store_goes_on_numbering_in_a_new_inbox(store: LmdbStore, fence: Fence, place: str, tmp_path: Path) -> None:
    for _ in range(3):
        await store.offer(0, b"x")
    batch = Batch()
    batch.accept(2)
    await store.commit(batch, fence)
    restore(place, str(tmp_path / "restored"))

    restored = LmdbStore(str(tmp_path / "restored"))

    assert (restored._inbox.id != store._inbox.id, restored.id == store.id) == (True, True)
    assert await restored.offer(0, b"y") == 4
    assert [offer.number for offer in await anext(restored.watch(await restored.own(0)))] == [3, 4]
    await restored.close()


@pytest.mark.promise("backups-are-one-moment")
async def test_the_inbox_of_a_copy_does_not_fit_the_store(store: LmdbStore, fence: Fence, place: str, tmp_path: Path) -> None:
    restore(place, str(tmp_path / "restored"))
    await store.close()
    os.rename(f"{place}/inbox", f"{place}/mine")
    os.rename(tmp_path / "restored" / "inbox", f"{place}/inbox")

    with pytest.raises(StoreCorrupt, match="Put the store's own inbox directory back"):
        LmdbStore(place)


async def test_a_copy_is_for_its_owner_alone(store: LmdbStore, place: str, tmp_path: Path) -> None:
    backup(place, str(tmp_path / "copy"))

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "copy").rglob("*")}

    assert modes == {"data.mdb": 0o600, "inbox": 0o700}
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o700


async def test_nothing_is_overwritten_and_nothing_left_behind(store: LmdbStore, place: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()

    with pytest.raises(StoreError, match=r"it exists. Name a directory that does not"):
        backup(store, str(tmp_path / "mine"))
    with pytest.raises(StoreError, match="Only LMDB stores are copied"):
        backup(MemoryStore(), str(tmp_path / "copy"))
    with pytest.raises(StoreError, match=r"there is no store. Check the path"):
        backup(f"lmdb:{tmp_path}/nowhere", str(tmp_path / "copy"))
    with pytest.raises(StoreCorrupt, match=r"data.mdb is missing"):
        restore(str(tmp_path / "mine"), str(tmp_path / "copy"))

    assert sorted(os.listdir(tmp_path)) == ["mine", os.path.basename(place)]
