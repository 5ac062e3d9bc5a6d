"""What is told about an actor: a picture of one moment, made of plain values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple, final

from ..tracing import trace_id_of
from ._envelope import ON_PARENT_CLOSE
from ._ids import ActorId
from ._records import ChildRow, Cursor, DeadLetter, Raised, Snapshot, Status


@final
class Waiting(NamedTuple):
    """Something that an actor waits for.

    `kind` is "step", "ask", "result", "query", "info", "start", "signal", "condition", "timer", "primitive" (a lock, an event, a queue),
    "restart" (of a failed child, by its parent's supervision), "end" (of an actor that is ending: `name` is why), or "others" where there
    are too many to list. `name` says which one; `since` and `until` are seconds since the epoch, `until` None without an end.
    """

    kind: str
    name: str
    since: float
    until: float | None


Waiting.__module__ = "perdure.actors"


@final
class ChildExit(NamedTuple):
    """The end of a child: its address, what it ended as ("completed", "failed", "cancelled"), and with what error if it did not complete.

    A child that could not begin, since its key was taken, has "failed".
    """

    id: ActorId
    status: str
    error: Exception | None


ChildExit.__module__ = "perdure.actors"


@final
class ChildInfo(NamedTuple):
    """A child that has not ended for good: its address, how often it was begun again, and what becomes of it when its parent ends."""

    id: ActorId
    restarts: int
    on_parent_close: str


ChildInfo.__module__ = "perdure.actors"


@final
class TimerInfo(NamedTuple):
    """A named timer: its handler, when it is due (seconds since the epoch), and every how many seconds (0.0: once)."""

    name: str
    due: float
    every: float


TimerInfo.__module__ = "perdure.actors"


@final
class StreamItem(NamedTuple):
    """What an actor emitted: its position in the stream (from 1), its name, what it carries, and when (seconds since the epoch)."""

    position: int
    name: str
    payload: Any
    at: float


StreamItem.__module__ = "perdure.actors"


@final
class ActorInfo(NamedTuple):
    """An actor as it stood between two turns. Times are seconds since the epoch.

    `events` and `interrupts` are the messages that wait in each lane. `turn` counts its turns, over all its lives. `attempts` is how often
    the event at the head has failed, and `retry_at` when it is tried again. `error` is why a quarantined actor stands still, or a failed
    workflow failed. `waits` is what a suspended actor waits for. `signals` is how many have come and are not taken, `emitted` how long its
    stream is. `children` are those that have not ended for good, in the order in which they were spawned.
    """

    id: ActorId
    status: str
    version: int
    incarnation: str
    cursor: Cursor
    turn: int
    events: int
    interrupts: int
    created: float
    updated: float
    attempts: int = 0
    retry_at: float | None = None
    error: str | None = None
    waits: tuple[Waiting, ...] = ()
    timers: tuple[TimerInfo, ...] = ()
    signals: int = 0
    emitted: int = 0
    parent: ActorId | None = None
    children: tuple[ChildInfo, ...] = ()


ActorInfo.__module__ = "perdure.actors"


@final
class DeadLetterInfo(NamedTuple):
    """A message that could not be handled: whose, which, why, after how many attempts, and when (seconds since the epoch).

    `failed` attempts ended in an error, `interrupted` ones with the host. `partly` is whether some of it was done: its handler failed after
    it had waited. A message that got into no mailbox has a number beyond all of a mailbox as its `seq`; one that could not even be read
    belongs to an actor of type "(inbox)" or "(arrivals)".

    `kind` is "event", "signal", "declared" (a signal that is waited for), "timer" and the like; `sender` the sending actor's address.
    `trace_id` (32 hexadecimal digits) says which trace the message belongs to. `payload` are its arguments as they are stored.
    """

    actor: ActorId
    seq: int
    handler: str
    error: str
    traceback: str
    failed: int
    interrupted: int
    at: float
    partly: bool = False
    kind: str = "event"
    sender: str | None = None
    trace_id: str | None = None
    payload: bytes = b""


DeadLetterInfo.__module__ = "perdure.actors"


def dead_letter_info(actor: ActorId, seq: int, letter: DeadLetter) -> DeadLetterInfo:
    """A dead letter's record as it is told."""
    failure, envelope = letter.failure, letter.envelope
    return DeadLetterInfo(
        actor=actor,
        seq=seq,
        handler=envelope.name,
        error=f"{failure.type_name}: {failure.text}",
        traceback=failure.traceback,
        failed=letter.failed,
        interrupted=letter.interrupted,
        at=letter.at,
        partly=letter.partly,
        kind=envelope.kind.name.lower(),
        sender=envelope.sender,
        trace_id=trace_id_of(envelope.headers),
        payload=envelope.payload,
    )


def info_of(
    actor: ActorId, snapshot: Snapshot | None, error: str | None, events: int, interrupts: int, children: Iterable[ChildRow] = ()
) -> ActorInfo:
    """The info of an actor from its records; without a snapshot it has had no turn yet."""
    status = Status.QUARANTINED if error is not None else Status.IDLE
    if snapshot is None:
        return ActorInfo(actor, status.name.lower(), 0, "", Cursor(0, 0), 0, events, interrupts, 0.0, 0.0, error=error)
    back_off = snapshot.back_off
    return ActorInfo(
        id=actor,
        status=(status if error is not None else snapshot.status).name.lower(),
        version=snapshot.version,
        incarnation=snapshot.incarnation.hex(),
        cursor=snapshot.cursor,
        turn=snapshot.turn,
        events=events,
        interrupts=interrupts,
        created=snapshot.created,
        updated=snapshot.updated,
        attempts=back_off.attempts if back_off else 0,
        retry_at=back_off.due if back_off else None,
        error=error if error is not None else _failure_of(snapshot),
        children=tuple(ChildInfo(ActorId(each.type, each.key), each.life, _ON_PARENT_CLOSE[each.on_close]) for each in children),
        **_standing_of(snapshot),
    )


_ON_PARENT_CLOSE: Final = {kind: said for said, kind in ON_PARENT_CLOSE.items()}


def _failure_of(snapshot: Snapshot) -> str | None:
    run = None if snapshot.standing is None else snapshot.standing.run
    outcome = None if run is None else run.outcome
    return f"{outcome.failure.type_name}: {outcome.failure.text}" if isinstance(outcome, Raised) else None


def _standing_of(snapshot: Snapshot) -> dict[str, Any]:
    standing = snapshot.standing
    if standing is None:
        return {}
    waits = [Waiting(each.kind, each.name, each.since, each.until or None) for each in standing.waits]
    run, parent = standing.run, standing.parent
    if run is not None and standing.is_waiting:
        waits.append(Waiting("restart", "its parent's verdict" if run.again is None else "", snapshot.updated, run.again))
    return {
        "waits": tuple(waits),
        "parent": None if parent is None else ActorId(parent.type, parent.key),
        "timers": tuple(TimerInfo(each.name, each.due, each.every) for each in standing.timers),
        "signals": standing.kept,
        "emitted": standing.emitted,
    }
