"""What an actor's code may ask for: plain functions that find the running turn by a context variable, and work nowhere else.

What takes effect outside the actor is recorded with the turn, and happens with it or not at all.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn, ParamSpec, TypeVar, final, overload

from ..tracing import trace_id_of
from ._codec import PICKLE
from ._coroutines import AMBIENT, ambient, current_turn
from ._effects import CancelTimer, Emit, SetTimer
from ._endings import ContinueAsNew
from ._errors import NotInActor
from ._ids import ActorId
from ._marks import Timer, Waits, Workflow
from ._outcome_errors import SignalTimeout
from ._reading import readable
from ._records import NamedTimer, RequestKind
from ._ref import ActorRef, Starter, WorkflowRef, make_ref
from ._turn import Turn
from ._turnloop import LATEST

if TYPE_CHECKING:
    import uuid

A = TypeVar("A")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

LOGGER: Final = logging.getLogger("perdure.actor")


@final
class _ActorLogger(logging.LoggerAdapter[logging.Logger]):
    """Silent while a turn is replayed: asked of the turn that runs, since a logger may be kept over many."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  logging calls it by this name
        coroutines = AMBIENT.get(None)
        replays = coroutines is not None and coroutines.turn is not None and coroutines.turn.is_replay
        return not replays and super().isEnabledFor(level)


@final
class CurrentActor:
    """What actor code may know about itself: of the turn it was asked in."""

    __module__ = "perdure.actors"
    __slots__ = ("_turn",)

    def __init__(self, turn: Turn) -> None:
        self._turn: Final = turn

    def __repr__(self) -> str:
        return f"<CurrentActor {self.id} seq {self.seq}>"

    @property
    def id(self) -> ActorId:
        """The address: type and key."""
        return self._turn.actor

    @property
    def key(self) -> str:
        """The key."""
        return self._turn.actor.key

    @property
    def seq(self) -> int:
        """The number of the message in the mailbox; 0 in a query."""
        return self._turn.seq

    @property
    def attempt(self) -> int:
        """1 for the first attempt at this message, one more for each that failed or was interrupted by a crash."""
        return self._turn.attempt

    @property
    def resources(self) -> Mapping[str, Any]:
        """What the host was given as `resources`."""
        return self._turn.surroundings.resources

    @property
    def random(self) -> random.Random:
        """A random generator that draws the same when the turn is run again."""
        return self._turn.random

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry `actor`, `seq` and `trace_id` (None outside of traces); silent on replay: what it says was said."""
        turn = self._turn
        return _ActorLogger(LOGGER, {"actor": str(turn.actor), "seq": turn.seq, "trace_id": trace_id_of(turn.onward)})

    def now(self) -> datetime:
        """The time of this turn, in UTC; the same for the whole turn."""
        return datetime.fromtimestamp(self._turn.time, UTC)

    def uuid4(self) -> uuid.UUID:
        """A random UUID (RFC 9562, version 4) that is the same when the turn is run again."""
        import uuid  # two milliseconds that most programs need not pay

        return uuid.UUID(int=self._turn.random.getrandbits(128), version=4)

    @overload
    def ref(self, actor: type[A], key: str) -> ActorRef[A]: ...
    @overload
    def ref(self, actor: Workflow[A, ..., R], key: str) -> WorkflowRef[A, R]: ...
    def ref(self, actor: Any, key: str) -> Any:
        """A reference to any actor of a type that the host serves; by its workflow, one with a result.

        Raises UnknownActorType, KeyTooLong, InvalidKey.
        """
        return make_ref(self._turn.surroundings.registry, actor, key)

    async def start(self, run: Workflow[A, P, R], key: str, /, *args: P.args, **kwargs: P.kwargs) -> WorkflowRef[A, R]:
        """Begin another actor's workflow; returns its reference once that is recorded. As `Runtime.start`; it is no child of this actor."""
        return await Starter(None).start(run, key, *args, **kwargs)


def current_actor() -> CurrentActor:
    """The actor whose code is running: its id, key, seq, attempt, logger, time and randomness. Raises NotInActor elsewhere."""
    return CurrentActor(current_turn("current_actor()"))


async def wait_for_signal(signal: Waits[T], /, *, timeout: timedelta | None = None) -> T:
    """Wait for a declared signal of this actor, and return what it carries. The longest waiter gets the next one; early ones are kept.

    Raises SignalTimeout after `timeout`, UnknownHandler for a signal that the type does not declare.
    """
    coroutines, turn = ambient(f"waiting for {signal!r}")
    spec = turn.definition.declared(signal)
    if timeout is None:
        envelope = await coroutines.signal(spec.name)
    else:
        scope = asyncio.timeout(_seconds(timeout, "timeout"))
        try:
            async with scope:
                envelope = await coroutines.signal(spec.name)
        except TimeoutError:
            if not scope.expired():
                raise
            raise SignalTimeout(turn.actor, spec.name, timeout.total_seconds()) from None
    args, kwargs = readable(partial(spec.decode, form=envelope.form), envelope.payload)
    values = [*args, *kwargs.values()]
    return values[0] if values else None  # type: ignore[return-value]


async def wait_until(predicate: Callable[[], object], *, timeout: timedelta | None = None) -> None:
    """Wait until a predicate over the actor's state is true: it is called now, and after each message.

    Raises TimeoutError after `timeout`, and what the predicate raises.
    """
    coroutines, _ = ambient("wait_until")
    async with asyncio.timeout(None if timeout is None else _seconds(timeout, "timeout")):
        await coroutines.condition(predicate)


def set_timer(
    handler: Timer[Any, []],
    /,
    *,
    after: timedelta | None = None,
    at: datetime | None = None,
    every: timedelta | None = None,
    catch_up: bool = False,
) -> None:
    """Let an `@on_timer` handler of this actor be called `after` a time, `at` a moment, or `every` so often.

    With `every` it is called first after that time, or as `after` or `at` say. Setting it again replaces what was set; it outlives the
    handler that sets it.

    What fell due while no host ran is called once at start, or with `catch_up` as often as it fell due. Raises ValueError for a naive
    datetime, a negative time, or one beyond the year 9999.
    """
    turn = current_turn("set_timer()")
    name = turn.definition.timer(handler).name
    if (at is not None and after is not None) or (at is None and after is None and every is None):
        raise ValueError(f"set_timer({name}) takes after= or at=, every=, or one of the first with every=")
    period = 0.0 if every is None else _seconds(every, "every", least=0.001)
    first = _moment(at) if at is not None else turn.time + (_seconds(after, "after") if after is not None else period)
    if not first <= LATEST:
        raise ValueError(f"set_timer({name}) would fire after the year 9999")
    turn.ask_for(RequestKind.SET_TIMER, name, due=first)
    turn.effects.append(SetTimer(NamedTimer(name, first, period, catch_up, turn.onward)))


def cancel_timer(handler: Timer[Any, []], /) -> None:
    """Forget what `set_timer` has set for that handler; nothing happens if it is not set."""
    turn = current_turn("cancel_timer()")
    name = turn.definition.timer(handler).name
    turn.ask_for(RequestKind.CANCEL_TIMER, name)
    turn.effects.append(CancelTimer(name))


def emit(name: str, payload: object = None) -> None:
    """Append an item to this actor's stream, for whoever reads `ref.stream()`; it appears with the turn. Raises NotSerializable."""
    turn = current_turn("emit()")
    turn.ask_for(RequestKind.EMIT, name)
    turn.effects.append(Emit(name, PICKLE.encode(payload)))


def patched(change: str, /) -> bool:
    """Whether the code of a change runs: True where it runs for the first time, False where the actor's past is of the code before it.

        if patched("fee"):
            await charge_fee(order)  # what is new

    The answer is recorded with the first asking, and is the same until nothing of the actor waits any more, or it continues as new. A
    change of a later deploy takes another name: of this one, an actor may have been told otherwise. The question may be removed, with the
    old code, once no actor waits that was begun before the change. Raises NotInActor, NotDurable in a query.
    """
    coroutines, turn = ambient("patched()")
    return turn.patched(change, coroutines.patches)


def continue_as_new(*args: Any, **kwargs: Any) -> NoReturn:
    """End this life of the workflow and begin the next one with other arguments: same key, same state, an empty log.

    Events and signals that wait are carried over; handlers that wait are cancelled. It does not return. Raises WrongArguments; NotInActor
    where the code that runs is not the workflow's own coroutine.
    """
    coroutines, turn = ambient("continue_as_new()")
    run = turn.definition.require_workflow()
    if not coroutines.is_workflow_running:
        raise NotInActor("continue_as_new()", f"the own coroutine of the workflow, {run.label}: return to it, and call it there")
    raise ContinueAsNew(run.encode_call(args, kwargs))


def _seconds(time: timedelta, name: str, least: float = 0.0) -> float:
    seconds = time.total_seconds()
    if seconds < least:
        raise ValueError(f"{name}={time!r} is in the past" if seconds < 0 else f"{name}={time!r} is too short: at least {least} s")
    return seconds


def _moment(at: datetime) -> float:
    if at.tzinfo is None:
        raise ValueError(f"at={at!r} has no time zone, so it says no moment: write datetime(…, tzinfo=UTC), or current_actor().now() + …")
    return at.timestamp()
