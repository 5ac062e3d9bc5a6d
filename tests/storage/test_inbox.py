"""What other processes offer is durable when they hear so, comes once, and nobody can stop the host with it."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from perdure.storage import Batch, Fence, Offer, Store, StoreClosed, StoreCorrupt, StoreError, waiting_offers
from perdure.storage import _doorbell as doorbell_module
from perdure.storage import _inbox as inbox_module
from perdure.storage._doorbell import Doorbell
from perdure.storage._format import COUNTER_KEY, numbered
from perdure.storage._inbox import entry_key
from perdure.storage._lmdb import LmdbStore

from .stores import Elsewhere, batch_of, exists, until

pytestmark = pytest.mark.anyio

CLIENT = """
import asyncio, sys
from perdure.storage import open_store
async def main():
    store = open_store("lmdb:" + sys.argv[1], create=False)
    for line in sys.stdin:
        print(await store.offer(0, line.rstrip().encode()), flush=True)
asyncio.run(main())
"""

HOST = """
import asyncio, sys
from perdure.storage import open_store
async def main():
    store = open_store("lmdb:" + sys.argv[1])
    await store.own(0)
    print(store._bell.path, flush=True)
    sys.stdin.readline()
asyncio.run(main())
"""

HOLDER = """
import lmdb, sys
transaction = lmdb.open(sys.argv[1] + "/inbox", lib_version=0, max_readers=1024).begin(write=True)
print("holds it", flush=True)
sys.stdin.read()
"""


async def accept(store: Store, fence: Fence, number: int) -> None:
    batch = Batch()
    batch.accept(number)
    await store.commit(batch, fence)


def entries(store: LmdbStore) -> int:
    return store._inbox_environment.view(lambda transaction: transaction.stat()["entries"])


def damage(store: LmdbStore, key: bytes, value: bytes | None) -> None:
    def change(transaction: Any) -> None:
        if value is None:
            transaction.delete(key)
        else:
            transaction.put(key, value)

    store._inbox_environment.write(change, lambda: None)


async def test_an_offer_from_another_process_wakes_the_host(store: LmdbStore, fence: Fence, place: str, elsewhere: Elsewhere) -> None:
    watch = store.watch(fence)
    assert await anext(watch) == []
    client = elsewhere(CLIENT, place)

    client.hears("hello")

    assert await asyncio.wait_for(anext(watch), doorbell_module.SLOW_LOOK / 6) == [Offer(1, b"hello")]
    assert client.reads() == "1"


async def test_offers_made_at_once_share_transactions(store: LmdbStore) -> None:
    numbers = await asyncio.gather(*(store.offer(0, b"x") for _ in range(256)))

    assert numbers == list(range(1, 257))
    assert store._inbox_environment.commits <= 3


async def test_accepted_offers_are_trimmed_in_time(store: LmdbStore, fence: Fence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "TRIM_DELAY", 0)
    monkeypatch.setattr(inbox_module, "TRIM_AT_ONCE", 3)
    await asyncio.gather(*(store.offer(0, b"x") for _ in range(10)))
    before = entries(store)

    await accept(store, fence, 8)
    await until(lambda: entries(store) == before - 8)

    assert [offer.number for offer in await anext(store.watch(fence))] == [9, 10]


async def test_whoever_looks_sees_what_is_not_accepted_and_takes_nothing(store: LmdbStore, fence: Fence) -> None:
    for payload in (b"one", b"two", b"three"):
        await store.offer(0, payload)
    await accept(store, fence, 1)

    seen = waiting_offers(store, 0), waiting_offers(str(store), 0)

    assert seen == (([Offer(2, b"two"), Offer(3, b"three")], True),) * 2


@pytest.mark.promise("clients-hold-up-nobody")
async def test_a_stopped_client_with_the_write_lock_stops_only_clients(
    store: LmdbStore, fence: Fence, place: str, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "CLOSE_PATIENCE", 0.01)
    await store.offer(0, b"before")
    holder = elsewhere(HOLDER, place)
    assert holder.reads() == "holds it"
    holder.stops()
    client = asyncio.ensure_future(store.offer(0, b"stuck"))

    assert [offer.payload for offer in await anext(store.watch(fence))] == [b"before"]
    await accept(store, fence, 1)
    assert await store.commit(batch_of(a=b"1"), fence)
    assert not client.done()

    await store.close()
    with pytest.raises(StoreClosed, match=r"it (is|was) closed"):
        await client


@pytest.mark.promise("clients-hold-up-nobody")
async def test_a_dead_client_gives_the_write_lock_back(store: LmdbStore, place: str, elsewhere: Elsewhere) -> None:
    holder = elsewhere(HOLDER, place)
    assert holder.reads() == "holds it"

    holder.dies()

    assert await store.offer(0, b"mine") == 1


async def test_an_offer_is_refused_when_its_lock_is_not_the_others(store: LmdbStore, place: str, elsewhere: Elsewhere) -> None:
    os.unlink(f"{place}/inbox/lock.mdb")
    client = elsewhere(CLIENT, place)
    client.hears("theirs")
    assert client.reads() == "1"

    with pytest.raises(StoreError, match=r"lock.mdb was removed while it is in use. Start each process"):
        await store.offer(0, b"mine")

    with pytest.raises(StoreError, match=r"lock.mdb was removed"):
        await anext(store.watch(await store.own(0)))


@pytest.mark.parametrize(("key", "value"), [(entry_key(0, 2), None), (numbered(COUNTER_KEY, 0), b"\2"), (numbered(COUNTER_KEY, 0), b"")])
async def test_a_missing_offer_is_damage(store: LmdbStore, fence: Fence, key: bytes, value: bytes | None) -> None:
    await asyncio.gather(*(store.offer(0, b"x") for _ in range(3)))

    damage(store, key, value)

    with pytest.raises(StoreCorrupt, match="its inbox does not go on from 0"):
        await anext(store.watch(fence))


async def test_a_full_inbox_is_handed_out_in_pages(store: LmdbStore, fence: Fence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "PAGE", 3)
    monkeypatch.setattr(inbox_module, "PAGE_BYTES", 10)
    await asyncio.gather(*(store.offer(0, payload) for payload in (b"", b"", b"", b"", bytes(20), b"", b"")))
    watch = store.watch(fence)

    pages = [await anext(watch) for _ in range(4)]

    assert [[offer.number for offer in page] for page in pages] == [[1, 2, 3], [4, 5], [6, 7], []]


async def test_what_is_missing_behind_a_page_is_damage(store: LmdbStore, fence: Fence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "PAGE", 2)
    await asyncio.gather(*(store.offer(0, b"x") for _ in range(4)))
    damage(store, entry_key(0, 3), None)
    watch = store.watch(fence)

    assert len(await anext(watch)) == 2

    with pytest.raises(StoreCorrupt, match="its inbox does not go on from 2"):
        await anext(watch)


async def test_a_counter_behind_the_position_is_damage(store: LmdbStore, fence: Fence) -> None:
    await store.offer(0, b"x")
    await accept(store, fence, 1)

    damage(store, numbered(COUNTER_KEY, 0), None)

    with pytest.raises(StoreCorrupt, match="its inbox does not go on from 1"):
        await anext(store.watch(fence))


async def test_the_bell_hangs_in_a_short_private_place(store: LmdbStore, fence: Fence) -> None:
    path = store._bell.path if store._bell else ""

    assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700
    assert len(path) < 100

    await store.release(fence)
    assert not exists(os.path.dirname(path))


async def test_the_bell_of_a_killed_host_is_cleared_away(store: LmdbStore, place: str, elsewhere: Elsewhere) -> None:
    host = elsewhere(HOST, place)
    path = host.reads()
    host.dies()
    assert exists(path)

    await store.own(0)

    assert not exists(os.path.dirname(path))


async def test_rings_that_find_the_socket_full_are_not_needed(store: LmdbStore, fence: Fence) -> None:
    watch = store.watch(fence)
    await anext(watch)
    assert store._bell is not None
    for _ in range(2000):
        doorbell_module.ring(store._bell.path)

    number = await store.offer(0, b"last")

    assert await asyncio.wait_for(anext(watch), 5) == [Offer(number, b"last")]


async def test_a_bell_that_somebody_deleted_is_hung_again(store: LmdbStore, fence: Fence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell_module, "FAST_LOOK", 0.01)
    watch = store.watch(fence)
    await anext(watch)
    bell = store._bell
    assert bell is not None
    os.unlink(bell.path)
    waiting = asyncio.ensure_future(anext(watch))
    await until(lambda: store._bell is not bell)

    number = await store.offer(0, b"heard")

    assert await asyncio.wait_for(waiting, 5) == [Offer(number, b"heard")]


async def test_without_a_socket_the_host_looks_by_the_clock(store: LmdbStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell_module, "FAST_LOOK", 0.01)
    monkeypatch.setattr(Doorbell, "_hang", lambda self: None)
    watch = store.watch(await store.own(0))
    await anext(watch)

    number = await store.offer(0, b"quiet")

    assert await asyncio.wait_for(anext(watch), 5) == [Offer(number, b"quiet")]
