"""What every store must do, as tests: for authors of stores.

    class TestMyStore(StoreConformance):
        def open_store(self, place: Path) -> Store:
            return MyStore(place / "data")

Called twice with the same place, `open_store` opens what is already there, as after a restart of the process. Needs pytest with anyio's
plugin.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from ._errors import Fenced, StoreClosed, StoreError
from ._protocol import MAX_KEY_BYTES, Batch, Entry, Fence, Offer, Range, Store

EVERYTHING = Range(b"\1", b"\xff" * (MAX_KEY_BYTES + 1))
SOON = 5.0  # seconds within which what was made durable must have come to whoever waits


@pytest.mark.anyio
class StoreConformance:
    """The promises of `Store`, one test each. Subclass it, and say how to open a store."""

    __module__ = "perdure.storage.conformance"

    def open_store(self, place: Path) -> Store:
        """Open the store that is kept at an existing, at first empty directory."""
        raise NotImplementedError

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Stores belong to asyncio."""
        return "asyncio"

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        """A new, empty store."""
        opened = self.open_store(tmp_path)
        yield opened
        await opened.close()

    @pytest.fixture
    async def fence(self, store: Store) -> Fence:
        """The ownership of its partition 0."""
        return await store.own(0)

    async def test_what_was_committed_is_read(self, store: Store, fence: Fence) -> None:
        """Values may be empty; an absent key is None; the order is that of the question."""
        assert await store.commit(batch_of(a=b"1", b=b""), fence)

        assert await store.read([b"b", b"missing", b"a"]) == [b"", None, b"1"]
        assert await store.read([]) == []

    async def test_the_last_word_on_a_key_wins(self, store: Store, fence: Fence) -> None:
        """Within a batch, and from batch to batch."""
        await store.commit(batch_of(a=b"1", b=b"1", c=b"1"), fence)
        batch = batch_of(a=b"2", b=b"2")
        batch.delete(b"a")
        batch.put(b"b", b"3")
        batch.delete(b"never there")

        await store.commit(batch, fence)

        assert await store.read([b"a", b"b", b"c"]) == [None, b"3", b"1"]

    async def test_a_deleted_range_spares_its_end_and_later_puts(self, store: Store, fence: Fence) -> None:
        """Ranges are half open, and apply before the puts of their batch."""
        await store.commit(batch_of(a=b"1", b=b"1", ba=b"1", c=b"1"), fence)
        batch = batch_of(bb=b"2")
        batch.delete_range(Range(b"b", b"c"))
        batch.delete_range(Range(b"x", b"d"))
        batch.put(b"ba", b"2")

        await store.commit(batch, fence)

        assert await store.scan(EVERYTHING, limit=9) == [Entry(b"a", b"1"), Entry(b"ba", b"2"), Entry(b"c", b"1")]

    async def test_a_scan_is_in_byte_order_within_its_range(self, store: Store, fence: Fence) -> None:
        """Both ways, and up to its limit."""
        keys = [b"\1", b"a", b"a\0", b"a\xff", b"b", b"\xff"]
        await store.commit(batch_of_keys(reversed(keys)), fence)

        assert [entry.key for entry in await store.scan(EVERYTHING, limit=99)] == keys
        assert [entry.key for entry in await store.scan(Range(b"a", b"b"), limit=99)] == [b"a", b"a\0", b"a\xff"]
        assert [entry.key for entry in await store.scan(Range(b"a", b"b"), limit=2, reverse=True)] == [b"a\xff", b"a\0"]
        assert await store.scan(EVERYTHING, limit=0) == []

    async def test_a_scan_may_begin_and_end_beyond_all_keys(self, store: Store, fence: Fence) -> None:
        """The bounds of a range are no keys: they may be empty, or longer than keys are."""
        longest = b"k" * MAX_KEY_BYTES
        await store.commit(batch_of_keys([longest, b"l"]), fence)

        assert [entry.key for entry in await store.scan(Range(b"", longest + b"\0"), limit=9)] == [longest]
        assert [entry.key for entry in await store.scan(Range(longest + b"\0", b"z"), limit=9)] == [b"l"]
        assert [entry.key for entry in await store.scan(Range(b"", longest + b"\0"), limit=9, reverse=True)] == [longest]
        assert await store.scan(Range(b"z", b"a"), limit=9) == []

    @pytest.mark.parametrize("key", [b"", b"\0own", b"k" * (MAX_KEY_BYTES + 1)], ids=["empty", "reserved", "long"])
    async def test_an_impossible_key_is_refused_at_the_call(self, store: Store, fence: Fence, key: bytes) -> None:
        """And nothing of its batch is written."""
        batch = batch_of_keys([b"good", key])

        with pytest.raises(ValueError, match="a key has 1 to 511 bytes"):
            await store.commit(batch, fence)
        with pytest.raises(ValueError, match="a key has 1 to 511 bytes"):
            await store.read([key])

        assert await store.read([b"good"]) == [None]

    async def test_large_values_come_back_whole(self, store: Store, fence: Fence) -> None:
        """Eight MiB in one batch."""
        values = [bytes([n]) * (1 << 20) for n in range(8)]
        batch = Batch()
        for number, value in enumerate(values):
            batch.put(b"large%d" % number, value)

        await store.commit(batch, fence)

        assert await store.read(list(batch.puts)) == values

    async def test_batches_become_durable_in_the_order_of_their_calls(self, store: Store, fence: Fence) -> None:
        """Also when nobody waits for one before the next is given."""
        await asyncio.gather(*(store.commit(batch_of(last=b"%d" % number), fence) for number in range(20)))

        assert await store.read([b"last"]) == [b"19"]

    async def test_a_commit_is_whole_though_its_waiter_is_cancelled(self, store: Store, fence: Fence) -> None:
        """And later ones come after it."""
        waiter = asyncio.ensure_future(store.commit(batch_of(a=b"1", b=b"1"), fence))
        await asyncio.sleep(0)
        waiter.cancel()

        await store.commit(batch_of(c=b"1"), fence)

        assert await store.read([b"a", b"b", b"c"]) == [b"1", b"1", b"1"]

    async def test_what_was_committed_survives_a_restart(self, store: Store, fence: Fence, tmp_path: Path) -> None:
        """The whole of it."""
        await store.commit(batch_of(a=b"1", b=b"2"), fence)
        await store.close()

        again = self.open_store(tmp_path)

        assert await again.scan(EVERYTHING, limit=9) == [Entry(b"a", b"1"), Entry(b"b", b"2")]
        await again.close()

    async def test_a_former_owner_changes_nothing(self, store: Store, fence: Fence) -> None:
        """Epochs rise, and each fences off those before."""
        newer = await store.own(0)

        with pytest.raises(Fenced):
            await store.commit(batch_of(a=b"old"), fence)

        assert newer.epoch > fence.epoch
        assert await store.commit(batch_of(b=b"new"), newer)
        assert await store.read([b"a", b"b"]) == [None, b"new"]

    async def test_after_release_the_fence_is_worth_nothing(self, store: Store, fence: Fence, tmp_path: Path) -> None:
        """Whoever owns next has a higher epoch, also after a restart."""
        await store.release(fence)
        await store.release(fence)

        with pytest.raises(Fenced):
            await store.commit(batch_of(a=b"old"), fence)

        await store.close()
        again = self.open_store(tmp_path)
        assert (await again.own(0)).epoch > fence.epoch
        await again.close()

    async def test_partitions_have_owners_of_their_own(self, store: Store, fence: Fence) -> None:
        """Owning one does not fence another."""
        other = await store.own(7)
        await store.release(other)

        assert other.partition == 7
        assert await store.commit(batch_of(a=b"1"), fence)

    async def test_offers_are_numbered_without_a_gap(self, store: Store) -> None:
        """In the order of the calls, and for each partition apart; nobody needs to own it."""
        numbers = await asyncio.gather(*(store.offer(0, b"%d" % number) for number in range(20)))
        other = await store.offer(7, b"other")

        assert numbers == list(range(1, 21))
        assert other == 1

    async def test_a_new_owner_is_handed_all_that_was_offered_before(self, store: Store) -> None:
        """At once, and an empty list if there was nothing."""
        offered = [Offer(await store.offer(0, b"%d" % number), b"%d" % number) for number in range(3)]
        await store.offer(7, b"other")

        assert await first_of(store, await store.own(0)) == offered
        assert await first_of(store, await store.own(8)) == []

    async def test_an_offer_wakes_the_owner_who_watches(self, store: Store, fence: Fence) -> None:
        """Each offer is handed out once per watch."""
        watch = store.watch(fence)
        assert await anext(watch) == []
        waiting = asyncio.ensure_future(anext_of(watch))
        await asyncio.sleep(0)

        number = await store.offer(0, b"knock")

        assert await asyncio.wait_for(waiting, SOON) == [Offer(number, b"knock")]

    async def test_an_owner_hears_when_it_is_up_to_date(self, store: Store, fence: Fence) -> None:
        """In however many lists what was offered before is handed out."""
        numbers = await asyncio.gather(*(store.offer(0, b"x") for _ in range(2500)))
        watch = store.watch(fence)

        heard: list[int] = []
        while offers := await asyncio.wait_for(anext_of(watch), SOON):
            heard += [offer.number for offer in offers]

        assert heard == sorted(numbers)

    async def test_an_accepted_offer_is_never_handed_out_again(self, store: Store, fence: Fence, tmp_path: Path) -> None:
        """One that was not accepted is, whatever crashes between."""
        for payload in (b"1", b"2", b"3"):
            await store.offer(0, payload)
        batch = batch_of(a=b"1")
        batch.accept(2)
        await store.commit(batch, fence)
        assert await first_of(store, await store.own(0)) == [Offer(3, b"3")]
        await store.close()

        again = self.open_store(tmp_path)

        assert await again.offer(0, b"4") == 4
        assert await first_of(again, await again.own(0)) == [Offer(3, b"3"), Offer(4, b"4")]
        await again.close()

    async def test_a_watch_ends_with_the_ownership(self, store: Store, fence: Fence) -> None:
        """It raises, rather than waiting for ever."""
        watch = store.watch(fence)
        await anext(watch)
        waiting = asyncio.ensure_future(anext_of(watch))
        await asyncio.sleep(0)

        await store.release(fence)

        with pytest.raises(Fenced):
            await asyncio.wait_for(waiting, SOON)

    async def test_a_closed_store_refuses_everything(self, store: Store, fence: Fence) -> None:
        """And may be closed once more."""
        await store.close()
        await store.close()

        for attempt in (
            store.own(1),
            store.read([b"a"]),
            store.scan(EVERYTHING, limit=1),
            store.commit(Batch(), fence),
            store.offer(0, b""),
        ):
            with pytest.raises(StoreClosed):
                await attempt
        with pytest.raises(StoreError):
            await anext(store.watch(fence))

    async def test_a_store_says_how_it_is_opened(self, store: Store) -> None:
        """As a URL."""
        scheme, colon, _ = str(store).partition(":")

        assert (scheme.isidentifier(), colon) == (True, ":")


def batch_of(**rows: bytes) -> Batch:
    """A batch of puts."""
    batch = Batch()
    for key, value in rows.items():
        batch.put(key.encode(), value)
    return batch


def batch_of_keys(keys: Iterable[bytes]) -> Batch:
    """A batch that puts these keys."""
    batch = Batch()
    for key in keys:
        batch.put(key, b"")
    return batch


async def first_of(store: Store, fence: Fence) -> list[Offer]:
    """What a new watch hands out at once."""
    return await asyncio.wait_for(anext_of(store.watch(fence)), SOON)


async def anext_of(watch: AsyncIterator[list[Offer]]) -> list[Offer]:
    """The next item, as a coroutine."""
    return await anext(watch)
