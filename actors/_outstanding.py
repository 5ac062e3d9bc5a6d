"""What an actor has asked for and is not done: what is known of it, and what its end would be called."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, final

import msgspec

from ._clock import Alarm
from ._codec import PICKLE
from ._errors import WorkerDied
from ._failure import Failure
from ._ids import ActorId
from ._outcome_errors import StepFailed
from ._records import Outcome, Raised, RequestRow
from ._step import DEFAULTS, Step, StepOptions, idempotency_key_of
from ._turnstile import Ticket

if TYPE_CHECKING:
    from ..tracing import Draft


@final
class Outstanding:
    """One outstanding request. `row` is as it stands in the store, or newer."""

    __slots__ = (
        "actor",
        "alarm",
        "began",
        "error",
        "expired",
        "first",
        "is_recovered",
        "limited",
        "options",
        "row",
        "span",
        "started",
        "step",
        "task",
        "ticket",
    )

    def __init__(self, actor: ActorId, row: RequestRow, *, is_recovered: bool = False) -> None:
        self.actor = actor
        self.row = row
        self.is_recovered = is_recovered  # an earlier host has left it
        self.step: Step[..., Any] | None = None  # None if it is no step, or not known yet
        self.options = DEFAULTS
        self.task: asyncio.Task[None] | None = None
        self.alarm: Alarm | None = None  # for the next attempt
        self.ticket: Ticket | None = None  # for its turn
        self.started = 0.0  # this attempt, in seconds since the epoch; 0.0 while none runs
        self.began = 0.0  # the same of the last attempt, until its end was told
        self.error: str | None = None  # the class of what that has failed with
        self.first = row.first  # the first attempt, in seconds since the epoch
        self.limited = False  # this attempt has a time-out
        self.expired = False
        self.span: Draft | None = None  # of this attempt, where somebody listens

    def __repr__(self) -> str:
        return f"<Outstanding {self.row.name} of {self.actor}, attempt {self.attempt}>"

    @property
    def attempt(self) -> int:
        """As `RequestRow.attempt`."""
        return self.row.attempt

    def is_certain(self, error: BaseException) -> bool:
        """Whether an attempt that raised this has done nothing: it ended by itself, whatever it says about being cancelled."""
        was_cancelled = self.expired or (self.row.ending and self.step is not None and self.step.is_async)
        return not was_cancelled and not isinstance(error, WorkerDied)

    def wait_no_more(self) -> None:
        """It is to begin neither at a time nor in its turn."""
        for awaited in (self.alarm, self.ticket):
            if awaited is not None:
                awaited.cancel()

    def failed(self, reason: str, cause: Exception | None = None) -> StepFailed:
        """The error of a step that failed for good."""
        row = self.row
        key, uncertain = idempotency_key_of(self.actor, row.id), row.uncertain or row.interrupted > 0
        error = StepFailed(row.name, self.actor, reason, row.failed, row.interrupted, key, uncertain)
        error.__cause__ = cause
        return error

    def lost(self, reason: str) -> StepFailed:
        """The error of a step that was done, and of which nobody will hear what it returned."""
        self.row = msgspec.structs.replace(self.row, uncertain=True)
        return self.failed(reason)

    def cancelled(self, *, uncertain: bool = False) -> Outcome:
        """The outcome of a step that was asked to end; `uncertain` if an attempt was at it."""
        if uncertain:
            self.row = msgspec.structs.replace(self.row, uncertain=True)
        return Raised(Failure.of(self.failed("it was cancelled")))


def recorded_options(options: bytes) -> StepOptions:
    """The options of a step where they are not its own, as `Step` has encoded them. Raises NotDeserializable, TypeError."""
    given: dict[str, Any] = PICKLE.decode(options)  # type: ignore[assignment]
    return StepOptions(**given)
