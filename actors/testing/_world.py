"""A world: a host, its store, its clock and its randomness in one object, for tests that crash and restart it in process.

Nothing in a world depends on the machine's time or on chance: the clock jumps when nobody has anything to do, ids come from the seed,
queries are all checked. References that a world gives out go on working over its restarts.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar, final, overload

import anyio

from ...storage import CommitUncertain, MemoryDisk, MemoryStore, Store, open_store
from .._ids import ActorId
from .._info import ActorInfo, DeadLetterInfo
from .._marks import Workflow
from .._records import Outcome, StreamRow
from .._ref import ActorRef, IfExists, Request, Starter, WorkflowRef, make_ref
from .._registry import Registry
from .._runtime import Runtime
from .._settings import Settings
from ._clock import JumpingClock
from ._store import CrashPoint, UnsteadyStore

A = TypeVar("A")
P = ParamSpec("P")
R = TypeVar("R")

PATIENCE: Final = 1.0  # seconds of real time
JUMPS_AT_MOST: Final = 10_000  # of the clock in one `run_until_idle`: more is a test that never ends


@final
class SeededEntropy:
    """Ids by counting, hashed with a seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._count = 0

    def token(self) -> bytes:
        """As `Entropy.token`."""
        self._count += 1
        return hashlib.blake2b(f"{self._seed}/{self._count}".encode(), digest_size=16).digest()


@final
class World:
    """A host with everything around it; use it with `async with World([Order]) as world:`.

    `store` is the URL of an LMDB store, if not of one in memory; `max_active=0` passivates each actor after each of its turns.
    """

    __module__ = "perdure.actors.testing"

    def __init__(
        self,
        actors: Iterable[type],
        *,
        store: str = "memory:",
        seed: int = 0,
        max_active: int = 10_000,
        resources: Mapping[str, Any] | None = None,
        on_dead_letter: Callable[[DeadLetterInfo], None] | None = None,
        turn_limit: float = 10.0,
    ) -> None:
        self.clock = JumpingClock()
        self._url = store
        self._disk = MemoryDisk()
        self._settings = Settings(
            registry=Registry.of_classes(actors),
            resources=resources if resources is not None else {},
            clock=self.clock,
            entropy=SeededEntropy(seed),
            max_active=max_active,
            on_dead_letter=on_dead_letter,
            check_queries=1,
            turn_limit=turn_limit,
        )
        self._store: UnsteadyStore | None = None
        self._runtime: Runtime | None = None

    def __repr__(self) -> str:
        return f"<World of {self._runtime!r}>"

    # --- as a runtime ---

    @property
    def runtime(self) -> Runtime:
        """The runtime of now; another one after each restart."""
        assert self._runtime is not None, "use the world inside `async with`"
        return self._runtime

    @property
    def store(self) -> UnsteadyStore:
        """The store in front of the runtime's."""
        assert self._store is not None, "use the world inside `async with`"
        return self._store

    @property
    def registry(self) -> Registry:
        """The actor types of this world."""
        return self._settings.registry

    @overload
    def ref(self, actor: type[A], key: str) -> ActorRef[A]: ...
    @overload
    def ref(self, actor: Workflow[A, ..., R], key: str) -> WorkflowRef[A, R]: ...
    def ref(self, actor: Any, key: str) -> Any:
        """As `Runtime.ref`; the reference goes on working after a restart."""
        return make_ref(self.registry, actor, key, self)

    async def start(self, run: Workflow[A, P, R], key: str, /, *args: P.args, **kwargs: P.kwargs) -> WorkflowRef[A, R]:
        """As `Runtime.start`; the reference goes on working after a restart."""
        return await Starter(self).start(run, key, *args, **kwargs)

    def options(self, *, if_exists: IfExists = "use", idempotency_key: str | None = None) -> Starter:
        """As `Runtime.options`."""
        return Starter(self, if_exists, idempotency_key)

    def actors(
        self, actor: type | None = None, *, status: str | None = None, prefix: str = "", waiting_for: str | None = None
    ) -> AsyncIterator[ActorInfo]:
        """As `Runtime.actors`."""
        return self.runtime.actors(actor, status=status, prefix=prefix, waiting_for=waiting_for)

    async def dead_letters(self, actor: type | None = None, key: str | None = None) -> list[DeadLetterInfo]:
        """All that `Runtime.dead_letters` gives."""
        return [letter async for letter in self.runtime.dead_letters(actor, key)]

    async def dead_letter(self, target: ActorId, seq: int) -> DeadLetterInfo:
        """As `Port.dead_letter`."""
        return await self.runtime.dead_letter(target, seq)

    async def ask(self, request: Request) -> Outcome:
        """As `Port.ask`."""
        return await self.runtime.ask(request)

    async def send(self, request: Request) -> None:
        """As `Port.send`."""
        await self.runtime.send(request)

    async def query(self, request: Request) -> Outcome:
        """As `Port.query`."""
        return await self.runtime.query(request)

    async def info(self, target: ActorId) -> ActorInfo:
        """As `Port.info`."""
        return await self.runtime.info(target)

    def stream(self, target: ActorId, after: int) -> AsyncIterator[tuple[int, StreamRow]]:
        """As `Port.stream`; it ends with the host, by an error."""
        return self.runtime.stream(target, after)

    # --- time and trouble ---

    async def settled(self) -> None:
        """Return once no actor has anything to do at this time, and all that was done is durable.

        A step that runs for longer than a second is left running: perhaps only the clock can end it.
        """
        for _ in range(3):
            with anyio.move_on_after(PATIENCE) as patience:
                await self.runtime.settled()
            if patience.cancelled_caught:
                return
            for _ in range(3):  # whoever was told something gets the chance to do something about it
                await asyncio.sleep(0)

    async def run_until_idle(self) -> None:
        """Let everything happen that will: whenever nobody has anything to do, the clock jumps to what is due next."""
        for _ in range(JUMPS_AT_MOST):
            await self.settled()
            due = self.clock.next_due()
            if due is None:
                return
            self.clock.move_to(due)
        raise AssertionError(f"after {JUMPS_AT_MOST} jumps of the clock there is still something due: {self.clock!r}")

    async def advance(self, by: timedelta) -> None:
        """Move the clock, stopping wherever something is due on the way until it has happened; then remove what has expired."""
        end = self.clock.now() + by.total_seconds()
        await self.settled()
        while (due := self.clock.next_due()) is not None and due <= end:
            self.clock.move_to(due)
            await self.settled()
        self.clock.move_to(end)
        await self.settled()
        await self.runtime.sweep()
        await self.settled()

    def crash_at(self, point: CrashPoint, nth: int = 1) -> None:
        """Let the host crash around its nth commit from now. It starts again by itself; who waits for an answer gets CommitUncertain."""
        self.store.crash_at(point, nth)

    @contextmanager
    def slow_disk(self) -> Iterator[None]:
        """Inside, no commit becomes durable; all of them do afterwards."""
        self.store.hold()
        try:
            yield
        finally:
            self.store.flow()

    async def restart(self, actors: Iterable[type] | None = None) -> None:
        """End the host as kill -9 would, and start another one on its store: with these types, as a deploy does, if any are given.

        What was not durable is lost; who waits for it is told.
        """
        await self._end()
        if actors is not None:
            self._settings = replace(self._settings, registry=Registry.of_classes(actors))
        await self._begin()

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.store.flow()
        runtime, self._runtime = self.runtime, None
        await runtime.__aexit__(None, None, None)
        await self.store.close()

    async def _begin(self) -> None:
        beneath: Store = MemoryStore(self._disk) if self._url == "memory:" else open_store(self._url)
        self._store = UnsteadyStore(beneath)
        self._runtime = await Runtime.with_settings(self._store, self._settings).__aenter__()

    async def _end(self) -> None:
        self.store.flow()
        self.runtime.abort()
        with suppress(CommitUncertain):  # it may be dying of another crash already
            await self.runtime.__aexit__(None, None, None)
        await self.store.close()
