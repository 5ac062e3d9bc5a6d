"""What takes the room in a store: sizes by kind, by actor type, and of the biggest actors.

The rows are read beside a host, in order and once, and only what is shown is kept: a store of any length is measured in little memory.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple, final

from ...storage import FileRoom, Range, Room, below
from .._ids import ActorId
from .._persistence import BY_NUMBER, OF_ONE_ACTOR, PARTITION, PREFIX, Table, actor_of, suffix_of

PAGE: Final = 1_000  # rows, of which keys and sizes are read

KINDS: Final = {
    Table.HOST: "registry",
    Table.REGISTRY: "registry",
    Table.ACTOR: "snapshots",
    Table.STATUS: "indexes",
    Table.MAILBOX: "mailboxes",
    Table.ARRIVAL: "mailboxes",
    Table.SIGNALS: "signals",
    Table.KEY: "idempotency keys",
    Table.KEY_EXPIRY: "idempotency keys",
    Table.REPLY: "replies",
    Table.DEAD_LETTER: "dead letters",
    Table.CHARGE: "interrupted attempts",
    Table.QUARANTINE: "quarantines",
    Table.CHECKPOINT: "checkpoints",
    Table.LOG: "logs",
    Table.REQUEST: "requests",
    Table.WAKE: "timers",
    Table.STREAM: "streams",
    Table.CHILD: "children",
    Table.RETENTION: "indexes",
    Table.HISTORY: "histories",
}


@final
class Share(NamedTuple):
    """How many rows something takes, and how many bytes are in them."""

    name: str
    rows: int
    size: int


@final
class ActorShare(NamedTuple):
    """What one actor takes, indexes apart."""

    id: ActorId
    rows: int
    size: int


@final
class Usage(NamedTuple):
    """What takes the room in a store, the most of it first. Messages for actors that were not loaded, and replies, are of no type."""

    kinds: list[Share]
    types: list[Share]
    actors: list[ActorShare]  # the biggest ones
    files: list[FileRoom]


class _Slice(NamedTuple):
    """The rows of one actor in one table. Slices sort by `suffix` as the rows do."""

    suffix: bytes
    actor: ActorId
    table: Table
    rows: int
    size: int


@final
class _Tally:
    """Rows and bytes by name."""

    def __init__(self) -> None:
        self._rows: Counter[str] = Counter()
        self._sizes: Counter[str] = Counter()

    def add(self, name: str, rows: int, size: int) -> None:
        """Count some rows."""
        self._rows[name] += rows
        self._sizes[name] += size

    def shares(self) -> list[Share]:
        """The sums, the biggest first."""
        return sorted(
            (Share(name, rows, self._sizes[name]) for name, rows in self._rows.items()), key=lambda share: (-share.size, share.name)
        )


def usage(url: str, type_name: str | None, top: int) -> Usage:
    """Measure a store: all of it, or what is of one actor type. `top`: of how many actors it tells. Raises StoreError."""
    with Room(url) as room:
        kinds, types = _Tally(), _Tally()
        biggest: list[tuple[int, ActorShare]] = []
        for share in _measure_actors(room, type_name, kinds, types):
            heapq.heappush(biggest, (share.size, share))
            if len(biggest) > top:
                heapq.heappop(biggest)
        _measure_others(room, type_name, kinds, types)
        actors = sorted((share for _, share in biggest), key=lambda share: (-share.size, share.id))
        return Usage(kinds.shares(), types.shares(), actors, room.files())


def kind_of(table: Table) -> str:
    """What the rows of a table are called."""
    return KINDS.get(table) or table.name.lower().replace("_", " ")


def _measure_actors(room: Room, type_name: str | None, kinds: _Tally, types: _Tally) -> Iterator[ActorShare]:
    slices = heapq.merge(*(_slices(room, table, type_name) for table in OF_ONE_ACTOR), key=attrgetter("suffix"))
    for _, group in groupby(slices, key=attrgetter("suffix")):
        rows = size = 0
        actor: ActorId | None = None
        for part in group:
            actor = part.actor
            rows, size = rows + part.rows, size + part.size
            kinds.add(kind_of(part.table), part.rows, part.size)
        if actor is not None:
            types.add(actor.type, rows, size)
            yield ActorShare(actor, rows, size)


def _slices(room: Room, table: Table, type_name: str | None) -> Iterator[_Slice]:
    prefix = PREFIX[table]
    suffix, actor = b"", ActorId("", "")
    rows = size = 0
    for key, length in _rows(room, below((PARTITION, table) if type_name is None else (PARTITION, table, type_name))):
        # The packed address of an actor ends with 0x00; where 0xFF follows, it is the beginning of another's: see storage/keys.py.
        end = len(prefix) + len(suffix)
        if not (suffix and key.startswith(suffix, len(prefix)) and key[end : end + 1] != b"\xff"):
            if rows:
                yield _Slice(suffix, actor, table, rows, size)
            actor = actor_of(key)
            suffix, rows, size = suffix_of(actor), 0, 0
        rows, size = rows + 1, size + length
    if rows:
        yield _Slice(suffix, actor, table, rows, size)


def _measure_others(room: Room, type_name: str | None, kinds: _Tally, types: _Tally) -> None:
    for table in Table:
        if table in OF_ONE_ACTOR or (type_name is not None and table not in BY_NUMBER):
            continue
        for key, length in _rows(room, below((PARTITION, table))):
            of_type = actor_of(key).type if table in BY_NUMBER else None
            if type_name in (None, of_type):
                kinds.add(kind_of(table), 1, length)
            if of_type is not None and type_name in (None, of_type):
                types.add(of_type, 1, length)


def _rows(room: Room, range_: Range) -> Iterator[tuple[bytes, int]]:
    while True:
        page = room.rows(range_, limit=PAGE)
        yield from page
        if len(page) < PAGE:
            return
        range_ = Range(page[-1].key + b"\0", range_.stop)
