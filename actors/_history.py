"""The history of actors, where it is kept: a row for each turn, in the batch of that turn.

What is kept begins, and goes, with whole stretches (of turns that something waits in between), so that all of it can be replayed.
"""

from __future__ import annotations

from typing import final

import msgspec

from ._activation import Activation
from ._endings import Ended
from ._epoch import Epoch
from ._failure import Failure
from ._mailbox import Item
from ._persistence import drop_history, put_history_row
from ._records import Asked, Checkpoint, HistoryRow, LogEntry, Raised, Snapshot, Status
from ._standing import anyio_version, python_version
from ._taking import Taken
from ._turn import Turn


@final
class History:
    """Writes the histories of one epoch's actors; what notes something returns how many bytes were staged, 0 where nothing is kept."""

    __slots__ = ("_epoch",)

    def __init__(self, epoch: Epoch) -> None:
        self._epoch = epoch

    def __repr__(self) -> str:
        return f"<History of {self._epoch.fence}>"

    def note(self, activation: Activation, item: Item, taken: Taken, turn: Turn, before: Snapshot | None) -> int:
        """The actor's code has handled a message; `before` is how the actor was then."""
        if not self._limit(activation):
            return 0
        was_suspended = before is not None and before.status is Status.SUSPENDED
        logged = before.standing.logged if was_suspended and before is not None and before.standing is not None else 0
        place = logged + 1 if was_suspended or taken.suspended else 0
        row = HistoryRow(
            _entry(item, turn, taken.asked),
            _status(activation),
            activation.definition.version,
            place,
            Checkpoint(before, python_version(), anyio_version()) if place == 1 else None,
            taken.state if was_suspended and not taken.suspended else None,
            failure=_failure_of(taken),
        )
        return self._put(activation, turn.number, row, is_whole=not was_suspended)

    def note_passed(self, activation: Activation, item: Item, turn: Turn) -> int:
        """The host has taken a message, and nothing of the actor's state changed."""
        if not self._limit(activation):
            return 0
        row = HistoryRow(_entry(item, turn), _status(activation), activation.definition.version, by_host=True)
        return self._put(activation, turn.number, row, is_whole=row.status is not Status.SUSPENDED)

    def note_failed(self, activation: Activation, item: Item, turn: Turn, failure: Failure) -> int:
        """A message failed, and nothing of it happened; where its turn is taken again, that row takes the place of this one."""
        if not self._limit(activation):
            return 0
        row = HistoryRow(_entry(item, turn), _status(activation), activation.definition.version, failure=failure)
        return self._put(activation, turn.number, row, is_whole=False)

    def _limit(self, activation: Activation) -> int:
        return max(self._epoch.keep_history, activation.definition.keep_history)

    def _put(self, activation: Activation, number: int, row: HistoryRow, *, is_whole: bool) -> int:
        """`is_whole` is whether nothing waited when the turn began: what was before it can go."""
        batch, recent = self._epoch.commit.batch, activation.standing.recent
        # Two generations: the older goes once the younger one is long enough by itself, so nothing has to be read for it.
        if is_whole and number - recent >= self._limit(activation):
            if recent:
                drop_history(batch, activation.actor, recent)
            activation.rearm(msgspec.structs.replace(activation.standing, recent=number))
        return put_history_row(batch, activation.suffix, number, row)


def history_of(epoch: Epoch) -> History | None:
    """What writes the histories of an epoch; None if none is kept of any actor."""
    keeps = epoch.keep_history or any(each.keep_history for type_ in epoch.registry for each in epoch.registry.versions(type_.name))
    return History(epoch) if keeps else None


def _entry(item: Item, turn: Turn, asked: list[Asked] | None = None) -> LogEntry:
    return LogEntry(turn.number, item.seq, turn.time, item.envelope, asked or [], turn.attempt)


def _status(activation: Activation) -> Status:
    return Status.IDLE if activation.snapshot is None else activation.snapshot.status


def _failure_of(taken: Taken) -> Failure | None:
    """Why the workflow has failed, if it has in that turn."""
    outcome = taken.end.outcome if isinstance(taken.end, Ended) and taken.end.status is Status.FAILED else None
    return outcome.failure if isinstance(outcome, Raised) else None
