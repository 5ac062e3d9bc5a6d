"""An overlay answers as the store will once all that is staged is committed."""

from __future__ import annotations

import asyncio
from unittest.mock import AsyncMock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from perdure.storage import Batch, Entry, MemoryStore, Overlay, Range

KEYS = st.sampled_from([bytes([n]) for n in range(1, 12)] + [b"\5\0", b"\5\1"])
RANGES = st.tuples(KEYS, KEYS).map(lambda ends: Range(*ends))
PUTS = st.tuples(st.just("put"), KEYS, st.binary(max_size=1))
DELETES = st.tuples(st.just("delete"), KEYS)
RANGE_DELETES = st.tuples(st.just("delete_range"), RANGES)
BATCHES = st.lists(st.lists(PUTS | PUTS | DELETES | RANGE_DELETES, max_size=6), max_size=4)
Changes = list[list[tuple[str, bytes]]]


def batch_of(changes: list[tuple[str, bytes]]) -> Batch:
    batch = Batch()
    for change, *arguments in changes:
        getattr(batch, change)(*arguments)
    return batch


async def committed(batches: Changes) -> MemoryStore:
    store = MemoryStore()
    fence = await store.own(0)
    for changes in batches:
        await store.commit(batch_of(changes), fence)
    return store


async def overlaid(batches: Changes, durable: int) -> Overlay:
    overlay = Overlay(await committed(batches[:durable]))
    overlay.layers.extend(map(batch_of, batches[durable:]))
    return overlay


# Chance leaves them out now and then: a range is deleted over what is durable, and over what is staged.
@example([[("put", b"\5", b"old")], [("delete_range", Range(b"\4", b"\6"))]], 0, Range(b"\1", b"\x0b"), 14, False)
@example([[("put", b"\5", b"old")], [("delete_range", Range(b"\4", b"\6"))]], 1, Range(b"\1", b"\x0b"), 14, False)
@pytest.mark.promise("one-line-of-batches")
@given(BATCHES, st.integers(0, 4), RANGES, st.integers(0, 14), st.booleans())
def test_an_overlay_answers_as_if_all_were_committed(batches: Changes, durable: int, range_: Range, limit: int, reverse: bool) -> None:
    async def compare() -> None:
        overlay, model = await overlaid(batches, durable), await committed(batches)
        keys = [bytes([n]) for n in range(1, 12)]

        assert await overlay.read(keys) == await model.read(keys)
        assert await overlay.scan(range_, limit=limit, reverse=reverse) == await model.scan(range_, limit=limit, reverse=reverse)

    asyncio.run(compare())


@pytest.mark.anyio
async def test_a_scan_goes_on_beneath_until_its_limit_is_reached() -> None:
    puts = [("put", bytes([n]), b"old") for n in range(1, 10)]
    overlay = await overlaid([puts, [("delete", bytes([n])) for n in range(1, 8)]], 1)  # type: ignore[list-item]

    found = await overlay.scan(Range(b"\1", b"\xff"), limit=2)

    assert found == [Entry(b"\x08", b"old"), Entry(b"\x09", b"old")]


@pytest.mark.anyio
async def test_a_scan_reads_no_more_than_its_limit_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    store = await committed([[("put", bytes([n]), b"old") for n in range(1, 10)]])  # type: ignore[misc]
    reads = AsyncMock(wraps=store.scan)
    monkeypatch.setattr(store, "scan", reads)
    overlay = Overlay(store)
    overlay.layers.append(batch_of([("delete", b"\1")]))

    found = await overlay.scan(Range(b"\1", b"\xff"), limit=3)

    assert [entry.key for entry in found] == [b"\2", b"\3", b"\4"]
    assert reads.await_count == 2
