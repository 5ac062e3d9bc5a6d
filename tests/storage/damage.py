"""Opens damaged copies of a store and uses each as a host does: run in a process of its own, which a crash would end.

    python damage.py STORE SCRATCH FIRST COUNT

prints a line for each variant: its number, and what came of it. Variants are the same each time.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from perdure.storage import Batch, Entry, Range, StoreError, backup
from perdure.storage._lmdb import LmdbStore

PAGE = 4096
FILES = ["data.mdb"] * 6 + ["inbox/data.mdb"] * 2 + ["lock.mdb"]
EVERYTHING = Range(b"\1", b"\xff")


async def build(place: str) -> None:
    """A store with many small rows, large ones, freed pages, and offers."""
    rng = random.Random(1)
    store = LmdbStore(place, map_size=1 << 20, ballast_size=0)
    fence = await store.own(0)
    for _ in range(12):
        batch = Batch()
        for _ in range(60):
            batch.put(b"key%04d" % rng.randrange(600), rng.randbytes(rng.choice([0, 20, 200])))
        batch.put(b"large%d" % rng.randrange(3), rng.randbytes(9_000))
        batch.delete_range(Range(b"key%04d" % (start := rng.randrange(600)), b"key%04d" % (start + 20)))
        await store.commit(batch, fence)
        await asyncio.gather(*(store.offer(0, rng.randbytes(100)) for _ in range(20)))
    await store.close()


def flip_in_a_header(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content) // PAGE) * PAGE
    for _ in range(rng.choice([1, 1, 4])):
        content[start + rng.randrange(min(rng.choice([16, 150]), len(content) - start))] ^= 1 << rng.randrange(8)


def flip_anywhere(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 8, 100])):
        content[rng.randrange(len(content))] ^= rng.randrange(1, 256)


def tear_a_page(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content) // PAGE) * PAGE
    content[start : start + PAGE] = rng.choice([bytes(PAGE), rng.randbytes(PAGE), bytes(content[:PAGE])])


def truncate(content: bytearray, rng: random.Random) -> None:
    del content[rng.choice([0, rng.randrange(len(content))]) :]


WAYS: list[Callable[[bytearray, random.Random], None]] = [flip_in_a_header, flip_in_a_header, flip_anywhere, tear_a_page, truncate]


def damaged_copy(place: str, copy: str, number: int) -> None:
    """Variant `number` of the store, whose files no process has open."""
    rng = random.Random(number)
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(place, copy)
    path = Path(copy, rng.choice(FILES))
    content = bytearray(path.read_bytes())
    WAYS[number % len(WAYS)](content, rng)
    path.write_bytes(content)


async def use(copy: str) -> list[Entry]:
    """Read everything both ways, own, take offers, write to each part of the tree, copy; returns what was read."""
    store = LmdbStore(copy, create=False, map_size=1 << 20, ballast_size=0)
    try:
        found = await store.scan(EVERYTHING, limit=1_000_000)
        await store.scan(EVERYTHING, limit=1_000_000, reverse=True)
        await store.read([key for key, _ in found])
        fence = await store.own(0)
        offers = await anext(store.watch(fence))
        batch = Batch()
        batch.accept(len(offers))
        batch.delete_range(Range(b"key0100", b"key0200"))
        for number in range(0, 600, 7):
            batch.put(b"key%04d" % number, bytes(300))
        await store.commit(batch, fence)
        await store.offer(0, b"new")
        backup(store, f"{copy}.backup")
        shutil.rmtree(f"{copy}.backup")
    finally:
        await store.close()
    return found


async def main(place: str, scratch: str, first: int, count: int) -> None:
    sound = await use(str(shutil.copytree(place, f"{scratch}/sound{first}")))
    for number in range(first, first + count):
        print(number, end=" ", flush=True)
        damaged_copy(place, f"{scratch}/copy", number)
        try:
            found = await use(f"{scratch}/copy")
        except StoreError as error:
            print(type(error).__name__, error, flush=True)
        else:
            keys = [key for key, _ in found] == [key for key, _ in sound]
            print("right" if found == sound else "other values" if keys else "other keys", flush=True)


if __name__ == "__main__":
    if not os.path.exists(sys.argv[1]):
        asyncio.run(build(sys.argv[1]))
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
