"""Marks: what a class body says about its methods and attributes.

At run time a decorator returns the very function it was given, marked; the typed objects (Event, Signal, Query, Workflow, Timer) exist
for type checkers only. What can be seen to be wrong from the function alone is refused here, by a DefinitionError at its line.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine, Mapping
from enum import Enum
from types import FunctionType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar, cast, final, overload

from ._errors import DefinitionError

if TYPE_CHECKING:
    from ._info import ChildExit

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
A = TypeVar("A")
A_contra = TypeVar("A_contra", contravariant=True)
T = TypeVar("T")
Migration = TypeVar("Migration", bound=Callable[[dict[str, Any]], dict[str, Any]])
Activation = TypeVar("Activation", bound=Callable[..., None])
ExitHandler = TypeVar("ExitHandler", bound="Callable[[Any, ChildExit], None]")

_KIND: Final = "__perdure_handler__"
_ACTIVATE: Final = "__perdure_activate__"
_MIGRATES: Final = "__perdure_migrates__"


@final
class HandlerKind(Enum):
    """What a handler is for; the values are the words for it in messages, tools and the store's registry."""

    EVENT = "event"
    SIGNAL = "signal"
    QUERY = "query"
    WORKFLOW = "workflow"
    TIMER = "timer"
    CHILD_EXIT = "child exit"


class Event(Generic[A_contra, P, R_co]):
    """What a type checker sees of an `@on_event` method: whose it is, what it takes, and what an ask gets (`def` and `async def` alike)."""

    __module__ = "perdure.actors"

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: type) -> Self: ...
        @overload
        def __get__(self, instance: object, owner: type) -> Callable[P, Any]: ...
        def __get__(self, instance: object, owner: type) -> object: ...


class Signal(Generic[A_contra, P]):
    """What a type checker sees of an `@on_signal` method: whose it is, and what it takes."""

    __module__ = "perdure.actors"

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: type) -> Self: ...
        @overload
        def __get__(self, instance: object, owner: type) -> Callable[P, None]: ...
        def __get__(self, instance: object, owner: type) -> object: ...


class Query(Generic[A_contra, P, R_co]):
    """What a type checker sees of a `@query` method: whose it is, what it takes, and what it returns."""

    __module__ = "perdure.actors"

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: type) -> Self: ...
        @overload
        def __get__(self, instance: object, owner: type) -> Callable[P, R_co]: ...
        def __get__(self, instance: object, owner: type) -> object: ...


class Workflow(Generic[A_contra, P, R_co]):
    """What a type checker sees of a `@workflow` method: whose it is, what it takes, and what it comes to."""

    __module__ = "perdure.actors"

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: type) -> Self: ...
        @overload
        def __get__(self, instance: object, owner: type) -> Callable[P, Coroutine[Any, Any, R_co]]: ...
        def __get__(self, instance: object, owner: type) -> object: ...


class Timer(Generic[A_contra, P]):
    """What a type checker sees of an `@on_timer` method: whose it is, and what it takes."""

    __module__ = "perdure.actors"

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: type) -> Self: ...
        @overload
        def __get__(self, instance: object, owner: type) -> Callable[P, Any]: ...
        def __get__(self, instance: object, owner: type) -> object: ...


@final
class Waits(Generic[T]):
    """A declared signal: a name, from the attribute it is assigned to, and the type of what it carries. Made by `signal`."""

    __module__ = "perdure.actors"
    __slots__ = ("name", "payload")

    def __init__(self, payload: object) -> None:
        self.name = ""
        self.payload: Final = payload

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = self.name or name  # a decorator that makes the class again says it twice

    def __repr__(self) -> str:
        return f"<declared signal {self.name!r}>"


@final
class TransientMark:
    """Found in the annotation of an attribute that is not stored."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "not stored"


Transient = Annotated[T, TransientMark()]
"""`pool: Transient[Pool]` declares an attribute that is not stored; a method marked `@on_activate` sets it."""


@overload
def on_event(handler: Callable[Concatenate[A, P], Coroutine[Any, Any, R]], /) -> Event[A, P, R]: ...
@overload
def on_event(handler: Callable[Concatenate[A, P], R], /) -> Event[A, P, R]: ...
def on_event(handler: object, /) -> object:
    """Let a method, `def` or `async def`, handle events: work items that wait their turn, one at a time and in order."""
    return _marked(handler, HandlerKind.EVENT, "on_event")


def on_signal(handler: Callable[Concatenate[A, P], None], /) -> Signal[A, P]:
    """Let a method, `def` only, handle signals: it is called at the actor's next turn, whatever waits there."""
    return cast("Signal[A, P]", _marked(handler, HandlerKind.SIGNAL, "on_signal"))


def query(handler: Callable[Concatenate[A, P], R], /) -> Query[A, P, R]:
    """Let a method, `def` only, answer queries: it reads the state between turns and must not change it."""
    return cast("Query[A, P, R]", _marked(handler, HandlerKind.QUERY, "query"))


def workflow(run: Callable[Concatenate[A, P], Coroutine[Any, Any, R]], /) -> Workflow[A, P, R]:
    """Make an `async def` method the actor's main coroutine, begun by `start`; at most one for a type."""
    return cast("Workflow[A, P, R]", _marked(run, HandlerKind.WORKFLOW, "workflow"))


@overload
def on_timer(handler: Callable[Concatenate[A, P], Coroutine[Any, Any, object]], /) -> Timer[A, P]: ...
@overload
def on_timer(handler: Callable[Concatenate[A, P], object], /) -> Timer[A, P]: ...
def on_timer(handler: object, /) -> object:
    """Let a method, `def` or `async def`, be called by a timer that `set_timer` sets; its calls wait their turn as events do."""
    return _marked(handler, HandlerKind.TIMER, "on_timer")


def on_child_exit(handler: ExitHandler, /) -> ExitHandler:
    """Call `def handler(self, exit: ChildExit) -> None` at the turn after a child has ended, whatever waits there; at most one for a type.

    It is called when a child has ended for good: not when supervision begins it again.
    """
    _marked(handler, HandlerKind.CHILD_EXIT, "on_child_exit")
    return handler


def on_activate(method: Activation, /) -> Activation:
    """Call `def method(self) -> None` whenever the actor comes into memory, to set what is Transient; base classes' methods first."""
    function = _plain_function(method, "on_activate")
    if function.__code__.co_argcount != 1:
        raise DefinitionError(_place(function), "it takes arguments, and nobody gives it any", "Write `def method(self) -> None`.")
    _refuse_async(function, "on_activate")
    setattr(function, _ACTIVATE, True)
    return method


def migrate(version: int, /) -> Callable[[Migration], Migration]:
    """Let a static method make today's state out of that of an older version: the attributes by name, in a dict.

    It goes above `@staticmethod`. A state goes through the migration of its own version, then through those of all later ones, each of
    which gets what the one before it has returned. Of classes that cannot be found any more it gets instances of Placeholder. It may ask
    for nothing, and is run when the actor comes into memory: again, if the process dies before the new state is durable.
    """
    if type(version) is not int or version < 1:
        raise DefinitionError(f"@migrate({version!r})", "versions are whole numbers from 1 up", "Name the version that wrote the state.")

    def marked(function: Migration) -> Migration:
        setattr(_plain_function(getattr(function, "__func__", function), "migrate"), _MIGRATES, version)  # of a static method, its function
        return function

    return marked


@overload
def signal() -> Waits[None]: ...
@overload
def signal(payload: UnionType, /) -> Waits[Any]: ...
@overload
def signal(payload: type[T], /) -> Waits[T]: ...
def signal(payload: object = None, /) -> Waits[Any]:
    """Declare what an actor waits for, by name and with the type of what it carries (nothing without a type).

    As in `approved = signal(str)`, assigned in the class body.
    """
    return Waits(payload)


def kind_of(attribute: object) -> HandlerKind | None:
    """What a class attribute is marked as, if it is a handler."""
    kind = getattr(attribute, _KIND, None)
    return kind if isinstance(kind, HandlerKind) else None


def is_activation(attribute: object) -> bool:
    """Whether a class attribute is marked `@on_activate`."""
    return isinstance(attribute, FunctionType) and getattr(attribute, _ACTIVATE, False) is True


def migrates_from(attribute: object) -> int | None:
    """The version whose state a class attribute migrates, if it is marked so."""
    function = attribute.__func__ if isinstance(attribute, staticmethod) else attribute
    return getattr(function, _MIGRATES, None) if isinstance(function, FunctionType) else None


def refuse_unfit(function: FunctionType, kind: HandlerKind) -> None:
    """Raise DefinitionError for a function that cannot be a handler of that kind."""
    decorator = kind.value if kind in {HandlerKind.QUERY, HandlerKind.WORKFLOW} else f"on_{kind.value.replace(' ', '_')}"
    if not function.__code__.co_argcount and not function.__code__.co_flags & inspect.CO_VARARGS:
        raise DefinitionError(
            _place(function), "a handler is a method, and this has no `self`", f"Write `def {function.__name__}(self, …)`."
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DefinitionError(_place(function), "a handler cannot be a generator", "Return a list; what it holds is copied to the caller.")
    if kind is HandlerKind.WORKFLOW and not inspect.iscoroutinefunction(function):
        raise DefinitionError(_place(function), "a workflow waits for things", f"Write `async def {function.__name__}(self, …)`.")
    if kind in {HandlerKind.SIGNAL, HandlerKind.QUERY, HandlerKind.CHILD_EXIT}:
        _refuse_async(function, decorator)
    if kind is HandlerKind.CHILD_EXIT and function.__code__.co_argcount != 2:
        cure = f"Write `def {function.__name__}(self, exit: ChildExit) -> None`."
        raise DefinitionError(_place(function), "it is called with one argument, which says what has become of which child", cure)


def _marked(handler: object, kind: HandlerKind, decorator: str) -> object:
    function = _plain_function(handler, decorator)
    refuse_unfit(function, kind)
    _refuse_second(function, sys._getframe(2).f_locals)  # the class body: later, the first of two is gone
    if kind_of(function) not in {None, kind}:
        raise DefinitionError(_place(function), f"it is marked as {kind_of(function)} already", "Keep one decorator.")
    setattr(function, _KIND, kind)
    return function


def _plain_function(handler: object, decorator: str) -> FunctionType:
    if isinstance(handler, FunctionType):
        return handler
    name = getattr(handler, "__qualname__", None) or repr(handler)
    raise DefinitionError(
        f"@{decorator} on {name}", "it goes on a plain method", f"Write `@{decorator}` directly above `def method(self, …)`."
    )


def _refuse_async(function: FunctionType, decorator: str) -> None:
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise DefinitionError(
            _place(function),
            f"a method with @{decorator} cannot wait for anything",
            f"Show it as a plain function:\n"
            f"    async def {function.__name__}(self, …)   # what was written\n"
            f"    def {function.__name__}(self, …)         # what is possible; an @on_event method may be async",
        )


def _refuse_second(function: FunctionType, class_body: Mapping[str, object]) -> None:
    earlier = class_body.get(function.__name__)
    if "__qualname__" in class_body and (kind_of(earlier) is not None or isinstance(earlier, Waits)):
        raise DefinitionError(
            _place(function), "the class has two handlers of this name, and the first would be lost", "Rename one of them."
        )


def _place(function: FunctionType) -> str:
    return f"{function.__module__}.{function.__qualname__}"
