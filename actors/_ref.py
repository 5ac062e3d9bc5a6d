"""References: the address of an actor, and the verbs that reach it.

A reference means the same everywhere. In an actor's code its verbs are recorded with the turn, and take effect with it; elsewhere they go
through the port that the reference came from (a runtime or a client). Arguments are encoded at the call, so nothing mutable is shared and
a mistake raises at the line that made it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, Generic, Literal, NamedTuple, ParamSpec, Protocol, Self, TypeVar, final, overload

from ._calls import digest_of_call
from ._codec import PICKLE
from ._coroutines import AMBIENT, Coroutines
from ._define import Definition
from ._digest import digest
from ._envelope import Envelope, Form, Kind
from ._errors import AskTimeout, NotDurable, NotSerializable, RuntimeNotRunning
from ._handlers import Handler, WaitsSpec
from ._ids import ActorId, MessageId, actor_id, check_idempotency_key
from ._info import ActorInfo, DeadLetterInfo, StreamItem
from ._marks import Event, Query, Signal, Waits, Workflow
from ._outcome_errors import ActorFailed, compensation_errors_of
from ._reading import readable
from ._records import LETTER_CHANGE, LetterChange, Outcome, Raised, RequestKind, StreamRow
from ._registry import Registry
from ._turn import Turn

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
T = TypeVar("T")
A_co = TypeVar("A_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)


@final
class Request(NamedTuple):
    """A message as a caller asks for it; the port makes the envelope.

    `key` is the idempotency key and a digest of the call; `timeout` in seconds.
    """

    target: ActorId
    kind: Kind
    name: str
    payload: bytes
    form: Form = Form.CODEC
    key: tuple[str, bytes] | None = None
    timeout: float | None = None

    def envelope(
        self, message_id: MessageId, sent_at: float, headers: dict[str, str] | None, *, ask: bool, reply_to: tuple[bytes, int] | None = None
    ) -> Envelope:
        """The message as it travels; `sent_at` in seconds since the epoch."""
        return Envelope(
            id=message_id,
            kind=self.kind,
            name=self.name,
            payload=self.payload,
            form=self.form,
            ask=ask,
            key=self.key,
            reply_to=reply_to,
            headers=headers,
            sent_at=sent_at,
        )


class Port(Protocol):
    """What carries requests to actors: the runtime that hosts them, or a client of it. Each verb is one of a reference."""

    @property
    def registry(self) -> Registry:
        """The types that can be reached."""
        ...

    async def ask(self, request: Request) -> Outcome:
        """Have an event handled; its outcome, once that is durable."""
        ...

    async def send(self, request: Request) -> None:
        """Return once the message is durable."""
        ...

    async def query(self, request: Request) -> Outcome:
        """What a query returns or raises, once all that it has read is durable."""
        ...

    async def info(self, target: ActorId) -> ActorInfo:
        """What is known of an actor."""
        ...

    async def dead_letter(self, target: ActorId, seq: int) -> DeadLetterInfo:
        """One of an actor's dead letters, once it is durable. Raises DeadLetterNotFound."""
        ...

    def stream(self, target: ActorId, after: int) -> AsyncIterator[tuple[int, StreamRow]]:
        """What an actor has emitted and will emit behind a position, with the items' own."""
        ...


@final
class _Recorded(Awaitable[None]):
    """What a verb returns that was recorded with its turn: awaiting it is optional and takes no time."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, None]:
        return
        yield


RECORDED: Final = _Recorded()


class _Decoding:
    """The port whose answer is being decoded: references in it come from there."""

    port: Port | None = None


@contextmanager
def decoding(port: Port | None) -> Generator[None, None, None]:
    """While bytes are decoded for a caller: bind the references in them to its port."""
    before, _Decoding.port = _Decoding.port, port
    try:
        yield
    finally:
        _Decoding.port = before


class _Options(NamedTuple):
    """How a reference is used; `spawned` is who made the actor a child, by which request, where `spawn` has returned the reference."""

    idempotency_key: str | None = None
    timeout: timedelta | None = None
    spawned: tuple[ActorId, bytes] | None = None


NO_OPTIONS: Final = _Options()


class ActorRef(Generic[A_co]):
    """The address of an actor of class `A_co`, with the verbs that reach it. Hashable, picklable, equal by address."""

    __module__ = "perdure.actors"
    __slots__ = ("_options", "_port", "id")

    def __init__(self, target: ActorId, port: Port | None = None, options: _Options = NO_OPTIONS) -> None:
        self.id: Final = target
        self._port = port
        self._options = options

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorRef) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return restore_ref, (self.id.type, self.id.key)

    @property
    def key(self) -> str:
        """The actor's key."""
        return self.id.key

    def options(self, *, idempotency_key: str | None = None, timeout: timedelta | None = None) -> Self:
        """The same reference with options, beside those that it has already.

        `idempotency_key`: a repetition of the message gets the first one's outcome. `timeout`: how long `ask` waits, and what else waits
        for the host. Raises InvalidKey for an idempotency key that is not Unicode text.
        """
        if idempotency_key is not None:
            check_idempotency_key(self.id, idempotency_key)
        key, patience, spawned = self._options
        key, patience = key if idempotency_key is None else idempotency_key, patience if timeout is None else timeout
        return type(self)(self.id, self._port, _Options(key, patience, spawned))

    @overload
    async def ask(self, handler: Event[A_co, P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def ask(self, handler: str, /, *args: Any, **kwargs: Any) -> Any: ...
    async def ask(self, handler: object, /, *args: Any, **kwargs: Any) -> Any:
        """Send an event, and return what its handler returns, or raise what it raises, once that is durable.

        Raises UnknownHandler, WrongArguments, NotSerializable at the call; MailboxFull, IdempotencyMismatch, ActorCompleted,
        ActorQuarantined from the actor; AskTimeout if `options(timeout=…)` has passed.
        """
        event = self._registry().find(self.id.type, Definition.event, handler)
        outcome = await self._asked(self._request(Kind.EVENT, event, args, kwargs), args, kwargs)
        return _result(self._port, event, outcome)

    @overload
    def send_event(self, handler: Event[A_co, P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[None]: ...
    @overload
    def send_event(self, handler: str, /, *args: Any, **kwargs: Any) -> Awaitable[None]: ...
    def send_event(self, handler: object, /, *args: Any, **kwargs: Any) -> Awaitable[None]:
        """Send an event; awaiting it returns once the event is durable. In an actor it is sent with the turn, awaited or not.

        Raises UnknownHandler, WrongArguments, NotSerializable, MailboxFull, IdempotencyMismatch. An event that keeps failing ends in the
        dead letters.
        """
        event = self._registry().find(self.id.type, Definition.event, handler)
        return self._send(self._request(Kind.EVENT, event, args, kwargs))

    def signal(self, signal: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[None]:
        """What `send_signal` does."""
        found = self._registry().find(self.id.type, Definition.signal, signal)
        kind = Kind.SIGNAL if isinstance(found, Handler) else Kind.DECLARED
        return self._send(self._request(kind, found, args, kwargs))

    @overload
    async def query(self, handler: Query[A_co, P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def query(self, handler: str, /, *args: Any, **kwargs: Any) -> Any: ...
    async def query(self, handler: object, /, *args: Any, **kwargs: Any) -> Any:
        """Read the actor between two turns: what the query returns or raises, once everything it has read is durable.

        An actor that never had a message answers as a new one would. Raises QueryChangedState if the query is found to write.
        """
        query = self._registry().find(self.id.type, Definition.query, handler)
        payload = query.encode_call(args, kwargs)
        coroutines = AMBIENT.get(None)
        if coroutines is None:
            outcome = await self._bound().query(Request(self.id, Kind.EVENT, query.name, payload))
        else:
            arguments = digest_of_call(args, kwargs, len(payload))
            outcome = await _recorded(coroutines, RequestKind.QUERY, query.name, payload, self.id, arguments)
        return _result(self._port, query, outcome)

    async def info(self) -> ActorInfo:
        """Status, version, cursors, mailbox and more. Raises ActorNotFound for an actor that never had a message."""
        coroutines = AMBIENT.get(None)
        if coroutines is None:
            return await self._bound().info(self.id)
        outcome = await _recorded(coroutines, RequestKind.INFO, "info", b"", self.id)
        if isinstance(outcome, Raised):
            raise outcome.failure.revive()
        return PICKLE.decode(outcome.payload)  # type: ignore[return-value]

    async def stream(self, *, after: int = 0) -> AsyncIterator[StreamItem]:
        """All that the actor has emitted and will emit, in one order, each once it is durable; resumed behind a position by `after`.

        Ends when the actor has ended. Raises DataLoss where items behind `after` have been removed, NotDurable in an actor.
        """
        _refuse_in_turn(f"the stream of {self.id}", "read it from outside, and send the actor what it needs as events or signals")
        port = self._bound()
        async for position, row in port.stream(self.id, after):
            with decoding(port):
                payload = PICKLE.decode(row.payload)
            yield StreamItem(position, row.name, payload, row.at)

    async def delete(self) -> None:
        """Forget the actor with all its messages and dead letters; returns once that is durable. The next message makes a new one.

        Asks that wait for an answer of it raise ActorCompleted.
        """
        await self._control(Kind.DELETE, "delete")

    def cancel(self, reason: str = "") -> Awaitable[None]:
        """Ask the actor to end: CancelledError with the reason at whatever its workflow, or the handler at work, waits for.

        Awaiting it returns once the actor has been told, and that is durable. Clean-up may take `durable_actor(cancel_grace=…)`; `result()`
        tells the end. Nothing happens if it has ended already, or is ending. In an actor it is sent with the turn, awaited or not, and
        nothing happens if there is no such actor. Raises ActorNotFound, ActorQuarantined.
        """
        return self._end(Kind.CANCEL, "cancel", reason)

    def terminate(self, reason: str = "") -> Awaitable[None]:
        """End the actor now, quarantined or not: nothing is cleaned up, sagas are not undone; awaiting it returns once that is durable.

        In an actor it is sent with the turn, as by `cancel`. Raises ActorNotFound; ActorQuarantined if it stands still at its first
        message, so that there is nothing to end yet.
        """
        return self._end(Kind.TERMINATE, "terminate", reason)

    def _end(self, kind: Kind, verb: str, reason: str) -> Awaitable[None]:
        request = self._for_host(kind, verb, reason.encode())
        return self._told(request) if AMBIENT.get(None) is None else self._send(request)

    async def _told(self, request: Request) -> None:
        await ask_host(self._bound(), request)

    async def retry(self) -> None:
        """Let a quarantined actor go on with the message that it stood still at, once the cause is mended; no other actor notices.

        Raises ActorQuarantined if the cause is still there: VersionMismatch, MigrationFailed, or records that are damaged.
        """
        await self._control(Kind.RETRY, "retry")

    async def redrive(self, *seqs: int) -> int:
        """Put dead letters back into the mailbox, those of the numbers given or all, in the order in which they were put aside.

        Each is a new message there, with no attempts behind it, and keeps its idempotency key. All of it happens at once, so asked again it
        does nothing twice; returns how many were put back. What the actor's code cannot take stays, as does what the mailbox has no room
        for. What got into no mailbox, and was sent again under its key since, is not handled twice: it goes, and counts.

        Raises ActorCompleted for an actor that has ended, MailboxFull if there is room for none.
        """
        return await self._change_letters(Kind.REDRIVE, "redrive", LetterChange(list(seqs)))

    async def drop_dead_letters(self, *seqs: int) -> int:
        """Forget dead letters for good, those of the numbers given or all; returns how many."""
        return await self._change_letters(Kind.DROP, "drop_dead_letters", LetterChange(list(seqs)))

    async def edit_dead_letter(self, seq: int, /, *args: Any, **kwargs: Any) -> None:
        """Give the message of a dead letter other arguments, those of the handler that it calls; it stays where it is until redriven.

        Raises DeadLetterNotFound, WrongArguments, NotSerializable; UnknownHandler for what calls nothing.
        """
        _refuse_in_turn(f"edit_dead_letter of {self.id}")
        handler = (await self._bound().dead_letter(self.id, seq)).handler
        definition = self._registry().require(self.id.type)
        call = definition.handlers.get(handler) or definition.waits.get(handler) or definition.event(handler)
        await self._change_letters(Kind.EDIT, "edit_dead_letter", LetterChange([seq], handler, call.encode_call(args, kwargs)))

    async def _change_letters(self, kind: Kind, verb: str, change: LetterChange) -> int:
        return changed_letters(await self._control(kind, verb, LETTER_CHANGE.pack(change)))

    async def _control(self, kind: Kind, verb: str, payload: bytes = b"") -> bytes:
        _refuse_in_turn(f"{verb} of {self.id}")
        return await ask_host(self._bound(), self._for_host(kind, verb, payload))

    def _for_host(self, kind: Kind, verb: str, payload: bytes) -> Request:
        timeout = self._options.timeout
        return Request(self.id, kind, verb, payload, timeout=None if timeout is None else timeout.total_seconds())

    def _bound(self) -> Port:
        if self._port is None:
            raise RuntimeNotRunning(
                repr(self), "no runtime or client of this process made it", "Take one of its own: runtime.ref(Order, key)."
            )
        return self._port

    def _registry(self) -> Registry:
        coroutines = AMBIENT.get(None)
        return self._bound().registry if coroutines is None else coroutines.require_turn(str(self.id)).surroundings.registry

    async def _asked(self, request: Request, args: tuple[Any, ...] | None = None, kwargs: dict[str, Any] | None = None) -> Outcome:
        """The outcome of a message: in an actor, of one that is recorded with the turn, and known by its arguments."""
        coroutines = AMBIENT.get(None)
        if coroutines is None:
            return await self._bound().ask(request)
        arguments = b"" if args is None else digest_of_call(args, kwargs or {}, len(request.payload))
        return await _ask_inside(coroutines, request, arguments)

    def _request(self, kind: Kind, call: Handler | WaitsSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request:
        payload = call.encode_call(args, kwargs)
        if self._options is NO_OPTIONS:
            return Request(self.id, kind, call.name, payload)
        key, timeout, _ = self._options
        used_for = None if key is None else (key, _digest_of(call, payload))
        return Request(self.id, kind, call.name, payload, Form.CODEC, used_for, None if timeout is None else timeout.total_seconds())

    def _send(self, request: Request) -> Awaitable[None]:
        coroutines = AMBIENT.get(None)
        if coroutines is None:
            return self._bound().send(request)
        _record(coroutines.require_turn(f"sending {request.name!r}"), request)
        return RECORDED


class WorkflowRef(ActorRef[A_co], Generic[A_co, R_co]):
    """The address of an actor with a workflow that comes to an `R_co`."""

    __module__ = "perdure.actors"
    __slots__ = ()

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Any, ...]]:
        spawned = self._options.spawned
        return restore_workflow_ref, (*self.id,) if spawned is None else (*self.id, *spawned[0], spawned[1])

    async def result(self) -> R_co:
        """What the workflow returned, now or once it has, in this or a later process.

        Raises ActorFailed from what the workflow raised (of a child in its parent ChildFailed), ActorCancelled, WorkflowNotStarted;
        AskTimeout if `options(timeout=…)` has passed. A failed child that supervision begins again has not ended.
        """
        run = self._registry().find(self.id.type, _workflow_of, "run")
        timeout = self._options.timeout
        seconds = None if timeout is None else timeout.total_seconds()
        outcome = await self._asked(Request(self.id, Kind.RESULT, "result", self._asked_as_parent(), timeout=seconds))
        if isinstance(outcome, Raised):
            failure = outcome.failure
            error = failure.revive()
            if outcome.refused:
                raise error
            raise ActorFailed(self.id, f"{failure.type_name}: {failure.text}", compensation_errors_of(error)) from error
        return _result(self._port, run, outcome)  # type: ignore[no-any-return]

    def _asked_as_parent(self) -> bytes:
        """The request that has made the child, where its parent asks: it is told if somebody else's workflow is there."""
        coroutines, spawned = AMBIENT.get(None), self._options.spawned
        if coroutines is None or spawned is None or coroutines.require_turn(str(self.id)).actor != spawned[0]:
            return b""
        return spawned[1]


def _workflow_of(definition: Definition, _: object) -> Handler:
    return definition.require_workflow()


IfExists = Literal["use", "fail", "restart"]
_STARTS: Final[dict[str, Kind]] = {"use": Kind.START, "fail": Kind.START_NEW, "restart": Kind.RESTART}


@final
class Starter:
    """How workflows are started: what `options(…)` of a runtime or client returns.

    `if_exists` says what happens on a key that has a workflow: "use" it if it has the same arguments, "fail", or "restart" it in a new
    life.
    """

    __module__ = "perdure.actors"
    __slots__ = ("_if_exists", "_key", "_port")

    def __init__(self, port: Port | None, if_exists: IfExists = "use", idempotency_key: str | None = None) -> None:
        if if_exists not in _STARTS:
            raise ValueError(f"if_exists={if_exists!r} is none of {', '.join(map(repr, _STARTS))}")
        self._port = port
        self._if_exists: IfExists = if_exists
        self._key = idempotency_key

    def __repr__(self) -> str:
        return f"<Starter if_exists={self._if_exists!r}>"

    async def start(self, run: Workflow[A, P, R], key: str, /, *args: P.args, **kwargs: P.kwargs) -> WorkflowRef[A, R]:
        """Begin a workflow; returns its reference once that is durable. Idempotent on the key.

        Raises WorkflowAlreadyStarted, WrongArguments, NotSerializable, UnknownActorType, KeyTooLong.
        """
        coroutines = AMBIENT.get(None)
        registry = _required(self._port).registry if coroutines is None else coroutines.require_turn("start").surroundings.registry
        definition = registry.of_workflow(run)
        ref: WorkflowRef[A, R] = WorkflowRef(actor_id(definition.name, key), self._port)
        keyed = ref if self._key is None else ref.options(idempotency_key=self._key)  # for the start, and for nothing else
        request = keyed._request(_STARTS[self._if_exists], definition.require_workflow(), args, kwargs)
        outcome = await keyed._asked(request, args, kwargs)
        if isinstance(outcome, Raised):
            raise outcome.failure.revive()
        return ref


async def ask_host(port: Port, request: Request) -> bytes:
    """Have the host do something about an actor, not the actor's code; returns its answer. Raises what it refuses with."""
    outcome = await port.ask(request)
    if isinstance(outcome, Raised):
        raise outcome.failure.revive()
    return outcome.payload


def changed_letters(answer: bytes) -> int:
    """How many dead letters were changed, out of the host's answer."""
    return int.from_bytes(answer, "big")


def make_ref(registry: Registry, actor: Any, key: str, port: Port | None = None) -> Any:
    """A reference by an actor's class, or by its workflow. Raises UnknownActorType, DefinitionError, KeyTooLong, InvalidKey."""
    if isinstance(actor, type):
        return ActorRef(actor_id(registry.of(actor).name, key), port)
    return WorkflowRef(actor_id(registry.of_workflow(actor).name, key), port)


def _required(port: Port | None) -> Port:
    assert port is not None
    return port


def restore_ref(type_name: str, key: str) -> ActorRef[Any]:
    """A reference out of its pickle, bound to the port whose answer it was in."""
    return ActorRef(ActorId(type_name, key), _Decoding.port)


def restore_workflow_ref(type_name: str, key: str, *spawned: Any) -> WorkflowRef[Any, Any]:
    """The same of a workflow; of a child, if `spawn` has returned it to an actor by a request: its type and key, and that one's id."""
    child = ActorId(type_name, key)
    if not spawned:
        return WorkflowRef(child, _Decoding.port)
    parent_type, parent_key, request = spawned
    return child_ref(child, ActorId(parent_type, parent_key), request, _Decoding.port)


def child_ref(child: ActorId, parent: ActorId, request: bytes, port: Port | None = None) -> WorkflowRef[Any, Any]:
    """A reference to the workflow of a child that a request of its parent has made."""
    return WorkflowRef(child, port, _Options(spawned=(parent, request)))


@overload
def send_signal(ref: ActorRef[A], signal: Signal[A, P], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[None]: ...
@overload
def send_signal(ref: ActorRef[Any], signal: Waits[None], /) -> Awaitable[None]: ...
@overload
def send_signal(ref: ActorRef[Any], signal: Waits[T], payload: T, /) -> Awaitable[None]: ...
@overload
def send_signal(ref: ActorRef[Any], signal: str, /, *args: Any, **kwargs: Any) -> Awaitable[None]: ...
def send_signal(ref: ActorRef[Any], signal: object, /, *args: Any, **kwargs: Any) -> Awaitable[None]:
    """Send a signal: the call of an `@on_signal` handler, or a declared signal with its payload.

    Awaiting it returns once the signal is durable. In an actor it is sent with the turn, awaited or not.
    Raises UnknownHandler, WrongArguments, NotSerializable at the call.
    """
    return ref.signal(signal, args, kwargs)


def _record(turn: Turn, request: Request) -> None:
    if turn.read_only:
        raise NotDurable(f"a query of {turn.actor} sends {request.name!r} to {request.target}", "send from an event or a signal handler")
    turn.send(request.target, request.kind, request.name, request.payload, request.key)


async def _ask_inside(coroutines: Coroutines, request: Request, arguments: bytes) -> Outcome:
    turn = coroutines.require_turn(f"an answer of {request.target}")
    found, asked = turn.ask(request.target, request.kind, request.name, request.payload, request.key, arguments)
    if request.timeout is None:
        return await coroutines.outcomes.wait(found, asked.kind, asked.name, request.target)
    scope = asyncio.timeout(request.timeout)
    try:
        async with scope:
            return await coroutines.outcomes.wait(found, asked.kind, asked.name, request.target)
    except TimeoutError:
        if not scope.expired():
            raise
        raise AskTimeout(request.target, request.name, request.timeout) from None


async def _recorded(
    coroutines: Coroutines, kind: RequestKind, name: str, payload: bytes, target: ActorId, arguments: bytes = b""
) -> Outcome:
    turn = coroutines.require_turn(name)
    found = turn.begin(kind, name, payload, digest((*target, arguments)), target=target)
    return await coroutines.outcomes.wait(found, kind, f"{name} of {target}", target)


def _digest_of(call: Handler | WaitsSpec, payload: bytes) -> bytes:
    """What an idempotency key is used for: the same however the arguments were passed. Raises NotSerializable."""
    try:
        return digest((call.name, call.decode_call(payload)))
    except (RecursionError, TypeError) as error:
        raise NotSerializable(f"{call.label}(…)", "value", f"an idempotency key needs plain arguments: {error}") from error


def _refuse_in_turn(what: str, cure: str = "do it from outside, or in a step") -> None:
    if AMBIENT.get(None) is not None:
        raise NotDurable(f"{what} in an actor", cure)


def _result(port: Port | None, handler: Handler, outcome: Outcome) -> Any:
    with decoding(port):
        if isinstance(outcome, Raised):
            raise outcome.failure.revive()
        return readable(handler.decode_result, outcome.payload)
