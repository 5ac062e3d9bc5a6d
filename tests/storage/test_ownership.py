"""A store has one host: in this process, in others, after a fork, and when somebody removed LMDB's lock file."""

from __future__ import annotations

import os

import pytest
from perdure.storage import Fence, Fenced, StoreLocked
from perdure.storage._lmdb import LmdbStore

from .stores import Elsewhere, batch_of

pytestmark = [pytest.mark.anyio, pytest.mark.promise("one-host-per-store")]

HOST = """
import asyncio, sys
from perdure.storage import StoreLocked, open_store
async def main():
    store = open_store("lmdb:" + sys.argv[1])
    for line in sys.stdin:
        try:
            print("owns epoch", (await store.own(0)).epoch, flush=True)
        except StoreLocked as locked:
            print("refused by", locked.pid, flush=True)
asyncio.run(main())
"""

FORKING_HOST = """
import asyncio, os, sys, warnings
from perdure.storage import StoreClosed, StoreLocked, open_store
warnings.simplefilter("ignore")
async def child(store):
    try:
        await store.read([b"a"])
    except StoreClosed as closed:
        await store.close()
        print("forked child" in str(closed) and "spawn method" in str(closed), flush=True)
    try:
        await open_store("lmdb:" + sys.argv[1]).own(0)
    except StoreLocked as locked:
        print(locked.pid == os.getppid(), flush=True)
async def main():
    store = open_store("lmdb:" + sys.argv[1])
    fence = await store.own(0)
    if (pid := os.fork()) == 0:
        asyncio._set_running_loop(None)
        asyncio.run(child(store))
        os._exit(0)
    os.waitpid(pid, 0)
    print((await store.own(0)).epoch - fence.epoch, flush=True)
    sys.stdin.readline()
asyncio.run(main())
"""


FORKING_AT_WORK = """
import asyncio, os, signal, sys, warnings
from perdure.storage import Batch, StoreLocked, open_store
warnings.simplefilter("ignore")
async def child():
    try:
        await open_store("lmdb:" + sys.argv[1]).own(0)
    except StoreLocked as locked:
        os._exit(0 if locked.pid == os.getppid() else 1)
def fork():
    if (pid := os.fork()) == 0:
        signal.alarm(10)
        asyncio._set_running_loop(None)
        asyncio.run(child())
        os._exit(2)
    return os.waitpid(pid, 0)[1]
async def main():
    store = open_store("lmdb:" + sys.argv[1])
    fence = await store.own(0)
    for number in range(30):
        batch = Batch()
        batch.put(b"number", number.to_bytes(2, "big"))
        commit = asyncio.ensure_future(store.commit(batch, fence))
        await asyncio.sleep(0.0003 * (number % 5))
        print(fork(), flush=True)
        await store.read([b"number"])
        await commit
    await store.close()
    print("closed", flush=True)
asyncio.run(main())
"""


async def test_a_second_owner_in_the_process_is_always_refused(store: LmdbStore, fence: Fence, place: str) -> None:
    other = LmdbStore(place)
    for attempt in range(100):
        if attempt == 50:
            os.unlink(f"{place}/lock.mdb")
        with pytest.raises(StoreLocked, match=f"process {os.getpid()} hosts this store already"):
            await other.own(0)
    await other.close()

    assert await store.commit(batch_of(a=b"1"), fence)


async def test_a_second_host_is_always_refused(store: LmdbStore, fence: Fence, place: str, elsewhere: Elsewhere) -> None:
    host = elsewhere(HOST, place)
    for attempt in range(100):
        if attempt == 50:
            os.unlink(f"{place}/lock.mdb")
            host = elsewhere(HOST, place)
        host.hears("own it")
        assert host.reads() == f"refused by {os.getpid()}"

    assert await store.commit(batch_of(a=b"1"), fence)


async def test_a_host_that_was_killed_leaves_the_store_to_the_next(store: LmdbStore, place: str, elsewhere: Elsewhere) -> None:
    host = elsewhere(HOST, place)
    host.hears("own it")
    assert host.reads() == "owns epoch 1"
    with pytest.raises(StoreLocked, match=f"process {host.pid} "):
        await store.own(0)

    host.dies()

    assert (await store.own(0)).epoch == 2


def test_a_forked_child_can_neither_use_nor_own_the_store(place: str, elsewhere: Elsewhere) -> None:
    host = elsewhere(FORKING_HOST, place)

    said = [host.reads() for _ in range(3)]

    assert said == ["True", "True", "1"]


def test_forks_while_a_store_is_written_hang_nowhere_and_harm_nobody(place: str, elsewhere: Elsewhere) -> None:
    host = elsewhere(FORKING_AT_WORK, place)

    assert [host.reads() for _ in range(31)] == ["0"] * 30 + ["closed"]


async def test_a_fork_takes_no_lock_from_its_parent(place: str, elsewhere: Elsewhere, store: LmdbStore) -> None:
    host = elsewhere(FORKING_HOST, place)
    for _ in range(3):
        host.reads()

    with pytest.raises(StoreLocked, match=f"process {host.pid} "):
        await store.own(0)


async def test_an_owner_whose_lock_file_was_taken_away_is_fenced(store: LmdbStore, fence: Fence, place: str, elsewhere: Elsewhere) -> None:
    os.unlink(f"{place}/owner.lock")
    host = elsewhere(HOST, place)
    host.hears("own it")
    assert host.reads() == "owns epoch 2"

    with pytest.raises(Fenced, match="owned epoch 1, and epoch 2 has begun"):
        await store.commit(batch_of(a=b"1"), fence)


async def test_the_lock_goes_with_the_last_partition(store: LmdbStore, fence: Fence, place: str) -> None:
    second, other = await store.own(1), LmdbStore(place)
    await store.release(fence)
    with pytest.raises(StoreLocked):
        await other.own(0)

    await store.release(second)

    assert (await other.own(0)).epoch > fence.epoch
    await other.close()
