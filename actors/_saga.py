"""Sagas: what was done by steps is undone by other steps, in reverse, when the block around them is left by an error, a cancel, a time-out.

The idea is H. Garcia-Molina's and K. Salem's (Sagas, SIGMOD 1987). A compensation is registered before its step is asked for, so a step
that may have been done is never forgotten; one of which it is certain that it was not done is not undone. Undoing is not interrupted: it is
the actor's own code with recorded steps, so it goes on after a crash where it was.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, final

from ._codec import PICKLE
from ._coroutines import ambient
from ._endings import ContinueAsNew
from ._failure import Failure
from ._outcome_errors import CompensationFailed, StepFailed
from ._outcomes import hold_back
from ._records import Outcome, Raised, Value
from ._step import UNDOING, Compensated, Step, Undoing, Unknown

P = ParamSpec("P")


@final
class _Entry:
    """A call that may have to be undone by `step`; `undoes` is the one that it is the compensation of, with its idempotency key.

    `heard` is done when it is known how that has ended, or known that it will not be known; `caller` is the task that waits for it.
    """

    __slots__ = ("arguments", "caller", "heard", "outcome", "step", "undoes")

    def __init__(self, step: Step[..., Any], arguments: tuple[Any, Any], undoes: tuple[str, str] | None = None) -> None:
        self.step: Final = step
        self.arguments: Final = arguments
        self.undoes: Final = undoes
        self.caller: Final = asyncio.current_task()
        self.heard: asyncio.Future[None] | None = None  # made when somebody waits for it
        self.outcome: Outcome | None = None

    @property
    def is_needed(self) -> bool:
        """Whether there is, or may be, something to undo."""
        if not isinstance(self.outcome, Raised):
            return True
        error = self.outcome.failure.revive()
        return not isinstance(error, StepFailed) or error.uncertain

    def compensated(self) -> bytes | None:
        """What the compensation is told."""
        if self.undoes is None:
            return None
        outcome = PICKLE.decode(self.outcome.payload) if isinstance(self.outcome, Value) else Unknown
        return PICKLE.encode(tuple(Compensated(*self.undoes, outcome)))


@final
class Saga:
    """What is to be undone if the block is left by an error. Made by `saga()`."""

    __module__ = "perdure.actors"
    __slots__ = ("_around", "_coroutines", "_entries", "_is_left", "_running")

    def __init__(self) -> None:
        self._coroutines: Final = ambient("saga()")[0]
        self._entries: list[_Entry] = []
        self._running: dict[int, _Entry] = {}  # steps whose end has not been heard of, in the order in which they were asked for
        self._around: Undoing | None = None
        self._is_left = False

    def __repr__(self) -> str:
        return f"<Saga of {len(self._entries)} steps>"

    def push(self, step: Step[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Let a step be run if the saga is undone, before those that were registered earlier. Raises WrongArguments, NotSerializable."""
        self._entries.append(_Entry(step, step.call.decode_call(step.call.encode_call(args, kwargs))))

    def expect(self, step: Step[..., Any], payload: bytes, key: str) -> Any:
        """As `Undoing.expect`. Raises CancelledError once the saga has been left: nothing that begins now would ever be undone."""
        if self._is_left:
            raise asyncio.CancelledError("the saga around it has been left")
        assert step.given.compensate is not None
        entry = _Entry(step.given.compensate, step.call.decode_call(payload), (step.name, key))
        self._entries.append(entry)
        self._running[id(entry)] = entry

        def hear(outcome: Outcome | None) -> None:
            del self._running[id(entry)]
            entry.outcome = outcome
            if entry.heard is not None:
                entry.heard.set_result(None)

        return hear

    async def __aenter__(self) -> Self:
        self._around = UNDOING.get()
        UNDOING.set(self)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        UNDOING.set(self._around)
        self._is_left = True
        if self._coroutines.evicted or isinstance(error, GeneratorExit):
            return
        is_well = error is None or isinstance(error, ContinueAsNew)
        if is_well and not self._running:
            self._hand_over()
            return
        if not self._entries:
            return
        undone = list(self._running.values()) if is_well else self._entries
        self._coroutines.undoing += 1
        try:
            held = await self._release()
            errors, held = await self._undo(undone, held)
        finally:
            self._coroutines.undoing -= 1
        if errors:
            raise CompensationFailed(self._coroutines.require_turn("saga").actor, errors) from error
        if held is not None:
            raise held
        if is_well:
            self._entries = [entry for entry in self._entries if entry not in undone]
            self._hand_over()

    def _hand_over(self) -> None:
        """It has ended well: a saga around it would have to undo what was done in it."""
        if isinstance(self._around, Saga):
            self._around._entries += self._entries

    async def _release(self) -> asyncio.CancelledError | None:
        """Cancel the steps that nobody waits for any more, and hear how they end."""
        held: asyncio.CancelledError | None = None
        for entry in list(self._running.values()):
            if entry.caller is not None:
                entry.caller.cancel("the saga around it has been left")
        while self._running:
            entry = next(iter(self._running.values()))
            entry.heard = asyncio.get_running_loop().create_future()
            held = await hold_back(entry.heard) or held
        return held

    async def _undo(
        self, entries: list[_Entry], held: asyncio.CancelledError | None
    ) -> tuple[list[StepFailed], asyncio.CancelledError | None]:
        """Run the compensations, the latest first; returns those that failed for good, and a cancel that was held back."""
        errors: list[StepFailed] = []
        for entry in reversed(entries):
            if not entry.is_needed:
                continue
            step, (args, kwargs) = entry.step, entry.arguments
            payload, request = step.ask(self._coroutines, args, kwargs, entry.compensated())
            outcome, cancelled = await self._coroutines.outcomes.wait_to_the_end(request, step.name)
            held = held or cancelled
            if isinstance(outcome, Raised):
                errors.append(self._put_aside(step, payload, outcome.failure))
        return errors, held

    def _put_aside(self, step: Step[..., Any], payload: bytes, failure: Failure) -> StepFailed:
        error = failure.revive()
        assert isinstance(error, StepFailed)
        self._coroutines.require_turn("saga").put_aside(step.name, payload, failure, error.failed, error.interrupted)
        return error


def saga() -> Saga:
    """Begin a block (`async with …`) in which steps are undone by others, if it is left by an error, a cancel or a time-out.

    Each step with `compensate=` that is called inside, also by tasks that begin inside, registers its compensation before it starts;
    `undo.push(step, …)` registers one by hand. Leaving the block first cancels the steps that still run and waits for their end. Then the
    compensations run in reverse order, each a recorded step with its own retries, and not interrupted; steps of which it is certain that
    they were not done are left out. If one fails for good the others still run, and CompensationFailed is raised. A saga that ends well
    within another one leaves its compensations to that. Raises NotInActor elsewhere.
    """
    return Saga()
