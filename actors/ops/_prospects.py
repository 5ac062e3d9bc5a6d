"""What an actor's next moments hold, the most pressing first: what a host does by itself, and what it takes from elsewhere.

Every actor has at least one prospect, if only that nothing happens, and until what.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, final

import msgspec

from .._acceptance import FOR_THE_LIVING
from .._envelope import STARTS, Kind
from .._ids import ActorId
from .._records import RequestKind, RequestRow
from .._upgrades import is_of_versions
from . import _commands
from ._situation import WAITS_TOLD, Head, Situation, Stand
from ._wording import counted, distance, moment

_WORDS: Final = {
    Kind.DECLARED: "the signal",
    Kind.START_NEW: "the start",
    Kind.SPAWN: "the start",
    Kind.FIRING: "the firing of its clock",
    Kind.OUTCOME: "the outcome of the step",
    Kind.REPLY: "the answer to",
    Kind.CHILD_EXIT: "the end of the child",
    Kind.CONTINUE: "the next life of",
}


@final
class Prospect(msgspec.Struct, frozen=True):
    """Something that will happen at `at` (seconds since the epoch; None: as soon as it can).

    `kind` is "message", "retry" (of an event), "restart", "timer", "step", "forgotten", "if" (somebody does something), or "nothing".
    """

    kind: str
    text: str
    at: float | None = None
    commands: tuple[str, ...] = ()


def first_line(text: str | None) -> str:
    """The first line of an error's text."""
    return (text or "").partition("\n")[0]


def called(head: Head) -> str:
    """A message as it is spoken of."""
    kind = head.envelope.kind
    words = _WORDS.get(kind) or f"the {kind.name.lower().replace('_', ' ')}"
    return f"{words} {head.envelope.name}".rstrip() + f" (seq {head.seq})"


def prospects(situation: Situation) -> list[Prospect]:
    """What happens next."""
    stand = situation.stand
    arriving = _arriving(situation)
    if stand.status == "quarantined":
        return [*arriving, _quarantined(stand)]
    coming = [*arriving, *_interrupts(situation), *_events(situation), *sorted(_due(situation), key=lambda each: each.at or 0.0)]
    if stand.has_ended:
        return [*coming, _ended(situation)]
    wanted = list(dict.fromkeys(_wanted(situation)))
    if not coming:
        hosted = ", and a host runs" if not situation.host.is_running else "" if situation.is_served else ", and a host serves its type"
        return [Prospect("nothing", f"nothing, until {' or '.join(wanted) or 'a message comes'}{hosted}", commands=_cures(situation))]
    return [*coming, *(Prospect("if", f"if {each}, it goes on before that") for each in wanted)]


def retries(stand: Stand) -> tuple[str, ...]:
    """The command that lets a quarantined actor go on, if one does."""
    row = stand.quarantine
    return () if row is None or stand.damage is not None or is_of_versions(row.failure) else (_commands.retry(stand.id),)


def _quarantined(stand: Stand) -> Prospect:
    if stand.damage is not None:
        return Prospect("nothing", "nothing: it is quarantined; what it has is damaged, and a backup may have it whole")
    cures = retries(stand)
    if not cures:
        return Prospect("if", "it goes on by itself as soon as a host serves a version of its type that fits it")
    return Prospect("nothing", f"nothing: it is quarantined; `{cures[0]}` lets it go on", commands=cures)


def _soon(situation: Situation) -> str:
    if not situation.is_served and situation.host.is_running:
        return "as soon as a host serves its type"
    return "now" if situation.host.is_running else "as soon as a host runs"


def _if_hosted(situation: Situation) -> str:
    if not situation.host.is_running:
        return ", if a host runs"
    return "" if situation.is_served else ", if a host serves its type by then"


# --- messages ---


def _arriving(situation: Situation) -> list[Prospect]:
    if not situation.arriving:
        return []
    first = situation.arriving[0]
    more = f", and {counted(len(situation.arriving) - 1, 'more message')}" if len(situation.arriving) > 1 else ""
    words = _WORDS.get(first.kind) or f"the {first.kind.name.lower()}"
    sent = f", sent {distance(first.sent_at, situation.now)}," if first.sent_at else ""
    text = f"{words} {first.name}".rstrip() + f"{sent} is in the inbox{more}: "
    if situation.host.is_running and not situation.is_served:
        text += "put among the dead letters, since its type is not served"
    elif _comes_too_late(situation, first.kind):
        text += f"turned away {_soon(situation)}, since its workflow has ended"
    else:
        text += f"taken in {_soon(situation)}"
    return [Prospect("message", text)]


def _interrupts(situation: Situation) -> Iterator[Prospect]:
    head = situation.stand.interrupt
    if head is not None:
        yield Prospect("message", _handled(situation, head, "interrupt"))


def _events(situation: Situation) -> Iterator[Prospect]:
    stand, head = situation.stand, situation.stand.event
    if head is None:
        return
    back_off = None if stand.snapshot is None else stand.snapshot.back_off
    if stand.standing.is_waiting:
        yield Prospect("message", f"{called(head)} waits until its workflow has begun again, or has failed for good")
    elif back_off is not None:
        when = _when(situation, back_off.due)
        yield Prospect("retry", f"{when}: {called(head)} is tried again (attempt {back_off.attempts + 1})", back_off.due)
    elif stand.standing.holds:
        many = f"{counted(head.depth, 'event')} {'waits' if head.depth == 1 else 'wait'}"
        yield Prospect("message", f"{many}, first {called(head)}, until the event's handler that is under way has ended")
    else:
        yield Prospect("message", _handled(situation, head, "event"))


def _handled(situation: Situation, head: Head, what: str) -> str:
    more = f", and {counted(head.depth - 1, f'more {what}')} after it" if head.depth > 1 else ""
    if head.envelope.id in situation.busy:
        return f"{called(head)} is being handled just now{more}"
    if _comes_too_late(situation, head.envelope.kind):
        return f"{called(head)} is turned away {_soon(situation)}, since its workflow has ended{more}"
    return f"{called(head)} is handled {_soon(situation)}{more}"


def _comes_too_late(situation: Situation, kind: Kind) -> bool:
    """Whether a workflow's end has left nobody to take a message of that kind, and none that waits begins it again."""
    stand = situation.stand
    is_begun_again = any(head is not None and head.envelope.kind in STARTS for head in (stand.interrupt, stand.event))
    return kind in FOR_THE_LIVING and stand.has_ended and stand.standing.successor is None and not is_begun_again


# --- what a time has been set for ---


def _due(situation: Situation) -> Iterator[Prospect]:
    standing = situation.stand.standing
    if standing.run is not None and standing.run.again is not None:
        yield Prospect("restart", f"{_when(situation, standing.run.again)}: its workflow begins again", standing.run.again)
    if situation.stand.status == "suspended":
        for request in situation.requests.values():
            if request.kind is RequestKind.STEP:
                yield _attempt(situation, request)
    if standing.wake is not None and not standing.is_waiting:
        yield Prospect("timer", f"{_when(situation, standing.wake)}: its clock wakes it (a sleep or a time-out)", standing.wake)
    for timer in standing.timers:
        yield Prospect("timer", f"{_when(situation, timer.due)}: its timer {timer.name} fires", timer.due)


def _when(situation: Situation, due: float) -> str:
    if due > situation.now:
        return f"at {moment(due, situation.now)}{_if_hosted(situation)}"
    return f"{_soon(situation)}, due {distance(due, situation.now)}"


def _attempt(situation: Situation, row: RequestRow) -> Prospect:
    attempt, at = f"(attempt {row.attempt})", row.due or None
    if row.id in situation.busy:
        return Prospect("step", f"the step {row.name} runs now {attempt}; when it ends, it goes on", at)
    again = "is tried again" if row.attempt > 1 else "begins"
    if at is not None and at > situation.now:
        return Prospect("step", f"the step {row.name} {again} {distance(at, situation.now)}{_if_hosted(situation)} {attempt}", at)
    ready = situation.host.is_running and situation.is_served
    soon = "as soon as there is a place for it, and a host that knows it" if ready else _soon(situation)
    return Prospect("step", f"the step {row.name} {again} {soon} {attempt}", at)


# --- what it takes from elsewhere ---


def _wanted(situation: Situation) -> Iterator[str]:
    """Who would have to do what, for it to go on."""
    stand = situation.stand
    if stand.standing.is_waiting and stand.standing.run is not None and stand.standing.run.again is None:
        yield "its parent has said what becomes of its failure"
    for wait in stand.waits[:WAITS_TOLD]:
        match wait.kind:
            case "signal":
                yield f"somebody sends {wait.name}"
            case "condition":
                yield f"a message makes its condition {wait.name or '(a lambda)'} hold"
            case "primitive":
                yield "its own code sets free what it waits for"
            case _ if wait.target is not None:
                yield f"{ActorId(*wait.target)} answers"
    if stand.status == "suspended" and not stand.waits:
        yield "its own code sets free what it waits for"


def _cures(situation: Situation) -> tuple[str, ...]:
    stand = situation.stand
    signals = dict.fromkeys(wait.name for wait in stand.waits[:WAITS_TOLD] if wait.kind == "signal")
    sent = (_commands.send_signal(stand.id, name, situation.types) for name in signals)
    targets = dict.fromkeys(ActorId(*wait.target) for wait in stand.waits[:WAITS_TOLD] if wait.target is not None)
    return (*(command for command in sent if command), *map(_commands.explain, targets))


def _ended(situation: Situation) -> Prospect:
    stand = situation.stand
    if stand.standing.successor is not None:
        return Prospect("restart", f"its next life begins {_soon(situation)}")
    retire = stand.standing.retire
    ended = {"completed": "it has completed", "failed": "it has failed", "cancelled": "it was cancelled"}[stand.status]
    if retire is None:
        return Prospect("nothing", f"nothing: {ended}, and is kept for good")
    if retire > situation.now:
        return Prospect("forgotten", f"nothing: {ended}; it is forgotten at {moment(retire, situation.now)}", retire)
    return Prospect("forgotten", f"nothing: {ended}; it is forgotten {_soon(situation)}", retire)
