"""The one module that knows where everything stands in a store: domain to keys, and back.

Every key is (partition, table, …); the tables' numbers are on disk and never change their meaning. A mailbox row exists exactly while its
message is not handled, so the mailboxes are also the list of who has work to do at start. An idle actor has no row but its snapshot:
indexes hold the exceptions.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import AsyncIterator, Iterable
from enum import IntEnum
from typing import Final, NamedTuple, Protocol, cast, final

from ..storage import Batch, Entry, Range, keys
from ._envelope import Envelope, damaged_envelope
from ._failure import Failure
from ._ids import ActorId, MessageId
from ._mailbox import WINDOW, Item, LaneQueue
from ._records import (
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
    QUARANTINE_ROW,
    REPLY_ROW,
    REQUEST_ROW,
    SNAPSHOT,
    STREAM_ROW,
    ArrivalRow,
    Charge,
    Checkpoint,
    ChildRow,
    DamagedRecord,
    DeadLetter,
    HistoryRow,
    HostRow,
    KeyRow,
    Lane,
    LogEntry,
    MailboxRow,
    QuarantineRow,
    ReplyRow,
    RequestRow,
    Snapshot,
    Status,
    StreamRow,
)

PARTITION: Final = 0  # one for now; every key carries it, so that a store can be cut later
PAGE: Final = 256  # rows a scan fetches at once: a host must not be kept from its turns


@final
class Table(IntEnum):
    """What a key's second element says."""

    HOST = 1
    REGISTRY = 2
    ACTOR = 3
    STATUS = 4
    MAILBOX = 5
    ARRIVAL = 6
    SIGNALS = 7
    KEY = 8
    KEY_EXPIRY = 9
    REPLY = 10
    DEAD_LETTER = 11
    CHARGE = 12
    QUARANTINE = 13
    CHECKPOINT = 20
    LOG = 21
    REQUEST = 22
    WAKE = 23
    STREAM = 24
    CHILD = 25
    RETENTION = 26
    HISTORY = 27


OF_ONE_ACTOR: Final = (
    Table.ACTOR,
    Table.MAILBOX,
    Table.SIGNALS,
    Table.KEY,
    Table.DEAD_LETTER,
    Table.QUARANTINE,
    Table.CHECKPOINT,
    Table.LOG,
    Table.REQUEST,
    Table.STREAM,
    Table.CHILD,
    Table.HISTORY,
)

BY_NUMBER: Final = (Table.STATUS, Table.KEY_EXPIRY, Table.WAKE, Table.RETENTION)  # each row is of an actor, behind a status or a time

PREFIX: Final = {table: keys.pack((PARTITION, table)) for table in Table}


class Reads(Protocol):
    """What reading needs: a store, or a store seen through an overlay."""

    async def read(self, keys: list[bytes], /) -> list[bytes | None]:
        """As `Store.read`."""
        ...

    async def scan(self, range_: Range, /, *, limit: int, reverse: bool = False) -> list[Entry]:
        """As `Store.scan`."""
        ...


def suffix_of(actor: ActorId) -> bytes:
    """The actor's part of its row keys: `PREFIX[table] + suffix`."""
    return keys.pack(actor)


def below_actor(table: Table, actor: ActorId) -> Range:
    """All rows of one actor in a table."""
    return keys.below((PARTITION, table, *actor))


def actor_of(key: bytes) -> ActorId:
    """Whose row has that key, in a table of OF_ONE_ACTOR or BY_NUMBER."""
    _, table, *rest = keys.unpack(key)
    type_name, actor_key = rest[1:3] if table in BY_NUMBER else rest[:2]
    return ActorId(cast("str", type_name), cast("str", actor_key))


def key_digest(idempotency_key: str) -> bytes:
    """What stands for an idempotency key of any length: its BLAKE2b, 16 bytes (RFC 7693)."""
    return hashlib.blake2b(idempotency_key.encode(errors="surrogatepass"), digest_size=16).digest()


# --- one actor ---


def put_snapshot(batch: Batch, suffix: bytes, snapshot: Snapshot, before: Status | None) -> None:
    """Stage an actor's snapshot; `before` is the status that its last staged one had."""
    batch.put(PREFIX[Table.ACTOR] + suffix, SNAPSHOT.pack(snapshot))
    if before is not None and before is not snapshot.status and before is not Status.IDLE:
        batch.delete(_status_key(before, suffix))
    if snapshot.status is not Status.IDLE and before is not snapshot.status:
        batch.put(_status_key(snapshot.status, suffix), b"")


def put_lane(batch: Batch, suffix: bytes, lane: Lane, queue: LaneQueue) -> None:
    """Stage what changed in a lane since it was staged last."""
    items, gone = queue.staged()
    prefix = PREFIX[Table.MAILBOX] + suffix + keys.pack((lane,))
    for item in items:
        batch.put(prefix + keys.pack((item.seq,)), MAILBOX_ROW.pack(MailboxRow(item.place, item.envelope)))
    for seq in gone:
        batch.delete(prefix + keys.pack((seq,)))


def delete_actor(batch: Batch, actor: ActorId, *, keep: frozenset[Table] = frozenset()) -> None:
    """Stage the removal of everything an actor has, its dead letters too, but for what is in the tables `keep`."""
    suffix = suffix_of(actor)
    for table in OF_ONE_ACTOR:
        if table not in keep:
            batch.delete_range(below_actor(table, actor))
    for status in Status:
        batch.delete(_status_key(status, suffix))


def put_signal(batch: Batch, suffix: bytes, seq: int, envelope: Envelope) -> None:
    """Stage a declared signal that nobody waits for yet."""
    batch.put(PREFIX[Table.SIGNALS] + suffix + keys.pack((seq,)), MAILBOX_ROW.pack(MailboxRow(0, envelope)))


def delete_signal(batch: Batch, suffix: bytes, seq: int) -> None:
    """Stage that a declared signal has been taken."""
    batch.delete(PREFIX[Table.SIGNALS] + suffix + keys.pack((seq,)))


# --- what of an actor waits ---


def put_checkpoint(batch: Batch, suffix: bytes, checkpoint: Checkpoint) -> None:
    """Stage how an actor was before anything of it waited."""
    batch.put(PREFIX[Table.CHECKPOINT] + suffix, CHECKPOINT.pack(checkpoint))


def put_log_entry(batch: Batch, suffix: bytes, place: int, entry: LogEntry) -> int:
    """Stage the message at a place (from 0) of an actor's log; returns its size in bytes."""
    raw = LOG_ENTRY.pack(entry)
    batch.put(PREFIX[Table.LOG] + suffix + keys.pack((place,)), raw)
    return len(raw)


def delete_log(batch: Batch, suffix: bytes, logged: int) -> None:
    """Stage the removal of an actor's checkpoint, and of its log of so many entries."""
    batch.delete(PREFIX[Table.CHECKPOINT] + suffix)
    for place in range(logged):  # a range would be looked for in the whole batch
        batch.delete(PREFIX[Table.LOG] + suffix + keys.pack((place,)))


def put_history_row(batch: Batch, suffix: bytes, turn: int, row: HistoryRow) -> int:
    """Stage what is kept of a turn, by its handling number; returns its size in bytes."""
    raw = HISTORY_ROW.pack(row)
    batch.put(PREFIX[Table.HISTORY] + suffix + keys.pack((turn,)), raw)
    return len(raw)


def drop_history(batch: Batch, actor: ActorId, before: int) -> None:
    """Stage that of the turns before that one nothing is kept any more."""
    batch.delete_range(Range(below_actor(Table.HISTORY, actor).start, keys.pack((PARTITION, Table.HISTORY, *actor, before))))


def _request_key(table: Table, suffix: bytes, request: MessageId) -> bytes:
    """By the turn that asked and what it asked for: requests of one actor sort in the order in which they were made."""
    turn, nth = int.from_bytes(request[16:22], "big"), int.from_bytes(request[22:25], "big")
    return PREFIX[table] + suffix + keys.pack((turn, nth))


def put_child(batch: Batch, suffix: bytes, row: ChildRow) -> None:
    """Stage a child of an actor."""
    batch.put(_request_key(Table.CHILD, suffix, row.id), CHILD_ROW.pack(row))


def delete_child(batch: Batch, suffix: bytes, request: MessageId) -> None:
    """Stage that an actor has that child no more."""
    batch.delete(_request_key(Table.CHILD, suffix, request))


def put_request(batch: Batch, suffix: bytes, row: RequestRow) -> None:
    """Stage what the host is to do for an actor."""
    batch.put(_request_key(Table.REQUEST, suffix, row.id), REQUEST_ROW.pack(row))


def delete_request(batch: Batch, suffix: bytes, request: MessageId) -> None:
    """Stage that it is done, or not wanted any more."""
    batch.delete(_request_key(Table.REQUEST, suffix, request))


def due_key(table: Table, due: float, suffix: bytes) -> bytes:
    """Where it stands, in WAKE or RETENTION, that an actor has something to do, or is to be forgotten, at `due`.

    By time, and exactly: the bits of a positive IEEE 754 double sort as it does.
    """
    return PREFIX[table] + keys.pack((int.from_bytes(struct.pack(">d", due), "big"),)) + suffix


def put_stream_item(batch: Batch, suffix: bytes, position: int, row: StreamRow) -> None:
    """Stage an item at a position (from 1) of an actor's stream."""
    batch.put(PREFIX[Table.STREAM] + suffix + keys.pack((position,)), STREAM_ROW.pack(row))


def put_dead_letter(batch: Batch, actor: ActorId, seq: int, letter: DeadLetter) -> None:
    """Stage a dead letter."""
    at = int(letter.at * 1e6)
    batch.put(keys.pack((PARTITION, Table.DEAD_LETTER, *actor, at, seq)), DEAD_LETTER.pack(letter))


def put_edited_letter(batch: Batch, row: bytes, letter: DeadLetter) -> None:
    """Stage a dead letter in the place of what it was before; its row's key is `row`."""
    batch.put(row, DEAD_LETTER.pack(letter))


def put_quarantine(batch: Batch, suffix: bytes, row: QuarantineRow) -> None:
    """Stage that an actor stands still; also where its snapshot cannot be read."""
    batch.put(PREFIX[Table.QUARANTINE] + suffix, QUARANTINE_ROW.pack(row))
    batch.put(_status_key(Status.QUARANTINED, suffix), b"")


def delete_quarantine(batch: Batch, suffix: bytes) -> None:
    """Stage that an actor goes on."""
    batch.delete(PREFIX[Table.QUARANTINE] + suffix)
    batch.delete(_status_key(Status.QUARANTINED, suffix))


def _status_key(status: Status, suffix: bytes) -> bytes:
    return PREFIX[Table.STATUS] + keys.pack((status,)) + suffix


def delete_stream_item(batch: Batch, suffix: bytes, position: int) -> None:
    """Stage that an item has been kept for long enough."""
    batch.delete(PREFIX[Table.STREAM] + suffix + keys.pack((position,)))


# --- messages on their way ---


def arrival_key(epoch: int, number: int) -> bytes:
    """Where an arrival stands: arrivals sort by epoch, then in the order of their coming."""
    return PREFIX[Table.ARRIVAL] + keys.pack((epoch, number))


def put_arrival(batch: Batch, key: bytes, actor: ActorId, envelope: Envelope) -> None:
    """Stage a message for an actor whose mailbox is not in memory."""
    batch.put(key, ARRIVAL_ROW.pack(ArrivalRow(actor.type, actor.key, envelope)))


def key_row_key(actor: ActorId, digest: bytes) -> bytes:
    """Where an idempotency key of an actor stands."""
    return keys.pack((PARTITION, Table.KEY, *actor, digest))


def put_key_row(batch: Batch, actor: ActorId, digest: bytes, row: KeyRow) -> None:
    """Stage what a key was used for, and when it expires."""
    batch.put(key_row_key(actor, digest), KEY_ROW.pack(row))
    batch.put(keys.pack((PARTITION, Table.KEY_EXPIRY, int(row.expires), *actor, digest)), b"")


def reply_key(client: bytes, number: int) -> bytes:
    """Where the outcome of another process's ask stands."""
    return PREFIX[Table.REPLY] + keys.pack((client, number))


def put_reply(batch: Batch, reply_to: tuple[bytes, int], row: ReplyRow) -> None:
    """Stage an outcome that a client waits for."""
    batch.put(reply_key(*reply_to), REPLY_ROW.pack(row))


def charge_key(subject: MessageId) -> bytes:
    """Where the interrupted attempts of a message, or of an actor's decoding, stand."""
    return PREFIX[Table.CHARGE] + keys.pack((hashlib.blake2b(subject, digest_size=16).digest(),))


def put_charge(batch: Batch, charge: Charge) -> None:
    """Stage an interrupted attempt."""
    batch.put(charge_key(charge.subject), CHARGE.pack(charge))


def put_host(batch: Batch, host: HostRow) -> None:
    """Stage who hosts the store."""
    batch.put(PREFIX[Table.HOST], HOST_ROW.pack(host))


def delete_registry_entry(batch: Batch, name: str, version: int) -> None:
    """Stage that a version of an actor type is not known any more."""
    batch.delete(PREFIX[Table.REGISTRY] + keys.pack((name, version)))


def put_registry_entry(batch: Batch, name: str, version: int, entry: bytes) -> None:
    """Stage what is known of an actor type."""
    batch.put(PREFIX[Table.REGISTRY] + keys.pack((name, version)), entry)


# --- reading ---


class StoredLetter(NamedTuple):
    """A dead letter, its number, and the key of its row."""

    row: bytes
    seq: int
    letter: DeadLetter


class Stored(NamedTuple):
    """An actor's rows as one read found them: its snapshot (None: it never existed) and why it is quarantined, if so."""

    snapshot: Snapshot | None
    quarantine: QuarantineRow | None


async def read_actors(reads: Reads, actors: list[ActorId]) -> list[Stored | DamagedRecord]:
    """The records of several actors, one read for all; DamagedRecord in the place of an actor whose record is damaged."""
    wanted: list[bytes] = []
    for actor in actors:
        suffix = suffix_of(actor)
        wanted += (PREFIX[Table.ACTOR] + suffix, PREFIX[Table.QUARANTINE] + suffix)
    raws = await reads.read(wanted)
    return [_stored(raws[place], raws[place + 1]) for place in range(0, len(raws), 2)]


def _stored(snapshot: bytes | None, quarantine: bytes | None) -> Stored | DamagedRecord:
    try:
        return Stored(
            None if snapshot is None else SNAPSHOT.unpack(snapshot), None if quarantine is None else QUARANTINE_ROW.unpack(quarantine)
        )
    except DamagedRecord as damage:
        return damage


async def read_lane(reads: Reads, actor: ActorId, lane: Lane, after: int) -> tuple[list[Item], int, int]:
    """(the first messages of a lane behind the seq `after`, how many more there are, the last one's seq). Raises DamagedRecord."""
    whole = keys.below((PARTITION, Table.MAILBOX, *actor, lane))
    range_ = Range(max(whole.start, keys.pack((PARTITION, Table.MAILBOX, *actor, lane, after + 1))), whole.stop)
    entries = await reads.scan(range_, limit=WINDOW)
    items = [_item(entry) for entry in entries]
    if len(items) < WINDOW:
        return items, 0, items[-1].seq if items else after
    last = _item((await reads.scan(range_, limit=1, reverse=True))[0])
    return items, last.place - items[-1].place, last.seq


def _item(entry: Entry) -> Item:
    row = MAILBOX_ROW.unpack(entry.value)
    return Item(cast("int", keys.unpack(entry.key)[-1]), row.place, row.envelope)


async def read_signals(reads: Reads, actor: ActorId) -> list[tuple[int, Envelope]]:
    """The declared signals that an actor keeps, the oldest first, with their seqs. Raises DamagedRecord."""
    entries = [entry async for page in scan_pages(reads, below_actor(Table.SIGNALS, actor)) for entry in page]
    return [(cast("int", keys.unpack(entry.key)[-1]), MAILBOX_ROW.unpack(entry.value).envelope) for entry in entries]


async def read_children(reads: Reads, actor: ActorId) -> list[ChildRow]:
    """The children of an actor, in the order in which they were spawned. Raises DamagedRecord."""
    entries = [entry async for page in scan_pages(reads, below_actor(Table.CHILD, actor)) for entry in page]
    return [CHILD_ROW.unpack(entry.value) for entry in entries]


async def read_checkpoint(reads: Reads, suffix: bytes) -> Checkpoint:
    """How a suspended actor was when nothing of it waited last. Raises DamagedRecord, also where there is none."""
    (raw,) = await reads.read([PREFIX[Table.CHECKPOINT] + suffix])
    if raw is None:
        raise DamagedRecord("its checkpoint is missing")
    return CHECKPOINT.unpack(raw)


async def read_log(reads: Reads, suffix: bytes, start: int, stop: int) -> list[LogEntry]:
    """The messages at those places of an actor's log. Raises DamagedRecord, also where one is missing."""
    prefix = PREFIX[Table.LOG] + suffix
    raws = await reads.read([prefix + keys.pack((place,)) for place in range(start, stop)])
    if None in raws:
        raise DamagedRecord(f"entry {start + raws.index(None)} of its log is missing")
    return [LOG_ENTRY.unpack(raw) for raw in raws if raw is not None]


async def read_history(reads: Reads, actor: ActorId) -> list[HistoryRow]:
    """The turns of an actor's past that are kept, the oldest first. Raises DamagedRecord."""
    entries = [entry async for page in scan_pages(reads, below_actor(Table.HISTORY, actor)) for entry in page]
    return [HISTORY_ROW.unpack(entry.value) for entry in entries]


async def scan_requests(reads: Reads) -> AsyncIterator[tuple[ActorId, RequestRow | DamagedRecord]]:
    """Everything that actors have asked for and that is not done."""
    async for page in scan_pages(reads, keys.below((PARTITION, Table.REQUEST))):
        for entry in page:
            yield actor_of(entry.key), REQUEST_ROW.read(entry.value)


async def read_requests(reads: Reads, actor: ActorId) -> list[RequestRow]:
    """What one actor has asked for and that is not done; damaged ones are passed over."""
    entries = [entry async for page in scan_pages(reads, below_actor(Table.REQUEST, actor)) for entry in page]
    rows = [REQUEST_ROW.read(entry.value) for entry in entries]
    return [row for row in rows if isinstance(row, RequestRow)]


async def read_due(reads: Reads, table: Table, after: bytes, limit: int) -> list[tuple[float, ActorId, bytes]]:
    """(due, actor, key) of the next rows of WAKE or RETENTION behind a key (b"": from the first), the earliest first."""
    whole = keys.below((PARTITION, table))
    entries = await reads.scan(Range(max(after + b"\0", whole.start), whole.stop), limit=limit)
    found: list[tuple[float, ActorId, bytes]] = []
    for entry in entries:
        _, _, bits, type_name, key = keys.unpack(entry.key)  # once: thousands are read in a row
        (due,) = struct.unpack(">d", cast("int", bits).to_bytes(8, "big"))
        found.append((due, ActorId(cast("str", type_name), cast("str", key)), entry.key))
    return found


async def read_stream(reads: Reads, actor: ActorId, after: int, limit: int) -> list[tuple[int, StreamRow]]:
    """The next items of an actor's stream behind a position, with theirs. Raises DamagedRecord."""
    whole = below_actor(Table.STREAM, actor)
    entries = await reads.scan(Range(keys.pack((PARTITION, Table.STREAM, *actor, after + 1)), whole.stop), limit=limit)
    return [(cast("int", keys.unpack(entry.key)[-1]), STREAM_ROW.unpack(entry.value)) for entry in entries]


async def read_depths(reads: Reads, actor: ActorId) -> tuple[int, int]:
    """How many (events, interrupts) wait in the actor's mailbox."""
    return await _depth(reads, actor, Lane.EVENTS), await _depth(reads, actor, Lane.INTERRUPTS)


async def _depth(reads: Reads, actor: ActorId, lane: Lane) -> int:
    range_ = keys.below((PARTITION, Table.MAILBOX, *actor, lane))
    first = await reads.scan(range_, limit=1)
    last = await reads.scan(range_, limit=1, reverse=True)
    if not (first and last):  # a commit may have come between, where the reader is another process than the host
        return 0
    return max(0, _item(last[0]).place - _item(first[0]).place + 1)


async def read_key_rows(reads: Reads, wanted: Iterable[tuple[ActorId, bytes]]) -> list[KeyRow | DamagedRecord | None]:
    """What idempotency keys were used for; DamagedRecord in the place of a row that is damaged."""
    raws = await reads.read([key_row_key(actor, digest) for actor, digest in wanted])
    return [None if raw is None else KEY_ROW.read(raw) for raw in raws]


async def read_reply(reads: Reads, client: bytes, number: int) -> ReplyRow | None:
    """The outcome of an ask of another process, once it is durable."""
    (raw,) = await reads.read([reply_key(client, number)])
    return None if raw is None else REPLY_ROW.unpack(raw)


async def read_host(reads: Reads) -> HostRow | None:
    """Who hosts the store, or hosted it last; None if that is not known."""
    (raw,) = await reads.read([PREFIX[Table.HOST]])
    host = None if raw is None else HOST_ROW.read(raw)
    return None if isinstance(host, DamagedRecord) else host


async def scan_pages(reads: Reads, range_: Range, page: int = PAGE) -> AsyncIterator[list[Entry]]:
    """The entries of a range, page by page: between two pages the range may change, within one it does not."""
    while True:
        entries = await reads.scan(range_, limit=page)
        if entries:
            yield entries
        if len(entries) < page:
            return
        range_ = Range(entries[-1].key + b"\0", range_.stop)


async def read_registered(reads: Reads) -> list[tuple[str, int, bytes]]:
    """(name, version, entry) of all actor types that hosts of the store have served, in that order."""
    pages = scan_pages(reads, keys.below((PARTITION, Table.REGISTRY)))
    return [(*cast("tuple[str, int]", keys.unpack(entry.key)[-2:]), entry.value) async for page in pages for entry in page]


async def has_actors(reads: Reads, type_name: str) -> bool:
    """Whether there is an actor of a type."""
    return bool(await reads.scan(keys.below((PARTITION, Table.ACTOR, type_name)), limit=1))


async def scan_quarantined(reads: Reads) -> AsyncIterator[tuple[ActorId, QuarantineRow | DamagedRecord]]:
    """Every actor that stands still, and why."""
    async for page in scan_pages(reads, keys.below((PARTITION, Table.QUARANTINE))):
        for entry in page:
            yield actor_of(entry.key), QUARANTINE_ROW.read(entry.value)


async def scan_work(reads: Reads) -> AsyncIterator[ActorId]:
    """Every actor with a message in its mailbox, each once: one row is read for each, however long its mailbox is."""
    range_ = keys.below((PARTITION, Table.MAILBOX))
    while True:
        entries = await reads.scan(range_, limit=1)
        if not entries:
            return
        actor = actor_of(entries[0].key)
        yield actor
        range_ = Range(below_actor(Table.MAILBOX, actor).stop, range_.stop)


async def scan_arrivals(reads: Reads) -> AsyncIterator[tuple[Entry, ArrivalRow | DamagedRecord]]:
    """The messages that a former epoch accepted for actors it had not loaded, in order, with their rows."""
    async for page in scan_pages(reads, keys.below((PARTITION, Table.ARRIVAL))):
        for entry in page:
            yield entry, ARRIVAL_ROW.read(entry.value)


async def scan_actors(reads: Reads, type_name: str | None, status: Status | None, prefix: str) -> AsyncIterator[list[ActorId]]:
    """Addresses in order of (type, key), page by page: of one status by its index (any but idle, which has none), else all."""
    head: tuple[int, ...] = (PARTITION, Table.ACTOR) if status is None else (PARTITION, Table.STATUS, status)
    range_ = keys.below(head if type_name is None else (*head, type_name))
    if type_name is not None and prefix:
        start = keys.pack((*head, type_name, prefix))[:-1]  # without the end of the text
        range_ = Range(start, start + b"\xff")
    async for page in scan_pages(reads, range_):
        actors = [actor_of(entry.key) for entry in page]
        yield [actor for actor in actors if actor.key.startswith(prefix)]


async def read_dead_letters(reads: Reads, actor: ActorId) -> list[StoredLetter]:
    """The dead letters of one actor, in the order in which they were put aside."""
    pages = scan_pages(reads, below_actor(Table.DEAD_LETTER, actor))
    return [StoredLetter(entry.key, cast("int", keys.unpack(entry.key)[-1]), _letter(entry)) async for page in pages for entry in page]


async def scan_dead_letters(reads: Reads, *whose: str) -> AsyncIterator[tuple[ActorId, int, DeadLetter]]:
    """(actor, seq, letter), the oldest of each actor first; of all actors, of a type's, or of one: `whose` is its type, or type and key."""
    range_ = keys.below((PARTITION, Table.DEAD_LETTER, *whose))
    async for page in scan_pages(reads, range_):
        for entry in page:
            yield actor_of(entry.key), cast("int", keys.unpack(entry.key)[-1]), _letter(entry)


def _letter(entry: Entry) -> DeadLetter:
    letter = DEAD_LETTER.read(entry.value)
    return DeadLetter(damaged_envelope(entry.value), Failure.of(letter), 0, 0, 0.0) if isinstance(letter, DamagedRecord) else letter


async def read_charges(reads: Reads) -> list[Charge]:
    """All interrupted attempts that are remembered; a damaged one counts for nothing."""
    entries = [entry async for page in scan_pages(reads, keys.below((PARTITION, Table.CHARGE))) for entry in page]
    charges = [CHARGE.read(entry.value) for entry in entries]
    return [charge for charge in charges if not isinstance(charge, DamagedRecord)]


async def read_expired(reads: Reads, now: float) -> list[bytes]:
    """The rows of some idempotency keys that have expired by `now`; none when there are no more."""
    due = keys.below((PARTITION, Table.KEY_EXPIRY))
    entries = await reads.scan(Range(due.start, keys.pack((PARTITION, Table.KEY_EXPIRY, max(0, int(now))))), limit=PAGE)
    used = [cast("tuple[str, str, bytes]", keys.unpack(entry.key)[-3:]) for entry in entries]
    rows = await read_key_rows(reads, [(ActorId(type_name, key), digest) for type_name, key, digest in used])
    expired: list[bytes] = []
    for entry, (type_name, key, digest), row in zip(entries, used, rows, strict=True):
        expired.append(entry.key)
        # Else it expired before, and was used again since; or its message still waits, and it expires after that.
        if isinstance(row, KeyRow) and row.expires < now and row.outcome is not None:
            expired.append(key_row_key(ActorId(type_name, key), digest))
    return expired


async def read_expired_replies(reads: Reads, now: float, start: bytes) -> tuple[list[bytes], bytes | None]:
    """(the keys of replies that nobody has fetched by `now`, of a page from the key `start` on; where the next page starts, if any)."""
    whole = keys.below((PARTITION, Table.REPLY))
    entries = await reads.scan(Range(max(start, whole.start), whole.stop), limit=PAGE)
    rows = [(entry.key, REPLY_ROW.read(entry.value)) for entry in entries]
    expired = [key for key, row in rows if isinstance(row, ReplyRow) and row.expires < now]
    return expired, entries[-1].key + b"\0" if len(entries) == PAGE else None


async def read_waiting(reads: Reads, actor: ActorId) -> list[tuple[Lane, Item]]:
    """All messages of an actor's mailbox, with their lanes; damaged ones are passed over."""
    entries = [entry async for page in scan_pages(reads, below_actor(Table.MAILBOX, actor)) for entry in page]
    rows = [(keys.unpack(entry.key), MAILBOX_ROW.read(entry.value)) for entry in entries]
    return [
        (Lane(cast("int", key[-2])), Item(cast("int", key[-1]), row.place, row.envelope))
        for key, row in rows
        if isinstance(row, MailboxRow)
    ]
