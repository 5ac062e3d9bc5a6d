"""How one actor stands, and whoever it waits for: the facts that are told when somebody asks why nothing happens.

All of it is of one moment between two of the actor's turns, if a few tries find one; of what may be long, only an end is read.
"""

from __future__ import annotations

import errno
import math
import socket
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple, TypeVar, cast, final

from ...storage import Range, Store, below, pack, unpack, waiting_offers
from .._breadcrumb import Phase, crumbs_in
from .._envelope import Envelope
from .._ids import ActorId, MessageId
from .._info import DeadLetterInfo, dead_letter_info
from .._past import HistoryEntry, entry_of
from .._persistence import (
    PARTITION,
    Reads,
    Stored,
    Table,
    below_actor,
    charge_key,
    read_actors,
    read_host,
    read_log,
    suffix_of,
)
from .._records import (
    ARRIVAL_ROW,
    CHARGE,
    CHILD_ROW,
    DEAD_LETTER,
    HISTORY_ROW,
    MAILBOX_ROW,
    NOTHING,
    REQUEST_ROW,
    Charge,
    ChildRow,
    DamagedRecord,
    DeadLetter,
    HistoryRow,
    Lane,
    QuarantineRow,
    RecordFormat,
    RequestRow,
    Snapshot,
    Standing,
    Status,
    Wait,
)
from .._registry import RegistryEntry

TRIES: Final = 4  # to read all of it between two turns
LAST_TURNS: Final = 10
LINKS: Final = 8  # of a chain of actors that wait for each other
WAITS_TOLD: Final = 20
CHILDREN_READ: Final = 20
REQUESTS_READ: Final = 64  # twice what an actor's standing lists
LETTERS_READ: Final = 256
ARRIVALS_READ: Final = 256
ALIKE_READ: Final = 128  # keys on each side of one that is not there

LMDB: Final = "lmdb:"  # stores of other kinds have no inbox, and no place for breadcrumbs, that can be looked at

ANSWERED: Final = frozenset((0, errno.EAGAIN))  # the second where more callers wait than may
FORBIDDEN: Final = frozenset((errno.EACCES, errno.EPERM))

R = TypeVar("R")


@final
class HostState(NamedTuple):
    """The last host: whether it runs (None: that cannot be told), its process, since when (seconds since the epoch), what it serves."""

    is_running: bool | None
    pid: int
    since: float
    types: list[str] | None = None  # None: it has not told


@final
class Head(NamedTuple):
    """The first message of a lane, and how many there are. `interrupted` is how often the host died while it worked on it."""

    seq: int
    envelope: Envelope
    depth: int
    interrupted: int = 0


@final
class Stand(NamedTuple):
    """An actor as its rows have it; `damage` where its snapshot cannot be read. Heads are None of lanes where nothing waits."""

    id: ActorId
    snapshot: Snapshot | None = None
    quarantine: QuarantineRow | None = None
    damage: str | None = None
    event: Head | None = None
    interrupt: Head | None = None

    @property
    def standing(self) -> Standing:
        """What it has besides its state."""
        return NOTHING if self.snapshot is None else self.snapshot.standing or NOTHING

    @property
    def has_ended(self) -> bool:
        """Whether its workflow has, for good as far as can be told."""
        return self.snapshot is not None and self.snapshot.status.is_end and not self.standing.is_waiting

    @property
    def is_done(self) -> bool:
        """Whether it has ended, and nothing waits for it: it needs no host."""
        return self.has_ended and self.quarantine is None and self.event is None and self.interrupt is None

    @property
    def status(self) -> str:
        """As `ActorInfo.status`; "new" before its first turn, "missing" where there is nothing of it."""
        if self.quarantine is not None or self.damage is not None:
            return Status.QUARANTINED.name.lower()
        if self.snapshot is not None:
            return self.snapshot.status.name.lower()
        return "new" if self.event or self.interrupt else "missing"

    @property
    def waits(self) -> list[Wait]:
        """What its coroutines wait for."""
        return self.standing.waits if self.status == Status.SUSPENDED.name.lower() else []


@final
class Letters(NamedTuple):
    """The dead letters of an actor: how many were `counted`, whether these are all, and the newest."""

    counted: int
    are_all: bool
    newest: DeadLetterInfo | None


@final
class Situation(NamedTuple):
    """All that is to be told of an actor at `now` (seconds since the epoch).

    `types` are those that hosts have served, all versions. `arriving` are messages that no mailbox has yet, those in the inbox among
    them. `requests` are what the host is to do for it, `busy` the ids of what it works on now. `others` are actors that it waits for, or
    that those wait for, and its children. `suspended_since` is when it began to wait. `is_moving` if turns came between while it was read.
    """

    now: float
    stand: Stand
    host: HostState
    types: list[RegistryEntry]
    arriving: list[Envelope]
    requests: Mapping[MessageId, RequestRow]
    busy: Mapping[bytes, Phase]
    children: list[ChildRow]
    letters: Letters
    turns: list[HistoryEntry]
    others: Mapping[ActorId, Stand]
    suspended_since: float = 0.0
    is_moving: bool = False

    @property
    def is_served(self) -> bool:
        """Whether its type is served by the host that runs, or has been by any, if that one has not told or none runs."""
        if self.host.is_running and self.host.types is not None:
            return self.stand.id.type in self.host.types
        return any(entry.name == self.stand.id.type for entry in self.types)


async def read_situation(store: Store, actor: ActorId, types: list[RegistryEntry], now: float) -> Situation:
    """How an actor stands. Its status is "missing" if nothing of it is there, and no message is on its way to it either."""
    for tries in count(1):
        found = await _read_once(store, actor, types, now)
        again = await read_stand(store, actor)
        if again.snapshot == found.stand.snapshot or tries == TRIES:
            return found._replace(is_moving=again.snapshot != found.stand.snapshot)
    raise AssertionError("not reached")


async def _read_once(store: Store, actor: ActorId, types: list[RegistryEntry], now: float) -> Situation:
    stand = await read_stand(store, actor)
    host = await read_host_state(store)
    children = await _first(store, below_actor(Table.CHILD, actor), CHILDREN_READ, CHILD_ROW) if stand.standing.children else []
    requests = await _first(store, below_actor(Table.REQUEST, actor), REQUESTS_READ, REQUEST_ROW)
    return Situation(
        now=now,
        stand=stand,
        host=host,
        types=types,
        arriving=await _arriving(store, actor),
        requests={row.id: row for row in requests},
        busy=_busy(store) if host.is_running else {},
        children=children,
        letters=await _letters(store, actor),
        turns=await _last_turns(store, stand),
        others=await _others(store, stand, children),
        suspended_since=await _suspended_since(store, stand),
    )


async def read_host_state(store: Store) -> HostState:
    """Whether there is a host behind the door that the last one wrote down; None where it may not be knocked at."""
    host = await read_host(store)
    if host is None:
        return HostState(False, 0, 0.0)
    if not host.door:
        return HostState(None, host.pid, host.started, host.types)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)  # one that is stopped, or very busy, lets callers wait
        code = caller.connect_ex(host.door)
    return HostState(None if code in FORBIDDEN else code in ANSWERED, host.pid, host.started, host.types)


async def read_stand(reads: Reads, actor: ActorId) -> Stand:
    """One actor, with the heads of its mailbox."""
    (stand,) = await _stands(reads, [actor])
    return stand


async def _stands(reads: Reads, actors: list[ActorId]) -> list[Stand]:
    stands: list[Stand] = []
    for actor, stored in zip(actors, await read_actors(reads, actors), strict=True):
        heads = {lane: await _head(reads, actor, lane) for lane in Lane}
        damage = next((str(each) for each in (stored, *heads.values()) if isinstance(each, DamagedRecord)), None)
        rows = stored if isinstance(stored, Stored) else Stored(None, None)
        event, interrupt = (head if isinstance(head, Head) else None for head in (heads[Lane.EVENTS], heads[Lane.INTERRUPTS]))
        stands.append(Stand(actor, *rows, damage, event, interrupt))
    return stands


async def _head(reads: Reads, actor: ActorId, lane: Lane) -> Head | DamagedRecord | None:
    range_ = below((PARTITION, Table.MAILBOX, *actor, lane))
    first = await reads.scan(range_, limit=1)
    last = await reads.scan(range_, limit=1, reverse=True)
    if not (first and last):
        return None
    head, end = MAILBOX_ROW.read(first[0].value), MAILBOX_ROW.read(last[0].value)
    if isinstance(head, DamagedRecord) or isinstance(end, DamagedRecord):
        return head if isinstance(head, DamagedRecord) else cast("DamagedRecord", end)
    (raw,) = await reads.read([charge_key(head.envelope.id)])
    charge = None if raw is None else CHARGE.read(raw)
    interrupted = charge.interrupted if isinstance(charge, Charge) else 0
    return Head(cast("int", unpack(first[0].key)[-1]), head.envelope, max(1, end.place - head.place + 1), interrupted)


async def _others(reads: Reads, stand: Stand, children: Iterable[ChildRow]) -> dict[ActorId, Stand]:
    """Whom it waits for, and whom these wait for in turn, all links of that length; and its children."""
    found = {stand.id: stand}
    wanted = [ActorId(child.type, child.key) for child in children] + _targets(stand)
    for _ in range(LINKS):
        new = [actor for actor in dict.fromkeys(wanted) if actor not in found]
        if not new:
            break
        stands = await _stands(reads, new)
        found.update(zip(new, stands, strict=True))
        wanted = [target for each in stands for target in _targets(each)[:1]]  # of each chain one way on is told
    del found[stand.id]
    return found


def _targets(stand: Stand) -> list[ActorId]:
    return [ActorId(*wait.target) for wait in stand.waits[:WAITS_TOLD] if wait.target is not None]


# --- what may be long ---


async def _first(reads: Reads, range_: Range, limit: int, form: RecordFormat[R]) -> list[R]:
    rows = [form.read(entry.value) for entry in await reads.scan(range_, limit=limit)]
    return [row for row in rows if not isinstance(row, DamagedRecord)]


async def _letters(reads: Reads, actor: ActorId) -> Letters:
    range_ = below_actor(Table.DEAD_LETTER, actor)
    counted = len(await reads.scan(range_, limit=LETTERS_READ + 1))
    newest: DeadLetterInfo | None = None
    for entry in await reads.scan(range_, limit=1, reverse=True):
        letter = DEAD_LETTER.read(entry.value)
        if isinstance(letter, DeadLetter):
            newest = dead_letter_info(actor, cast("int", unpack(entry.key)[-1]), letter)
    return Letters(min(counted, LETTERS_READ), counted <= LETTERS_READ, newest)


async def _last_turns(reads: Reads, stand: Stand) -> list[HistoryEntry]:
    """The oldest first: of what is kept of its past, and of its log while something waits."""
    snapshot = stand.snapshot
    entries = await reads.scan(below_actor(Table.HISTORY, stand.id), limit=LAST_TURNS, reverse=True)
    rows = [row for row in (HISTORY_ROW.read(entry.value) for entry in entries) if isinstance(row, HistoryRow)]
    turn = math.inf if snapshot is None else snapshot.turn
    told = {row.entry.number: entry_of(row) for row in rows if row.entry.number <= turn or row.failure is not None}
    logged = stand.standing.logged
    if snapshot is not None and logged:
        try:
            log = await read_log(reads, suffix_of(stand.id), max(0, logged - LAST_TURNS), logged)
        except DamagedRecord:  # or it has just become shorter
            log = []
        for entry in log:
            told.setdefault(entry.number, entry_of(HistoryRow(entry, Status.SUSPENDED, snapshot.version)))
    return [told[number] for number in sorted(told)][-LAST_TURNS:]


async def _suspended_since(reads: Reads, stand: Stand) -> float:
    if not stand.standing.logged:
        return 0.0
    try:
        (first,) = await read_log(reads, suffix_of(stand.id), 0, 1)
    except DamagedRecord:
        return 0.0
    return first.time


# --- outside of the actor's rows ---


async def _arriving(store: Store, actor: ActorId) -> list[Envelope]:
    """What has been accepted and is in no mailbox yet, and what is in the inbox: the first of each."""
    entries = await store.scan(below((PARTITION, Table.ARRIVAL)), limit=ARRIVALS_READ)
    raws = [entry.value for entry in entries]
    offers = waiting_offers(store, PARTITION)[0] if str(store).startswith(LMDB) else []
    rows = [ARRIVAL_ROW.read(raw) for raw in (*raws, *(offer.payload for offer in offers))]
    return [row.envelope for row in rows if not isinstance(row, DamagedRecord) and (row.type, row.key) == actor]


def _busy(store: Store) -> dict[bytes, Phase]:
    crumbs = crumbs_in(Path(str(store).removeprefix(LMDB), "breadcrumbs")) if str(store).startswith(LMDB) else []
    return {crumb.subject: crumb.phase for crumb in crumbs if crumb.phase in {Phase.TURN, Phase.STEP}}


async def keys_alike(reads: Reads, actor: ActorId) -> list[str]:
    """The keys of its type that look most like an actor's own: of the first, and of those beside it."""
    from difflib import get_close_matches

    whole, own = below((PARTITION, Table.ACTOR, actor.type)), pack((PARTITION, Table.ACTOR, *actor))
    pages = [
        await reads.scan(whole, limit=ALIKE_READ),
        await reads.scan(Range(whole.start, own), limit=ALIKE_READ, reverse=True),
        await reads.scan(Range(own, whole.stop), limit=ALIKE_READ),
    ]
    keys = dict.fromkeys(cast("str", unpack(entry.key)[-1]) for page in pages for entry in page)
    return get_close_matches(actor.key, list(keys), 3)
