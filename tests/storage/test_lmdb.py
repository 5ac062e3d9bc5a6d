"""The LMDB store respects the facts of LMDB: how its map grows, what a full or failing disk means, what others may see."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import pytest
from perdure.storage import Batch, CommitUncertain, Fence, Range, StoreClosed, StoreFull, _environment
from perdure.storage._lmdb import LmdbStore

from .stores import Elsewhere, batch_of, exists

pytestmark = pytest.mark.anyio

CLIENT = """
import asyncio, sys
from perdure.storage._lmdb import LmdbStore
async def main():
    store = LmdbStore(sys.argv[1], map_size=1 << 20)
    await store.read([b"a"])
    print("open", flush=True)
    sys.stdin.readline()
    print([len(value) for value in await store.read([b"a"])], await store.offer(0, b"x" * (3 << 20)), flush=True)
    await store.close()
asyncio.run(main())
"""

READER = """
import lmdb, sys
transaction = lmdb.open(sys.argv[1], lib_version=0, max_readers=1024).begin()
print("reading", flush=True)
sys.stdin.read()
"""


class FailingDisk:
    """Stands before an LMDB environment, and lets its commits fail while there are errors to raise."""

    def __init__(self, environment: lmdb.Environment, error: lmdb.Error) -> None:
        self._environment = environment
        self._errors = [error]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._environment, name)

    def begin(self, write: bool = False) -> Any:
        transaction = self._environment.begin(write=write)
        return FailingTransaction(transaction, self._errors) if write else transaction


class FailingTransaction:
    """Fails to commit while there are errors left to raise."""

    def __init__(self, transaction: lmdb.Transaction[bytes], errors: list[lmdb.Error]) -> None:
        self._transaction = transaction
        self._errors = errors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transaction, name)

    def commit(self) -> None:
        if self._errors:
            raise self._errors.pop()
        self._transaction.commit()


Fail = Callable[[lmdb.Error], None]


@pytest.fixture
def fail(store: LmdbStore) -> Fail:
    """Lets the next commit of the store fail with this error."""
    main: Any = store._main

    def arrange(error: lmdb.Error) -> None:
        main._lmdb = FailingDisk(main._lmdb, error)

    return arrange


@contextmanager
def longest_file(size: int) -> Iterator[None]:
    """As on a disk with no more room than that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def modes(directory: str) -> dict[str, int]:
    """The permissions of a directory and what is in it."""
    paths = [Path(directory), *Path(directory).rglob("*")]
    return {str(path.relative_to(directory)): stat.S_IMODE(path.stat().st_mode) for path in paths}


def system_error(code: int) -> lmdb.Error:
    error = lmdb.Error(os.strerror(code))
    error.__dict__["code"] = code  # LMDB's own constructor does not take it
    return error


async def test_files_are_for_their_owner_alone(store: LmdbStore, fence: Fence) -> None:
    assert modes(store.path) == {
        ".": 0o700,
        "inbox": 0o700,
        **dict.fromkeys(["data.mdb", "lock.mdb", "inbox/data.mdb", "inbox/lock.mdb", "owner.lock", "ballast"], 0o600),
        **dict.fromkeys(["opening.lock", "inbox/opening.lock"], 0o600),
    }


async def test_opened_twice_in_a_process_it_shares_one_environment(store: LmdbStore, fence: Fence, place: str) -> None:
    reader = LmdbStore(place, create=False)
    await store.commit(batch_of(a=b"1"), fence)

    assert (await reader.read([b"a"]), reader._main is store._main) == ([b"1"], True)

    await reader.close()
    assert await store.read([b"a"]) == [b"1"]


async def test_the_map_grows_under_load_while_readers_read(store: LmdbStore, fence: Fence) -> None:
    errors: list[BaseException] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.wait(0.0001):
            try:
                store._main.view(lambda transaction: list(transaction.cursor()))
            except BaseException as error:  # noqa: BLE001  (the test fails with it)
                errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(40):
        await store.commit(batch_of(**{f"k{number}": bytes(1 << 20)}), fence)
    stop.set()
    for reader in readers:
        reader.join()

    assert (errors, store.statistics().map_size >= 40 << 20) == ([], True)


async def test_a_map_that_another_process_has_grown_is_taken_over(store: LmdbStore, fence: Fence, place: str, elsewhere: Elsewhere) -> None:
    client = elsewhere(CLIENT, place)
    assert client.reads() == "open"
    await store.commit(batch_of(a=bytes(5 << 20)), fence)
    await store.offer(0, bytes(5 << 20))

    client.hears("go on")

    assert client.reads() == f"[{5 << 20}] 2"
    assert [len(offer.payload) for offer in await anext(store.watch(fence))] == [5 << 20, 3 << 20]


@pytest.mark.promise("a-full-disk-loses-nothing")
async def test_a_full_disk_refuses_writes_and_goes_on_reading(store: LmdbStore, fence: Fence) -> None:
    await store.commit(batch_of(a=b"1"), fence)
    with longest_file(1 << 20), pytest.raises(StoreFull, match="the host goes on by itself"):
        await store.commit(batch_of(b=bytes(4 << 20)), fence)

    assert await store.read([b"a", b"b"]) == [b"1", None]
    assert not exists(store.path, "ballast")


@pytest.mark.promise("a-full-disk-loses-nothing")
async def test_when_there_is_space_again_the_same_batch_is_taken(store: LmdbStore, fence: Fence) -> None:
    batch = batch_of(b=bytes(4 << 20))
    with longest_file(1 << 20), pytest.raises(StoreFull):
        await store.commit(batch, fence)

    assert await store.commit(batch, fence)
    assert os.stat(f"{store.path}/ballast").st_size == 1 << 16


async def test_with_the_reserve_in_use_a_commit_asks_for_no_more(store: LmdbStore, fence: Fence, monkeypatch: pytest.MonkeyPatch) -> None:
    with longest_file(1 << 20), pytest.raises(StoreFull):
        await store.commit(batch_of(b=bytes(4 << 20)), fence)
    with monkeypatch.context() as patch:
        patch.setattr(store._ballast, "_size", 1 << 60)
        assert await store.commit(batch_of(c=b"1"), fence) is False

    assert await store.commit(Batch(), fence) is True


@pytest.mark.promise("one-line-of-batches", "a-full-disk-loses-nothing")
@pytest.mark.parametrize(
    ("error", "recoverable"),
    [(system_error(errno.EIO), False), (lmdb.PanicError("panic"), False), (lmdb.Error("whatever"), True)],
    ids=["EIO", "panic", "another"],
)
async def test_a_failed_commit_is_uncertain_and_ends_all_writing(
    store: LmdbStore, fence: Fence, fail: Fail, error: lmdb.Error, recoverable: bool
) -> None:
    fail(error)
    with pytest.raises(CommitUncertain) as uncertain:
        await store.commit(batch_of(a=b"1"), fence)
    with pytest.raises(StoreClosed, match="it writes nothing more since a commit has an unknown outcome"):
        await store.commit(batch_of(b=b"1"), fence)

    assert (uncertain.value.recoverable, await store.read([b"b"])) == (recoverable, [None])


async def test_a_read_that_meets_a_failed_commit_first_stops_the_host_too(store: LmdbStore) -> None:
    error = store._main.read_error(lmdb.PanicError("Update of meta page failed"))

    assert isinstance(error, CommitUncertain)
    assert not error.recoverable


async def test_after_a_failed_commit_the_store_opens_afresh(store: LmdbStore, fence: Fence, place: str, fail: Fail) -> None:
    fail(lmdb.PanicError("panic"))
    bystander = LmdbStore(place)
    with pytest.raises(CommitUncertain):
        await store.commit(batch_of(a=b"1"), fence)
    await store.close()

    again = LmdbStore(place)

    assert await again.commit(batch_of(b=b"1"), await again.own(0))
    await again.close()
    with pytest.raises(StoreClosed):
        await bystander.read([b"b"])
    await bystander.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
async def test_each_way_to_say_full_means_full(store: LmdbStore, fence: Fence, fail: Fail, code: int) -> None:
    fail(system_error(code))

    with pytest.raises(StoreFull):
        await store.commit(batch_of(a=b"1"), fence)

    assert await store.commit(batch_of(a=b"1"), fence)


async def test_the_rows_of_the_store_itself_are_not_seen(store: LmdbStore, fence: Fence) -> None:
    batch = Batch()
    batch.delete_range(Range(b"", b"\xff"))
    await store.commit(batch, fence)

    assert await store.scan(Range(b"", b"\xff"), limit=9) == []
    assert (await store.own(0)).epoch == fence.epoch + 1


async def test_dead_readers_are_forgotten(store: LmdbStore, place: str, elsewhere: Elsewhere) -> None:
    reader = elsewhere(READER, place)
    assert reader.reads() == "reading"

    reader.dies()

    assert (store._main.check_readers(), store._main.check_readers()) == (1, 0)


async def test_closing_waits_for_the_commit_under_way(store: LmdbStore, fence: Fence) -> None:
    committing = asyncio.ensure_future(store.commit(batch_of(a=b"1"), fence))
    await asyncio.sleep(0)

    await store.close()

    assert committing.done()


async def test_statistics_and_repr_tell_how_it_stands(store: LmdbStore, fence: Fence, place: str) -> None:
    await store.commit(batch_of(a=b"1"), fence)

    assert (str(store), repr(store)) == (f"lmdb:{place}", f"<LmdbStore {place}: owning {{0: 1}}, 2 commits>")
    assert store.statistics()._replace(file_size=0, entries=0, readers=0) == (0, 0, 1 << 20, 0, 2, 0, {0: 1}, True)


async def test_nobody_opens_a_store_anew_while_it_is_being_closed(store: LmdbStore, place: str) -> None:
    environment = _environment.acquire(place, 1 << 20)
    await store.close()
    closing = threading.Thread(target=environment.let_go)
    anew = threading.Thread(target=lambda: _environment.acquire(place, 1 << 20).let_go())

    with environment._reading:
        closing.start()
        while environment in _environment._opened.values():  # noqa: ASYNC110  two threads, and no task
            await asyncio.sleep(0.001)
        anew.start()
        anew.join(0.1)
        waits = anew.is_alive()
    for thread in (closing, anew):
        thread.join()

    assert waits
