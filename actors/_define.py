"""Definitions: what a decorated class comes to, as the rest of the package sees it.

A definition is made once, when the class is decorated, and never changes; what could not work is refused there, by a DefinitionError.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, NoReturn, TypeVar, final, get_args, overload

from ._codec import PICKLE, Codec, codec_named
from ._errors import DefinitionError, NotDeserializable, UnknownHandler
from ._handlers import Handler, WaitsSpec, activations_of, handlers_of, waits_of
from ._marks import HandlerKind
from ._migrations import Migrations, check_replays
from ._policy import Retry, Supervision
from ._state import State

C = TypeVar("C", bound=type)

MAX_NAME_BYTES: Final = 64  # of UTF-8: a type's name is part of every key of its actors
_DEFINITION: Final = "__perdure_definition__"


OnPoison = Literal["skip", "quarantine", "stop"]


class Options(NamedTuple):
    """The options of `durable_actor`, with their defaults."""

    name: str | None = None
    version: int = 1
    codec: Codec | str = PICKLE
    mailbox_limit: int | None = 10_000
    dedupe_for: timedelta = timedelta(days=1)
    retry: Retry = Retry()
    max_replay: int = 50_000
    stream_limit: int | None = 10_000
    on_poison: OnPoison = "skip"
    supervise: Supervision | None = None
    cancel_grace: timedelta = timedelta(seconds=30)
    replays: Sequence[int] = ()
    retention: timedelta | None = None
    keep_history: int = 0


@final
class Definition:
    """One version of an actor type: its handlers, its state, its options.

    `mailbox_limit` counts messages, `dedupe_for` is how long idempotency keys are kept, `retry` is for events that were
    sent and not asked. `max_replay` is how long a log may become, and `stream_limit` how many items of a stream are kept. `on_poison` is
    what follows a message that cannot be handled, `supervise` what follows a child that fails; `cancel_grace` in seconds. `migrations` are
    those to this version, `replays` the older versions whose past it can replay; `retention` is in seconds, None for ever. `keep_history`
    is how many messages of the past are kept at least.
    """

    __slots__ = (
        "_activations",
        "_events",
        "_named",
        "_queries",
        "_signals",
        "_state",
        "_timers",
        "cancel_grace",
        "child_exit",
        "cls",
        "codec",
        "dedupe_for",
        "handlers",
        "keep_history",
        "mailbox_limit",
        "max_replay",
        "migrations",
        "name",
        "on_poison",
        "replays",
        "retention",
        "retry",
        "stream_limit",
        "supervise",
        "transient",
        "version",
        "waits",
        "workflow",
    )

    def __init__(self, cls: type, options: Options) -> None:
        self.cls: Final = cls
        self.name: Final = _checked_name(cls.__name__ if options.name is None else options.name, cls)
        self.version: Final = options.version
        self.codec: Final = codec_named(options.codec) if isinstance(options.codec, str) else options.codec
        self.mailbox_limit: Final = sys.maxsize if options.mailbox_limit is None else options.mailbox_limit
        self.dedupe_for: Final = options.dedupe_for
        self.retry: Final = options.retry
        self.max_replay: Final = options.max_replay
        self.stream_limit: Final = options.stream_limit
        self.on_poison: Final = options.on_poison
        self.supervise: Final = options.supervise
        self.cancel_grace: Final = options.cancel_grace.total_seconds()
        self.retention: Final = None if options.retention is None else options.retention.total_seconds()
        self.keep_history: Final = options.keep_history
        self.replays: Final = check_replays(cls, self.version, options.replays)
        self.migrations: Final = Migrations(cls, self.version)
        self._state: Final = State(cls, self.codec)
        self.transient: Final = self._state.transient
        self._activations: Final = activations_of(cls)
        handlers, functions = handlers_of(cls, self.name, self.codec)
        waits, declared = waits_of(cls, self.name, self.codec, handlers)
        self.handlers: Final[Mapping[str, Handler]] = MappingProxyType(handlers)
        self.waits: Final[Mapping[str, WaitsSpec]] = MappingProxyType(waits)
        named: dict[object, str] = {name: name for name in (*handlers, *waits)}
        self._named: Final = {**functions, **declared, **named}
        self._events: Final = self._of_kind(HandlerKind.EVENT)
        self._queries: Final = self._of_kind(HandlerKind.QUERY)
        self._timers: Final = self._of_kind(HandlerKind.TIMER)
        self.workflow: Final = next((each for each in handlers.values() if each.kind is HandlerKind.WORKFLOW), None)
        self.child_exit: Final = next((each for each in handlers.values() if each.kind is HandlerKind.CHILD_EXIT), None)
        self._signals: Final[dict[object, Handler | WaitsSpec]] = {
            **self._of_kind(HandlerKind.SIGNAL),
            **{key: waits[name] for key, name in self._named.items() if name in waits},
        }

    def __repr__(self) -> str:
        return f"<Definition of {self.name} version {self.version}: {', '.join([*self.handlers, *self.waits])}>"

    def create(self) -> Any:
        """A new instance, as by the class without arguments. Raises what `__init__` raises."""
        return self._state.create()

    def encode_state(self, instance: Any) -> bytes:
        """The instance's attributes but the transient ones. Raises NotSerializable with the path, as in `self.lines[3].socket`."""
        return self._state.encode(instance)

    def decode_state(self, data: bytes) -> Any:
        """A new instance with the stored attributes, `__init__` not called, transient attributes not set. Raises NotDeserializable."""
        try:
            return self._state.decode(data)
        except NotDeserializable as error:
            raise error.in_state_of(self.version) from error

    def migrate_state(self, data: bytes, version: int) -> bytes:
        """The state of an older version as one of this. Raises NotDeserializable, NotSerializable, and what a migration raises."""
        return self._state.changed(data, lambda state: self.migrations.apply(state, version))

    def mend_state(self, instance: Any, data: bytes) -> list[str]:
        """Make an instance that replay has rebuilt agree with its stored attributes; returns the paths of what was set.

        Raises StateDiffers where that cannot be.
        """
        return self._state.mend(instance, data)

    def activate(self, instance: Any) -> None:
        """Call the `@on_activate` methods, base classes' first. Raises what they raise."""
        for name in self._activations:
            getattr(instance, name)()

    def event(self, handler: object) -> Handler:
        """The event of that name, or whose function (of the class or of a base) it is. Raises UnknownHandler."""
        try:
            return self._events[handler]
        except (KeyError, TypeError):
            self._refuse(handler, HandlerKind.EVENT)

    def query(self, handler: object) -> Handler:
        """The query of that name, or whose function it is. Raises UnknownHandler."""
        try:
            return self._queries[handler]
        except (KeyError, TypeError):
            self._refuse(handler, HandlerKind.QUERY)

    def timer(self, handler: object) -> Handler:
        """The `@on_timer` handler of that name, or whose function it is. Raises UnknownHandler."""
        try:
            return self._timers[handler]
        except (KeyError, TypeError):
            self._refuse(handler, HandlerKind.TIMER)

    def require_workflow(self) -> Handler:
        """The type's workflow. Raises UnknownHandler if it has none."""
        if self.workflow is None:
            raise UnknownHandler(self.name, "run", "workflow", (), "Mark its main coroutine:\n    @workflow\n    async def run(self, …): …")
        return self.workflow

    def begins(self, run: object) -> bool:
        """Whether that is the function of its workflow, its own or a base's."""
        return self.workflow is not None and self._name_of(run) == self.workflow.name

    def refuse_workflow(self, run: object) -> NoReturn:
        """Raise UnknownHandler for something of the class that is not its workflow."""
        self._refuse(run, HandlerKind.WORKFLOW)

    def signal(self, signal: object) -> Handler | WaitsSpec:
        """The `@on_signal` handler or the declared signal of that name, function or `signal(…)` object. Raises UnknownHandler."""
        try:
            return self._signals[signal]
        except (KeyError, TypeError):
            self._refuse(signal, HandlerKind.SIGNAL)

    def declared(self, signal: object) -> WaitsSpec:
        """The declared signal only. Raises UnknownHandler."""
        found = self.signal(signal)
        if isinstance(found, WaitsSpec):
            return found
        raise UnknownHandler(
            self.name, found.name, "declared signal", self.waits, f"{found.name!r} is a handler: it is called, not waited for."
        )

    def signal_handler(self, name: object) -> Handler:
        """The `@on_signal` handler only. Raises UnknownHandler."""
        found = self.signal(name)
        if isinstance(found, Handler):
            return found
        raise UnknownHandler(self.name, found.name, "signal handler", (), f"{found.name!r} is a declared signal: the actor waits for it.")

    def _of_kind(self, kind: HandlerKind) -> dict[object, Handler]:
        handlers = self.handlers
        return {key: handlers[name] for key, name in self._named.items() if name in handlers and handlers[name].kind is kind}

    def _refuse(self, wanted: object, kind: HandlerKind) -> NoReturn:
        known = [handler.name for handler in self.handlers.values() if handler.kind is kind]
        if kind is HandlerKind.SIGNAL:
            known += self.waits
        name = self._name_of(wanted)
        if name is None:
            raise UnknownHandler(self.name, getattr(wanted, "__qualname__", None) or str(wanted), kind.value, known)
        is_kind = self.handlers[name].kind if name in self.handlers else HandlerKind.SIGNAL
        written, meant = (_CALLS[of].format(f"{self.cls.__name__}.{name}") for of in (kind, is_kind))
        width = max(len(written), len(meant))
        lines = (f"    {written:<{width}}   # what was written", f"    {meant:<{width}}   # what was meant")
        shown = "\n".join((f"Its {name!r} is {_ARTICLES[is_kind]}:", *lines))
        raise UnknownHandler(self.name, name, kind.value, known, shown)

    def _name_of(self, wanted: object) -> str | None:
        try:
            return self._named.get(wanted)
        except TypeError:  # it has no hash
            return None


_CALLS: Final = {
    HandlerKind.EVENT: "await ref.ask({}, …)",
    HandlerKind.SIGNAL: "await send_signal(ref, {}, …)",
    HandlerKind.QUERY: "await ref.query({}, …)",
    HandlerKind.WORKFLOW: "await runtime.start({}, key, …)",
    HandlerKind.TIMER: "set_timer({}, …, after=…)",
    HandlerKind.CHILD_EXIT: "@on_child_exit above {}",
}
_ARTICLES: Final = {
    HandlerKind.EVENT: "an event",
    HandlerKind.SIGNAL: "a signal",
    HandlerKind.QUERY: "a query",
    HandlerKind.WORKFLOW: "the workflow",
    HandlerKind.TIMER: "a timer's handler",
    HandlerKind.CHILD_EXIT: "called when a child has ended",
}


@overload
def durable_actor(cls: C, /) -> C: ...
@overload
def durable_actor(
    *,
    name: str = ...,
    version: int = ...,
    codec: Codec | str = ...,
    mailbox_limit: int | None = ...,
    dedupe_for: timedelta = ...,
    retry: Retry = ...,
    max_replay: int = ...,
    stream_limit: int | None = ...,
    on_poison: OnPoison = ...,
    supervise: Supervision | None = ...,
    cancel_grace: timedelta = ...,
    replays: Sequence[int] = ...,
    retention: timedelta | None = ...,
    keep_history: int = ...,
) -> Callable[[C], C]: ...
def durable_actor(cls: type | None = None, /, **options: Any) -> object:
    """Make a class an actor type. Goes above `@dataclass` and the like; raises DefinitionError for what could not work.

    `name`: what it is called in stores (default: the class's name), at most 64 bytes of UTF-8. `version`: from 1 up; name and version
    together are unique. `codec`: "pickle" (default), "msgspec" (MessagePack), "msgspec-json", or a Codec. `mailbox_limit`: messages that
    may wait for one actor, and signals that it may keep (default 10,000; None: any number). `dedupe_for`: how long idempotency keys are
    remembered (default: a day). `retry`: for events that were sent and not asked (default: 3 attempts, after about 1 and 2 seconds).
    `max_replay`: messages that may be handled while something of the actor waits (default 50,000); beyond that it is quarantined, and
    `continue_as_new` is the cure. `stream_limit`: items of a stream that are kept (default 10,000; None: all). `on_poison`: what follows a
    message that cannot be handled: "skip" (default) puts it into the dead letters, "quarantine" lets the actor stand still at it, "stop"
    puts it into the dead letters and fails the actor. `supervise`: OneForOne(…), OneForAll(…) or RestForOne(…), for children that fail
    (default: their parent is told). `cancel_grace`: how long clean-up may take once the actor, or one of its handlers, is asked to end
    (default 30 s); undoing a saga may take longer. `replays`: older versions whose actors this class goes on with where their code waits,
    since it would have asked for the same (default: none). `retention`: how long an actor is kept once it has ended, with all that is its
    own, as a timedelta (default None: until it is deleted). `keep_history`: how many messages of an actor's past are kept at least, to be
    shown and replayed (default 0: none); each is stored twice for it. What is replayed together is kept together, so there may be more.
    """
    if cls is not None:
        return _defined(cls, Options())
    unknown = options.keys() - set(Options._fields)
    if unknown:
        raise DefinitionError(
            "@durable_actor", f"it has no option {', '.join(sorted(unknown))}", f"There is: {', '.join(Options._fields)}."
        )
    given = Options(**options)
    _check(given)
    return lambda decorated: _defined(decorated, given)


def definition_of(cls: type) -> Definition:
    """The definition of a decorated class. Raises DefinitionError, showing the decorator, for another; a subclass needs its own."""
    definition = getattr(cls, "__dict__", {}).get(_DEFINITION)
    if isinstance(definition, Definition) and definition.cls is cls:
        return definition
    name = getattr(cls, "__qualname__", repr(cls))
    if definition is not None:
        raise DefinitionError(name, "the class was made again after @durable_actor", "Put @durable_actor above the other decorators.")
    raise DefinitionError(name, "it is no actor type", f"Decorate it:\n    @durable_actor\n    class {name.rpartition('.')[2]}: …")


def is_actor_type(cls: type) -> bool:
    """Whether a class is decorated itself."""
    definition = vars(cls).get(_DEFINITION)
    return isinstance(definition, Definition) and definition.cls is cls


def _defined(cls: type, options: Options) -> type:
    if not isinstance(cls, type):
        raise DefinitionError("@durable_actor", f"it goes on a class, not on {cls!r}", "Write it above `class …:`.")
    setattr(cls, _DEFINITION, Definition(cls, options))
    return cls


def _check(options: Options) -> None:
    for problem in _problems(options):
        raise DefinitionError("@durable_actor", problem, "Correct it, or leave it out for the default.")


def _problems(options: Options) -> Iterator[str]:
    if type(options.version) is not int or not 1 <= options.version < 1 << 32:
        yield f"version={options.version!r} is not a whole number from 1 up (and below 2**32)"
    for name, what in _AT_LEAST_ONE.items():
        value = getattr(options, name)
        if value is not None and value < 1:
            yield f"{name}={value!r} {what}"
    for name in ("dedupe_for", "cancel_grace"):
        if getattr(options, name) < timedelta(0):
            yield f"{name}={getattr(options, name)!r} is negative"
    if type(options.keep_history) is not int or options.keep_history < 0:
        yield f"keep_history={options.keep_history!r} is not a number of messages"
    if options.retention is not None and options.retention <= timedelta(0):
        yield f"retention={options.retention!r} keeps nothing, not even what the workflow returns"
    if options.on_poison not in get_args(OnPoison):
        yield f"on_poison={options.on_poison!r} is none of {', '.join(map(repr, get_args(OnPoison)))}"
    policy: object = options.supervise
    if policy is not None and not isinstance(policy, Supervision):
        yield f"supervise={policy!r} is no policy: OneForOne(…), OneForAll(…) or RestForOne(…)"


_AT_LEAST_ONE: Final = {
    "mailbox_limit": "leaves no room for a message",
    "max_replay": "lets nothing wait",
    "stream_limit": "keeps nothing",
}


def _checked_name(name: str, cls: type) -> str:
    if not name or not name.isprintable() or "/" in name:
        raise DefinitionError(cls.__qualname__, f"name={name!r} cannot name a type", "It is printable text without a slash.")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise DefinitionError(
            cls.__qualname__, f"its name has {len(name.encode())} bytes of UTF-8, and {MAX_NAME_BYTES} are allowed", "Give name=…."
        )
    return name
