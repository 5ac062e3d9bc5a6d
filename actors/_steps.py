"""Steps at work: what actors have asked for is done beside their turns, again and again until there is an outcome.

A step starts only when the turn that asked for it is durable, and its outcome comes back as a message; what is outstanding stands in the
store, so the next host goes on with it. Attempts that failed and attempts that died with their host are counted apart.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from inspect import CORO_CREATED, getcoroutinestate
from typing import Any, Final, NamedTuple, final

import anyio
import msgspec

from ..storage import Gate
from ._activation import Delivery
from ._attempts import Attempts
from ._codec import PICKLE
from ._envelope import Envelope, Kind
from ._epoch import Epoch
from ._errors import NotDeserializable
from ._executors import Executors
from ._failure import Failure
from ._ids import ActorId, MessageId
from ._outcome_errors import StepFailed
from ._outstanding import Outstanding, recorded_options
from ._persistence import delete_request, put_request, suffix_of
from ._records import OUTCOME, Outcome, Raised, RequestKind, RequestRow, Value
from ._ref import Request
from ._settings import AroundSteps
from ._step import STEP, Compensated, StepInfo, encoded_result, find_step
from ._turnstile import Turnstiles

MAX_INTERRUPTED: Final = 3  # attempts in which the host died, before the step is given up
COMPLAIN_EVERY: Final = 60.0  # seconds between warnings of a step that has no time-out and does not end

logger = logging.getLogger("perdure.actors")

Answer = Callable[[Request], Awaitable[Outcome]]


class StepStatistics(NamedTuple):
    """Counts for tools."""

    running: int
    waiting: int  # for their next attempt, or for their turn
    done: int


class _Unreadable(Exception):
    """What a step is to be called with cannot be read."""


@final
class _Attempt(NamedTuple):
    """What one attempt may do while it runs; one that was given up, and runs on in its thread, says nothing any more."""

    steps: Steps
    work: Outstanding
    number: int

    def heartbeat(self, progress: object) -> None:
        """As `RunningAttempt.heartbeat`, from any thread."""
        self.steps.from_any_thread(partial(self._if_current, self.steps.record_progress, PICKLE.encode(progress)))

    def emit(self, name: str, payload: object) -> None:
        """As `RunningAttempt.emit`, from any thread."""
        self.steps.from_any_thread(partial(self._if_current, partial(self.steps.emit, name=name), PICKLE.encode(payload)))

    def _if_current(self, act: Callable[[Outstanding, bytes], None], payload: bytes) -> None:
        if self.steps.is_wanted(self.work) and self.work.started and self.work.attempt == self.number:
            act(self.work, payload)


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
        around: AroundSteps | None = None,
    ) -> None:
        self._epoch = epoch
        self._deliver = deliver
        self._query = query
        self._info = info
        self._loop = asyncio.get_running_loop()
        self._works: dict[MessageId, Outstanding] = {}
        self._announced: dict[MessageId, tuple[ActorId, RequestRow]] = {}  # by turns that are not durable yet
        self._given_up: set[MessageId] = set()  # likewise
        self._attempts: Final = Attempts()
        self._context = contextvars.copy_context()  # each attempt begins in it, and sees nothing that another one has set
        self._waiting: list[Outstanding] = []  # until `run` begins
        self._stopped = False
        self._turnstiles = Turnstiles(epoch.clock, at_once)
        self._executors = Executors(around)
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

    def start(self, actor: ActorId, row: RequestRow, *, is_recovered: bool = True) -> None:
        """Go on after a restart with what a durable turn has asked for, or begin it."""
        self._announced.pop(row.id, None)
        if row.id in self._works or row.id in self._given_up:
            return
        work = self._works[row.id] = Outstanding(actor, row, is_recovered=is_recovered)
        self._begin_when_due(work)

    def begin(self, actor: ActorId, row: RequestRow, gate: Gate) -> None:
        """As `Errands.begin`."""
        self._announced[row.id] = actor, row
        gate.when_open(partial(self._begun, row.id))

    def end(self, request: MessageId, gate: Gate) -> None:
        """As `Errands.end`: written down, so that the next host does not begin it again."""
        work, announced = self._works.get(request), self._announced.get(request)
        if work is not None:
            work.row = msgspec.structs.replace(work.row, ending=True)
            self._store(work)
        elif announced is not None:
            actor, row = announced
            row = msgspec.structs.replace(row, ending=True)
            self._announced[request] = actor, row
            put_request(self._epoch.commit.batch, suffix_of(actor), row)
        gate.when_open(partial(self._asked_to_end, request))

    def give_up(self, request: MessageId, gate: Gate) -> None:
        """As `Errands.give_up`: its row goes with the open batch."""
        self._given_up.add(request)
        gate.when_open(partial(self._cancel, request))

    def _begun(self, request: MessageId, error: BaseException | None) -> None:
        announced = self._announced.get(request)
        if error is None and announced is not None:
            self.start(*announced, is_recovered=False)

    def _asked_to_end(self, request: MessageId, error: BaseException | None) -> None:
        """It stands in the store that it is to end: one that runs is cancelled, unless it is in a thread, which nothing can end."""
        work = self._works.get(request)
        if error is not None or work is None:
            return
        work.wait_no_more()
        if work.task is None:
            self._finish(work, work.cancelled())
        elif work.step is not None and (work.step.is_async or work.options.executor == "process"):
            self._cancel_task(work)

    def _cancel(self, request: MessageId, error: BaseException | None) -> None:
        """End what is done for a request that nobody waits for any more."""
        if error is not None:
            return
        self._given_up.discard(request)
        self._announced.pop(request, None)
        work = self._works.pop(request, None)
        if work is None:
            return
        work.wait_no_more()
        if work.task is not None:
            self._cancel_task(work)

    def _cancel_task(self, work: Outstanding) -> None:
        task = work.task
        assert task is not None
        task.cancel()
        if getcoroutinestate(task.get_coro()) == CORO_CREATED:  # type: ignore[arg-type]
            self._leave(work)  # of a task that is cancelled before it began, not even the clean-up runs
            if self.is_wanted(work):
                self._finish(work, work.cancelled())

    def is_wanted(self, work: Outstanding) -> bool:
        """Whether its outcome is still to come from this epoch."""
        request = work.row.id
        return self._attempts.are_begun and self._works.get(request) is work and request not in self._given_up

    async def run(self) -> None:
        """Let steps run, until cancelled: then those that run are cancelled, and stay outstanding."""
        try:
            await self._attempts.run(self._look_after)
        finally:
            with anyio.CancelScope(shield=True):
                await self._executors.close()

    def stop(self) -> None:
        """Begin no further attempt."""
        self._stopped = True
        self._turnstiles.stop()
        for work in self._works.values():
            if work.alarm is not None:
                work.alarm.cancel()

    async def _look_after(self) -> None:
        waiting, self._waiting = self._waiting, []
        for work in waiting:
            if self.is_wanted(work):
                self._begin(work)
        try:
            while True:
                await anyio.sleep(COMPLAIN_EVERY)
                self._complain()
        finally:
            self.stop()  # the places of those that end now are nobody's, however the epoch ends

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

    def _begin_when_due(self, work: Outstanding, error: BaseException | None = None) -> None:
        if error is not None or self._works.get(work.row.id) is not work:
            return
        if work.row.due > self._epoch.clock.now() and not work.row.ending:
            work.alarm = self._epoch.clock.call_at(work.row.due, partial(self._begin, work))
        else:
            self._begin(work)

    def _begin(self, work: Outstanding) -> None:
        """Have the request seen to as soon as there is a place for it."""
        work.alarm = None
        if self._stopped:
            return
        if not self._attempts.are_begun:
            self._waiting.append(work)
        elif work.row.ending:
            self._finish(work, work.cancelled())
        elif work.row.kind is not RequestKind.STEP:
            self._go(work, self._read)
        elif self._is_known(work):
            hopeless = self._hopeless(work)
            if hopeless is None:
                work.ticket = self._turnstiles.enter(work.row.name, work.options, partial(self._go, work, self._attempt))
            else:
                self._finish(work, Raised(Failure.of(hopeless)))

    def _is_known(self, work: Outstanding) -> bool:
        """Whether this process can run the step; if not it stays outstanding, for the next one."""
        try:
            work.step = find_step(work.row.name)
            work.options = work.step.given if not work.row.options else recorded_options(work.row.options)
        except (LookupError, NotDeserializable, TypeError) as error:
            logger.error("%s waits for the step %s, which cannot run: %s", work.actor, work.row.name, error)
            return False
        return True

    def _hopeless(self, work: Outstanding) -> StepFailed | None:
        """Why there is to be no further attempt, if its host has died too often, or its time has passed meanwhile."""
        row, over_all = work.row, work.options.timeout_over_all
        if row.interrupted >= MAX_INTERRUPTED:
            reason = f"the host died {row.interrupted} times while it ran"
        elif over_all is not None and row.first and self._epoch.clock.now() >= row.first + over_all.total_seconds():
            reason = f"its time over all, {over_all.total_seconds():g} s, has passed"
        else:
            return None
        return work.failed(reason, None if row.failure is None else row.failure.revive())

    def _go(self, work: Outstanding, see_to: Callable[[Outstanding], Coroutine[Any, Any, Outcome | None]]) -> None:
        work.ticket = None
        self._running += 1
        work.task = self._attempts.begin(self._perform(work, see_to), f"the step {work.row.name} of {work.actor}", self._context.copy())

    async def _perform(self, work: Outstanding, see_to: Callable[[Outstanding], Coroutine[Any, Any, Outcome | None]]) -> None:
        try:
            outcome = work.cancelled() if work.row.ending else await see_to(work)
            if outcome is not None and self.is_wanted(work):
                self._finish(work, outcome)
        finally:
            if self._epoch.listener is not None:
                self._epoch.listener.end_attempt(work)
            self._leave(work)

    def _leave(self, work: Outstanding) -> None:
        work.task = None
        self._running -= 1
        if work.step is not None:
            self._turnstiles.leave(work.row.name)
        if not self._running:
            self._tell_idle()

    def _finish(self, work: Outstanding, outcome: Outcome) -> None:
        """The outcome takes the request's place in one batch: it is never asked for again."""
        del self._works[work.row.id]
        self._done += 1
        delete_request(self._epoch.commit.batch, suffix_of(work.actor), work.row.id)
        row, now = work.row, self._epoch.clock.now()
        kind = Kind.OUTCOME if row.kind is RequestKind.STEP else Kind.REPLY
        headers = row.headers if work.span is None else work.span.headers(row.headers)
        envelope = Envelope(id=row.id, kind=kind, name=row.name, payload=OUTCOME.pack(outcome), headers=headers, sent_at=now)
        self._deliver(work.actor, Delivery(envelope))
        self._epoch.commit.expect()  # the turn that takes it may ask for the next step, which waits for the commit

    async def _read(self, work: Outstanding) -> Outcome:
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

    async def _attempt(self, work: Outstanding) -> Outcome | None:
        """One attempt; None if there is to be another, or none is wanted."""
        seconds = self._note_beginning(work)
        clock = self._epoch.clock
        deadline = clock.call_at(work.started + seconds, partial(self._expire, work)) if seconds is not None else None
        slot = self._epoch.breadcrumbs.enter_step(work.row.id)
        is_certain = False
        try:
            value = await self._call(work)
        except asyncio.CancelledError as cancelled:
            work.error = type(cancelled).__name__
            if work.expired:
                return self._fail(work, TimeoutError(f"it took longer than {seconds:g} s"))
            if not self.is_wanted(work):
                raise
            if work.row.ending:
                return work.cancelled(uncertain=True)
            return self._fail(work, Failure.of(cancelled).revive())  # it has cancelled itself
        except KeyboardInterrupt:  # the only one that is for the host
            raise
        except _Unreadable as error:  # nothing of it has run: it stays outstanding, for a host that has what is missing
            is_certain = True
            work.error = type(error.__cause__).__name__
            logger.error("%s waits for the step %s, which cannot run: %s", work.actor, work.row.name, error.__cause__)
            return None
        except BaseException as error:  # noqa: BLE001  a step raises whatever it likes
            is_certain = work.is_certain(error)
            return self._fail(work, error if isinstance(error, Exception) else Failure.of(error).revive())
        finally:
            self._note_end(work, slot, is_certain)
            work.started = 0.0
            if deadline is not None:
                deadline.cancel()
        return self._encoded(work, value)

    def _note_end(self, work: Outstanding, slot: int, is_certain: bool) -> None:
        """An attempt that may have done something is remembered until what came of it is durable, by the next host if this one ends now."""
        breadcrumbs = self._epoch.breadcrumbs
        if is_certain or (self._attempts.are_begun and not self.is_wanted(work)):
            breadcrumbs.leave_step(slot)
            return
        breadcrumbs.end_step(slot)
        if self._attempts.are_begun:
            self._epoch.commit.gate.when_open(lambda error: None if error else breadcrumbs.leave_step(slot))

    def _note_beginning(self, work: Outstanding) -> float | None:
        """Returns the seconds that the attempt may take, if there is a limit."""
        work.started = work.began = self._epoch.clock.now()
        work.first = work.row.first or work.started
        work.expired, work.error = False, None
        if self._epoch.listener is not None:
            self._epoch.listener.begin_attempt(work)
        limits = [] if work.options.timeout is None else [work.options.timeout.total_seconds()]
        over_all = work.options.timeout_over_all
        if over_all is not None:
            limits.append(work.first + over_all.total_seconds() - work.started)
            if not work.row.first:  # so that a crash does not begin its time anew
                work.row = msgspec.structs.replace(work.row, first=work.first)
                self._store(work)
        work.limited = bool(limits)
        return min(limits) if limits else None

    async def _call(self, work: Outstanding) -> Any:
        step = work.step
        assert step is not None
        try:
            args, kwargs = step.call.decode_call(work.row.payload)
            progress = None if work.row.progress is None else PICKLE.decode(work.row.progress)
            compensates = None if work.row.compensates is None else Compensated(*PICKLE.decode(work.row.compensates))  # type: ignore[misc]
        except NotDeserializable as error:
            raise _Unreadable from error
        about = work.actor, work.attempt, work.row.id, progress
        STEP.set(StepInfo(_Attempt(self, work, work.attempt), *about, self._epoch.resources, compensates))
        return await self._executors.call(step, work.options.executor, args, kwargs, about, compensates)

    def _expire(self, work: Outstanding) -> None:
        work.expired = True
        if work.task is not None:
            work.task.cancel()

    def _encoded(self, work: Outstanding, value: object) -> Outcome:
        assert work.step is not None
        try:
            return Value(encoded_result(work.step, value, work.lost))
        except StepFailed as failed:
            return Raised(Failure.of(failed))

    def _fail(self, work: Outstanding, error: Exception) -> Outcome | None:
        """Try it again later, or say that it failed."""
        if not self.is_wanted(work):
            return None
        failure, options = Failure.of(error), work.options
        work.error = failure.type_name
        uncertain = work.row.uncertain or not work.is_certain(error)
        row = work.row = msgspec.structs.replace(
            work.row, failed=work.row.failed + 1, first=work.first, failure=failure, uncertain=uncertain
        )
        now = self._epoch.clock.now()
        delay = options.retry.delay(row.failed, row.id) if options.retry.is_worth_it(error) and not row.ending else None
        over_all = options.timeout_over_all
        reason = f"{failure.type_name}: {failure.text}" if failure.text else failure.type_name
        if delay is None or (over_all is not None and now + delay >= row.first + over_all.total_seconds()):
            return Raised(Failure.of(work.failed(reason, error)))
        logger.warning("%s: the step %s failed (attempt %d), again in %.1f s: %s", work.actor, row.name, work.attempt - 1, delay, reason)
        work.row = msgspec.structs.replace(row, due=now + delay)
        self._store(work)
        # The next attempt may kill the host, which then has to know that this one has failed.
        self._epoch.commit.stage().when_open(partial(self._begin_when_due, work))
        return None

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

    def record_progress(self, work: Outstanding, progress: bytes) -> None:
        """Keep what a heartbeat said for the next attempt."""
        work.row = msgspec.structs.replace(work.row, progress=progress)
        self._store(work)

    def emit(self, work: Outstanding, payload: bytes, name: str) -> None:
        """Send an item on its way to the actor's stream."""
        now = self._epoch.clock.now()
        item = Envelope(id=MessageId(self._epoch.entropy.token()), kind=Kind.EMIT, name=name, payload=payload, sent_at=now)
        self._deliver(work.actor, Delivery(item))

    def _store(self, work: Outstanding) -> None:
        if self.is_wanted(work):
            row = work.row
            if row.ending and work.started:  # a host that finds this row does not know how the attempt has ended
                row = msgspec.structs.replace(row, uncertain=True)
            put_request(self._epoch.commit.batch, suffix_of(work.actor), row)
            self._epoch.commit.stage(len(row.payload) + 200)

    def _tell_idle(self) -> None:
        waiters, self._idle = self._idle, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
