"""Sagas: what was done by steps is undone by other steps, in reverse, when the block around them is left by an error, a cancel, a time-out.

The idea is H. Garcia-Molina's and K. Salem's (Sagas, SIGMOD 1987). A compensation is registered before its step is asked for, so a step
that may have been done is never forgotten; one of which it is certain that it was not done is not undone. Undoing is not interrupted: it is
the actor's own code with recorded steps, so it goes on after a crash where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, final

from ._codec import PICKLE
from ._coroutines import ambient
from ._endings import continues
from ._failure import Failure
from ._outcome_errors import CompensationFailed, StepFailed
from ._outcomes import hold_back
from ._reading import readable
from ._records import Outcome, Raised, Value
from ._step import UNDOING, Compensated, Step, Unknown

P = ParamSpec("P")


@final
class _Entry:
    """A call that may have to be undone, by `step`; `undoes` is what that is the compensation of: a step's name, an idempotency key.

    `is_heard` is whether it is known how that has ended, or known that it will not be known; then `outcome` says it.
    """

    __slots__ = ("arguments", "is_heard", "outcome", "step", "undoes")

    def __init__(self, step: Step[..., Any], arguments: tuple[Any, Any], undoes: tuple[str, str] | None = None) -> None:
        self.step: Final = step
        self.arguments: Final = arguments
        self.undoes: Final = undoes
        self.is_heard = undoes is None
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
        outcome = readable(PICKLE.decode, self.outcome.payload) if isinstance(self.outcome, Value) else Unknown
        return PICKLE.encode(tuple(Compensated(*self.undoes, outcome)))


@final
class _Running:
    """A step, or a saga, that has begun inside a saga and has not ended: by which task. `ended` is made when somebody waits for it."""

    __slots__ = ("caller", "ended")

    def __init__(self) -> None:
        self.caller: Final = asyncio.current_task()
        self.ended: asyncio.Future[None] | None = None


@final
class Saga:
    """What is to be undone if the block is left by an error. Made by `saga()`."""

    __module__ = "perdure.actors"
    __slots__ = ("_around", "_coroutines", "_entries", "_in_around", "_is_entered", "_is_left", "_running")

    def __init__(self) -> None:
        self._coroutines: Final = ambient("saga()")[0]
        self._entries: list[_Entry] = []
        self._running: dict[_Running, None] = {}  # in the order in which they began
        self._around: Saga | None = None
        self._in_around: _Running | None = None
        self._is_entered = self._is_left = False

    def __repr__(self) -> str:
        return f"<Saga of {len(self._entries)} steps>"

    def push(self, step: Step[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Let a step be run if the saga is undone, before those that were registered earlier.

        Raises WrongArguments, NotSerializable; RuntimeError once the block has been left, since nothing would ever undo it.
        """
        if self._is_left:
            raise RuntimeError(f"undo.push({step.__name__}, …) after its `async with saga()` block: move it into the block")
        self._entries.append(_Entry(step, step.call.decode_call(step.call.encode_call(args, kwargs))))

    # --- what begins inside ---

    def admit(self) -> None:
        """As `Undoing.admit`."""
        if self._is_left:
            raise asyncio.CancelledError("the saga around it has been left")

    def expect(self, step: Step[..., Any], payload: bytes, key: str) -> Callable[[Outcome | None], None]:
        """As `Undoing.expect`."""
        running = self._begin()
        entry: _Entry | None = None
        if step.given.compensate is not None:
            entry = _Entry(step.given.compensate, step.call.decode_call(payload), (step.name, key))
            self._entries.append(entry)

        def hear(outcome: Outcome | None) -> None:
            if entry is not None:
                entry.is_heard, entry.outcome = True, outcome
            self._end(running)

        return hear

    def _begin(self) -> _Running:
        running = _Running()
        saga: Saga | None = self
        while saga is not None:
            saga._running[running] = None
            saga = saga._around
        return running

    def _end(self, running: _Running) -> None:
        saga: Saga | None = self
        while saga is not None:
            saga._running.pop(running, None)
            saga = saga._around
        if running.ended is not None:
            running.ended.set_result(None)

    # --- the block ---

    async def __aenter__(self) -> Self:
        if self._is_entered:
            raise RuntimeError("a saga is entered once: write `async with saga() as undo` again, for another one")
        self._is_entered = True
        around = UNDOING.get()
        if isinstance(around, Saga):
            around.admit()
            self._around, self._in_around = around, around._begin()
        UNDOING.set(self)
        self._coroutines.sagas += 1
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        UNDOING.set(self._around)
        self._coroutines.sagas -= 1
        if self._coroutines.evicted or isinstance(error, GeneratorExit):
            return
        try:
            await self._leave(error)
        finally:
            if self._around is not None and self._in_around is not None:
                self._around._end(self._in_around)

    async def _leave(self, error: BaseException | None) -> None:
        self._is_left = True
        around = self._around
        is_well = (error is None or continues(error) is not None) and not (around is not None and around._is_left)
        undone = [entry for entry in self._entries if not entry.is_heard] if is_well else self._entries  # nobody has waited for those
        if undone or self._running:
            self._coroutines.undoing += 1
            try:
                await self._undo_all(undone, error)
            finally:
                self._coroutines.undoing -= 1
        if is_well and around is not None:
            around._entries += [entry for entry in self._entries if entry not in undone]  # it would have to undo what was done in this one

    async def _undo_all(self, entries: list[_Entry], error: BaseException | None) -> None:
        held = await self._release()
        errors: list[StepFailed] = []
        for entry in reversed(entries):
            if entry.is_needed:
                outcome, cancelled = await self._undo(entry)
                held = held or cancelled
                if outcome is not None:
                    errors.append(outcome)
        if errors:
            raise CompensationFailed(self._coroutines.require_turn("saga").actor, errors) from error
        if held is not None:
            raise held

    async def _release(self) -> asyncio.CancelledError | None:
        """Cancel whoever is still at work inside, and hear how that ends; returns a cancel that was held back."""
        held: asyncio.CancelledError | None = None
        for caller in dict.fromkeys(running.caller for running in self._running):
            if caller is not None and caller is not asyncio.current_task():
                caller.cancel("the saga around it has been left")
        while self._running:
            running = next(iter(self._running))
            running.ended = running.ended or asyncio.get_running_loop().create_future()
            held = await hold_back(running.ended) or held
        return held

    async def _undo(self, entry: _Entry) -> tuple[StepFailed | None, asyncio.CancelledError | None]:
        """Run one compensation; returns its failure, if it has failed for good, and a cancel that was held back."""
        step, (args, kwargs) = entry.step, entry.arguments
        payload, request = step.ask(self._coroutines, args, kwargs, entry.compensated())
        outcome, held = await self._coroutines.outcomes.wait_to_the_end(request, step.name)
        return (self._put_aside(step, payload, outcome.failure) if isinstance(outcome, Raised) else None), held

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
