"""What a host has left behind in its store, read from the rows alone, before another host has touched them.

F  whoever has a timer stands among those that are due
G  streams have no gap
H  every record is whole, and mailboxes and logs fit their actors
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, final

import msgspec
from perdure.actors._envelope import Envelope, Kind
from perdure.actors._ids import ActorId
from perdure.actors._persistence import PARTITION, Table, due_key, suffix_of
from perdure.actors._records import (
    ARRIVAL_ROW,
    CHARGE,
    CHECKPOINT,
    CHILD_ROW,
    DEAD_LETTER,
    HISTORY_ROW,
    HOST_ROW,
    KEY_ROW,
    LOG_ENTRY,
    MAILBOX_ROW,
    NOTHING,
    QUARANTINE_ROW,
    REPLY_ROW,
    REQUEST_ROW,
    SNAPSHOT,
    STREAM_ROW,
    ArrivalRow,
    DamagedRecord,
    Lane,
    MailboxRow,
    RecordFormat,
    RequestKind,
    RequestRow,
    Snapshot,
)
from perdure.actors._registry import Registry
from perdure.actors._step import idempotency_key_of
from perdure.storage import Entry, Range, Store, keys

from .orders import Order

FORMATS: Final[Mapping[int, RecordFormat[Any]]] = {
    Table.HOST: HOST_ROW,
    Table.ACTOR: SNAPSHOT,
    Table.MAILBOX: MAILBOX_ROW,
    Table.ARRIVAL: ARRIVAL_ROW,
    Table.SIGNALS: MAILBOX_ROW,
    Table.KEY: KEY_ROW,
    Table.REPLY: REPLY_ROW,
    Table.DEAD_LETTER: DEAD_LETTER,
    Table.CHARGE: CHARGE,
    Table.QUARANTINE: QUARANTINE_ROW,
    Table.CHECKPOINT: CHECKPOINT,
    Table.LOG: LOG_ENTRY,
    Table.REQUEST: REQUEST_ROW,
    Table.STREAM: STREAM_ROW,
    Table.CHILD: CHILD_ROW,
    Table.HISTORY: HISTORY_ROW,
}
PAGE: Final = 1000
ORDER: Final = Registry.of_classes([Order]).require("Order")


@final
class Remains(NamedTuple):
    """Idempotency keys of the steps that are asked for, and of those whose outcome is recorded; and what is wrong with the rows."""

    asked: frozenset[str] = frozenset()
    recorded: frozenset[str] = frozenset()
    problems: tuple[str, ...] = ()


@final
class Rows:
    """What has been seen of a store's rows."""

    def __init__(self) -> None:
        self.asked: set[str] = set()
        self.recorded: set[str] = set()
        self.problems: list[str] = []
        self._snapshots: dict[ActorId, Snapshot] = {}
        self._lanes: dict[tuple[ActorId, object], list[tuple[int, int]]] = defaultdict(list)
        self._wakes: set[bytes] = set()
        self._places: dict[tuple[int, ActorId], list[int]] = defaultdict(list)  # of logs and streams

    def look_at(self, entry: Entry) -> None:
        """Note one row, and what is wrong with it by itself."""
        _, table, *rest = keys.unpack(entry.key)
        try:
            if table == Table.REGISTRY:
                msgspec.msgpack.decode(entry.value)
            record = FORMATS[table].unpack(entry.value) if isinstance(table, int) and table in FORMATS else None
        except (DamagedRecord, msgspec.MsgspecError) as damage:
            self.problems.append(f"H: {keys.unpack(entry.key)}: {damage}")
            return
        match record:
            case ArrivalRow(type_name, key, envelope):
                self._note_message(ActorId(type_name, key), envelope)
            case _ if table == Table.WAKE:
                self._wakes.add(entry.key)
            case _ if len(rest) > 1:
                self._note(Table(int(str(table))), ActorId(str(rest[0]), str(rest[1])), rest[2:], record)

    def _note(self, table: Table, actor: ActorId, rest: list[Any], record: object) -> None:
        match record:
            case Snapshot():
                self._snapshots[actor] = record
                if actor.type == ORDER.name and record.state:  # none as long as nothing but signals have come
                    order = ORDER.decode_state(record.state)
                    self.recorded |= {*order.done, *order.given_up}
            case MailboxRow() if table is Table.MAILBOX:
                lane, seq = rest
                self._lanes[actor, lane].append((seq, record.place))
                self._note_message(actor, record.envelope)
            case RequestRow(RequestKind.STEP):
                self.asked.add(idempotency_key_of(actor, record.id))
            case _ if table in {Table.LOG, Table.STREAM}:
                self._places[table, actor].append(rest[0])
            case _:
                pass

    def _note_message(self, actor: ActorId, envelope: Envelope) -> None:
        if envelope.kind is Kind.OUTCOME:
            self.recorded.add(idempotency_key_of(actor, envelope.id))

    def unfit(self) -> Iterator[str]:
        """How rows do not fit their actors, once all were seen."""
        for (actor, lane), rows in self._lanes.items():
            cursor = self._snapshots[actor].cursor if actor in self._snapshots else (0, 0)
            (first, place), count = rows[0], len(rows)
            if first <= cursor[0 if lane == Lane.EVENTS else 1]:
                yield f"H: message {first} of {actor} is handled and still waits"
            if [place for _, place in rows] != list(range(place, place + count)):
                yield f"H: the places of {actor} in lane {lane} are {[place for _, place in rows][:20]}"
        for actor, snapshot in self._snapshots.items():
            standing = snapshot.standing or NOTHING
            if standing.next_due != math.inf and due_key(Table.WAKE, standing.next_due, suffix_of(actor)) not in self._wakes:
                yield f"F: {actor} has a timer, and does not stand among those that are due"
            if (log := self._places[Table.LOG, actor]) != list(range(standing.logged)):
                yield f"H: the log of {actor} has the places {log}, and {standing.logged} are due"
            if (stream := self._places[Table.STREAM, actor]) != list(range(1, standing.emitted + 1)):
                yield f"G: the stream of {actor} has the positions {stream}, and {standing.emitted} are due"


async def remains_of(store: Store) -> Remains:
    """What the rows of a store say that no host has open."""
    rows = Rows()
    range_ = keys.below((PARTITION,))
    while entries := await store.scan(range_, limit=PAGE):
        for entry in entries:
            rows.look_at(entry)
        range_ = Range(entries[-1].key + b"\0", range_.stop)
    return Remains(frozenset(rows.asked), frozenset(rows.recorded), (*rows.problems, *rows.unfit()))
