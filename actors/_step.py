"""Steps: functions with side effects, run outside the turn that asks for them, and recorded once.

An actor that awaits a step asks for it with its turn; its arguments and its outcome are copies, and the outcome comes back as a message.
Elsewhere a step is an ordinary coroutine function: one attempt, no record.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import typing
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from importlib import import_module
from types import FunctionType
from typing import Any, Final, Generic, Literal, NamedTuple, ParamSpec, Protocol, TypeVar, final, overload

from ._calls import Call, digest_of_call
from ._codec import PICKLE
from ._coroutines import AMBIENT, Coroutines
from ._errors import DefinitionError, NotInActor, NotSerializable
from ._ids import ActorId, MessageId
from ._outcome_errors import StepFailed
from ._policy import Rate, Retry
from ._reading import readable
from ._records import Outcome, Raised, RequestKind

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Executor = Literal["thread", "process"]


class StepOptions(NamedTuple):
    """How a step is tried. Times are timedeltas; None is without a limit.

    `timeout` is for one attempt, `timeout_over_all` from the first attempt to the end of the last. `executor` is where a `def` step runs.
    `at_once` is how many run at the same time, and `rate` how many begin in a time, over all actors of the host. `compensate` undoes
    it.
    """

    retry: Retry = Retry()
    timeout: timedelta | None = None
    timeout_over_all: timedelta | None = None
    executor: Executor = "thread"
    at_once: int | None = None
    rate: Rate | None = None
    compensate: Step[..., Any] | None = None


DEFAULTS: Final = StepOptions()


class Undoing(Protocol):
    """Who undoes what the steps that are called within it have done."""

    def admit(self) -> None:
        """A step is about to be asked for. Raises CancelledError if nobody would undo it any more."""
        ...

    def expect(self, step: Step[..., Any], payload: bytes, key: str) -> Callable[[Outcome | None], None]:
        """A step has been asked for in this turn, under an idempotency key; returns what is to be told how it has ended."""
        ...


UNDOING: Final[contextvars.ContextVar[Undoing | None]] = contextvars.ContextVar("perdure_undoing", default=None)


@final
class Step(Generic[P, R_co]):
    """A step; call it and await what that returns. `function` is the plain function. Made by `step`."""

    __module__ = "perdure.actors"

    def __init__(self, function: Callable[P, Any], options: StepOptions, name: str | None = None) -> None:
        self.function: Final = function
        self.name: Final = name or f"{function.__module__}.{function.__qualname__}"
        self.is_async: Final = inspect.iscoroutinefunction(function)
        self.given: Final = options
        self.call: Final = Call(function.__qualname__, self.name, inspect.signature(function), partial(_hints, function), PICKLE)
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        self.__qualname__ = function.__qualname__
        self.__wrapped__ = function

    def __repr__(self) -> str:
        return f"<step {self.name}>"

    def __set_name__(self, owner: type, name: str) -> None:
        raise DefinitionError(
            f"{owner.__qualname__}.{name}",
            "a step is no method: it runs outside the actor, on no instance",
            f"Write it as a function, beside the class:\n    @step\n"
            f"    async def {name}(…): …   # not in the class; it takes what it needs as arguments",
        )

    def __reduce__(self) -> tuple[Callable[[str], Step[Any, Any]], tuple[str]]:
        return find_step, (self.name,)

    def options(
        self, *, retry: Retry | None = None, timeout: timedelta | None = None, timeout_over_all: timedelta | None = None
    ) -> Step[P, R_co]:
        """The same step, tried in another way: what is left out stays as it is. Raises DefinitionError for what could not work."""
        given: dict[str, Any] = {"retry": retry, "timeout": timeout, "timeout_over_all": timeout_over_all}
        changed = self.given._replace(**{name: value for name, value in given.items() if value is not None})
        _check(self.name, changed)
        return Step(self.function, changed, self.name)

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Have it run, and return what it returns. In an actor: recorded, and tried again as its policy says.

        Raises WrongArguments and NotSerializable at the call; StepFailed, from the original, after the last attempt. Elsewhere it raises
        what the function raises.
        """
        coroutines = AMBIENT.get(None)
        if coroutines is None:
            return await self._run_here(args, kwargs)  # type: ignore[no-any-return]
        undoing = UNDOING.get()
        if undoing is not None:
            undoing.admit()
        payload, request = self.ask(coroutines, args, kwargs)
        hear: Callable[[Outcome | None], None] | None = None
        if undoing is not None:
            hear = undoing.expect(self, payload, idempotency_key_of(coroutines.require_turn(self.name).actor, request))
        outcome = await coroutines.outcomes.wait_for_step(request, self.name, hear)
        if isinstance(outcome, Raised):
            raise outcome.failure.revive()
        return readable(PICKLE.decode, outcome.payload)  # type: ignore[return-value]

    def ask(
        self, coroutines: Coroutines, args: tuple[Any, ...], kwargs: dict[str, Any], compensates: bytes | None = None
    ) -> tuple[bytes, MessageId]:
        """Ask for it with the turn; returns its arguments as bytes and the id that its outcome will have. `compensates`: what it undoes."""
        turn = coroutines.require_turn(f"the step {self.name}")
        payload = self.call.encode_call(args, kwargs)
        digest, options = digest_of_call(args, kwargs, len(payload)), self._recorded_options()
        return payload, turn.begin(RequestKind.STEP, self.name, payload, digest, options=options, compensates=compensates)

    async def _run_here(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.is_async:
            return await self.function(*args, **kwargs)
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(None, partial(context.run, self.function, *args, **kwargs))

    def _recorded_options(self) -> bytes:
        defined = STEPS.get(self.name)
        return b"" if defined is self or defined is None else PICKLE.encode(self.given._asdict())


STEPS: Final[dict[str, Step[..., Any]]] = {}


def find_step(name: str) -> Step[..., Any]:
    """The step of a name: one that was defined, or is when its module is imported. Raises LookupError, saying what to do."""
    found = STEPS.get(name)
    if found is None:
        module, _, _ = name.rpartition(".")
        while module and found is None:
            with suppress(Exception):  # a module may raise anything, and may not be this step's at all
                import_module(module)
            found = STEPS.get(name)
            module = module.rpartition(".")[0]
    if found is None:
        raise LookupError(f"no step is named {name!r} in this process: import the module that defines it, or give the new one that name=…")
    return found


class CompensatedStepDecorator(Protocol[P]):
    """What `step(compensate=…)` returns: it goes on a function that takes what the compensation takes."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Step[P, R]: ...


class StepDecorator(Protocol):
    """What `step(…)` with options returns."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Step[P, R]: ...


@overload
def step(function: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    compensate: Step[P, Any],
    name: str = ...,
    retry: Retry = ...,
    timeout: timedelta | None = ...,
    timeout_over_all: timedelta | None = ...,
    executor: Executor = ...,
    at_once: int | None = ...,
    rate: Rate | None = ...,
) -> CompensatedStepDecorator[P]: ...
@overload
def step(
    *,
    name: str = ...,
    retry: Retry = ...,
    timeout: timedelta | None = ...,
    timeout_over_all: timedelta | None = ...,
    executor: Executor = ...,
    at_once: int | None = ...,
    rate: Rate | None = ...,
) -> StepDecorator: ...
def step(function: Any = None, /, *, name: str | None = None, **options: Any) -> Any:
    """Make a function a step: something with side effects, run outside the turn and recorded once.

    An `async def` step runs on the host's event loop; a `def` step in a thread, or in a process of its own with `executor="process"`.
    `name`: what it is called in stores (default: module and qualified name). `retry`: default 3 attempts, after about 1 and 2 seconds.
    `timeout`: for one attempt; `timeout_over_all`: for all of them. `at_once`: how many run at the same time; `rate`: how many may begin in
    a time. `compensate`: the step that undoes it, with the same arguments, when a `saga` around its call is undone. Raises DefinitionError
    for what could not work.
    """
    unknown = options.keys() - set(StepOptions._fields)
    if unknown:
        raise DefinitionError(
            "@step", f"it has no option {', '.join(sorted(unknown))}", f"There is: name, {', '.join(StepOptions._fields)}."
        )
    given = StepOptions(**options)
    return partial(_defined, options=given, name=name) if function is None else _defined(function, given, name)


def _defined(function: Any, options: StepOptions, name: str | None) -> Step[Any, Any]:
    if not isinstance(function, FunctionType):
        raise DefinitionError(f"@step on {function!r}", "it goes on a plain function", "Write it directly above `def` or `async def`.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DefinitionError(
            f"@step on {function.__qualname__}", "a step cannot be a generator", "Return a list, or emit items: step_info().emit."
        )
    made: Step[Any, Any] = Step(function, options, name)
    _check(made.name, options)
    if options.executor == "process" and made.is_async:
        raise DefinitionError(made.name, "executor='process' is for `def` steps", "Write `def`, or leave the executor out.")
    _check_compensation(made, options.compensate)
    taken = STEPS.get(made.name)
    if name is not None and taken is not None and _place(taken) != _place(made):
        raise DefinitionError(made.name, f"{_place(taken)} is the step of this name already", "Give one of them another name=….")
    STEPS[made.name] = made
    return made


def _place(step: Step[..., Any]) -> str:
    return f"{step.function.__module__}.{step.function.__qualname__}"


def _check_compensation(made: Step[..., Any], compensate: object) -> None:
    if compensate is None:
        return
    if not isinstance(compensate, Step):
        raise DefinitionError(f"@step {made.name}", f"compensate={compensate!r} is no step", "Write @step above that function, too.")
    parameters = made.call.signature.parameters.values()
    args = [None for each in parameters if each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD}]
    kwargs = {each.name: None for each in parameters if each.kind is each.KEYWORD_ONLY}
    try:
        compensate.call.signature.bind(*args, **kwargs)
    except TypeError as error:
        name = compensate.__name__
        cure = f"Let it take the same: def {name}{made.call.signature}; or register it by hand: undo.push({name}, …)."
        raise DefinitionError(f"@step {made.name}", f"its compensation is called with the same arguments: {error}", cure) from error


def _check(name: str, options: StepOptions) -> None:
    for problem in _problems(options):
        raise DefinitionError(f"@step {name}", problem, "Correct it, or leave it out for the default.")


def _problems(options: StepOptions) -> Iterator[str]:
    for field, kind in _KINDS.items():
        value = getattr(options, field)
        if not isinstance(value, kind):
            yield f"{field}={value!r} is no {kind.__name__ if isinstance(kind, type) else kind[0].__name__}"
    for field in ("timeout", "timeout_over_all"):
        value = getattr(options, field)
        if value is not None and value <= timedelta(0):
            yield f"{field}={value!r} leaves no time"
    if options.at_once is not None and options.at_once < 1:
        yield f"at_once={options.at_once!r} lets none run"
    if options.executor not in {"thread", "process"}:
        yield f"executor={options.executor!r} is neither 'thread' nor 'process'"


_KINDS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "retry": Retry,
    "timeout": (timedelta, type(None)),
    "timeout_over_all": (timedelta, type(None)),
    "at_once": (int, type(None)),
    "rate": (Rate, type(None)),
}


def _hints(function: Callable[..., Any]) -> Mapping[str, object]:
    return typing.get_type_hints(function, include_extras=True)


# --- inside a step ---


@final
class UnknownOutcome:
    """What is known of a step that was asked for, and may have been done or not: its only instance is `Unknown`."""

    __module__ = "perdure.actors"
    __slots__ = ()

    def __repr__(self) -> str:
        return "Unknown"

    def __reduce__(self) -> str:
        return "Unknown"


Unknown: Final = UnknownOutcome()


@final
class Compensated(NamedTuple):
    """What a compensation undoes: the name of a step, the idempotency key of that asking, and what it returned, or `Unknown`."""

    step: str
    idempotency_key: str
    outcome: Any


Compensated.__module__ = "perdure.actors"


class RunningAttempt(Protocol):
    """What the host lets a running step do."""

    def heartbeat(self, progress: object) -> None:
        """Record how far the attempt is."""
        ...

    def emit(self, name: str, payload: object) -> None:
        """Append an item to the actor's stream."""
        ...


@final
class StepInfo:
    """What a running step may know about itself.

    `attempt` counts from 1, failed and interrupted ones together; `progress` is what the last heartbeat of an earlier attempt recorded;
    `resources` is what the host was given, nothing in a process of its own; `compensates` is what it undoes, if it was called by a saga for
    a step that has it as its compensation.
    """

    __module__ = "perdure.actors"
    __slots__ = ("_request", "_running", "actor", "attempt", "compensates", "progress", "resources")

    def __init__(
        self,
        running: RunningAttempt,
        actor: ActorId,
        attempt: int,
        request: MessageId,
        progress: Any,
        resources: Mapping[str, Any],
        compensates: Compensated | None = None,
    ) -> None:
        self._running = running
        self.actor: Final = actor
        self.attempt: Final = attempt
        self._request: Final = request
        self.progress: Final = progress
        self.resources: Final = resources
        self.compensates: Final = compensates

    def __repr__(self) -> str:
        return f"<StepInfo of {self.actor}, attempt {self.attempt}, {self.idempotency_key}>"

    @property
    def idempotency_key(self) -> str:
        """The same for all attempts at one asking, over crashes too, and never again for another."""
        return idempotency_key_of(self.actor, self._request)

    def heartbeat(self, progress: object = None) -> None:
        """Record how far this attempt is, for the next one, should this one fail or be interrupted. Raises NotSerializable."""
        self._running.heartbeat(progress)

    def emit(self, name: str, payload: object = None) -> None:
        """Append an item to the stream of the actor that asked for the step. Raises NotSerializable."""
        self._running.emit(name, payload)


STEP: Final[contextvars.ContextVar[StepInfo]] = contextvars.ContextVar("perdure_step")


def step_info() -> StepInfo:
    """The step that is running: its attempt, idempotency key, progress, resources. Raises NotInActor where none is, or none is recorded."""
    info = STEP.get(None)
    if info is None:
        raise NotInActor("step_info()")
    return info


def idempotency_key_of(actor: ActorId, request: bytes) -> str:
    """The key that all attempts at one asking share, and that no other asking ever has."""
    return f"{actor.type}-{request[:16].hex()}-{int.from_bytes(request[16:22], 'big')}-{int.from_bytes(request[22:25], 'big')}"


def encoded_result(step: Step[..., Any], value: object, failure: Callable[[str], StepFailed]) -> bytes:
    """What a step returned, as bytes. Raises the failure that names what cannot be stored."""
    try:
        return PICKLE.encode(value)
    except NotSerializable as error:
        raise failure(f"it was done, but what it returned cannot be stored: {error.within(f'{step.call.label}()')}") from error
