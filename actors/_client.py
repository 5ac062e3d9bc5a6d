"""A client: any process of the machine that sends to the actors of a store, and reads them, without hosting them.

What it sends is durable in the store's inbox when the call returns, whether a host runs or not. What it asks is answered by whoever hosts
the store, now or later: the outcome waits in the store until the client has it. Infos and lists it reads from the store itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, ParamSpec, Self, TypeVar, final, overload

import anyio
import anyio.abc

from ..storage import Store, open_store
from ..tracing import Tracing, outgoing_headers
from ._catalogue import Catalogue, encode_json_call
from ._clock import SystemClock, SystemEntropy
from ._envelope import Form, Kind, verb_of
from ._errors import AskTimeout, RuntimeNotRunning
from ._ids import ActorId, MessageId, actor_id
from ._info import ActorInfo, DeadLetterInfo
from ._link import Link
from ._marks import Workflow
from ._named import NamedRef
from ._persistence import PARTITION
from ._query import read_dead_letter_info, read_info, scan_dead_letter_infos, scan_infos
from ._records import ARRIVAL_ROW, ArrivalRow, Outcome, StreamRow, status_named
from ._ref import ActorRef, IfExists, Request, Starter, WorkflowRef, make_ref
from ._registry import Registry
from ._settings import only
from ._streaming import read_on

if TYPE_CHECKING:
    from ..tracing import Spans

A = TypeVar("A")
P = ParamSpec("P")
R = TypeVar("R")

LOOK_EVERY: Final = 0.2  # seconds between looks for new items of a stream

_WANTED: Final = {
    Kind.EVENT: "event",
    Kind.SIGNAL: "signal",
    Kind.DECLARED: "signal",
    Kind.START: "workflow",
    Kind.START_NEW: "workflow",
    Kind.RESTART: "workflow",
}


class _Entered(NamedTuple):
    """What a client has while it is used."""

    store: Store
    catalogue: Catalogue
    link: Link
    tasks: anyio.abc.TaskGroup
    spans: Spans | None


@final
class Client:
    """Reaches the actors of a store from another process. Use it with `async with`; it may be in the host's process, too.

    `store`: the URL of a store that exists, `lmdb:PATH`. `actors`: classes of actors to which references may come in answers; those given
    to `ref` are added by themselves, and those at the top of a module whose workflow is given to `ref` or `start`. `tracing`: as of a
    runtime. Raises ValueError for a store that lives in one process's memory, StoreError for one that is not there.
    """

    __module__ = "perdure.actors"

    def __init__(self, store: str, actors: Iterable[type] = (), *, tracing: Tracing | None = None) -> None:
        if store.startswith("memory:"):
            raise ValueError("memory: belongs to one process, so it has no clients: use the runtime's own references, or lmdb:PATH")
        self._url = store
        self._registry: Final = Registry((), grows=True)
        self._clock = SystemClock()
        self._entropy = SystemEntropy()
        self._id = self._entropy.token()
        self._tracing = tracing or Tracing()
        self._entered: _Entered | None = None
        for actor in actors:
            self._registry.of(actor)

    def __repr__(self) -> str:
        return f"<Client of {self._url}: {self._entered.link if self._entered else 'not open'}>"

    @property
    def registry(self) -> Registry:
        """The types whose classes it knows."""
        return self._registry

    # --- references and reading ---

    @overload
    def ref(self, actor: type[A], key: str, /) -> ActorRef[A]: ...
    @overload
    def ref(self, actor: str, key: str, /) -> NamedRef: ...
    @overload
    def ref(self, actor: Workflow[A, ..., R], key: str, /) -> WorkflowRef[A, R]: ...
    def ref(self, actor: Any, key: str, /) -> Any:
        """A reference to an actor, whether it exists or not; by its workflow, one with a result.

        By its type's name, it is called with JSON and needs no class. Raises DefinitionError for a class that is no actor type,
        UnknownActorType for a workflow whose class is not found by its name and was not given to the client, KeyTooLong, InvalidKey.
        Whether any host has served the type is found out by the first call.
        """
        if isinstance(actor, str):
            return NamedRef(actor_id(actor, key), self)
        return make_ref(self.registry, actor, key, self)

    async def start(self, run: Workflow[A, P, R], key: str, /, *args: P.args, **kwargs: P.kwargs) -> WorkflowRef[A, R]:
        """As `Runtime.start`; returns once the host has begun the workflow, and that is durable."""
        return await Starter(self).start(run, key, *args, **kwargs)

    def options(self, *, if_exists: IfExists = "use", idempotency_key: str | None = None) -> Starter:
        """As `Runtime.options`."""
        return Starter(self, if_exists, idempotency_key)

    async def actors(
        self, actor: type | str | None = None, *, status: str | None = None, prefix: str = "", waiting_for: str | None = None
    ) -> AsyncIterator[ActorInfo]:
        """The infos of all actors, in order of (type, key); of one type, of one status, of keys that begin so. No host is needed.

        `waiting_for`: those that wait for something of that name. Actors that come or go meanwhile may be missed, and so may what is in the
        inbox still. Raises ValueError for an unknown status, and its InvalidKey for a prefix of no key.
        """
        entered = self._open("a list of actors")
        wanted = "suspended" if waiting_for is not None and status is None else status
        found = scan_infos(entered.store, await self._type_name(entered, actor), None if wanted is None else status_named(wanted), prefix)
        async for info in found:
            if waiting_for is None or any(each.name == waiting_for for each in info.waits):
                yield info

    async def dead_letters(self, actor: type | str | None = None, key: str | None = None) -> AsyncIterator[DeadLetterInfo]:
        """The messages that could not be handled: all, a type's, or one actor's; the oldest of each actor first. No host is needed."""
        entered = self._open("a list of dead letters")
        async for letter in scan_dead_letter_infos(entered.store, await self._type_name(entered, actor), key):
            yield letter

    async def dead_letter(self, target: ActorId, seq: int) -> DeadLetterInfo:
        """As `Port.dead_letter`. No host is needed."""
        return await read_dead_letter_info(self._open("a dead letter").store, target, seq)

    # --- the port ---

    async def ask(self, request: Request) -> Outcome:
        """As `Port.ask`."""
        entered = self._open(request.name)
        await self._check(entered, request)
        number, answered = entered.link.expect()
        limit = asyncio.timeout(request.timeout)
        try:
            async with limit:
                with self._sending(request, ask=True) as headers:
                    await self._offer(entered, request, headers, (self._id, number))
                    return await answered
        except TimeoutError:
            if not limit.expired() or request.timeout is None:
                raise
            raise AskTimeout(request.target, request.name, request.timeout) from None
        finally:
            entered.link.forget(number)

    async def send(self, request: Request) -> None:
        """As `Port.send`: returns once the message is durable in the inbox."""
        entered = self._open(request.name)
        await self._check(entered, request)
        with self._sending(request, ask=False) as headers:
            await self._offer(entered, request, headers, None)

    async def query(self, request: Request) -> Outcome:
        """As `Port.query`. Raises HostNotRunning if no host answers within a second."""
        entered = self._open(request.name)
        await entered.catalogue.find(request.target, "query", request.name)
        return await entered.link.question(request)

    async def info(self, target: ActorId) -> ActorInfo:
        """As `Port.info`, from the store: what is in the inbox still is not seen."""
        return await read_info(self._open("info").store, target)

    async def stream(self, target: ActorId, after: int) -> AsyncIterator[tuple[int, StreamRow]]:
        """As `Port.stream`, read from the store: no host is needed."""
        store = self._open("a stream").store
        async for item in read_on(store, target, after, _at_once, _after_a_while):
            yield item

    async def named_call(self, target: ActorId, wanted: str, name: str, arguments: str | bytes) -> Request:
        """A call by name with JSON, checked against what the store says of the type; `wanted` as in `Catalogue.find`."""
        listed = await self._open(name).catalogue.find(target, wanted, name)
        return Request(target, listed.kind, name, encode_json_call(listed, arguments), Form.JSON)

    # --- life ---

    async def __aenter__(self) -> Self:
        if self._entered is not None:
            raise RuntimeNotRunning("entering it again", "a client is entered once", "Make another.")
        store = open_store(self._url, create=False)
        link, tasks = Link(store, self._id), anyio.create_task_group()
        await tasks.__aenter__()
        tasks.start_soon(link.run)
        self._entered = _Entered(store, Catalogue(store), link, tasks, self._tracing.spans())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        entered, self._entered = self._entered, None
        assert entered is not None
        entered.tasks.cancel_scope.cancel()
        try:
            return await entered.tasks.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            cause = only(group)
            if cause is error:
                return False
            raise cause from None
        finally:
            with anyio.CancelScope(shield=True):
                await entered.link.close()
                await entered.store.close()

    def _open(self, what: str) -> _Entered:
        if self._entered is None:
            raise RuntimeNotRunning(what)
        return self._entered

    async def _type_name(self, entered: _Entered, actor: type | str | None) -> str | None:
        if actor is None:
            return None
        return (await entered.catalogue.require(actor if isinstance(actor, str) else self._registry.of(actor).name)).name

    async def _check(self, entered: _Entered, request: Request) -> None:
        wanted = _WANTED.get(request.kind)
        if request.kind is Kind.DROP:
            return  # also where no host knows the type
        if wanted is None:
            await entered.catalogue.require(request.target.type)
        else:
            await entered.catalogue.find(request.target, wanted, request.name)

    @contextmanager
    def _sending(self, request: Request, *, ask: bool) -> Iterator[dict[str, str] | None]:
        """The headers of a message, and its span while it is on its way, if that is within a trace."""
        spans = self._open(request.name).spans
        verb = verb_of(request.kind, ask=ask)
        sending = None if spans is None else spans.sending(verb, *request.target, request.name, self._clock.now)
        with nullcontext() if sending is None else sending:
            yield outgoing_headers() if sending is None else sending.headers

    async def _offer(self, entered: _Entered, request: Request, headers: dict[str, str] | None, reply_to: tuple[bytes, int] | None) -> None:
        message_id, now = MessageId(self._entropy.token()), self._clock.now()
        envelope = request.envelope(message_id, now, headers, ask=reply_to is not None, reply_to=reply_to)
        await entered.store.offer(PARTITION, ARRIVAL_ROW.pack(ArrivalRow(*request.target, envelope)))


async def _at_once() -> None:
    """What another process reads of a store is durable."""


async def _after_a_while() -> None:
    await anyio.sleep(LOOK_EVERY)
