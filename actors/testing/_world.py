"""A world: a host, its store, its clock and its randomness in one object, for tests that crash and restart it in process.

Nothing in a world depends on the machine's time or on chance: the clock jumps when nobody has anything to do, ids come from the seed,
queries are all checked. References that a world gives out go on working over its restarts.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar, final, overload

import anyio

from ...storage import CommitUncertain
from ...tracing import Tracing
from .._clock import Entropy
from .._envelope import Kind
from .._errors import RuntimeNotRunning
from .._ids import ActorId
from .._info import ActorInfo, DeadLetterInfo
from .._marks import Workflow
from .._past import HistoryEntry, entry_of, read_past
from .._records import Outcome, StreamRow
from .._ref import ActorRef, IfExists, Request, Starter, WorkflowRef, make_ref
from .._registry import Registry
from .._runtime import Runtime
from .._settings import Settings
from .._step import Step
from ._bodies import Bodies
from ._chance import CountingStopwatch, SeededEntropy
from ._clock import JumpingClock
from ._dice import Dice
from ._jumper import Jumper
from ._keeper import Keeper
from ._scenario import CrashPoint, Scenario
from ._store import UnsteadyStore

A = TypeVar("A")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

PATIENCE: Final = 1.0  # seconds of real time
ROUNDS_OF_PATIENCE: Final = 30  # at most, for a host that commits all the while: a step may beat its heart for ever
JUMPS_AT_MOST: Final = 10_000  # of the clock in one `run_until_idle`: more is a test that never ends
LATENESS: Final = 0.5  # seconds that a timer is late at most, where chance decides
# Whether a query changes state is looked at each time. To linger takes real time: which turns go together would be the machine's choice.
AS_IN_A_TEST: Final[dict[str, Any]] = {"check_queries": 1, "linger": 0.0}
SAID_ONCE: Final = frozenset({Kind.RESULT, Kind.DELETE, Kind.RETRY, Kind.REDRIVE, Kind.DROP})  # by their nature: they need no key


@final
class World:
    """A host with everything around it, for a test; use it with `async with World() as world:`, or as the fixture `world`.

    `actors` are the types it hosts; without them it takes in whatever type it is shown, or one of whose functions. `store` is the URL of an
    LMDB store, if not of one in memory; `max_active=0` passivates each actor after each of its turns. While the test waits for an answer
    and nothing can happen before, the clock jumps to what is due next; with `autojump=False` only the test moves it. `scenario` is what
    befalls the world meanwhile, in the words of `survives_crashes`. `keep_history` messages of every actor's past are kept, at least.
    `tracing`: as of a `Runtime`.
    """

    __module__ = "perdure.actors.testing"

    def __init__(  # noqa: PLR0913  what a runtime takes, and what befalls it
        self,
        actors: Iterable[type] | None = None,
        *,
        store: str = "memory:",
        seed: int = 0,
        max_active: int = 10_000,
        resources: dict[str, Any] | None = None,
        on_dead_letter: Callable[[DeadLetterInfo], None] | None = None,
        turn_limit: float = 10.0,
        autojump: bool = True,
        scenario: str = "plain",
        keep_history: int = 10_000,
        tracing: Tracing | None = None,
    ) -> None:
        self.scenario: Final = Scenario.parse(scenario)
        self.resources: Final[dict[str, Any]] = {} if resources is None else resources
        self.test_id: str | None = None  # by which pytest knows the test
        self._given = None if actors is None else list(actors)
        both: dict[str, Any] = {
            "on_dead_letter": on_dead_letter,
            "turn_limit": turn_limit,
            "keep_history": keep_history,
            "tracing": tracing,
        }
        self._options = {"seed": seed, "max_active": max_active, "autojump": autojump, "resources": dict(self.resources), **both}
        self._dice = dice = None if self.scenario.seed is None else Dice(self.scenario.seed)
        self.clock = JumpingClock(lateness=float if dice is None else partial(dice.random.uniform, 0.0, LATENESS))
        self.bodies: Final = Bodies(twice=self.scenario.twice, dice=dice)
        self._settings = self._settings_with(SeededEntropy(seed), max_active, **both)
        self._keeper, self._turning = Keeper(store), asyncio.Lock()  # for whoever begins a host, or puts one in the place of another
        self._jumper = Jumper(self.clock, self._at_rest, self._explain)
        self._jumping: asyncio.Task[None] | None = None
        self._sent = self._opening = 0  # messages with a key of the world's; commits with which the first host began
        self.is_entered = self.has_begun = self._has_ended = False

    def _settings_with(self, entropy: Entropy, max_active: int, *, tracing: Tracing | None, **both: Any) -> Settings:
        return Settings(
            stopwatch=CountingStopwatch() if self._dice is None else self._dice.stopwatch,
            queue=deque if self._dice is None else self._dice.queue,
            registry=_registry_of(self._given),
            resources=self.resources,
            clock=self.clock,
            entropy=entropy,
            max_active=0 if self.scenario.evict else max_active,
            around_steps=self.bodies,
            **AS_IN_A_TEST,
            tracing=tracing or Tracing(),
            **both,
        )

    def __repr__(self) -> str:
        return f"<World of {self._keeper!r}>"

    # --- as a runtime ---

    @property
    def runtime(self) -> Runtime:
        """The runtime of now; another one after each restart."""
        return self._keeper.runtime

    @property
    def store(self) -> UnsteadyStore:
        """The store in front of the runtime's."""
        return self._keeper.store

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

    async def actors(
        self, actor: type | None = None, *, status: str | None = None, prefix: str = "", waiting_for: str | None = None
    ) -> AsyncIterator[ActorInfo]:
        """As `Runtime.actors`."""
        for info in await self._reach(
            "a list of actors",
            lambda runtime: _listed(runtime.actors(actor, status=status, prefix=prefix, waiting_for=waiting_for)),
        ):
            yield info

    async def dead_letters(self, actor: type | None = None, key: str | None = None) -> list[DeadLetterInfo]:
        """All that `Runtime.dead_letters` gives."""
        return await self._reach("a list of dead letters", lambda runtime: _listed(runtime.dead_letters(actor, key)))

    async def history(self, ref: ActorRef[Any]) -> list[HistoryEntry]:
        """What became of each message of an actor that is durable, the oldest first; print them, one a line."""
        past = await read_past(self.store, ref.id)
        return [] if past is None else [entry_of(row) for row in past.rows]

    async def dead_letter(self, target: ActorId, seq: int) -> DeadLetterInfo:
        """As `Port.dead_letter`."""
        return await self._reach(f"a dead letter of {target}", lambda runtime: runtime.dead_letter(target, seq))

    async def ask(self, request: Request) -> Outcome:
        """As `Port.ask`."""
        keyed = self._keyed(request)
        what = f"{request.name or request.kind.name.lower()!r} of {request.target}"
        outcome = await self._reach(what, lambda runtime: runtime.ask(keyed))
        if self.scenario.resend and keyed.key is not None:
            again = await self._reach(what, lambda runtime: runtime.ask(keyed))
            assert again == outcome, f"asked again with the same idempotency key, {what} is another: {outcome} was first, then {again}"
        return outcome

    async def send(self, request: Request) -> None:
        """As `Port.send`."""
        keyed = self._keyed(request)
        for _ in range(1 + self.scenario.resend):
            await self._reach(f"{request.name!r} to be safe with {request.target}", lambda runtime: runtime.send(keyed))

    async def query(self, request: Request) -> Outcome:
        """As `Port.query`."""
        return await self._reach(f"{request.name!r} of {request.target}", lambda runtime: runtime.query(request))

    async def info(self, target: ActorId) -> ActorInfo:
        """As `Port.info`."""
        return await self._reach(f"info of {target}", lambda runtime: runtime.info(target))

    async def stream(self, target: ActorId, after: int) -> AsyncIterator[tuple[int, StreamRow]]:
        """As `Port.stream`; it ends with the host, by an error."""
        while True:
            items = (await self._current()).stream(target, after)
            try:
                while True:
                    with self._jumper.waiting(f"an item of {target}"):
                        after, row = await anext(items)
                    yield after, row
            except StopAsyncIteration:
                return
            except (CommitUncertain, RuntimeNotRunning):
                if not self.scenario.has_trouble:
                    raise

    async def _reach(self, what: str, act: Callable[[Runtime], Awaitable[T]]) -> T:
        """Do something with the runtime; where trouble is expected, until it is known to be done."""
        with self._jumper.waiting(what):
            if self._dice is not None:
                await self._dice.dawdle()
            while True:
                runtime = await self._current()
                try:
                    return await act(runtime)
                except (CommitUncertain, RuntimeNotRunning):
                    if not self.scenario.has_trouble:
                        raise
                await asyncio.sleep(0)

    def _keyed(self, request: Request) -> Request:
        """The same with an idempotency key, where it may have to be sent again."""
        if not self.scenario.has_trouble or request.key is not None or request.kind in SAID_ONCE:
            return request
        self._sent += 1
        return request._replace(key=(f"sent {self._sent}", hashlib.blake2b(request.payload, digest_size=16).digest()))

    # --- steps ---

    def calls(self, step: Step[..., Any]) -> int:
        """How often the step's body, or what replaces it, has run in this world: once for each attempt, restarts included."""
        return self.bodies.calls(step.name)

    def replace(self, step: Step[P, R], fake: Callable[P, R] | Callable[P, Awaitable[R]]) -> None:
        """From now on run this instead of the step's body, with the same arguments: on the event loop, `def` or `async def`.

        What it raises is the attempt's failure; `step_info()` works in it. The step's own options (retries, time-outs) hold.
        """
        self.bodies.fakes[step.name] = fake

    # --- time and trouble ---

    async def settled(self) -> None:
        """Return once no actor has anything to do at this time, and all that was done is durable.

        A step that runs for longer than a second is left running: perhaps only the clock can end it.
        """
        with self._jumper.still():
            await self._settle()

    async def run_until_idle(self) -> None:
        """Let everything happen that will: whenever nobody has anything to do, the clock jumps to what is due next."""
        with self._jumper.still():
            for _ in range(JUMPS_AT_MOST):
                await self._settle()
                due = self.clock.next_due()
                if due is None:
                    return
                self.clock.jump(due)
        raise AssertionError(f"after {JUMPS_AT_MOST} jumps of the clock there is still something due: {self.clock!r}")

    async def advance(self, by: timedelta) -> None:
        """Move the clock, stopping wherever something is due on the way until it has happened; then remove what has expired."""
        with self._jumper.still():
            end = self.clock.now() + by.total_seconds()
            await self._settle()
            while (due := self.clock.next_due()) is not None and due <= end:
                self.clock.jump(due)
                await self._settle()
            self.clock.move_to(end)
            await self._settle()
            await self._through_crashes(Runtime.sweep)
            await self._settle()

    def crash_at(self, point: CrashPoint, nth: int = 1) -> None:
        """Let the host crash around its nth commit from now. It starts again by itself; who waits for an answer gets CommitUncertain."""
        self.store.crash_at(point, nth)

    @contextmanager
    def slow_disk(self) -> Iterator[None]:
        """Inside, no commit becomes durable; all of them do afterwards."""
        store = self.store
        store.hold()
        try:
            with self._jumper.still():
                yield
        finally:
            store.flow()

    async def restart(self, actors: Iterable[type] | None = None) -> None:
        """End the host as kill -9 would, and start another one on its store: with these types, as a deploy does, if any are given.

        What was not durable is lost; who waits for it is told.
        """
        with self._jumper.still():
            await self._current()
            if actors is not None:
                self._settings = replace(self._settings, registry=Registry.of_classes(actors))
            async with self._turning:
                await self._keeper.kill()
                await self._keeper.begin(self._settings)

    async def _settle(self) -> None:
        for _ in range(3):
            if not await self._at_rest():
                return
            for _ in range(3):  # whoever was told something gets the chance to do something about it
                await asyncio.sleep(0)

    async def _at_rest(self) -> bool:
        """Return once no actor has anything to do now: True; or False, once some step takes too long, and nothing else happens."""
        for _ in range(ROUNDS_OF_PATIENCE):
            before = self.store.commits if self.has_begun else 0
            with anyio.move_on_after(PATIENCE):
                await self._through_crashes(Runtime.settled)
                return True
            if self.store.commits == before and not (self.store.is_busy and self.store.flows):  # a disk may be slow
                break
        return False

    async def _through_crashes(self, act: Callable[[Runtime], Awaitable[None]]) -> None:
        """Do something with the runtime, or with one that follows it. Raises what the last one has ended with."""
        while True:
            try:
                await act(await self._current())
            except (CommitUncertain, RuntimeNotRunning):  # the next epoch begins, or the next host
                if self._has_ended or not (self._keeper.is_alive or self._turning.locked()):
                    raise
                await asyncio.sleep(0)
            else:
                return

    async def _explain(self, awaited: list[str]) -> str:
        """Why nothing goes on, for people."""
        what = ", ".join(dict.fromkeys(awaited))
        lines = [f"the test waits for {what}, and nothing can happen: nobody has anything to do, and nothing is due"]
        async for info in self.runtime.actors():
            if info.status in ("suspended", "quarantined"):
                waits = ", ".join(f"{wait.kind} {wait.name}".strip() for wait in info.waits)
                lines.append(
                    f"    {info.id} is {info.status}{': it waits for ' if waits else ''}{waits}{f': {info.error}' if info.error else ''}"
                )
        lines.append("Send what is waited for, or end what waits; World(autojump=False) waits for ever.")
        return "\n".join(lines)

    # --- life ---

    def under(self, scenario: Scenario, number: int) -> World:
        """Another world of the same kind, with the same steps replaced, in which a scenario plays; the number tells its store apart."""
        made = World(self._given, store=self._keeper.another(number), scenario=str(scenario), **self._options)
        made.bodies.fakes.update(self.bodies.fakes)
        return made

    def erase(self) -> None:
        """Remove what it has left on the disk."""
        self._keeper.erase()

    @property
    def commits(self) -> int:
        """The batches that were committed, or not, since the world began."""
        return self.store.commits - self._opening

    async def __aenter__(self) -> Self:
        self.is_entered = True  # and whoever has done so is to leave it, too
        await self._current()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._has_ended = True
        try:
            if self._jumping is not None:
                self._jumping.cancel()
                await asyncio.wait([self._jumping])
        finally:  # also for a test that is cancelled once more
            try:
                await self._keeper.end()
            except Exception as problem:
                if isinstance(problem, CommitUncertain) and problem.recoverable:
                    return  # a crash at the very end: nobody waits for an answer
                if error is None:
                    raise
                error.add_note(f"The world's host had ended: {type(problem).__name__}: {problem}")

    async def _current(self) -> Runtime:
        """The runtime of now; the first one begins when it is wanted. Raises what it has ended with."""
        if self._has_ended:
            raise RuntimeNotRunning("a world that has been left")
        if not self.has_begun:
            async with self._turning:
                await self._begin()
        if self._keeper.problem is not None:
            raise self._keeper.problem
        return self._keeper.runtime

    async def _begin(self) -> None:
        if self.has_begun:
            return
        await self._keeper.begin(self._settings)
        self.has_begun = True
        self._opening = self.store.commits
        for crash in self.scenario.crashes:
            self.store.crash_at(crash.point, crash.nth)
        if self._options["autojump"]:
            self._jumping = asyncio.create_task(self._jumper.run(), name="the clock of a world")


async def _listed(items: AsyncIterator[T]) -> list[T]:
    return [item async for item in items]


def _registry_of(actors: list[type] | None) -> Registry:
    return Registry((), grows=True) if actors is None else Registry.of_classes(actors)
