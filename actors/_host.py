"""One epoch of a host: it owns the store, takes turns and commits them, until it is stopped or the store fails.

Everything that runs is a task of one group and ends with it. What callers still wait for at the end is told why it will not come.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import anyio
import anyio.lowlevel

from ..storage import Batch, CommitUncertain, Fence, GroupCommit, PerdureError, Store, fresh
from ..tracing import outgoing_headers
from ._activation import Delivery
from ._alarms import Alarms
from ._breadcrumb import BreadcrumbFile, Breadcrumbs, PassingBreadcrumbs, Phase
from ._dispatch import Dispatcher
from ._envelope import Envelope
from ._epoch import Epoch
from ._errors import AskTimeout, RuntimeNotRunning
from ._ids import MessageId
from ._intake import Intake
from ._persistence import put_host, read_expired, read_expired_replies, read_host
from ._query import Reader
from ._records import HostRow, Outcome
from ._recovery import find_work, put_registry, read_and_charge, read_and_charge_requests
from ._ref import Request
from ._retention import Retention
from ._settings import Settings, only
from ._steps import Steps
from ._suspicion import Suspicion
from ._watchdog import Watchdog

if TYPE_CHECKING:
    from ..tracing import Sending
    from ._listeners import Listeners
    from ._metering import Metering
    from ._telemetry import Telemetry

SWEEP_EVERY: Final = 60.0  # seconds between looks for what has expired
DRAIN_WITHIN: Final = 5.0  # seconds that a stop waits for messages that are being handled; the others stay in their mailboxes

logger = logging.getLogger("perdure.actors")


@final
class Host:
    """The parts of one epoch, wired together."""

    def __init__(self, store: Store, fence: Fence, settings: Settings, breadcrumbs: Breadcrumbs) -> None:
        commit = GroupCommit(store, fence, seal=self._seal, limits=settings.limits, linger=settings.linger)
        self.epoch = Epoch(
            fence=fence,
            commit=commit,
            clock=settings.clock,
            entropy=settings.entropy,
            registry=settings.registry,
            breadcrumbs=breadcrumbs,
            watchdog=Watchdog(settings.turn_limit),
            resources=settings.resources,
            charges={},
            max_active=settings.max_active,
            check_queries=settings.check_queries,
            keep_history=settings.keep_history,
            on_dead_letter=settings.on_dead_letter,
            stopwatch=settings.stopwatch,
            queue=settings.queue,
        )
        self.dispatcher = Dispatcher(self.epoch)
        self.reader = Reader(self.epoch, self.dispatcher)
        from ._door import Door  # only who hosts loads it: 5 ms

        self._door = Door(store, self.epoch, self.reader.query)
        self.epoch.reply = self._door.reply
        self.steps = Steps(
            self.epoch, self.dispatcher.deliver, self.reader.query, self.reader.info, settings.max_steps, settings.around_steps
        )
        self._alarms = Alarms(self.epoch, self.dispatcher.wake, lambda: self.dispatcher.stage(commit.batch), self.dispatcher.room)
        self._retention = Retention(self.epoch, self.dispatcher)
        self._suspicion = Suspicion(self.epoch, self.dispatcher)
        self.epoch.suspect = self._suspicion.suspect
        self.epoch.errands = self.steps
        self.epoch.set_alarm = self._alarms.set
        self._intake = Intake(store, self.epoch, self.dispatcher)
        self._telemetry, self._metering = _tracing(self.epoch, settings), _metering(self, store, settings)
        self.epoch.listener = commit.observer = _both(self._telemetry, self._metering)
        self._store = store
        self._stop = asyncio.Event()
        self._scope = anyio.CancelScope()
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<Host {self.epoch.fence} {self.dispatcher!r}>"

    @property
    def failed(self) -> bool:
        """Whether the store has ended this epoch; the host is about to end, too."""
        return self.epoch.commit.failed

    # --- requests ---

    # Plain functions, since a coroutine around another one costs as much as all else that is done here for traces.
    def ask(self, request: Request) -> Coroutine[Any, Any, Outcome]:
        """Have a message handled; its outcome, once that is durable."""
        headers = outgoing_headers()
        sending = None if headers is None else self._sending(request, ask=True)
        return self._ask(request, headers) if sending is None else sending.during(self._ask(request, sending.headers))

    def send(self, request: Request) -> Coroutine[Any, Any, None]:
        """Return once the message is durable. Raises MailboxFull, IdempotencyMismatch."""
        headers = outgoing_headers()
        sending = None if headers is None else self._sending(request, ask=False)
        return self._send(request, headers) if sending is None else sending.during(self._send(request, sending.headers))

    async def _ask(self, request: Request, headers: dict[str, str] | None) -> Outcome:
        await self._admit(request)
        answered: asyncio.Future[Outcome] = self._loop.create_future()
        self.dispatcher.deliver(request.target, Delivery(self._envelope(request, headers, ask=True), answered=answered))
        self.epoch.commit.expect()
        if request.timeout is None:
            return await answered
        error = AskTimeout(request.target, request.name, request.timeout)
        alarm = self.epoch.clock.call_at(self.epoch.clock.now() + request.timeout, partial(_expire, answered, error))
        try:
            return await answered
        finally:
            alarm.cancel()

    async def _send(self, request: Request, headers: dict[str, str] | None) -> None:
        await self._admit(request)
        accepted: asyncio.Future[None] = self._loop.create_future()
        self.dispatcher.deliver(request.target, Delivery(self._envelope(request, headers, ask=False), accepted=accepted))
        await accepted

    def _sending(self, request: Request, *, ask: bool) -> Sending | None:
        return None if self._telemetry is None else self._telemetry.sending(request, ask=ask)

    async def _admit(self, request: Request) -> None:
        commit = self.epoch.commit
        if self._stop.is_set():
            raise RuntimeNotRunning(f"{request.name!r} to {request.target}")
        if commit.full is not None:
            raise fresh(commit.full)
        if commit.saturated:
            await commit.space()

    def _envelope(self, request: Request, headers: dict[str, str] | None, *, ask: bool) -> Envelope:
        epoch = self.epoch
        return request.envelope(MessageId(epoch.entropy.token()), epoch.clock.now(), headers, ask=ask)

    # --- life ---

    async def run(self, started: Callable[[], None], pid: int, last: BreadcrumbFile | PassingBreadcrumbs) -> None:
        """Live: recover, call `started`, take turns until `stop`, hand in what is done. Raises the store's error that ends the epoch."""
        error: BaseException | None = None
        self.epoch.watchdog.start()
        try:
            async with anyio.create_task_group() as tasks:
                self._scope = tasks.cancel_scope
                tasks.start_soon(self.epoch.commit.run)
                tasks.start_soon(self.dispatcher.run)
                await self._recover(pid, last)
                tasks.start_soon(self.dispatcher.loader.run)
                tasks.start_soon(self.steps.run)
                tasks.start_soon(self._suspicion.run)
                drained = asyncio.Event()
                tasks.start_soon(self._intake.run, drained.set)
                tasks.start_soon(self._sweep)
                await drained.wait()
                self.dispatcher.fires = True  # an approval that came in time wins over a time-out that fell due while no host ran
                tasks.start_soon(self._alarms.run)
                tasks.start_soon(self._door.run)
                started()
                await self._stop.wait()
                with anyio.move_on_after(DRAIN_WITHIN):
                    await self.dispatcher.settled()
                self.dispatcher.stop()
                self._alarms.stop()
                self.steps.stop()
                with anyio.move_on_after(DRAIN_WITHIN):  # a full disk may keep it for ever, and nobody was told that it is safe
                    await self.epoch.commit.settled()
                tasks.cancel_scope.cancel()
        except BaseException as ended:
            error = ended
            raise
        finally:
            self._close(None if error is None else only(error))

    def _close(self, reason: BaseException | None) -> None:
        if self._telemetry is not None:
            self._telemetry.drain()
        if self._metering is not None:
            self._metering.close()
        self.epoch.commit.abandon()
        self._door.take_down()
        self.dispatcher.abandon(self._told(reason))
        self.epoch.watchdog.stop()
        self.epoch.breadcrumbs.close()

    def _told(self, reason: BaseException | None) -> PerdureError:
        """What whoever waits is told of the end; a defect of the host must not look like an error of the actor's."""
        if isinstance(reason, PerdureError):
            return reason
        if isinstance(reason, Exception):
            return CommitUncertain(str(self._store), f"its host has ended by {type(reason).__name__}: {reason}", recoverable=False)
        return RuntimeNotRunning("an answer was still to come")

    def stop(self) -> None:
        """Take in nothing more, and end `run` soon."""
        self._stop.set()

    async def settled(self) -> None:
        """Return once no actor has anything to do now, and all that was done is durable. Raises what has ended this host before."""
        while not all(part.idle for part in (self.dispatcher, self.epoch.commit, self.steps, self._suspicion, self._alarms)):
            await self.dispatcher.settled()
            await self.epoch.commit.settled()
            await self.steps.settled()
            await self._suspicion.settled()
            await asyncio.sleep(0)  # for the alarms
            if self.epoch.ended is not None:  # what is left to do is left to the next host
                raise fresh(self.epoch.ended)
        if self._telemetry is not None:
            self._telemetry.drain()
        if self._metering is not None:
            self._metering.drain()

    def abort(self) -> None:
        """End `run` as a crash would: nothing more is committed."""
        self._stop.set()
        self.dispatcher.stop()
        self._alarms.stop()
        self.steps.stop()
        self._scope.cancel()

    async def _recover(self, pid: int, last: BreadcrumbFile | PassingBreadcrumbs) -> None:
        epoch = self.epoch
        before = await read_host(epoch.commit.overlay)
        if self._telemetry is not None:
            await self._telemetry.recover()
        if before is not None:
            self._door.clear_away(before.door)
        crumb = last.found()
        epoch.charges = await read_and_charge(epoch.commit.overlay, epoch.commit.batch, crumb, epoch.clock.now())
        await put_registry(epoch)
        types = [definition.name for definition in epoch.registry]
        put_host(epoch.commit.batch, HostRow(self._door.path, pid, epoch.clock.now(), types))
        steps, is_lost = last.found_steps(), last.is_lost
        outstanding = await read_and_charge_requests(epoch.commit.overlay, epoch.commit.batch, steps, is_lost=is_lost)
        epoch.commit.stage()
        await epoch.commit.settled()
        epoch.breadcrumbs.leave()  # the charge is durable: a crash from here on is another one
        last.forget_steps()
        await find_work(epoch, self.dispatcher)
        if self._telemetry is not None and before is not None:
            self._telemetry.recovered((crumb is not None) + sum(phase is Phase.STEP for phase in steps.values()))
        for actor, row in outstanding:
            if epoch.registry.serves(actor.type):
                self.steps.start(actor, row)
            else:
                logger.error("%s waits for %s, and no such type is hosted", actor, row.name)

    async def _sweep(self) -> None:
        while True:
            await self.sweep()
            await anyio.sleep(SWEEP_EVERY)

    async def sweep(self) -> None:
        """Remove what has expired."""
        commit = self.epoch.commit
        while expired := await read_expired(commit.overlay, self.epoch.clock.now()):
            for key in expired:
                commit.batch.delete(key)
            commit.stage()
            await commit.settled()
        place: bytes | None = b""
        while place is not None:
            expired, place = await read_expired_replies(commit.overlay, self.epoch.clock.now(), place)
            for key in expired:
                commit.batch.delete(key)  # with whatever batch comes next
            await anyio.lowlevel.checkpoint()  # however many there are, turns go on
        await self._retention.sweep()

    def _seal(self, batch: Batch) -> None:
        self.dispatcher.stage(batch)


def _expire(answered: asyncio.Future[Outcome], error: AskTimeout) -> None:
    if not answered.done():
        answered.set_exception(error)


def _tracing(epoch: Epoch, settings: Settings) -> Telemetry | None:
    """What tells of the epoch by spans, if anybody listens."""
    spans = settings.tracing.spans()
    if spans is None:
        return None
    from ._telemetry import Telemetry  # only where an SDK listens

    return Telemetry(epoch, settings, spans)


def _metering(host: Host, store: Store, settings: Settings) -> Metering | None:
    """What tells of it by figures, if anybody reads them."""
    meter = settings.tracing.meter()
    if meter is None:
        return None
    from ..tracing import Instruments
    from ._metering import Metering  # likewise

    instruments = Instruments.of(meter)
    return None if instruments is None else Metering(host.epoch, host.dispatcher, host.steps, store, instruments)


def _both(telemetry: Telemetry | None, metering: Metering | None) -> Telemetry | Metering | Listeners | None:
    """One to be told of everything, so that whoever tells looks at one place."""
    if telemetry is None or metering is None:
        return metering if telemetry is None else telemetry
    from ._listeners import Listeners  # likewise

    return Listeners(telemetry, metering)
