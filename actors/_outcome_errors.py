"""What whoever waits may be told: that a workflow, a step or a wait came to no good end. Their place in the tree is drawn in `_errors`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

from ..storage import PerdureError
from ._errors import shell_form

_Parts = tuple[Any, ...]  # of an error, which make an equal one


@final
class ActorFailed(PerdureError):
    """The workflow of the actor raised, and nobody in it dealt with that. `error` is what it raised, as text.

    `compensation_errors` are the failures of what was to undo its steps: what they stand for is still done.
    """

    __module__ = "perdure.actors"

    def __init__(self, actor: object, error: str, compensation_errors: Iterable[StepFailed | _Parts] = ()) -> None:
        self.actor = str(actor)
        self.error = error
        self.compensation_errors = _steps_failed(compensation_errors)
        super().__init__(self.actor, error, tuple(each.args for each in self.compensation_errors))

    def __str__(self) -> str:
        error = self.error.removesuffix(".")
        return f"the workflow of {self.actor} failed: {error}. Its state can still be queried; start it anew with if_exists='restart'."


@final
class ChildFailed(PerdureError):
    """The workflow of a child raised, or it could not begin; the original is the cause. `error` is what it raised, as text."""

    __module__ = "perdure.actors"

    def __init__(self, child: object, parent: object, error: str) -> None:
        self.child = str(child)
        self.parent = str(parent)
        self.error = error
        super().__init__(self.child, self.parent, error)

    def __str__(self) -> str:
        error = self.error.removesuffix(".")
        return (
            f"{self.child}, a child of {self.parent}, failed: {error}. Catch this where its result is awaited, hear of it in"
            f" @on_child_exit, or let it begin again: durable_actor(supervise=OneForOne(…))."
        )


@final
class CompensationFailed(PerdureError):
    """A saga could not undo everything: `errors` are the steps that were to undo something and failed for good, the others were done.

    The cause is what the saga was undone for.
    """

    __module__ = "perdure.actors"

    def __init__(self, actor: object, errors: Iterable[StepFailed | _Parts]) -> None:
        self.actor = str(actor)
        self.errors = _steps_failed(errors)
        super().__init__(self.actor, tuple(each.args for each in self.errors))

    def __str__(self) -> str:
        told = "; ".join(f"{error.step} ({error.reason.removesuffix('.')})" for error in self.errors)
        return (
            f"a saga of {self.actor} could not undo everything: {told}. What they were to undo is still done;"
            f" each is a dead letter with its arguments, to be done by hand: perdure dead-letters list {shell_form(self.actor)}."
        )


def _steps_failed(errors: Iterable[StepFailed | _Parts]) -> tuple[StepFailed, ...]:
    """The errors, also where they come as their parts: exceptions do not compare, and the parts of an error have to."""
    return tuple(each if isinstance(each, StepFailed) else StepFailed(*each) for each in errors)


def compensation_errors_of(error: BaseException | None) -> tuple[StepFailed, ...]:
    """What an error tells of steps that could not be undone: it, its causes, and those that it is a group of."""
    found: list[StepFailed] = []
    while error is not None:
        if isinstance(error, CompensationFailed):
            found += error.errors
        if isinstance(error, BaseExceptionGroup):
            found += [each for inner in error.exceptions for each in compensation_errors_of(inner)]
        error = error.__cause__
    return tuple(found)


@final
class ActorCancelled(PerdureError):
    """The actor, or the handler that was asked, was cancelled before it could answer."""

    __module__ = "perdure.actors"

    def __init__(self, actor: object, reason: str = "") -> None:
        self.actor = str(actor)
        self.reason = reason
        super().__init__(self.actor, reason)

    def __str__(self) -> str:
        reason = f": {self.reason.removesuffix('.')}" if self.reason else ""
        return f"{self.actor} was cancelled{reason}. What it had done is done, and can be queried; start it anew with if_exists='restart'."


@final
class ActorDeadlock(PerdureError):
    """Everybody in `chain` waits for the next one, and the last for the first, with no way out."""

    __module__ = "perdure.actors"

    def __init__(self, chain: Iterable[str]) -> None:
        self.chain = tuple(chain)
        super().__init__(self.chain)

    def __str__(self) -> str:
        return (
            f"{' waits for '.join(self.chain)}: none of them can go on. Send an event and let the answer come as another one,"
            f" or give one of the waits a time-out: ref.options(timeout=…)."
        )


@final
class WorkflowNotStarted(PerdureError):
    """There is no result to wait for: the actor's workflow has not begun."""

    __module__ = "perdure.actors"

    def __init__(self, actor: object) -> None:
        self.actor = str(actor)
        super().__init__(self.actor)

    def __str__(self) -> str:
        type_name, _, key = self.actor.partition("/")
        return f"the workflow of {self.actor} has not begun. Start it: await runtime.start({type_name}.run, {key!r}, …)."


@final
class WorkflowAlreadyStarted(PerdureError):
    """The actor's workflow has begun with other arguments, or was not to have begun at all: `if_exists="fail"`, or the key of a child."""

    __module__ = "perdure.actors"

    def __init__(self, actor: object, status: str, differs: bool) -> None:
        self.actor = str(actor)
        self.status = status
        self.differs = differs
        super().__init__(self.actor, status, differs)

    def __str__(self) -> str:
        how = " with other arguments" if self.differs else ""
        return (
            f"the workflow of {self.actor} has been started{how} (it is {self.status}). Use its reference, choose another key,"
            f' or begin a new life: runtime.options(if_exists="restart").start(…).'
        )


@final
class StepFailed(PerdureError):
    """A step failed in its last attempt, or cannot be tried again. The cause is what the last attempt raised.

    `idempotency_key` is the one that all its attempts had: look there what has been done. `uncertain` is whether an attempt ended without
    saying what it did: it took too long, was cancelled, its process died, or what it returned is lost.
    """

    __module__ = "perdure.actors"

    def __init__(
        self, step: str, actor: object, reason: str, failed: int, interrupted: int, idempotency_key: str, uncertain: bool = False
    ) -> None:
        self.step = step
        self.actor = str(actor)
        self.reason = reason
        self.failed = failed
        self.interrupted = interrupted
        self.idempotency_key = idempotency_key
        self.uncertain = uncertain
        super().__init__(step, self.actor, reason, failed, interrupted, idempotency_key, uncertain)

    def __str__(self) -> str:
        counts = [f"{count} {how}" for count, how in ((self.failed, "failed"), (self.interrupted, "interrupted")) if count]
        attempts = f" (attempts: {', '.join(counts)})" if counts else ""
        reason = self.reason.removesuffix(".")
        done = "it may be done all the same" if self.uncertain else "no attempt got to its end"
        return (
            f"the step {self.step} of {self.actor} failed for good{attempts}: {reason}. Catch this where it is awaited;"
            f" {done}; look it up by its idempotency key, {self.idempotency_key}."
        )


@final
class SignalTimeout(PerdureError, TimeoutError):
    """The declared signal did not come within `seconds`."""

    __module__ = "perdure.actors"

    def __init__(self, actor: object, signal: str, seconds: float) -> None:
        super().__init__()
        self.actor = str(actor)
        self.signal = signal
        self.seconds = seconds
        self.args = (self.actor, signal, seconds)

    def __str__(self) -> str:
        return (
            f"{self.actor} waited {self.seconds:g} s for the signal {self.signal!r}, and it did not come. One that comes later is kept:"
            f" catch this, and wait again."
        )


@final
class DataLoss(PerdureError):
    """Items of a stream between `after` and `first` are gone: retention has removed them before they were read."""

    __module__ = "perdure.actors"

    def __init__(self, actor: object, after: int, first: int) -> None:
        self.actor = str(actor)
        self.after = after
        self.first = first
        super().__init__(self.actor, after, first)

    def __str__(self) -> str:
        return (
            f"the stream of {self.actor} begins at {self.first} now, and was to be read on after {self.after}."
            f" Go on with after={self.first - 1}."
        )
