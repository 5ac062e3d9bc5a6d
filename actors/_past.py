"""The past of one actor, as far as it is kept: read from its store, or from a file that it was exported to.

What is read begins and ends between two commits, and everything that is in it can be replayed from there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import BinaryIO, Final, NamedTuple, TypeVar, final

import msgspec

from ._archive import ExportUnreadable
from ._ids import ActorId, Incarnation, first_incarnation
from ._journal import shown
from ._persistence import Reads, Stored, read_actors, read_history
from ._records import HISTORY_ROW, Asked, DamagedRecord, HistoryRow, LogEntry, RequestKind, Snapshot, Status

T = TypeVar("T")

FORMAT: Final = 1
IS_NONE: Final = ("it is no history of an actor", "Give it what `perdure export-history` has written.")


@final
class HistoryEntry(NamedTuple):
    """A message of an actor's past, and what came of it.

    `turn` is its place in the actor's past, `seq` its number in the mailbox, `at` when it was handled (seconds since the epoch). `kind` is
    "event", "signal", "declared" (a signal that is waited for), "start", "outcome" (of a step), "firing" (of a timer) and the like; `name`
    the handler's, or what it is about. `asked` is what the actor's code asked for then. `status` is the actor's after it. `error` is why
    the message failed, or the workflow; of its lines `str` has the first. `is_for_code` is False for what the host has taken by itself: a
    signal that nobody waited for yet.
    """

    turn: int
    seq: int
    at: float
    kind: str
    name: str
    asked: tuple[str, ...]
    status: str
    version: int
    attempt: int = 1
    error: str | None = None
    is_for_code: bool = True

    def __str__(self) -> str:
        told = f"{_moment(self.at)} #{self.seq} {self.kind} {self.name}".rstrip()
        if self.attempt > 1:
            told += f", attempt {self.attempt}"
        if not self.is_for_code:
            told += ", for the host"
        if self.asked:
            told += f": {', '.join(self.asked)}"
        return f"{told} → {self.status}" + (": " + self.error.partition("\n")[0] if self.error else "")


HistoryEntry.__module__ = "perdure.actors"


def entry_of(row: HistoryRow) -> HistoryEntry:
    """A row as it is told."""
    entry, envelope, failure = row.entry, row.entry.envelope, row.failure
    return HistoryEntry(
        turn=entry.number,
        seq=entry.seq,
        at=entry.time,
        kind=envelope.kind.name.lower(),
        name=envelope.name,
        asked=tuple(map(_told, entry.asked)),
        status=row.status.name.lower(),
        version=row.version,
        attempt=entry.attempt,
        error=None if failure is None else f"{failure.type_name}: {failure.text}",
        is_for_code=not row.by_host,
    )


def _told(asked: Asked) -> str:
    return f"{shown(asked)} until {_moment(asked.due)}" if asked.kind is RequestKind.TIMER else shown(asked)


def _moment(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")
    except (OverflowError, ValueError, OSError):  # of a timer that is never due
        return str(at)


@final
class Stretch(NamedTuple):
    """Turns from one that left something of the actor waiting to the one after which nothing waits: what is replayed in one go.

    `state` is what they led to; None if that is not known, since they were broken off. It `is_open` if the actor still waits.
    """

    rows: list[HistoryRow]
    state: bytes | None
    is_open: bool

    def incarnation(self, actor: ActorId) -> Incarnation:
        """The life of the actor that it is of."""
        before = self.rows[0].before
        if before is None or before.snapshot is None:
            return first_incarnation(actor, self.rows[0].entry.envelope.id)
        return before.snapshot.incarnation

    @property
    def versions(self) -> list[int]:
        """Those of the actor's type whose code took its turns, the last one's first."""
        return list(dict.fromkeys(row.version for row in reversed(self.rows)))

    @property
    def log(self) -> list[LogEntry]:
        """Its messages as a log has them."""
        return [row.entry for row in self.rows]


@final
class Past(NamedTuple):
    """What is kept of an actor's past, the oldest first. `state` is how it is now, if something of it waits."""

    actor: ActorId
    version: int
    rows: list[HistoryRow]
    state: bytes | None

    def stretches(self) -> list[Stretch]:
        """All that can be replayed, in order: what began, or went on, while nothing was kept cannot be."""
        found: list[list[HistoryRow]] = []
        place, turn = 0, 0
        for row in self.rows:
            is_next, turn = row.entry.number == turn + 1, row.entry.number
            if row.before is not None:
                found.append([row])
                place = 1
            elif not is_next or row.place not in {0, place + 1}:
                place = 0
            elif row.place:
                found[-1].append(row)
                place += 1
        last = next((row for row in reversed(self.rows) if row.place), None)
        return [self._stretch(rows, is_last=rows[-1] is last) for rows in found]

    def _stretch(self, rows: list[HistoryRow], *, is_last: bool) -> Stretch:
        after = rows[-1].after
        is_open = after is None and is_last and self.state is not None
        return Stretch(rows, self.state if is_open else after, is_open)


async def read_past(reads: Reads, actor: ActorId) -> Past | None:
    """What a store has of it; None if there is no such actor. A host may be at work on it. Raises DamagedRecord."""
    while True:
        snapshot = await _snapshot(reads, actor)
        rows = await read_history(reads, actor)
        if _generation(await _snapshot(reads, actor)) == _generation(snapshot):
            break
    turn = 0 if snapshot is None else snapshot.turn  # it does not exist yet if its first message has failed
    kept = [row for row in rows if row.entry.number <= turn or (row.entry.number == turn + 1 and row.failure is not None and not row.place)]
    if snapshot is None:
        return Past(actor, kept[-1].version, kept, None) if kept else None
    return Past(actor, snapshot.version, kept, snapshot.state if _leads_to(kept, snapshot) else None)


def _generation(snapshot: Snapshot | None) -> tuple[float, int] | None:
    """What changes if an actor is deleted and made anew, or some of its past is dropped."""
    return None if snapshot is None else (snapshot.created, 0 if snapshot.standing is None else snapshot.standing.recent)


def _leads_to(rows: list[HistoryRow], snapshot: Snapshot) -> bool:
    """Whether something waits now, and every turn of that was kept up to here."""
    turns = [row.entry.number for row in rows if row.entry.number <= snapshot.turn]
    last = next((row for row in reversed(rows) if row.place), None)
    if snapshot.status is not Status.SUSPENDED or last is None or snapshot.standing is None:
        return False
    # The turn of a message that had failed may have been taken again while nothing was kept: only the length of the log tells.
    return snapshot.standing.logged == last.place and turns[turns.index(last.entry.number) :] == [
        *range(last.entry.number, snapshot.turn + 1)
    ]


async def _snapshot(reads: Reads, actor: ActorId) -> Snapshot | None:
    (stored,) = await read_actors(reads, [actor])
    if isinstance(stored, DamagedRecord):
        raise stored
    assert isinstance(stored, Stored)
    return stored.snapshot


# --- files ---


@final
class _Head(msgspec.Struct, frozen=True):
    """The first line. `perdure` is the release that wrote it, `version` that of the actor's state."""

    history: int
    perdure: str
    type: str
    key: str
    version: int
    python: str


@final
class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message: for tools what `HistoryEntry` says of it, and the row with all of it, in base 64, its CRC-32 first."""

    turn: int
    seq: int
    at: float
    kind: str
    name: str
    asked: tuple[str, ...]
    status: str
    row: bytes
    error: str | None = None


@final
class _Tail(msgspec.Struct, frozen=True):
    """The last line, so that a file which was cut short is seen for what it is."""

    turns: int
    state: bytes | None


def write_past(file: BinaryIO, past: Past, release: str, python: str) -> int:
    """Write it as lines of JSON; returns how many bytes these are."""
    lines: list[msgspec.Struct] = [_Head(FORMAT, release, *past.actor, past.version, python)]
    for row in past.rows:
        told = entry_of(row)
        packed = HISTORY_ROW.pack(row)
        lines.append(_Line(told.turn, told.seq, told.at, told.kind, told.name, told.asked, told.status, packed, told.error))
    lines.append(_Tail(len(past.rows), past.state))
    return sum(file.write(msgspec.json.encode(line) + b"\n") for line in lines)


def read_past_file(path: str | os.PathLike[str]) -> Past:
    """What such a file has. Raises ExportUnreadable for another one, and for one that is damaged or of a later release; OSError."""
    name = os.fspath(path)
    with open(path, "rb") as file:
        lines = file.read().splitlines()
    head = _decoded(lines[0], _Head) if lines else None
    if head is None:
        raise ExportUnreadable(name, *IS_NONE)
    if head.history != FORMAT:
        cure = "Read it with the release of Perdure that wrote it, or a later one: pip install --upgrade perdure"
        raise ExportUnreadable(name, f"it has format {head.history}, and this release reads {FORMAT}", cure)
    tail = _decoded(lines[-1], _Tail)
    if tail is None or tail.turns != len(lines) - 2:
        raise ExportUnreadable(name, "it is cut short", "Export it again.")
    return Past(ActorId(head.type, head.key), head.version, list(_rows(name, lines[1:-1])), tail.state)


def _rows(name: str, lines: list[bytes]) -> Iterator[HistoryRow]:
    for number, raw in enumerate(lines, 2):
        line = _decoded(raw, _Line)
        row = None if line is None else HISTORY_ROW.read(line.row)
        if not isinstance(row, HistoryRow):
            raise ExportUnreadable(name, f"line {number} is damaged", "Export it again.")
        yield row


def _decoded(line: bytes, of: type[T]) -> T | None:
    try:
        return msgspec.json.decode(line, type=of)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
