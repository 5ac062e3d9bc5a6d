"""The coroutines of one actor: everything of its code that waits, and the message that wakes it.

Between two turns nothing of it runs. What it waits for is known by name, so that the actor can be put away and brought back: the same
messages, handled in the same order on a loop without chance, leave the same coroutines waiting for the same things.
"""

from __future__ import annotations

import asyncio
import contextvars
import traceback
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Final, NamedTuple, final

import msgspec

from ._define import Definition
from ._envelope import STARTS, Envelope, Form, Kind
from ._errors import ActorEvicted, NotDurable, NotInActor, TurnDidNotEnd
from ._failure import Failure
from ._handlers import Handler
from ._ids import ActorId, MessageId
from ._outcome_errors import ActorCancelled
from ._records import OUTCOME, Outcome, Raised, RequestKind, Value, Wait, refusal
from ._turn import KeptSignal, Turn
from ._turnloop import CURE, TurnLoop, TurnTask, new_turn_loop

MAX_WAITS: Final = 32  # outcomes that are listed one by one: the list is written with each turn
MAX_CONDITIONS: Final = 10_000  # that become true in one turn: more is taken for two that wake each other for ever

AMBIENT: Final[contextvars.ContextVar[Coroutines]] = contextvars.ContextVar("perdure_coroutines")


class ContinueAsNew(BaseException):
    """Ends a life of the workflow and begins the next one. Control flow: clean-up runs, `except Exception` does not see it."""

    def __init__(self, payload: bytes) -> None:
        super().__init__(payload)
        self.payload = payload


@final
class Ending(NamedTuple):
    """A handler's end: of which message, and what came of it (None if nobody wants to know). `partly` if it failed in a later turn.

    `seq` is 0 of a task that nobody looked after.
    """

    seq: int
    envelope: Envelope
    outcome: Outcome | None
    partly: bool = False


@final
class WorkflowEnd(NamedTuple):
    """The workflow's end: its outcome; `cancelled` if it ended by being cancelled; `next` if it goes on in another life."""

    outcome: Outcome
    cancelled: bool = False
    next: ContinueAsNew | None = None


@final
class _Slot(NamedTuple):
    """The event that is being handled."""

    task: TurnTask
    handler: Handler
    seq: int
    envelope: Envelope
    turn: int


@final
class _Pending(NamedTuple):
    """An outcome that is waited for."""

    future: asyncio.Future[Outcome]
    kind: RequestKind
    name: str
    since: float
    target: ActorId | None


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
        "_conditions",
        "_context",
        "_endings",
        "_error",
        "_pending",
        "_slot",
        "_waiters",
        "_workflow",
        "end",
        "evicted",
        "loop",
        "turn",
    )

    def __init__(self) -> None:
        self.loop: Final[TurnLoop] = new_turn_loop(self)
        self.turn: Turn | None = None
        self.end: WorkflowEnd | None = None  # of the workflow, in this turn
        self._endings: list[Ending] = []
        self._context = contextvars.Context()
        self._context.run(AMBIENT.set, self)
        self._slot: _Slot | None = None
        self._workflow: tuple[TurnTask, Handler] | None = None
        self._error: BaseException | None = None  # of a task that nobody looks after: the workflow fails with it
        self._pending: dict[MessageId, _Pending] = {}
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
        return self._slot is None

    @property
    def is_workflow_running(self) -> bool:
        """Whether the code that runs now is the workflow's own coroutine."""
        return self._workflow is not None and asyncio.current_task(self.loop) is self._workflow[0]

    @property
    def handled(self) -> tuple[int, Envelope] | None:
        """The event whose handler waits: its seq, and itself."""
        return None if self._slot is None else (self._slot.seq, self._slot.envelope)

    def requests(self) -> list[MessageId]:
        """The ids of the outcomes that are waited for."""
        return list(self._pending)

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
        has_ended = False
        loop = self.loop
        if loop.at_rest:
            self._pending.clear()
            loop.begin_at(int.from_bytes(turn.incarnation[:4], "big"))
        try:
            with loop.at(turn.time):
                self._let_in(definition, instance, seq, envelope, turn)
                loop.run()
                if self._conditions:
                    self._check_conditions()
                while (self._slot is not None or self._workflow is not None or loop.unretrieved) and self._collect(turn):
                    has_ended = has_ended or self.end is not None
                    if self._conditions:
                        self._check_conditions()  # endings run code, too
            if has_ended and not loop.at_rest:
                self.evict()  # what does not let itself be cancelled has no part in the next life
        finally:
            self.turn = None
        return endings

    def evict(self) -> None:
        """End everything where it waits; clean-up code runs, and may ask for nothing."""
        self.evicted = True
        self.turn = None
        self.loop.evict()
        self._slot = self._workflow = self._waiters = self._conditions = None
        self._pending.clear()

    def _let_in(self, definition: Definition, instance: object, seq: int, envelope: Envelope, turn: Turn) -> None:
        kind = envelope.kind
        if kind is Kind.EVENT or kind is Kind.TIMER:
            handler = definition.event(envelope.name) if kind is Kind.EVENT else definition.timer(envelope.name)
            self._begin_event(handler, instance, seq, envelope, turn)
        elif kind is Kind.OUTCOME or kind is Kind.REPLY:
            self._resolve(envelope)
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
        args, kwargs = _arguments(handler, envelope)
        context = self._context.copy()
        return self.loop.create_task(context.run(handler.function, instance, *args, **kwargs), name=handler.name, context=context)

    def _call(self, handler: Handler, instance: object, envelope: Envelope) -> Any:
        args, kwargs = _arguments(handler, envelope)
        return self._context.copy().run(handler.function, instance, *args, **kwargs)

    def _resolve(self, envelope: Envelope) -> None:
        pending = self._pending.pop(envelope.id, None)
        if pending is not None and not pending.future.done():
            pending.future.set_result(OUTCOME.unpack(envelope.payload))

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

    # --- endings ---

    def _collect(self, turn: Turn) -> bool:
        """See what has ended; returns whether that let code run, after which there may be more."""
        slot = self._slot
        if slot is not None and slot.task.done():
            self._slot = None
            self._endings.append(_handler_ending(slot, turn))
        unretrieved, self.loop.unretrieved = self.loop.unretrieved, None
        for error in unretrieved or ():
            self._look_after(error, turn)
        if self._workflow is not None and self._workflow[0].done():
            task, handler = self._workflow
            self.end = _workflow_end(task, handler, turn, self._error)
            self._workflow = self._error = None
            self._cancel_the_rest(turn, "its workflow has ended" if self.end.next is None else "its workflow continues as new")
            return True
        return bool(unretrieved)

    def _look_after(self, error: BaseException, turn: Turn) -> None:
        """A task has failed that nobody awaits: the workflow fails with it, or it is put aside where there is none."""
        if self._workflow is not None and not self._workflow[0].done():
            self._error = error
            self._workflow[0].cancel()
            self.loop.run()
        else:
            stray = Envelope(id=MessageId(turn.incarnation), kind=Kind.EVENT, name="(a task)", payload=b"")
            self._endings.append(Ending(0, stray, Raised(Failure.of(error)), partly=True))

    def _cancel_the_rest(self, turn: Turn, reason: str) -> None:
        """The workflow has ended, and this life of the actor with it: so do handlers and tasks that still wait."""
        self.loop.cancel_all(reason)
        self.loop.run()
        for request in self._pending:
            turn.give_up(request)
        slot, self._slot = self._slot, None
        if slot is None:
            return
        if slot.task.done() and not slot.task.cancelled():
            self._endings.append(_handler_ending(slot, turn))
        else:
            outcome = refusal(ActorCancelled(turn.actor, reason))
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

    async def outcome(self, request: MessageId, kind: RequestKind, name: str, target: ActorId | None = None) -> Outcome:
        """Wait for an outcome, of the actor `target` if it is another one's; if the waiting is cancelled, it is given up."""
        turn = self.require_turn(name)
        future: asyncio.Future[Outcome] = self.loop.create_future()
        self._pending[request] = _Pending(future, kind, name, turn.time, target)
        try:
            return await future
        finally:
            if self._pending.pop(request, None) is not None and self.turn is not None:
                self.turn.give_up(request)

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
        known = {id(each.future) for each in self._pending.values()}
        known |= {id(waiter.future) for waiters in (self._waiters or {}).values() for waiter in waiters}
        known |= {id(condition.future) for condition in self._conditions or ()}
        return any(id(task.waits_for) not in known and not task.waits_for_tasks for task in self.loop.tasks())

    def awaits(self, request: MessageId) -> bool:
        """Whether anybody waits for that outcome."""
        return request in self._pending

    def awaits_signal(self, name: str) -> bool:
        """Whether anybody waits for that declared signal."""
        return any(not waiter.future.done() for waiter in (self._waiters or {}).get(name, ()))

    def waits(self) -> list[Wait]:
        """What is waited for, as far as it has a name and is not too much to list; the earliest of what the clock will wake."""
        listed = islice(self._pending.items(), MAX_WAITS)
        waits = [Wait(each.kind.name.lower(), each.name, each.since, 0.0, each.target, found) for found, each in listed]
        if len(self._pending) > MAX_WAITS:
            waits.append(Wait("others", f"{len(self._pending) - MAX_WAITS} more"))
        if any(each.target is not None for each in self._pending.values()) and self._waits_by_primitive():
            waits.append(Wait("primitive", ""))  # a lock, an event, a queue: whoever looks for deadlocks has to know
        for name, waiters in (self._waiters or {}).items():
            waits += [Wait("signal", name, waiter.since) for waiter in waiters]
        waits += [Wait("condition", _name_of(each.holds), each.since) for each in self._conditions or ()]
        due = self.loop.next_due()
        if due is not None:
            waits.append(Wait("timer", "", 0.0, due))
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


def _arguments(handler: Handler, envelope: Envelope) -> tuple[Any, Any]:
    if envelope.form is Form.JSON:
        return handler.decode_json(envelope.payload)
    return handler.decode_call(envelope.payload)


def _handler_ending(slot: _Slot, turn: Turn) -> Ending:
    """What came of an event's handler. Raises what it raised, if it began in this very turn."""
    try:
        answer = slot.task.result()
        outcome = Value(slot.handler.encode_result(answer, slot.envelope.form)) if slot.envelope.wants_outcome else None
        return Ending(slot.seq, slot.envelope, outcome)
    except BaseException as error:  # noqa: BLE001  a handler raises whatever it likes
        explained = _explained(error)
        if slot.turn == turn.number:
            raise explained from explained.__cause__
        return Ending(slot.seq, slot.envelope, Raised(Failure.of(explained)), partly=True)


def _workflow_end(task: TurnTask, handler: Handler, turn: Turn, unretrieved: BaseException | None) -> WorkflowEnd:
    try:
        answer = task.result()
        if unretrieved is not None:
            return WorkflowEnd(Raised(Failure.of(unretrieved)))
        return WorkflowEnd(Value(handler.encode_result(answer)))
    except asyncio.CancelledError as cancelled:
        if unretrieved is not None:
            return WorkflowEnd(Raised(Failure.of(unretrieved)))
        reason = " ".join(str(part) for part in cancelled.args if part)
        return WorkflowEnd(refusal(ActorCancelled(turn.actor, reason)), cancelled=True)
    except BaseException as error:  # noqa: BLE001  a workflow raises whatever it likes
        again = _continues(error)
        return WorkflowEnd(Value(b""), next=again) if again is not None else WorkflowEnd(Raised(Failure.of(_explained(error))))


def _explained(error: BaseException) -> BaseException:
    """The error, or what it means here: asyncio itself refuses to await a future of another loop, and cannot know whose loop this is."""
    if not isinstance(error, RuntimeError) or "attached to a different loop" not in str(error):
        return error
    frame = traceback.extract_tb(error.__traceback__)[-1]
    explained = NotDurable(f"a future of another loop ({frame.filename}:{frame.lineno}, in {frame.name})", CURE)
    explained.__cause__ = error
    return explained


def _continues(error: BaseException) -> ContinueAsNew | None:
    """The wish to continue as new, also where task groups have wrapped it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, ContinueAsNew) else None


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
