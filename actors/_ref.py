"""References: the address of an actor, and the verbs that reach it.

A reference means the same everywhere. In an actor's code its verbs are recorded with the turn, and take effect with it; elsewhere they go
through the port that the reference came from (a runtime or a client). Arguments are encoded at the call, so nothing mutable is shared and
a mistake raises at the line that made it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, Generic, NamedTuple, ParamSpec, Protocol, Self, TypeVar, final, overload

from ._digest import digest
from ._envelope import Envelope, Form, Kind
from ._errors import NotDurable, NotInActor, NotSerializable, RuntimeNotRunning
from ._handlers import Handler, WaitsSpec
from ._ids import ActorId, MessageId, check_idempotency_key
from ._info import ActorInfo
from ._marks import Event, Query, Signal, Waits
from ._records import Outcome, Raised
from ._registry import Registry
from ._turn import AMBIENT, Turn

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
T = TypeVar("T")
A_co = TypeVar("A_co", covariant=True)


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
def decoding(port: Port) -> Generator[None, None, None]:
    """While bytes are decoded for a caller: bind the references in them to its port."""
    before, _Decoding.port = _Decoding.port, port
    try:
        yield
    finally:
        _Decoding.port = before


class _Options(NamedTuple):
    idempotency_key: str | None = None
    timeout: timedelta | None = None


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

        `idempotency_key`: a repetition of the message gets the first one's outcome. `timeout`: how long `ask` waits. Raises InvalidKey for
        an idempotency key that is not Unicode text.
        """
        if idempotency_key is not None:
            check_idempotency_key(self.id, idempotency_key)
        key, patience = self._options
        return type(self)(self.id, self._port, _Options(idempotency_key or key, timeout or patience))

    @overload
    async def ask(self, handler: Event[A_co, P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def ask(self, handler: str, /, *args: Any, **kwargs: Any) -> Any: ...
    async def ask(self, handler: object, /, *args: Any, **kwargs: Any) -> Any:
        """Send an event, and return what its handler returns, or raise what it raises, once that is durable.

        Raises UnknownHandler, WrongArguments, NotSerializable at the call; MailboxFull, IdempotencyMismatch, ActorCompleted,
        ActorQuarantined from the actor; AskTimeout if `options(timeout=…)` has passed.
        """
        _refuse_in_turn(f"an answer of {self.id}")
        port = self._bound()
        event = port.registry.require(self.id.type).event(handler)
        outcome = await port.ask(self._request(Kind.EVENT, event, args, kwargs))
        return _result(port, event, outcome)

    @overload
    def send_event(self, handler: Event[A_co, P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[None]: ...
    @overload
    def send_event(self, handler: str, /, *args: Any, **kwargs: Any) -> Awaitable[None]: ...
    def send_event(self, handler: object, /, *args: Any, **kwargs: Any) -> Awaitable[None]:
        """Send an event; awaiting it returns once the event is durable. In an actor it is sent with the turn, awaited or not.

        Raises UnknownHandler, WrongArguments, NotSerializable, MailboxFull, IdempotencyMismatch. An event that keeps failing ends in the
        dead letters.
        """
        event = self._registry().require(self.id.type).event(handler)
        return self._send(self._request(Kind.EVENT, event, args, kwargs))

    def signal(self, signal: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[None]:
        """What `send_signal` does."""
        found = self._registry().require(self.id.type).signal(signal)
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
        _refuse_in_turn(f"a query of {self.id}")
        port = self._bound()
        query = port.registry.require(self.id.type).query(handler)
        payload = query.encode_call(args, kwargs)
        return _result(port, query, await port.query(Request(self.id, Kind.EVENT, query.name, payload)))

    async def info(self) -> ActorInfo:
        """Status, version, cursors, mailbox and more. Raises ActorNotFound for an actor that never had a message."""
        _refuse_in_turn(f"the info of {self.id}")
        return await self._bound().info(self.id)

    async def delete(self) -> None:
        """Forget the actor with all its messages and dead letters; returns once that is durable. The next message makes a new one.

        Asks that wait for an answer of it raise ActorCompleted.
        """
        await self._control(Kind.DELETE, "delete")

    async def retry(self) -> None:
        """Let a quarantined actor go on with the message that it stood still at, once the cause is mended; no other actor notices.

        Raises ActorQuarantined if the cause is still there: VersionMismatch, or records that are damaged.
        """
        await self._control(Kind.RETRY, "retry")

    async def _control(self, kind: Kind, verb: str) -> None:
        _refuse_in_turn(f"{verb} of {self.id}")
        outcome = await self._bound().ask(Request(self.id, kind, verb, b""))
        if isinstance(outcome, Raised):
            raise outcome.failure.revive()

    def _bound(self) -> Port:
        if self._port is None:
            raise RuntimeNotRunning(
                repr(self), "no runtime or client of this process made it", "Take one of its own: runtime.ref(Order, key)."
            )
        return self._port

    def _registry(self) -> Registry:
        turn = AMBIENT.get(None)
        return self._bound().registry if turn is None else turn.surroundings.registry

    def _request(self, kind: Kind, call: Handler | WaitsSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request:
        payload = call.encode_call(args, kwargs)
        if self._options is NO_OPTIONS:
            return Request(self.id, kind, call.name, payload)
        key, timeout = self._options
        used_for = None if key is None else (key, _digest_of(call, payload))
        return Request(self.id, kind, call.name, payload, Form.CODEC, used_for, None if timeout is None else timeout.total_seconds())

    def _send(self, request: Request) -> Awaitable[None]:
        turn = AMBIENT.get(None)
        if turn is None:
            return self._bound().send(request)
        _record(turn, request)
        return RECORDED


def restore_ref(type_name: str, key: str) -> ActorRef[Any]:
    """A reference out of its pickle, bound to the port whose answer it was in."""
    return ActorRef(ActorId(type_name, key), _Decoding.port)


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
    if turn.over:  # the caller is a callback or a thread that kept the turn's context
        raise NotInActor(f"sending {request.name!r}")
    if turn.read_only:
        raise NotDurable(f"a query of {turn.actor} sends {request.name!r} to {request.target}", "send from an event or a signal handler")
    turn.send(request.target, request.kind, request.name, request.payload, request.key)


def _digest_of(call: Handler | WaitsSpec, payload: bytes) -> bytes:
    """What an idempotency key is used for: the same however the arguments were passed. Raises NotSerializable."""
    try:
        return digest((call.name, call.decode_call(payload)))
    except (RecursionError, TypeError) as error:
        raise NotSerializable(f"{call.label}(…)", "value", f"an idempotency key needs plain arguments: {error}") from error


def _refuse_in_turn(what: str) -> None:
    if AMBIENT.get(None) is not None:
        raise NotDurable(f"{what} waits for an answer within a turn", "send an event, and let the other actor send one back")


def _result(port: Port, handler: Handler, outcome: Outcome) -> Any:
    with decoding(port):
        if isinstance(outcome, Raised):
            raise outcome.failure.revive()
        return handler.decode_result(outcome.payload)
