"""The rows of actors as they stand, to be carried from one store to another.

What is derived is not carried: whoever puts a row derives the indexes from it anew, so that they fit whatever they come to.
"""

from __future__ import annotations

import heapq
import math
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Final, cast, final

from ..storage import Batch, Range, keys
from ._archive import Row
from ._ids import ActorId
from ._persistence import (
    OF_ONE_ACTOR,
    PARTITION,
    PREFIX,
    Reads,
    Table,
    actor_of,
    below_actor,
    due_key,
    put_key_row,
    put_quarantine,
    put_snapshot,
    suffix_of,
)
from ._records import KEY_ROW, QUARANTINE_ROW, SNAPSHOT, KeyRow, QuarantineRow, Snapshot

TABLES: Final = tuple(sorted(OF_ONE_ACTOR))
PAGE: Final = 64  # rows of each table that are in memory at a time, at most
PAGE_BYTES: Final = 1 << 20  # that these are to have, as far as the ones before them tell: rows may be long


@final
class Arrivals:
    """Messages that were accepted for actors and that none of them has taken, by actor, in the order in which they came.

    There may be more of them than fit into memory: they are in a file, and only where is remembered.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as this does
        self._places: dict[ActorId, list[tuple[int, int]]] = {}

    def __repr__(self) -> str:
        return f"<Arrivals for {len(self._places)} actors>"

    def add(self, actor: ActorId, raw: bytes) -> None:
        """Keep the next one."""
        self._places.setdefault(actor, []).append((self._file.seek(0, 2), len(raw)))
        self._file.write(raw)

    def of(self, actor: ActorId) -> Iterator[Row]:
        """Those for one actor."""
        for place, size in self._places.get(actor, ()):
            self._file.seek(place)
            yield Row(Table.ARRIVAL, b"", self._file.read(size))

    async def rows(self) -> AsyncIterator[tuple[ActorId, Row]]:
        """All, in order of the actors' addresses."""
        for actor in sorted(self._places):
            for row in self.of(actor):
                yield actor, row

    def close(self) -> None:
        """Forget them."""
        self._file.close()


async def tables_in_use(reads: Reads) -> list[Table]:
    """Which tables have any row: in a new store there is nothing to look for in any."""
    return [table for table in TABLES if await reads.scan(keys.below((PARTITION, table)), limit=1)]


async def rows_of(reads: Reads, actor: ActorId, tables: Iterable[Table]) -> list[Row]:
    """All rows that one actor has in those tables."""
    return [row for table in tables async for _, row in _rows(reads, table, *actor)]


async def scan_rows(reads: Reads, arrivals: Arrivals, *whose: str) -> AsyncIterator[tuple[ActorId, Row]]:
    """All rows of all actors, of those of a type, or of one, and what has arrived for them: by actor, then by table, then in order."""
    streams = [_rows(reads, table, *whose) for table in TABLES]
    heads: list[tuple[ActorId, int, Row, AsyncIterator[tuple[ActorId, Row]]]] = []
    for stream in (*streams, arrivals.rows()):
        async for actor, row in stream:
            heads.append((actor, row.table, row, stream))
            break
    heapq.heapify(heads)  # no two are of one table, so rows are never compared
    while heads:
        actor, _, row, stream = heads[0]
        yield actor, row
        following = await anext(stream, None)
        if following is None:
            heapq.heappop(heads)
        else:
            heapq.heapreplace(heads, (following[0], following[1].table, following[1], stream))


async def _rows(reads: Reads, table: Table, *whose: str) -> AsyncIterator[tuple[ActorId, Row]]:
    range_, limit = keys.below((PARTITION, table, *whose)), 4
    while entries := await reads.scan(range_, limit=limit):
        for entry in entries:
            actor = actor_of(entry.key)
            yield actor, Row(table, entry.key[len(below_actor(table, actor).start) :], entry.value)
        range_ = Range(entries[-1].key + b"\0", range_.stop)
        mean = sum(len(entry.value) for entry in entries) // len(entries)
        limit = max(1, min(PAGE, PAGE_BYTES // (mean + 1)))


def put_row(batch: Batch, actor: ActorId, row: Row) -> None:
    """Stage a row as it stood elsewhere, and what is derived from it; of a damaged one nothing can be."""
    suffix = suffix_of(actor)
    match row.table:
        case Table.ACTOR:
            _put_derived(batch, suffix, SNAPSHOT.read(row.value))
        case Table.KEY:
            key_row = KEY_ROW.read(row.value)
            if isinstance(key_row, KeyRow):
                put_key_row(batch, actor, cast("bytes", keys.unpack(row.tail)[0]), key_row)
        case Table.QUARANTINE:
            quarantine = QUARANTINE_ROW.read(row.value)
            if isinstance(quarantine, QuarantineRow):
                put_quarantine(batch, suffix, quarantine)
        case _:
            pass
    batch.put(PREFIX[Table(row.table)] + suffix + row.tail, row.value)


def _put_derived(batch: Batch, suffix: bytes, snapshot: object) -> None:
    if isinstance(snapshot, Snapshot):
        put_snapshot(batch, suffix, snapshot, None)
        for table, due in zip((Table.WAKE, Table.RETENTION), snapshot.dues, strict=True):
            if due < math.inf:
                batch.put(due_key(table, due, suffix), b"")
