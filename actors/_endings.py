"""Endings: what a handler, a workflow, and with it a life of the actor, comes to.

A life that ends does so once: what still waits is asked to end, has a time to clean up, and is then left behind; further wishes to end it
interrupt nothing, and decide only whether another life follows.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from typing import NamedTuple, TypeAlias, final

from ._envelope import Envelope, Kind
from ._errors import NotDurable
from ._failure import Failure
from ._handlers import Handler
from ._ids import ActorId
from ._outcome_errors import ActorCancelled
from ._records import OUTCOME, Outcome, Raised, Status, Value, refusal
from ._turnloop import CURE, TurnTask

logger = logging.getLogger("perdure.actors")


class ContinueAsNew(BaseException):
    """Ends a life of the workflow and begins the next one. Control flow: clean-up runs, `except Exception` does not see it."""

    def __init__(self, payload: bytes) -> None:
        super().__init__(payload)
        self.payload = payload


@final
class Ending(NamedTuple):
    """A handler's end: of which message, and what came of it (None if nobody wants to know).

    `partly` is whether it failed after the turn in which it began, so that what it did before is done. `seq` is 0 of a task that nobody
    looked after.
    """

    seq: int
    envelope: Envelope
    outcome: Outcome | None
    partly: bool = False


@final
class Ended(NamedTuple):
    """A life's end for good: completed, failed or cancelled."""

    outcome: Outcome
    status: Status


@final
class Continued(NamedTuple):
    """The workflow goes on in another life, with the same state and other arguments."""

    payload: bytes


@final
class Renewed(NamedTuple):
    """The workflow begins again in another life, with the same arguments and a fresh state, not before `due` (seconds since the epoch)."""

    due: float


LifeEnd: TypeAlias = Ended | Continued | Renewed


@final
class Closing:
    """The end of a life under way. `end` is what it comes to, None while the workflow has not ended.

    `verdict` is what it comes to if it lets itself be cancelled. `asked` is whether handlers have been asked to end, `swept` whether all
    other tasks have; `alarm` is when their time is over, `overdue` whether it is; `sagas` how many were open when all tasks were cancelled
    because of that.
    """

    __slots__ = ("alarm", "asked", "end", "overdue", "reason", "sagas", "swept", "verdict")

    def __init__(self, reason: str, verdict: LifeEnd | None = None) -> None:
        self.reason = reason
        self.verdict = verdict
        self.end: LifeEnd | None = None
        self.asked = False
        self.swept = False
        self.overdue = False
        self.sagas = sys.maxsize
        self.alarm: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Closing because {self.reason}, {'overdue' if self.overdue else 'in time'}>"

    def cancelled(self, actor: ActorId) -> LifeEnd:
        """What the life comes to if it lets itself be cancelled: it was said for what, or it is cancelled and nothing else."""
        return self.verdict or Ended(refusal(ActorCancelled(actor, self.reason)), Status.CANCELLED)

    def heed(self, later: Closing, actor: ActorId) -> bool:
        """Another wish to end the life; returns whether it counts: it does where another life was to follow, and is not wished."""
        end = self.end or self.cancelled(actor)
        wish = later.cancelled(actor)
        if _finality(wish) <= _finality(end):
            return False
        self.reason, self.verdict = later.reason, later.verdict
        self.end = self.end and wish
        return True

    def expire(self) -> None:
        """The time to clean up is over."""
        self.overdue = True

    def complain(self, actor: ActorId, tasks: list[TurnTask], grace: float) -> None:
        """Say what did not end in time, and is left behind."""
        names = ", ".join(task.get_name() for task in tasks)
        told = "%s was to end (%s) and did not within %g s, so this is broken off: %s; give it longer: durable_actor(cancel_grace=…)"
        logger.warning(told, actor, self.reason, grace, names)


def closing_for(envelope: Envelope) -> Closing:
    """The end of a life that a message asks for: a cancel, a new beginning, the failure of another message."""
    if envelope.kind is Kind.CANCEL:
        return Closing(envelope.payload.decode(errors="replace"))
    if envelope.kind is Kind.RENEW:
        return Closing("its supervisor begins it again", Renewed(envelope.due))
    poison = OUTCOME.unpack(envelope.payload)
    return Closing(f"{envelope.name} could not be handled", Ended(poison, Status.FAILED))


def _finality(end: LifeEnd) -> int:
    return (Continued, Renewed, Ended).index(type(end))


def handler_outcome(task: TurnTask, handler: Handler, envelope: Envelope, actor: ActorId, closing: Closing | None) -> Outcome | None:
    """What came of an event's handler, if anybody wants to know, or if it failed; raises nothing."""
    try:
        answer = task.result()
        return Value(handler.encode_result(answer, envelope.form)) if envelope.wants_outcome else None
    except BaseException as error:  # noqa: BLE001  a handler raises whatever it likes
        if closing is not None and isinstance(error, asyncio.CancelledError):
            return refusal(ActorCancelled(actor, closing.reason))
        return Raised(Failure.of(explained(error)))


def life_end(task: TurnTask, handler: Handler, actor: ActorId, unretrieved: BaseException | None, closing: Closing | None) -> LifeEnd:
    """What the workflow's end means for the actor; `unretrieved` is of a task that nobody looked after, and that it fails with."""
    try:
        answer = task.result()
        if unretrieved is not None:
            return failed(unretrieved)
        return Ended(Value(handler.encode_result(answer)), Status.COMPLETED)
    except asyncio.CancelledError as cancelled:
        if unretrieved is not None:
            return failed(unretrieved)
        if closing is not None:
            return closing.cancelled(actor)
        reason = " ".join(str(part) for part in cancelled.args if part)
        return Ended(refusal(ActorCancelled(actor, reason)), Status.CANCELLED)
    except BaseException as error:  # noqa: BLE001  a workflow raises whatever it likes
        again = continues(error)
        if again is None:
            return failed(explained(error))
        return Continued(again.payload) if closing is None else closing.cancelled(actor)  # whoever is to end does not go on


def failed(error: BaseException) -> Ended:
    """A life that ends by an error."""
    return Ended(Raised(Failure.of(error)), Status.FAILED)


def explained(error: BaseException) -> BaseException:
    """The error, or what it means here: asyncio itself refuses to await a future of another loop, and cannot know whose loop this is."""
    if not isinstance(error, RuntimeError) or "attached to a different loop" not in str(error):
        return error
    frame = traceback.extract_tb(error.__traceback__)[-1]
    refused = NotDurable(f"a future of another loop ({frame.filename}:{frame.lineno}, in {frame.name})", CURE)
    refused.__cause__ = error
    return refused


def continues(error: BaseException) -> ContinueAsNew | None:
    """The wish to continue as new, also where task groups have wrapped it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, ContinueAsNew) else None
