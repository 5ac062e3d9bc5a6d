"""Steps at work: what actors have asked for is done beside their turns, again and again until there is an outcome.

A step starts only when the turn that asked for it is durable, and its outcome comes back as a message; what is outstanding stands in the
store, so the next host goes on with it. Attempts that failed and attempts that died with their host are counted apart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, NamedTuple, final

import anyio
import msgspec

from ._activation import Delivery
from ._clock import Alarm
from ._codec import PICKLE
from ._envelope import Envelope, Kind
from ._epoch import Epoch
from ._errors import NotInActor
from ._failure import Failure
from ._ids import ActorId, MessageId
from ._outcome_errors import StepFailed
from ._persistence import delete_request, put_request, suffix_of
from ._processes import Processes
from ._records import OUTCOME, Outcome, Raised, RequestKind, RequestRow, Value
from ._ref import Request
from ._step import STEP, Step, StepInfo, StepOptions, encoded_result, find_step, idempotency_key_of
from ._threads import Threads
from ._turnstile import Turnstiles

MAX_INTERRUPTED: Final = 3  # attempts in which the host died, before the step is given up
COMPLAIN_EVERY: Final = 60.0  # seconds between warnings of a step that has no time-out and does not end
THREADS: Final = 64  # `def` steps that run at the same time

logger = logging.getLogger("perdure.actors")

Answer = Callable[[Request], Awaitable[Outcome]]


class StepStatistics(NamedTuple):
    """Counts for tools."""

    running: int
    waiting: int  # for their next attempt, or for their turn
    done: int


@final
class _Work:
    """One outstanding request. `row` is as it stands in the store."""

    __slots__ = ("actor", "alarm", "expired", "first", "limited", "row", "started", "steps", "task")

    def __init__(self, steps: Steps, actor: ActorId, row: RequestRow) -> None:
        self.steps = steps
        self.actor = actor
        self.row = row
        self.task: asyncio.Task[None] | None = None
        self.alarm: Alarm | None = None  # for the next attempt
        self.started = 0.0  # this attempt, in seconds since the epoch; 0.0 while none runs
        self.first = row.first  # the first attempt, in seconds since the epoch
        self.limited = False  # this attempt has a time-out
        self.expired = False

    def heartbeat(self, progress: object) -> None:
        """As `Work.heartbeat`, from any thread."""
        self.steps.from_any_thread(partial(self.steps.record_progress, self, PICKLE.encode(progress)))

    def emit(self, name: str, payload: object) -> None:
        """As `Work.emit`, from any thread."""
        self.steps.from_any_thread(partial(self.steps.emit, self, name, PICKLE.encode(payload)))

    @property
    def attempt(self) -> int:
        """The number of the attempt that runs, or is next."""
        return 1 + self.row.failed + self.row.interrupted


@final
class Steps:
    """The outstanding requests of one epoch. `deliver` takes messages to actors; `query` and `info` answer what actors ask about others."""

    def __init__(
        self,
        epoch: Epoch,
        deliver: Callable[[ActorId, Delivery], None],
        query: Answer,
        info: Callable[[ActorId], Awaitable[object]],
        at_once: int,
    ) -> None:
        self._epoch = epoch
        self._deliver = deliver
        self._query = query
        self._info = info
        self._loop = asyncio.get_running_loop()
        self._works: dict[MessageId, _Work] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._waiting: list[_Work] = []  # until `run` begins
        self._turnstiles = Turnstiles(epoch.clock, at_once)
        self._threads: Threads | None = None
        self._processes: Processes | None = None
        self._idle: list[asyncio.Future[None]] = []
        self._running = self._done = 0

    def __repr__(self) -> str:
        return f"<Steps {self.statistics()}>"

    def statistics(self) -> StepStatistics:
        """What is at work, and what was done in this epoch."""
        return StepStatistics(self._running, len(self._works) - self._running, self._done)

    @property
    def idle(self) -> bool:
        """Whether none runs; attempts that are to come later apart."""
        return not self._running

    async def settled(self) -> None:
        """Return once none runs."""
        if self._running:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._idle.append(waiter)
            await waiter

    # --- from outside ---

    def start(self, actor: ActorId, row: RequestRow) -> None:
        """Begin what a durable turn has asked for, or go on with it after a restart."""
        if row.id in self._works:
            return
        work = self._works[row.id] = _Work(self, actor, row)
        if row.due > self._epoch.clock.now():
            work.alarm = self._epoch.clock.call_at(row.due, partial(self._begin, work))
        else:
            self._begin(work)

    def cancel(self, request: MessageId) -> None:
        """End what is done for a request that nobody waits for any more."""
        work = self._works.pop(request, None)
        if work is None:
            return
        if work.alarm is not None:
            work.alarm.cancel()
        if work.task is not None:
            work.task.cancel()

    async def run(self) -> None:
        """Let steps run, until cancelled: then those that run are cancelled, and stay outstanding."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                waiting, self._waiting = self._waiting, []
                for work in waiting:
                    self._begin(work)
                while True:
                    await anyio.sleep(COMPLAIN_EVERY)
                    self._complain()
        finally:
            self._tasks = None
            with anyio.CancelScope(shield=True):
                if self._threads is not None:
                    await self._threads.close()
                if self._processes is not None:
                    await self._processes.close()

    def stop(self) -> None:
        """Begin no further attempt."""
        for work in self._works.values():
            if work.alarm is not None:
                work.alarm.cancel()

    def _complain(self) -> None:
        now = self._epoch.clock.now()
        for work in self._works.values():
            if work.started and now - work.started > COMPLAIN_EVERY and not work.limited:
                logger.warning(
                    "%s: the step %s has been running for %.0f s and has no time-out; give it one: @step(timeout=…)",
                    work.actor,
                    work.row.name,
                    now - work.started,
                )

    # --- attempts ---

    def _begin(self, work: _Work) -> None:
        work.alarm = None
        if self._tasks is None:
            self._waiting.append(work)
            return
        self._running += 1
        work.task = self._tasks.create_task(self._perform(work))

    async def _perform(self, work: _Work) -> None:
        try:
            outcome = await (self._attempt(work) if work.row.kind is RequestKind.STEP else self._read(work))
            if outcome is not None and self._works.pop(work.row.id, None) is not None:
                self._finish(work, outcome)
        finally:
            work.task = None
            self._running -= 1
            if not self._running:
                self._tell_idle()

    def _finish(self, work: _Work, outcome: Outcome) -> None:
        """The outcome takes the request's place in one batch: it is never asked for again."""
        self._done += 1
        delete_request(self._epoch.commit.batch, suffix_of(work.actor), work.row.id)
        row, now = work.row, self._epoch.clock.now()
        kind = Kind.OUTCOME if row.kind is RequestKind.STEP else Kind.REPLY
        envelope = Envelope(id=row.id, kind=kind, name=row.name, payload=OUTCOME.pack(outcome), sent_at=now)
        self._deliver(work.actor, Delivery(envelope))
        self._epoch.commit.expect()  # the turn that takes it may ask for the next step, which waits for the commit

    async def _read(self, work: _Work) -> Outcome:
        """What an actor asks about another one."""
        row = work.row
        assert row.target is not None
        target = ActorId(*row.target)
        try:
            if row.kind is RequestKind.QUERY:
                return await self._query(Request(target, Kind.EVENT, row.name, row.payload))
            return Value(PICKLE.encode(await self._info(target)))
        except Exception as error:  # noqa: BLE001  whatever stands in the way of an answer is for the actor to know
            return Raised(Failure.of(error))

    async def _attempt(self, work: _Work) -> Outcome | None:
        """One attempt; None if there is to be another, or none for now."""
        try:
            step = find_step(work.row.name)
        except LookupError as missing:
            logger.error("%s waits for a step: %s", work.actor, missing)
            return None
        options = _options(step, work.row)
        if work.row.interrupted >= MAX_INTERRUPTED:
            return Raised(Failure.of(self._failed(work, f"the host died {work.row.interrupted} times while it ran")))
        if self._turnstiles.enter(options):  # as most do; a context manager would cost as much as the rest of the way in
            try:
                return await self._try(work, step, options)
            finally:
                self._turnstiles.leave()
        async with self._turnstiles.admitted(step.name, options):
            return await self._try(work, step, options)

    async def _try(self, work: _Work, step: Step[..., Any], options: StepOptions) -> Outcome | None:
        clock = self._epoch.clock
        work.started = clock.now()
        work.first = work.row.first or work.started
        seconds = _patience(work, options)
        work.limited = seconds is not None
        deadline = clock.call_at(work.started + seconds, partial(self._expire, work)) if seconds is not None else None
        slot = self._epoch.breadcrumbs.enter_step(work.row.id)
        try:
            return Value(encoded_result(step, await self._call(work, step, options), partial(self._failed, work)))
        except asyncio.CancelledError:
            if not work.expired:
                raise
            return self._fail(work, options, TimeoutError(f"it took longer than {seconds:g} s"))
        except StepFailed as failed:
            return Raised(Failure.of(failed))
        except Exception as error:  # noqa: BLE001  a step raises whatever it likes
            return self._fail(work, options, error)
        finally:
            self._epoch.breadcrumbs.leave_step(slot)
            work.started = 0.0
            if deadline is not None:
                deadline.cancel()

    async def _call(self, work: _Work, step: Step[..., Any], options: StepOptions) -> Any:
        args, kwargs = step.call.decode_call(work.row.payload)
        progress = None if work.row.progress is None else PICKLE.decode(work.row.progress)
        STEP.set(StepInfo(work, work.actor, work.attempt, work.row.id, progress, self._epoch.resources))
        if step.is_async:
            return await step.function(*args, **kwargs)
        if options.executor == "thread":
            self._threads = self._threads or Threads(THREADS)
            return await self._threads.run(partial(step.function, *args, **kwargs))
        self._processes = self._processes or Processes()
        return await self._processes.run(
            partial(_in_a_process, step.function, args, kwargs, (work.actor, work.attempt, work.row.id, progress))
        )

    def _expire(self, work: _Work) -> None:
        work.expired = True
        if work.task is not None:
            work.task.cancel()

    def _fail(self, work: _Work, options: StepOptions, error: Exception) -> Outcome | None:
        """Try it again later, or say that it failed."""
        work.expired = False
        row = work.row = msgspec.structs.replace(work.row, failed=work.row.failed + 1, first=work.first, failure=Failure.of(error))
        now = self._epoch.clock.now()
        delay = options.retry.delay(row.failed, row.id) if options.retry.is_worth_it(error) else None
        over_all = options.timeout_over_all
        if delay is None or (over_all is not None and now + delay >= row.first + over_all.total_seconds()):
            failed = self._failed(work, f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
            failed.__cause__ = error
            return Raised(Failure.of(failed))
        logger.warning("%s: the step %s failed (attempt %d), again in %.1f s: %r", work.actor, row.name, row.failed, delay, error)
        work.row = msgspec.structs.replace(row, due=now + delay)
        self._store(work)
        work.alarm = self._epoch.clock.call_at(now + delay, partial(self._begin, work))
        return None

    def _failed(self, work: _Work, reason: str) -> StepFailed:
        row = work.row
        return StepFailed(row.name, work.actor, reason, row.failed, row.interrupted, idempotency_key_of(work.actor, row.id))

    # --- what a running step may do ---

    def from_any_thread(self, work: Callable[[], None]) -> None:
        """Do something on the host's loop: at once if this is its thread."""
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            work()
        else:
            self._loop.call_soon_threadsafe(work)

    def record_progress(self, work: _Work, progress: bytes) -> None:
        """Keep what a heartbeat said for the next attempt."""
        if work.row.id in self._works:
            work.row = msgspec.structs.replace(work.row, progress=progress)
            self._store(work)

    def emit(self, work: _Work, name: str, payload: bytes) -> None:
        """Send an item on its way to the actor's stream."""
        now = self._epoch.clock.now()
        item = Envelope(id=MessageId(self._epoch.entropy.token()), kind=Kind.EMIT, name=name, payload=payload, sent_at=now)
        self._deliver(work.actor, Delivery(item))

    def _store(self, work: _Work) -> None:
        put_request(self._epoch.commit.batch, suffix_of(work.actor), work.row)
        self._epoch.commit.stage(len(work.row.payload) + 200)

    def _tell_idle(self) -> None:
        waiters, self._idle = self._idle, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def _options(step: Step[..., Any], row: RequestRow) -> StepOptions:
    return step.given if not row.options else StepOptions(*PICKLE.decode(row.options))  # type: ignore[misc]


def _patience(work: _Work, options: StepOptions) -> float | None:
    """Seconds that this attempt may take."""
    limits = [] if options.timeout is None else [options.timeout.total_seconds()]
    if options.timeout_over_all is not None:
        limits.append(max(0.0, work.first + options.timeout_over_all.total_seconds() - work.started))
    return min(limits) if limits else None


class _ProcessWork:
    """What a step in a process of its own may do of what the others may: nothing that needs the host."""

    def heartbeat(self, progress: object) -> None:
        """Refused."""
        raise NotInActor("a heartbeat from a step with executor='process'")

    def emit(self, name: str, payload: object) -> None:
        """Refused."""
        raise NotInActor("an item emitted from a step with executor='process'")


def _in_a_process(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], about: tuple[ActorId, int, MessageId, Any]
) -> Any:
    actor, attempt, request, progress = about
    STEP.set(StepInfo(_ProcessWork(), actor, attempt, request, progress, {}))
    return function(*args, **kwargs)
