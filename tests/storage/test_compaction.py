"""A compaction gives back what a store does not need, keeps everything else, and has the store for itself."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from perdure.storage import (
    Batch,
    Entry,
    Fence,
    Range,
    Room,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    compact,
)
from perdure.storage._lmdb import LmdbStore

from .stores import Elsewhere, exists

pytestmark = pytest.mark.anyio

ALL = Range(b"\1", b"\xff")

HOST = """
import asyncio, sys
from perdure.storage import open_store
async def main():
    await open_store("lmdb:" + sys.argv[1]).own(0)
    print("hosts", flush=True)
    sys.stdin.read()
asyncio.run(main())
"""

CLIENT = """
import asyncio, sys
from perdure.storage import PerdureError, Range, open_store
async def main():
    try:
        store = open_store("lmdb:" + sys.argv[1])
    except PerdureError as error:
        print(error, flush=True)
        store = open_store("lmdb:" + sys.argv[1]) if sys.stdin.readline() else None
    print(len(await store.scan(Range(b"k", b"l"), limit=999)), await store.offer(0, b"x"), flush=True)
    sys.stdin.read()
asyncio.run(main())
"""

TOOL = """
import lmdb, sys
print("opens", flush=True)
try:
    lmdb.open(sys.argv[1], lib_version=0)
except lmdb.Error as error:
    print(type(error).__name__, flush=True)
"""


@pytest.fixture
async def hollow(place: str) -> str:
    """Where a store is that holds ten of two hundred rows, and one offer of two."""
    store = LmdbStore(place, map_size=1 << 20, ballast_size=1 << 16)
    fence = await store.own(0)
    for number in range(200):
        await store.commit(row(number, b"x" * 10_000), fence)
    gone = Batch()
    for number in range(190):
        gone.delete(b"k%03d" % number)
    gone.accept(await store.offer(0, b"taken"))
    await store.commit(gone, fence)
    await store.offer(0, b"waits")
    await store.close()
    return place


@pytest.fixture
def amid(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Has something happen once the first new file of a compaction has been made, and is not in its place yet."""
    rename = os.rename

    def arrange(happen: Callable[[], None]) -> None:
        def first(source: str, target: str) -> None:
            monkeypatch.setattr(os, "rename", rename)
            happen()
            rename(source, target)

        monkeypatch.setattr(os, "rename", first)

    return arrange


def row(number: int, value: bytes) -> Batch:
    batch = Batch()
    batch.put(b"k%03d" % number, value)
    return batch


async def held(place: str) -> tuple[list[Entry], list[bytes], int]:
    """The rows, the offers that wait, and the epoch of who finds them."""
    store = LmdbStore(place, create=False)
    fence = await store.own(0)
    offers = [offer.payload for offer in await anext(store.watch(fence))]
    rows = await store.scan(ALL, limit=999)
    await store.close()
    return rows, offers, fence.epoch


@pytest.mark.promise("compaction-keeps-everything")
async def test_room_is_given_back_and_everything_else_is_kept(hollow: str) -> None:
    rows, offers, epoch = await held(hollow)

    done = compact(f"lmdb:{hollow}")

    assert done.before > 1_900_000
    assert done.after == os.stat(f"{hollow}/data.mdb").st_size < 200_000
    assert done.inbox_after == os.stat(f"{hollow}/inbox/data.mdb").st_size <= done.inbox_before
    assert (len(rows), offers) == (10, [b"waits"])
    assert await held(hollow) == (rows, offers, epoch + 2)


async def test_what_a_compaction_gives_back_is_known_before(hollow: str) -> None:
    with Room(hollow) as room:
        spare = {file.name: file.spare for file in room.files() if file.spare}

    done = compact(hollow)

    assert spare == {"data.mdb": done.before - done.after, "inbox/data.mdb": done.inbox_before - done.inbox_after}


async def test_a_store_with_a_host_is_not_compacted(store: LmdbStore, fence: Fence, place: str, elsewhere: Elsewhere) -> None:
    with pytest.raises(StoreLocked, match=f"process {os.getpid()} hosts this store already. Stop that host first"):
        compact(place)

    await store.close()
    host = elsewhere(HOST, place)
    assert host.reads() == "hosts"
    with pytest.raises(StoreLocked, match=f"process {host.pid} hosts this store already"):
        compact(place)
    assert not exists(place, "compacting")


@pytest.mark.promise("compaction-keeps-everything")
async def test_a_store_that_a_client_has_open_is_not_compacted(hollow: str, elsewhere: Elsewhere) -> None:
    client = elsewhere(CLIENT, hollow)
    assert client.reads() == "10 3"

    with pytest.raises(StoreLocked, match=f"process {client.pid} has this store open. End that process first"):
        compact(hollow)

    client.dies()
    assert compact(hollow).after < 200_000
    assert (await held(hollow))[1] == [b"waits", b"x"]


async def test_a_store_that_is_open_in_this_process_is_not_compacted(hollow: str) -> None:
    client = LmdbStore(hollow, create=False)
    with pytest.raises(StoreLocked, match=f"process {os.getpid()} has this store open"):
        compact(hollow)

    await client.offer(0, b"more")
    await client.close()

    assert compact(hollow).after < 200_000
    assert (await held(hollow))[1] == [b"waits", b"more"]


@pytest.mark.parametrize("directory", [".", "inbox"])
async def test_a_process_with_half_of_it_open_keeps_a_compaction_out(hollow: str, directory: str, elsewhere: Elsewhere) -> None:
    program = "import lmdb, sys; e = lmdb.open(sys.argv[1], lib_version=0); print('open', flush=True); sys.stdin.read()"
    tool = elsewhere(program, f"{hollow}/{directory}")
    assert tool.reads() == "open"

    with pytest.raises(StoreLocked, match=f"process {tool.pid} has this store open"):
        compact(hollow)


@pytest.mark.promise("compaction-keeps-everything")
async def test_who_opens_it_meanwhile_is_refused_and_later_finds_all(
    hollow: str, elsewhere: Elsewhere, amid: Callable[[Callable[[], None]], None]
) -> None:
    client = elsewhere("input()\n" + CLIENT, hollow)
    said: list[str] = []

    def come() -> None:
        client.hears("now")
        said.append(client.reads())

    amid(come)

    compact(hollow)

    assert said == [f"{hollow}: process {os.getpid()} is compacting this store. Open it again once that has ended."]
    client.hears("again")
    assert client.reads() == "10 3"


async def test_nobody_in_this_process_opens_it_meanwhile(hollow: str, amid: Callable[[Callable[[], None]], None]) -> None:
    refused: list[str] = []

    def try_to_open() -> None:
        for use in (LmdbStore, compact):
            with pytest.raises(StoreLocked) as caught:
                use(hollow)
            refused.append(caught.value.what)

    amid(try_to_open)

    compact(hollow)

    assert refused == [f"process {os.getpid()} {does}" for does in ("is compacting this store", "hosts this store already")]
    assert len((await held(hollow))[0]) == 10


async def test_a_tool_that_waits_at_lmdbs_own_lock_sees_no_empty_store(
    hollow: str, elsewhere: Elsewhere, amid: Callable[[Callable[[], None]], None]
) -> None:
    tools = [elsewhere("input()\n" + TOOL, f"{hollow}/{directory}") for directory in (".", "inbox")]

    def come() -> None:
        for tool in tools:
            tool.hears("now")
            assert tool.reads() == "opens"
            wait_for_lock(tool.pid)

    amid(come)

    compact(hollow)

    assert [tool.reads() for tool in tools] == ["InvalidError", "InvalidError"]
    assert len((await held(hollow))[0]) == 10


def wait_for_lock(pid: int) -> None:
    """Return once a process waits for a lock of a file."""
    while f" -> POSIX  ADVISORY  READ {pid} " not in Path("/proc/locks").read_text():
        os.sched_yield()


async def test_what_a_killed_compaction_left_is_cleared_away(hollow: str) -> None:
    for directory in (hollow, f"{hollow}/inbox"):
        shutil.copytree(f"{hollow}/inbox", f"{directory}/compacting")

    compact(hollow)

    assert not exists(hollow, "compacting")
    assert not exists(hollow, "inbox", "compacting")


async def test_what_a_killed_compaction_left_is_no_damage_to_be_told(hollow: str) -> None:
    os.mkdir(f"{hollow}/compacting")
    os.mknod(f"{hollow}/compacting/data.mdb")
    for size in (0, 4096):
        os.truncate(f"{hollow}/compacting/data.mdb", size)

        with Room(hollow) as room:
            found = {file.name: file.spare for file in room.files()}

        assert found["compacting/data.mdb"] == 0
        assert found["data.mdb"] > 1_800_000


async def test_who_could_use_a_store_can_use_it_afterwards(hollow: str) -> None:
    os.chmod(f"{hollow}/data.mdb", 0o660)
    if os.geteuid() == 0:
        os.chown(f"{hollow}/data.mdb", 1234, 5678)
    before = os.stat(f"{hollow}/data.mdb")
    os.unlink(f"{hollow}/opening.lock")  # as an earlier release left it

    compact(hollow)

    now = [os.stat(f"{hollow}/{name}") for name in ("data.mdb", "opening.lock")]
    assert [(each.st_mode, each.st_uid, each.st_gid) for each in now] == [(before.st_mode, before.st_uid, before.st_gid)] * 2


async def test_a_compaction_without_room_changes_nothing(hollow: str) -> None:
    before = (await held(hollow))[0]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, hard))
    try:
        with pytest.raises(StoreFull, match="no space is left"):
            compact(hollow)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert (await held(hollow))[0] == before
    assert not exists(hollow, "compacting")


async def test_a_damaged_store_is_not_compacted(hollow: str) -> None:
    os.truncate(f"{hollow}/data.mdb", 40_960)

    with pytest.raises(StoreCorrupt, match="truncated"):
        compact(hollow)

    assert os.stat(f"{hollow}/data.mdb").st_size == 40_960


def test_only_a_store_in_files_is_compacted(place: str) -> None:
    with pytest.raises(StoreError, match=r"there is no store. Check the path"):
        compact(f"lmdb:{place}")
    with pytest.raises(StoreError, match="memory:: it is not in files"):
        compact("memory:")

    assert not exists(place)
