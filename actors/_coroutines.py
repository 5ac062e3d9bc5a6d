"""The coroutines of one actor: everything of its code that waits, and the message that wakes it.

Between two turns nothing of it runs. What it waits for is known by name, so that the actor can be put away and brought back: the same
messages, handled in the same order on a loop without chance, leave the same coroutines waiting for the same things.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple, final

import msgspec

from ._define import Definition
from ._endings import Closing, Continued, Ending, LifeEnd, Renewed, closing_for, explained, handler_outcome, life_end
from ._envelope import STARTS, Envelope, Kind
from ._errors import ActorEvicted, NotInActor, TurnDidNotEnd
from ._failure import Failure
from ._handlers import Handler
from ._ids import MessageId, address_in
from ._info import ChildExit
from ._outcome_errors import ActorCancelled, ChildFailed
from ._outcomes import Outcomes
from ._records import OUTCOME, Raised, RequestKind, Value, Wait, refusal
from ._turn import KeptSignal, Turn
from ._turnloop import TurnLoop, TurnTask, new_turn_loop

MAX_CONDITIONS: Final = 10_000  # that become true in one turn: more is taken for two that wake each other for ever

AMBIENT: Final[contextvars.ContextVar[Coroutines]] = contextvars.ContextVar("perdure_coroutines")
BEGINNING: Final = contextvars.Context()  # what all code of actors begins in: empty, but for who traces it


@final
class _Slot(NamedTuple):
    """The event that is being handled."""

    task: TurnTask
    handler: Handler
    seq: int
    envelope: Envelope
    turn: int


@final
class _SignalWaiter(NamedTuple):
    """Who waits for a declared signal."""

    future: asyncio.Future[KeptSignal]
    since: float


@final
class _Condition(NamedTuple):
    """Who waits until something is so."""

    holds: Callable[[], object]
    future: asyncio.Future[None]
    context: contextvars.Context
    since: float


@final
class Coroutines:
    """One actor's code at work, or waiting. `turn` is the turn that is being taken; None between two."""

    __slots__ = (
        "_closing",
        "_conditions",
        "_context",
        "_endings",
        "_error",
        "_slot",
        "_waiters",
        "_workflow",
        "end",
        "evicted",
        "loop",
        "outcomes",
        "patches",
        "sagas",
        "turn",
        "undoing",
    )

    def __init__(self) -> None:
        self.loop: Final[TurnLoop] = new_turn_loop(self)
        self.turn: Turn | None = None
        self.end: LifeEnd | None = None  # in this turn
        self._closing: Closing | None = None
        self.sagas = 0  # that are open
        self.undoing = 0  # sagas that are being undone, or hear how a step has ended: the time to clean up does not end before
        self.patches: dict[str, bool] = {}  # which changes of the code count, as decided since something waits
        self._endings: list[Ending] = []
        self._context = BEGINNING.copy()
        self._context.run(AMBIENT.set, self)
        self._slot: _Slot | None = None
        self._workflow: tuple[TurnTask, Handler] | None = None
        self._error: BaseException | None = None  # of a task, or a child, that nobody looks after: the workflow fails with it
        self.outcomes: Final = Outcomes(self)
        self._waiters: dict[str, deque[_SignalWaiter]] | None = None
        self._conditions: list[_Condition] | None = None
        self.evicted = False  # and not to be used again

    def __repr__(self) -> str:
        return f"<Coroutines {self.loop!r} {'at rest' if self.at_rest else self.waits()}>"

    @property
    def at_rest(self) -> bool:
        """Whether nothing of the actor's code waits."""
        return self.loop.at_rest

    @property
    def takes_events(self) -> bool:
        """Whether the event slot is free."""
        return self._slot is None and self._closing is None

    @property
    def is_ending(self) -> bool:
        """Whether the actor's life is at its end for good, and only cleans up."""
        closing = self._closing
        return closing is not None and not isinstance(closing.end or closing.verdict, Continued | Renewed)

    @property
    def is_workflow_running(self) -> bool:
        """Whether the code that runs now is the workflow's own coroutine."""
        return self._workflow is not None and asyncio.current_task(self.loop) is self._workflow[0]

    @property
    def handled(self) -> tuple[int, Envelope] | None:
        """The event whose handler waits: its seq, and itself."""
        return None if self._slot is None else (self._slot.seq, self._slot.envelope)

    # --- turns ---

    def call(self, turn: Turn, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a plain function as the code of a turn, in an empty context; returns or raises as it does."""
        self.turn = turn
        try:
            with self.loop.at(turn.time):
                return self._context.copy().run(function, *args, **kwargs)
        finally:
            self.turn = None

    def handle(self, definition: Definition, instance: object, seq: int, envelope: Envelope, turn: Turn) -> list[Ending]:
        """Let a message in, and everything run that it wakes, until all of it waits; returns which handlers have ended.

        Raises what the message's own handler raises within this turn, and TurnDidNotEnd: then all of it is to be thrown away.
        """
        self.turn = turn
        self.end = None
        endings: list[Ending] = []
        self._endings = endings
        loop = self.loop
        if loop.at_rest:
            self.outcomes.forget()
            self.sagas = self.undoing = 0
            self.patches.clear()
            loop.begin_at(int.from_bytes(turn.incarnation[:4], "big"))
        try:
            with loop.at(turn.time):
                self._let_in(definition, instance, seq, envelope, turn)
                loop.run()
                if self._conditions:
                    self._check_conditions()
                while self._slot or self._workflow or self._closing or loop.unretrieved:
                    if not self._collect(definition, turn):
                        break
                    if self._conditions:
                        self._check_conditions()  # endings run code, too
            self._leave_the_rest()
        finally:
            self.turn = None
        return endings

    def _leave_the_rest(self) -> None:
        """What does not let itself be cancelled has no part in the next life."""
        if self.end is not None and not self.loop.at_rest:
            self.evict()

    def evict(self) -> None:
        """End everything where it waits; clean-up code runs, and may ask for nothing."""
        self.evicted = True
        self.turn = None
        self.loop.evict()
        self._slot = self._workflow = self._waiters = self._conditions = self._closing = None
        self.outcomes.forget()

    def _let_in(self, definition: Definition, instance: object, seq: int, envelope: Envelope, turn: Turn) -> None:
        kind = envelope.kind
        if kind is Kind.EVENT or kind is Kind.TIMER:
            handler = definition.event(envelope.name) if kind is Kind.EVENT else definition.timer(envelope.name)
            self._begin_event(handler, instance, seq, envelope, turn)
        elif kind is Kind.OUTCOME or kind is Kind.REPLY:
            self.outcomes.resolve(envelope)
        elif kind is Kind.FIRING:
            self.loop.fire(envelope.due)
        elif kind is Kind.SIGNAL:
            handler = definition.signal_handler(envelope.name)
            self._call(handler, instance, envelope)
            self._endings.append(Ending(seq, envelope, Value(b"") if envelope.key is not None else None))
        elif kind is Kind.DECLARED:
            self._give(KeptSignal(seq, envelope), turn)
        elif kind in STARTS:
            handler = definition.require_workflow()
            self._workflow = self._begin(handler, instance, envelope), handler
            self._endings.append(Ending(seq, envelope, Value(b"")))
        elif kind is Kind.CANCEL or kind is Kind.RENEW or kind is Kind.POISONED:
            self._ask_to_end(definition, closing_for(envelope), turn)
            self._endings.append(Ending(seq, envelope, Value(b"")))
        elif kind is Kind.CHILD_EXIT or kind is Kind.ESCALATE:
            self._hear_of_child(definition, instance, envelope, turn)
        else:
            raise AssertionError(f"{kind!r} is no message for an actor's code")

    def _begin_event(self, handler: Handler, instance: object, seq: int, envelope: Envelope, turn: Turn) -> None:
        if handler.is_async:
            self._slot = _Slot(self._begin(handler, instance, envelope), handler, seq, envelope, turn.number)
        else:
            answer = self._call(handler, instance, envelope)
            outcome = Value(handler.encode_result(answer, envelope.form)) if envelope.wants_outcome else None
            self._endings.append(Ending(seq, envelope, outcome))

    def _begin(self, handler: Handler, instance: object, envelope: Envelope) -> TurnTask:
        args, kwargs = handler.decode(envelope.payload, envelope.form)
        context = self._context.copy()
        return self.loop.create_task(context.run(handler.function, instance, *args, **kwargs), name=handler.name, context=context)

    def _call(self, handler: Handler, instance: object, envelope: Envelope) -> Any:
        args, kwargs = handler.decode(envelope.payload, envelope.form)
        return self._context.copy().run(handler.function, instance, *args, **kwargs)

    def _check_conditions(self) -> None:
        """Wake whoever's condition holds, in the order of their waiting, until none does: each may change what the next one asks."""
        for _ in range(MAX_CONDITIONS):
            for place, condition in enumerate(self._conditions or ()):
                if condition.future.done() or _holds(condition):
                    del self._conditions[place]  # type: ignore[union-attr]
                    self.loop.run()
                    break
            else:
                return
        raise TurnDidNotEnd(f"{MAX_CONDITIONS} conditions that became true", "wait_until")

    # --- children ---

    def _hear_of_child(self, definition: Definition, instance: object, envelope: Envelope, turn: Turn) -> None:
        """A child has ended for good: tell the handler for that; and if its failure is to be the actor's own, fail."""
        outcome = OUTCOME.unpack(envelope.payload)
        child = address_in(envelope.sender or "")
        error = outcome.failure.revive() if isinstance(outcome, Raised) else None
        if definition.child_exit is not None:
            exit_ = ChildExit(child, envelope.name, error)
            self._context.copy().run(definition.child_exit.function, instance, exit_)
        is_heard = self.outcomes.awaits_result(child) or (definition.child_exit is not None and self._workflow is None)
        if envelope.kind is Kind.ESCALATE and error is not None and not is_heard:
            failure = ChildFailed(child, turn.actor, f"{type(error).__name__}: {error}")
            failure.__cause__ = error
            self._look_after(failure, turn, "(a child)")

    # --- endings ---

    def _collect(self, definition: Definition, turn: Turn) -> bool:
        """See what has ended; returns whether that let code run, after which there may be more."""
        slot = self._slot
        if slot is not None and slot.task.done():
            self._end_handler(slot, turn)
        unretrieved, self.loop.unretrieved = self.loop.unretrieved, None
        for error in unretrieved or ():
            self._look_after(error, turn)
        if self._workflow is not None and self._workflow[0].done():
            task, handler = self._workflow
            end = life_end(task, handler, turn.actor, self._error, self._closing)
            self._workflow = self._error = None
            self._close(definition, end)
        if self._closing is not None:
            return self._go_on_closing(self._closing, definition, turn) or bool(unretrieved)
        return bool(unretrieved)

    def _end_handler(self, slot: _Slot, turn: Turn) -> None:
        """An event's handler has ended. Raises what it raised, if it began in this very turn."""
        self._slot = None
        was_asked = self._closing is not None and slot.task.cancelled()
        if slot.turn == turn.number and not was_asked:
            try:
                slot.task.result()
            except BaseException as error:  # noqa: BLE001  a handler raises whatever it likes
                told = explained(error)
                raise told from told.__cause__
        outcome = handler_outcome(slot.task, slot.handler, slot.envelope, turn.actor, self._closing)
        self._endings.append(Ending(slot.seq, slot.envelope, outcome, partly=isinstance(outcome, Raised)))

    def _look_after(self, error: BaseException, turn: Turn, whose: str = "(a task)") -> None:
        """A task, or a child, has failed that nobody awaits: the workflow fails with it, or it is put aside where there is none."""
        if self._workflow is not None and not self._workflow[0].done():
            is_cleaning_up = self._closing is not None or self._error is not None
            self._error = self._error or error
            if not is_cleaning_up:
                self._workflow[0].cancel()
                self.loop.run()
        else:
            stray = Envelope(id=MessageId(turn.incarnation), kind=Kind.EVENT, name=whose, payload=b"")
            self._endings.append(Ending(0, stray, Raised(Failure.of(error)), partly=True))

    # --- the end of a life ---

    def _ask_to_end(self, definition: Definition, closing: Closing, turn: Turn) -> None:
        """Cancel the workflow, and the handler at work; while they clean up, nobody is cancelled once more."""
        if self._closing is not None:
            if self._closing.heed(closing, turn.actor) and not self._closing.asked:
                self._give_time(self._closing, definition)
            return
        self._closing = closing
        self._give_time(closing, definition)
        if self._workflow is None:
            closing.end = closing.cancelled(turn.actor)
        else:
            self._workflow[0].cancel(closing.reason)
            self._ask_handler_to_end(closing)

    def _close(self, definition: Definition, end: LifeEnd) -> None:
        """The workflow has ended, and this life of the actor with it: so must handlers and tasks that still wait."""
        closing = self._closing
        if closing is None:
            self._closing = closing = Closing("its workflow continues as new" if isinstance(end, Continued) else "its workflow has ended")
            self._give_time(closing, definition)
        closing.end = end

    def _give_time(self, closing: Closing, definition: Definition) -> None:
        closing.overdue = False
        if closing.alarm is not None:
            closing.alarm.cancel()
        if self.loop.tasks():
            closing.alarm = self.loop.call_later(definition.cancel_grace, closing.expire)

    def _ask_handler_to_end(self, closing: Closing) -> None:
        closing.asked = True
        if self._slot is not None:
            self._slot.task.cancel(closing.reason)

    def _go_on_closing(self, closing: Closing, definition: Definition, turn: Turn) -> bool:
        """Ask what still waits to end: handlers first, then everything else; when nothing does, or its time is over, the life has ended."""
        end = closing.end
        if end is not None and not closing.asked and (self._slot is None or closing.overdue or not isinstance(end, Continued)):
            if closing.overdue:  # it was to end by itself, and now has as long again to clean up
                self._give_time(closing, definition)
            self._ask_handler_to_end(closing)
            self.loop.run()
            return True
        if closing.asked and end is not None and self._slot is None and not closing.swept:
            closing.swept = True
            self.loop.cancel_all(closing.reason)
            self.loop.run()
            return True
        is_over = closing.overdue and closing.asked and not self.undoing
        if is_over and 0 < self.sagas < closing.sagas:  # their time is over, but what was done is undone all the same
            closing.sagas = self.sagas
            self.loop.cancel_all(closing.reason)
            self.loop.run()
            return True
        if is_over and not turn.is_replay:
            closing.complain(turn.actor, self.loop.tasks(), definition.cancel_grace)
        if is_over or (end is not None and closing.swept and not self.loop.tasks()):
            self._end_life(closing, turn)
        return False

    def _end_life(self, closing: Closing, turn: Turn) -> None:
        if closing.alarm is not None:
            closing.alarm.cancel()
        self.end = closing.end or closing.cancelled(turn.actor)
        self.outcomes.give_up_all(turn)
        slot, self._slot, self._workflow, self._closing = self._slot, None, None, None
        if slot is not None:
            outcome = refusal(ActorCancelled(turn.actor, closing.reason))
            self._endings.append(Ending(slot.seq, slot.envelope, outcome, partly=True))

    # --- what is waited for ---

    def timer(self, due: float) -> float:
        """As `Journal.timer`."""
        return self.require_turn("a timer").ask_for(RequestKind.TIMER, "", due=due).due

    def require_turn(self, asked: str) -> Turn:
        """The turn that is being taken. Raises NotInActor, or ActorEvicted in clean-up code while the actor leaves memory."""
        if self.turn is None:
            if self.evicted:
                raise ActorEvicted(asked)
            raise NotInActor(asked)
        return self.turn

    async def signal(self, name: str) -> Envelope:
        """Wait for a declared signal; the longest waiter gets the next one."""
        turn = self.require_turn(f"waiting for {name!r}")
        asked = turn.ask_for(RequestKind.SIGNAL, name)
        if asked.answer is not None:
            return asked.answer
        kept = None if turn.is_replay else turn.take_signal(name)
        if kept is not None:
            turn.asked[-1] = msgspec.structs.replace(asked, answer=kept.envelope)
            return kept.envelope
        return await self._wait_for_signal(name, turn)

    async def _wait_for_signal(self, name: str, turn: Turn) -> Envelope:
        future: asyncio.Future[KeptSignal] = self.loop.create_future()
        waiter = _SignalWaiter(future, turn.time)
        self._waiters = self._waiters or {}
        self._waiters.setdefault(name, deque()).append(waiter)
        try:
            return (await future).envelope
        except BaseException:
            if self.turn is not None and future.done() and not future.cancelled():  # it was given, and is not heard of
                self.turn.keep_signal(future.result(), returned=True)
            raise
        finally:
            self._forget_waiter(name, waiter)

    def _forget_waiter(self, name: str, waiter: _SignalWaiter) -> None:
        waiters = (self._waiters or {}).get(name)
        if waiters is not None and waiter in waiters:
            waiters.remove(waiter)

    def _give(self, signal: KeptSignal, turn: Turn) -> None:
        self._endings.append(Ending(signal.seq, signal.envelope, Value(b"") if signal.envelope.key is not None else None))
        waiters = (self._waiters or {}).get(signal.envelope.name)
        while waiters:
            future = waiters.popleft().future
            if not future.done():
                future.set_result(signal)
                return
        turn.keep_signal(signal)

    async def condition(self, holds: Callable[[], object]) -> None:
        """Wait until a condition holds: it is looked at after each message."""
        turn = self.require_turn("wait_until")
        if holds():
            return
        future: asyncio.Future[None] = self.loop.create_future()
        condition = _Condition(holds, future, contextvars.copy_context(), turn.time)
        self._conditions = self._conditions or []
        self._conditions.append(condition)
        try:
            await future
        finally:
            if condition in (self._conditions or ()):
                self._conditions.remove(condition)

    def _waits_by_primitive(self) -> bool:
        """Whether a task waits for something that other code of the actor may do at any time, and not for an outcome or for other tasks."""
        known = self.outcomes.futures()
        known |= {id(waiter.future) for waiters in (self._waiters or {}).values() for waiter in waiters}
        known |= {id(condition.future) for condition in self._conditions or ()}
        return any(id(task.waits_for) not in known and not task.waits_for_tasks for task in self.loop.tasks())

    def awaits_signal(self, name: str) -> bool:
        """Whether anybody waits for that declared signal."""
        return any(not waiter.future.done() for waiter in (self._waiters or {}).get(name, ()))

    def waits(self) -> list[Wait]:
        """What is waited for, as far as it has a name and is not too much to list; the earliest of what the clock will wake."""
        waits = self.outcomes.waits()
        if self.outcomes.of_actors and self._waits_by_primitive():
            waits.append(Wait("primitive", ""))  # a lock, an event, a queue: whoever looks for deadlocks has to know
        for name, waiters in (self._waiters or {}).items():
            waits += [Wait("signal", name, waiter.since) for waiter in waiters]
        waits += [Wait("condition", _name_of(each.holds), each.since) for each in self._conditions or ()]
        due = self.loop.next_due()
        if due is not None:
            waits.append(Wait("timer", "", 0.0, due))
        if self._closing is not None:
            alarm = self._closing.alarm
            waits.append(Wait("end", self._closing.reason, 0.0, 0.0 if alarm is None or self._closing.overdue else alarm.when()))
        return waits


def ambient(asked: str) -> tuple[Coroutines, Turn]:
    """The coroutines whose code is running, and their turn. Raises NotInActor, saying what was asked for; ActorEvicted while they end."""
    coroutines = AMBIENT.get(None)
    if coroutines is None:
        raise NotInActor(asked)
    return coroutines, coroutines.require_turn(asked)


def current_turn(asked: str) -> Turn:
    """The turn whose code is running. Raises as `ambient` does."""
    return ambient(asked)[1]


def _holds(condition: _Condition) -> bool:
    """Whether a condition holds now, or cannot be told; then its waiter has been woken."""
    try:
        if not condition.context.run(condition.holds):
            return False
    except Exception as error:  # noqa: BLE001  it is the user's code, and the waiter's to deal with
        condition.future.set_exception(error)
        return True
    condition.future.set_result(None)
    return True


def _name_of(function: Callable[..., object]) -> str:
    return getattr(function, "__qualname__", repr(function)).removeprefix("<lambda>")
