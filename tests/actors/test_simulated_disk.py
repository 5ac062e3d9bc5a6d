"""A simulated disk keeps what a commit has returned for, and drops what it tears."""

from __future__ import annotations

from pathlib import Path

import pytest
from perdure.actors.testing import Faults, SimulatedDisk, SimulatedStore
from perdure.storage import Batch, CommitUncertain, Store, StoreFull
from perdure.storage.conformance import StoreConformance

pytestmark = pytest.mark.anyio


class TestSimulatedStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def disks(self) -> None:
        self.disk = SimulatedDisk()

    def open_store(self, place: Path) -> Store:
        return SimulatedStore(self.disk)


def batch(number: int) -> Batch:
    made = Batch()
    made.put(b"a", b"%d" % number)
    made.put(b"b", b"%d" % number)
    return made


@pytest.mark.parametrize("seed", range(20))
async def test_what_was_torn_is_there_whole_or_not_at_all(seed: int) -> None:
    disk = SimulatedDisk(seed)
    store = SimulatedStore(disk)
    fence = await store.own(0)
    await store.commit(batch(1), fence)
    disk.faults = Faults(uncertain=1.0)

    with pytest.raises(CommitUncertain):
        await store.commit(batch(2), fence)
    await store.own(0)

    assert await store.read([b"a", b"b"]) in ([b"1", b"1"], [b"2", b"2"])


async def test_a_full_disk_writes_nothing_and_has_room_again() -> None:
    disk = SimulatedDisk()
    store = SimulatedStore(disk)
    fence = await store.own(0)
    disk.faults = Faults(full=1.0)

    with pytest.raises(StoreFull):
        await store.commit(batch(1), fence)
    disk.heal()

    assert disk.synced == len(disk.log) == 0
    assert await store.commit(batch(1), fence)
