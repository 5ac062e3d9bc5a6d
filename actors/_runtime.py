"""The runtime: owns a store and hosts its actors, from `async with` to its end.

It lives in epochs. A commit whose outcome nobody knows ends an epoch: every actor in memory is forgotten, and the next epoch starts from
the store, by the same way that a new process would. Whatever else fails ends the runtime, and surfaces at `async with`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, final, overload

import anyio
import anyio.abc

from ..storage import CommitUncertain, Limits, Store, open_store
from ..tracing import Tracing
from ._breadcrumb import BreadcrumbFile, PassingBreadcrumbs
from ._clock import Clock, SystemClock
from ._errors import RuntimeNotRunning
from ._ids import ActorId
from ._info import ActorInfo, DeadLetterInfo
from ._marks import Workflow
from ._records import Outcome, StreamRow, status_named
from ._ref import ActorRef, IfExists, Request, Starter, WorkflowRef, make_ref
from ._registry import Registry
from ._settings import Settings, only

if TYPE_CHECKING:  # what hosts is loaded when something is hosted: a third of what the import would cost
    from ._dispatch import DispatchStatistics
    from ._host import Host

A = TypeVar("A")
P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger("perdure.actors")


@final
class Runtime:
    """Hosts the actors of a store. Use it with `async with`; one process, one runtime for each store.

    `store`: a URL (`lmdb:PATH`, `memory:`) or a Store. `actors`: the decorated classes it serves. `resources`: what their code finds as
    `current_actor().resources` (a database pool, an HTTP client). `clock`: for tests. `max_active`: actors kept in memory (default 10,000).
    `max_uncommitted`: turns, and bytes, that may wait for the disk before new work waits (default 20,000 and 64 MiB).
    `on_dead_letter(letter)`: called on the event loop when a message was put aside, once that is durable. `turn_limit`: seconds
    after which a turn is interrupted (default 10). `max_steps`: steps that run at the same time (default 1,000).
    `tracing`: how it is traced, where an OpenTelemetry SDK listens.
    """

    __module__ = "perdure.actors"

    def __init__(
        self,
        store: str | Store,
        actors: Iterable[type],
        *,
        resources: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
        max_active: int = 10_000,
        max_uncommitted: Limits | None = None,
        on_dead_letter: Callable[[DeadLetterInfo], None] | None = None,
        turn_limit: float = 10.0,
        max_steps: int = 1_000,
        tracing: Tracing | None = None,
    ) -> None:
        self._given = open_store(store) if isinstance(store, str) and store.startswith("memory:") else store
        self._settings = Settings(
            registry=Registry.of_classes(actors),
            resources=dict(resources or {}),
            clock=clock or SystemClock(),
            max_active=max_active,
            limits=max_uncommitted or Limits(),
            on_dead_letter=on_dead_letter,
            turn_limit=turn_limit,
            max_steps=max_steps,
            tracing=tracing or Tracing(),
        )
        self._tasks: anyio.abc.TaskGroup | None = None
        self._host: Host | None = None
        self._hosted = asyncio.Event()
        self._ended = False
        self._shield = anyio.CancelScope()

    @classmethod
    def with_settings(cls, store: str | Store, settings: Settings) -> Self:
        """A runtime with everything chosen: for the test kit."""
        runtime = cls(store, ())
        runtime._settings = settings
        return runtime

    def __repr__(self) -> str:
        return f"<Runtime on {self._given} {self._host or 'not running'}>"

    @property
    def registry(self) -> Registry:
        """The actor types it serves."""
        return self._settings.registry

    # --- references and reading ---

    @overload
    def ref(self, actor: type[A], key: str) -> ActorRef[A]: ...
    @overload
    def ref(self, actor: Workflow[A, ..., R], key: str) -> WorkflowRef[A, R]: ...
    def ref(self, actor: Any, key: str) -> Any:
        """A reference to an actor, whether it exists or not: the first message makes it. By its workflow, one with a result.

        Raises UnknownActorType, KeyTooLong, InvalidKey.
        """
        return make_ref(self.registry, actor, key, self)

    async def start(self, run: Workflow[A, P, R], key: str, /, *args: P.args, **kwargs: P.kwargs) -> WorkflowRef[A, R]:
        """Begin a workflow; returns its reference once that is durable. Idempotent on the key: the same arguments find what has begun.

        Raises WorkflowAlreadyStarted for other arguments, WrongArguments, NotSerializable, UnknownActorType, KeyTooLong.
        """
        return await Starter(self).start(run, key, *args, **kwargs)

    def options(self, *, if_exists: IfExists = "use", idempotency_key: str | None = None) -> Starter:
        """How to start on a key whose workflow has begun: "use" it if its arguments are the same, "fail", or "restart" it in a new life."""
        return Starter(self, if_exists, idempotency_key)

    async def actors(
        self, actor: type | None = None, *, status: str | None = None, prefix: str = "", waiting_for: str | None = None
    ) -> AsyncIterator[ActorInfo]:
        """The infos of all actors, in order of (type, key); of one type, of one status, of keys that begin so. All of it is durable.

        `waiting_for`: those that wait for something of that name (a signal, a step). Actors that come or go meanwhile may be missed. Raises
        ValueError for an unknown status, and its InvalidKey for a prefix of no key.
        """
        host = await self._current("a list of actors")
        name = None if actor is None else self.registry.of(actor).name
        wanted = "suspended" if waiting_for is not None and status is None else status
        async for info in host.reader.actors(name, None if wanted is None else status_named(wanted), prefix):
            if waiting_for is None or any(each.name == waiting_for for each in info.waits):
                yield info

    async def dead_letters(self, actor: type | None = None, key: str | None = None) -> AsyncIterator[DeadLetterInfo]:
        """The messages that could not be handled: all, a type's, or one actor's; the oldest of each actor first."""
        from ._query import scan_dead_letter_infos

        host = await self._current("a list of dead letters")
        name = None if actor is None else self.registry.of(actor).name
        async for letter in scan_dead_letter_infos(host.epoch.commit.overlay, name, key):
            await host.epoch.commit.settled()
            yield letter

    async def dead_letter(self, target: ActorId, seq: int) -> DeadLetterInfo:
        """As `Port.dead_letter`."""
        from ._query import read_dead_letter_info

        host = await self._current("a dead letter")
        try:
            return await read_dead_letter_info(host.epoch.commit.overlay, target, seq)
        finally:
            await host.epoch.commit.settled()

    def statistics(self) -> DispatchStatistics:
        """What is in memory and what waits now, and what was done since the host began. Raises RuntimeNotRunning."""
        if self._host is None:
            raise RuntimeNotRunning("statistics")
        return self._host.dispatcher.statistics()

    # --- the port ---

    async def ask(self, request: Request) -> Outcome:
        """As `Port.ask`."""
        return await (await self._current(f"{request.name!r} to {request.target}")).ask(request)

    async def send(self, request: Request) -> None:
        """As `Port.send`."""
        await (await self._current(f"{request.name!r} to {request.target}")).send(request)

    async def query(self, request: Request) -> Outcome:
        """As `Port.query`."""
        return await (await self._current(f"{request.name!r} to {request.target}")).reader.query(request)

    async def info(self, target: ActorId) -> ActorInfo:
        """As `Port.info`."""
        return await (await self._current("info")).reader.info(target)

    async def stream(self, target: ActorId, after: int) -> AsyncIterator[tuple[int, StreamRow]]:
        """As `Port.stream`."""
        host = await self._current("a stream")
        async for item in host.reader.stream(target, after):
            yield item

    # --- life ---

    async def settled(self) -> None:
        """Return once no actor has anything to do at this time, and all that was done is durable; messages in back-off wait on."""
        await (await self._current("settled")).settled()

    async def sweep(self) -> None:
        """Remove now what has expired by now: a host does so once a minute. For tests."""
        await (await self._current("sweep")).sweep()

    def abort(self) -> None:
        """End as a crash would, committing nothing more; `async with` is to be left next. For tests."""
        self._ended = True
        if self._host is not None:
            self._host.abort()

    async def serve(self) -> None:
        """Host until SIGTERM or SIGINT arrives, then stop in order. Enters the runtime if that has not been done."""
        if self._tasks is None:
            async with self:
                await self.serve()
            return
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for received in signals:
                logger.info("%s: stopping", received.name)
                return

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise RuntimeNotRunning("entering it again", "a runtime is entered once", "Make another.")
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        try:
            await self._tasks.start(self._live)
        except BaseException as error:
            await self._leave(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._leave(kind, error, traceback)

    async def _leave(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> bool | None:
        assert self._tasks is not None
        self._ended = True
        if self._host is not None:
            self._host.stop()
        try:
            return await self._tasks.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            cause = only(group)
            if cause is error:
                return False
            raise cause from None

    async def _live(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Epoch after epoch, until stopped."""
        started = False

        def begin(host: Host) -> None:
            nonlocal started
            if self._ended:
                host.stop()
            self._host = host
            self._hosted.set()
            self._shield.shield = True
            if not started:
                started = True
                task_status.started()

        try:
            while not await self._lived(begin):
                pass
        finally:
            self._ended = True
            self._hosted.set()  # who waits for the next epoch learns that there is none

    async def _lived(self, begin: Callable[[Host], None]) -> bool:
        """Live one epoch; returns False if another one is to follow."""
        try:
            # A host that has begun stops by itself when it is told to, so that what is done is committed; before that nobody could tell it.
            with anyio.CancelScope(shield=self._shield.shield) as self._shield:
                await self._one_epoch(begin)
        except BaseExceptionGroup as group:
            error = only(group)
            if not isinstance(error, CommitUncertain) or not error.recoverable or self._ended:
                raise error from None
            logger.error("%s; starting again from the store", error)
            return False
        return True

    async def _one_epoch(self, begin: Callable[[Host], None]) -> None:
        from ._host import Host
        from ._persistence import PARTITION

        store = open_store(self._given) if isinstance(self._given, str) else self._given
        try:
            fence = await store.own(PARTITION)
            breadcrumbs = self._breadcrumbs(fence.epoch)
            host = Host(store, fence, self._settings, breadcrumbs)
            try:
                await host.run(lambda: begin(host), os.getpid(), breadcrumbs)
            finally:
                self._host = None
                self._hosted.clear()
                with anyio.CancelScope(shield=True):
                    await store.release(fence)
        finally:
            if isinstance(self._given, str):
                with anyio.CancelScope(shield=True):
                    await store.close()

    def _breadcrumbs(self, epoch: int) -> BreadcrumbFile | PassingBreadcrumbs:
        """Where this epoch leaves its crumbs, and the last one has left its own: in a file beside an LMDB store, elsewhere in memory."""
        url = str(self._given)
        if not url.startswith("lmdb:"):
            return self._settings.breadcrumbs
        return BreadcrumbFile(os.path.join(url.removeprefix("lmdb:"), "breadcrumbs"), epoch)

    async def _current(self, what: str) -> Host:
        """The host of this epoch, or of the next one if that is about to begin. Raises RuntimeNotRunning."""
        while (host := self._host) is None or host.failed:
            if self._tasks is None or self._ended:
                raise RuntimeNotRunning(what)
            self._hosted.clear()
            await self._hosted.wait()
        return host
