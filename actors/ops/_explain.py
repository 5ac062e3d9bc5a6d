"""An explanation of one actor: what it waits for, what it did last, what went wrong, and what happens next, as sentences and as data.

It is made of a situation alone. The sentences are for people, and may change; the fields beside them are for programs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, final

import msgspec

from .._breadcrumb import Phase
from .._failure import Failure
from .._ids import ActorId, MessageId
from .._past import HistoryEntry
from .._records import Raised, RequestRow, Wait
from . import _commands
from ._pickles import outline
from ._prospects import Prospect, called, first_line, prospects, retries
from ._situation import LINKS, WAITS_TOLD, Situation, Stand
from ._tree import inline
from ._wording import counted, moment

PROGRESS_SHOWN: Final = 120  # characters of what a heartbeat said
ASKED_SHOWN: Final = 5  # of what one turn asked for


@final
class Link(msgspec.Struct, frozen=True):
    """An actor that is waited for, or a child.

    `problem` is "cycle", "quarantined", "failed", "cancelled" or "missing" where nothing comes from there by itself.
    """

    type: str
    key: str
    status: str
    text: str
    problem: str | None = None
    commands: tuple[str, ...] = ()


@final
class Awaited(msgspec.Struct, frozen=True):
    """Something that the actor waits for: `kind` and `name` as of `Waiting`, or "named timer", or "back-off" (of an event).

    Times are seconds since the epoch. `attempt`, `next_attempt`, `is_running`, `error` and `progress` are of a step. `chain` are the actor
    whose outcome it is, the one that this waits for in turn, and so on.
    """

    kind: str
    name: str
    since: float | None
    until: float | None
    text: str
    commands: tuple[str, ...] = ()
    attempt: int | None = None
    next_attempt: float | None = None
    is_running: bool | None = None
    error: str | None = None
    progress: str | None = None
    chain: tuple[Link, ...] = ()


@final
class Trouble(msgspec.Struct, frozen=True):
    """Something that went wrong: `kind` is "quarantine", "workflow", "event", "step", "crash" or "dead letters"."""

    kind: str
    text: str
    at: float | None = None
    traceback: str | None = None
    commands: tuple[str, ...] = ()


@final
class LastTurn(msgspec.Struct, frozen=True):
    """A message that was handled, and what came of it. As of `HistoryEntry`; `asked` is cut short."""

    turn: int
    seq: int
    at: float
    kind: str
    name: str
    attempt: int
    asked: tuple[str, ...]
    status: str
    error: str | None
    text: str


@final
class HostTold(msgspec.Struct, frozen=True):
    """The host: whether it runs (None: that cannot be told), its process, and since when."""

    is_running: bool | None
    pid: int
    since: float
    text: str
    commands: tuple[str, ...] = ()


@final
class Explanation(msgspec.Struct, frozen=True):
    """All that is told. `since` is when it came to its status, in seconds since the epoch; None where that is not known."""

    type: str
    key: str
    status: str
    version: int
    incarnation: str
    since: float | None
    text: str
    host: HostTold
    waits: tuple[Awaited, ...]
    children: tuple[Link, ...]
    children_in_all: int
    turns: tuple[LastTurn, ...]
    errors: tuple[Trouble, ...]
    next: tuple[Prospect, ...]


def explain(situation: Situation, store: str) -> Explanation:
    """What is to be said of a situation; `store` is the URL that commands take."""
    stand, snapshot = situation.stand, situation.stand.snapshot
    since = _since(situation)
    return Explanation(
        *stand.id,
        status=stand.status,
        version=0 if snapshot is None else snapshot.version,
        incarnation="" if snapshot is None else snapshot.incarnation.hex(),
        since=since,
        text=_standing_line(situation, since),
        host=_host(situation, store),
        waits=tuple(_waits(situation)),
        children=tuple(_children(situation)),
        children_in_all=stand.standing.children,
        turns=tuple(_turn(entry, situation.now) for entry in situation.turns),
        errors=tuple(_troubles(situation)),
        next=tuple(prospects(situation)),
    )


# --- how it stands ---


def _since(situation: Situation) -> float | None:
    stand = situation.stand
    if stand.quarantine is not None:
        return stand.quarantine.at
    if stand.snapshot is None or stand.damage is not None:
        return None
    return situation.suspended_since or stand.snapshot.updated


def _standing_line(situation: Situation, since: float | None) -> str:
    stand, snapshot = situation.stand, situation.stand.snapshot
    if stand.status == "missing":
        return f"{stand.id} does not exist: its first message is on its way, or what is left of it are dead letters"
    if stand.status == "new":
        return f"{stand.id} has had no turn yet: its first message waits"
    told = f"{stand.id} is {stand.status}" + (f" since {moment(since, situation.now)}" if since else "")
    if snapshot is not None:
        told += f", version {snapshot.version}, in life {snapshot.incarnation.hex()[:8]}"
        parent = stand.standing.parent
        if parent is not None:
            again = f", begun again {counted(parent.life, 'time')}" if parent.life else ""
            told += f" (a child of {parent.type}/{parent.key}{again})"
    return told + ("; it is at work, and this may be of several of its turns" if situation.is_moving else "")


def _host(situation: Situation, store: str) -> HostTold:
    host = situation.host
    known = host.is_running, host.pid, host.since
    last = f"process {host.pid}, since {moment(host.since, situation.now)}" if host.pid else ""
    if host.is_running:
        text = f"a host runs: {last}"
        if not situation.is_served:
            text += f". It does not serve {situation.stand.id.type}: nothing happens until one does"
        return HostTold(*known, text)
    start = (_commands.run(store),)
    if host.is_running is None:
        why = f"the last one, {last}, has no door that can be tried"
        return HostTold(*known, f"it cannot be told whether a host runs: {why}. If it does not, start one", start)
    last = f" (the last one was {last})" if last else ""
    if situation.stand.is_done:
        return HostTold(*known, f"no host runs{last}")
    return HostTold(*known, f"no host runs{last}: nothing happens until one is started", start)


# --- what it waits for ---


def _waits(situation: Situation) -> Iterator[Awaited]:
    stand, standing, now = situation.stand, situation.stand.standing, situation.now
    for wait in stand.waits[:WAITS_TOLD]:
        tell = _TELLERS.get(wait.kind, _outcome if wait.target is not None else _plain)
        yield tell(situation, wait)
    if len(stand.waits) > WAITS_TOLD:
        yield Awaited("others", "", None, None, f"{len(stand.waits) - WAITS_TOLD:,} more")
    if stand.status == "suspended" and not stand.waits:
        yield _plain(situation, Wait("primitive", ""))
    if standing.is_waiting and standing.run is not None:
        again = standing.run.again
        text = "its parent's verdict on its failure" if again is None else f"its next life, which begins at {moment(again, now)}"
        yield Awaited("restart", "" if again is not None else "its parent's verdict", _since(situation), again, text)
    back_off = None if stand.snapshot is None else stand.snapshot.back_off
    if back_off is not None and stand.event is not None:
        name = stand.event.envelope.name
        failed = counted(back_off.attempts, "time")
        text = f"{called(stand.event)} to be tried again, at {moment(back_off.due, now)}: it has failed {failed}"
        yield Awaited("back-off", name, None, back_off.due, text, attempt=back_off.attempts + 1, next_attempt=back_off.due)
    for timer in standing.timers:
        every = f", and every {timer.every:g} s" if timer.every else ""
        yield Awaited("named timer", timer.name, None, timer.due, f"its timer {timer.name}: {moment(timer.due, now)}{every}")


def _plain(situation: Situation, wait: Wait) -> Awaited:
    return Awaited(wait.kind, wait.name, wait.since or None, wait.until or None, _brief(wait, situation.now) + _after(situation, wait))


def _after(situation: Situation, wait: Wait) -> str:
    return f", since {moment(wait.since, situation.now)}" if wait.since else ""


def _brief(wait: Wait, now: float) -> str:
    """What is waited for, in a few words."""
    target = "" if wait.target is None else str(ActorId(*wait.target))
    until = f" {moment(wait.until, now)}" if wait.until else ""
    words = {
        "step": f"the step {wait.name}",
        "signal": f"the signal {wait.name}",
        "result": f"the outcome of {target}",
        "start": f"the start of {target}",
        "ask": f"the answer of {target} to {wait.name}",
        "condition": f"a condition to hold: {wait.name or 'a lambda'}",
        "timer": f"its clock, a sleep or a time-out:{until}",
        "primitive": "a lock, an event or a queue of its own, which its own code sets free",
        "end": f"its own end, for it cleans up{f' until{until}' if until else ''}: {wait.name or 'it was asked to end'}",
        "others": f"{wait.name} outcomes",
    }
    return words.get(wait.kind) or f"the answer of {target} to {wait.kind} {wait.name}".rstrip()


def _signal(situation: Situation, wait: Wait) -> Awaited:
    command = _commands.send_signal(situation.stand.id, wait.name, situation.types)
    how = "somebody has to send it" if command is not None else "a program has to send it, since its arguments have no form in JSON"
    text = f"{_brief(wait, situation.now)}{_after(situation, wait)}: {how}"
    return Awaited("signal", wait.name, wait.since or None, None, text, () if command is None else (command,))


def _step(situation: Situation, wait: Wait) -> Awaited:
    row = situation.requests.get(MessageId(wait.request))
    if row is None:
        return _plain(situation, wait)
    is_running = None if situation.host.is_running is None else situation.busy.get(row.id) is Phase.STEP
    error = None if row.failure is None else _failure_line(row.failure)
    progress = None if row.progress is None else inline(outline(row.progress)[0], PROGRESS_SHOWN) or "…"
    text = f"{_brief(wait, situation.now)}{_after(situation, wait)}: {_attempt(situation, row, is_running)}"
    if row.interrupted:
        text += f"; its host died {counted(row.interrupted, 'time')} while it ran"
    if error is not None:
        text += f"; the attempt before failed with {error}"
    if progress is not None:
        text += f"; its last heartbeat said {progress}"
    return Awaited("step", wait.name, wait.since or None, None, text, (), row.attempt, row.due or None, is_running, error, progress)


def _attempt(situation: Situation, row: RequestRow, is_running: bool | None) -> str:
    attempt = f"attempt {row.attempt}" + (", which is asked to end," if row.ending else "")
    if is_running:
        return f"{attempt} runs now"
    if row.due > situation.now:
        return f"{attempt} begins at {moment(row.due, situation.now)}"
    if not situation.host.is_running:
        return f"{attempt} begins as soon as a host runs"
    return (
        f"{attempt} waits for its place, or for a host that knows it"
        if situation.is_served
        else f"{attempt} waits for a host that knows it"
    )


def _outcome(situation: Situation, wait: Wait) -> Awaited:
    chain = tuple(_chain(situation, wait))
    text = f"{_brief(wait, situation.now)}{_after(situation, wait)}"
    return Awaited(wait.kind, wait.name, wait.since or None, wait.until or None, text, chain=chain)


_TELLERS: Final[dict[str, Callable[[Situation, Wait], Awaited]]] = {"signal": _signal, "step": _step}


# --- whom it waits for ---


def _chain(situation: Situation, wait: Wait) -> Iterator[Link]:
    """The actor, the one that it waits for, and so on, to the end of what was read."""
    seen, waits = [situation.stand.id], [wait]
    while len(seen) <= LINKS:
        actor = _target_of(waits[-1])
        if actor in seen:
            yield _again(situation, actor, waits[seen.index(actor) :])
            return
        stand = situation.others.get(actor)
        if stand is None:
            return
        yield _link(situation, stand)
        following = [wait for wait in stand.waits if wait.target is not None]
        if not following:
            return
        seen.append(actor)
        waits.append(following[0])
    actor = _target_of(waits[-1])
    yield Link(*actor, status="", text=f"{actor}, and so on", commands=(_commands.explain(actor),))


def _again(situation: Situation, actor: ActorId, waits: list[Wait]) -> Link:
    """An actor that these lead back to. With a free slot, an ask is handled whatever else waits: that is no circle."""
    stands = {situation.stand.id: situation.stand, **situation.others}
    if all(wait.kind == "result" or stands[_target_of(wait)].standing.holds for wait in waits):
        text = f"{actor} again: a circle, in which nobody answers before something else comes, as a time-out"
        return Link(*actor, status="", text=text, problem="cycle", commands=(_commands.explain(actor),))
    return Link(*actor, status="", text=f"{actor} again, but not all of them keep the others waiting: some take messages meanwhile")


def _target_of(wait: Wait) -> ActorId:
    assert wait.target is not None
    return ActorId(*wait.target)


def _link(situation: Situation, stand: Stand) -> Link:
    actor, status = stand.id, stand.status
    problem = status if status in {"quarantined", "failed", "cancelled", "missing"} else None
    if status == "missing":
        return Link(*actor, status, f"{actor} does not exist: it was deleted, or its first message is on its way", problem)
    text = f"{actor} is {status}"
    cause = _cause(stand)
    if cause is not None:
        text += f": {cause}"
    elif stand.waits:
        text += f", and waits for {' and '.join(_brief(wait, situation.now) for wait in stand.waits[:3])}"
    again = None if stand.standing.run is None else stand.standing.run.again
    if again is not None:
        text += f"; it begins again at {moment(again, situation.now)}"
    if stand.event is not None:
        text += f"; {counted(stand.event.depth, 'event')} {'waits' if stand.event.depth == 1 else 'wait'} there"
    return Link(*actor, status, text, problem, tuple(_cures(situation, stand)))


def _cures(situation: Situation, stand: Stand) -> Iterator[str]:
    yield from retries(stand)
    for name in dict.fromkeys(wait.name for wait in stand.waits[:3] if wait.kind == "signal"):
        command = _commands.send_signal(stand.id, name, situation.types)
        if command is not None:
            yield command


def _children(situation: Situation) -> Iterator[Link]:
    for row in situation.children:
        stand = situation.others.get(ActorId(row.type, row.key))
        if stand is not None:
            link = _link(situation, stand)
            told = ("; supervised" if row.supervised else "") + (f", begun again {counted(row.life, 'time')}" if row.life else "")
            yield msgspec.structs.replace(link, text=f"{link.text}{told}; at this actor's end: {row.on_close.name.lower()}")


# --- what it did, and what went wrong ---


def _turn(entry: HistoryEntry, now: float) -> LastTurn:
    asked = tuple(_asked(each) for each in entry.asked[:ASKED_SHOWN]) + (("…",) if len(entry.asked) > ASKED_SHOWN else ())
    told = f"{moment(entry.at, now)}: {entry.kind} {entry.name}".rstrip() + f" (seq {entry.seq})"
    told += f", attempt {entry.attempt}" if entry.attempt > 1 else ""
    told += f": it asked for {', '.join(asked)}" if asked else ""
    told += f"; it failed: {first_line(entry.error)}" if entry.error else f"; then {entry.status}"
    return LastTurn(entry.turn, entry.seq, entry.at, entry.kind, entry.name, entry.attempt, asked, entry.status, entry.error, told)


def _asked(told: str) -> str:
    return f"{told} UTC" if told.startswith("timer until ") else told.removeprefix("result ")


def _failure_line(failure: Failure) -> str:
    return first_line(f"{failure.type_name}: {failure.text}" if failure.text else failure.type_name)


def _cause(stand: Stand) -> str | None:
    """Why it stands still, or failed."""
    if stand.damage is not None:
        return f"what it has in the store is damaged: {stand.damage}"
    if stand.quarantine is not None:
        return first_line(_said(stand, stand.quarantine.failure))
    outcome = None if stand.standing.run is None else stand.standing.run.outcome
    return _failure_line(outcome.failure) if isinstance(outcome, Raised) else None


def _said(stand: Stand, failure: Failure) -> str:
    """Its error; one that is of the host's making says itself that it quarantines the actor."""
    text = failure.text.removeprefix(f"{stand.id} is quarantined: ")
    return text if text != failure.text or str(stand.id) in text else f"{failure.type_name}: {text}"


def _troubles(situation: Situation) -> Iterator[Trouble]:
    stand, run = situation.stand, situation.stand.standing.run
    cause = _cause(stand)
    if stand.quarantine is not None:
        at, failure = stand.quarantine.at, stand.quarantine.failure
        text = f"it stands still: {_said(stand, failure)}"
        yield Trouble("quarantine", text, at, failure.traceback or None, retries(stand))
    elif stand.damage is not None:
        yield Trouble("quarantine", f"it stands still: {cause}")
    elif run is not None and isinstance(run.outcome, Raised) and stand.snapshot is not None:
        text = f"its workflow has {'been cancelled' if stand.status == 'cancelled' else 'failed'}: {cause}"
        yield Trouble("workflow", text, stand.snapshot.updated, run.outcome.failure.traceback or None)
    yield from _troubles_with_messages(situation)
    for row in situation.requests.values():
        if row.failure is not None:
            text = f"the step {row.name} failed in attempt {row.attempt - 1}: {_failure_line(row.failure)}"
            yield Trouble("step", text, traceback=row.failure.traceback or None)
    yield from _dead_letters(situation)


def _troubles_with_messages(situation: Situation) -> Iterator[Trouble]:
    stand = situation.stand
    back_off = None if stand.snapshot is None else stand.snapshot.back_off
    if back_off is not None and stand.event is not None:
        failed = next((entry for entry in reversed(situation.turns) if entry.seq == back_off.seq and entry.error), None)
        why = "its host's log tells with what" if failed is None else first_line(failed.error)
        text = f"{called(stand.event)} has failed {counted(back_off.attempts, 'time')}: {why}"
        yield Trouble("event", text, None if failed is None else failed.at)
    for head in (stand.interrupt, stand.event):
        if head is not None and head.interrupted:
            yield Trouble("crash", f"a host died {counted(head.interrupted, 'time')} while it worked on {called(head)}")


def _dead_letters(situation: Situation) -> Iterator[Trouble]:
    letters, are_all, newest = situation.letters
    if not letters:
        return
    text = f"{counted(letters, 'message')}{'' if are_all else ' and more'} could not be handled"
    actor = situation.stand.id
    if newest is None:
        yield Trouble("dead letters", f"{text}, the newest of which is damaged", commands=(_commands.redrive(actor),))
        return
    text += (
        f", the newest {moment(newest.at, situation.now)}: {newest.kind} {newest.handler} (seq {newest.seq}), {first_line(newest.error)}"
    )
    commands = _commands.see_letter(actor, newest.seq), _commands.redrive(actor)
    yield Trouble("dead letters", text, newest.at, newest.traceback or None, commands)
