"""Who takes the next turn: actors with work stand in one queue, and each takes one turn before the next one's.

Turns are taken in slices of plain callbacks on the host's loop, so that I/O, commits and callers get their share. An actor is in memory
while it has work, or was used lately; the rest is passive, and costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from typing import Final, NamedTuple, final

from ..storage import Batch, fresh, settle
from ._acceptance import Acceptance
from ._activation import Activation, Delivery
from ._clock import Alarm
from ._epoch import Epoch
from ._errors import UnknownActorType
from ._ids import ActorId
from ._loading import ENDING, Loader
from ._performance import Performer
from ._records import Status
from ._settlement import Settlement
from ._upgrades import Upgrades

SLICE: Final = 0.002  # seconds of turns before the host's loop gets a chance; a turn costs some 20 µs
SUMMON_AT_ONCE: Final = 64  # passive actors with work that are brought in while others are at work
CROWD: Final = 128  # actors that are read or stand in the queue: a message that comes now waits for their turns
UNCOMMITTED: Final = 500  # turns of a batch: an answer that goes with it waits for all of them
PATIENCE: Final = 0.02  # seconds between two lots of those that wait while it is crowded: a host may be so for as long as it lives
NAP: Final = 0.001  # seconds
STANDING_BY: Final = frozenset({Status.SUSPENDED, Status.QUARANTINED})  # who gets no version now: replay fails again as it just has

logger = logging.getLogger("perdure.actors")


class DispatchStatistics(NamedTuple):
    """Counts for tools."""

    active: int
    ready: int
    backlog: int
    turns: int
    activations: int
    passivations: int


@final
class Dispatcher:
    """The actors of one epoch that are in memory, and the queue of those with work."""

    def __init__(self, epoch: Epoch) -> None:
        self._epoch = epoch
        self.settlement = Settlement(epoch, self.deliver)
        self.upgrades = Upgrades(epoch, self.settlement)
        self._acceptance = Acceptance(epoch, self.settlement, self.upgrades)
        self._performer = Performer(epoch, self.settlement)
        self._has_rows: set[ActorId] = set()  # passive actors with rows in their mailbox
        self.loader = Loader(epoch, self._acceptance, self.upgrades, self._has_rows, self._loaded, self.settlement.quarantine)
        self._active: dict[ActorId, Activation] = {}  # in the order of their coming, or of their second chance
        self._ready: deque[Activation] = epoch.queue()
        self._backlog: deque[ActorId] = deque()  # passive actors to bring in when there is room
        self._alarms: dict[ActorId, Alarm] = {}
        self._scheduled = False
        self._stopped = False
        self._summoned = 0.0  # when passive actors with work were brought in last
        self.fires = False  # whether timers fire yet: not before what came in time is in the mailboxes
        self._idle: list[asyncio.Future[None]] = []
        self._turns = self._activations = self._passivations = 0
        self._loop = asyncio.get_running_loop()
        self._broken: asyncio.Future[None] = self._loop.create_future()
        self._stopwatch = epoch.stopwatch

    def __repr__(self) -> str:
        return f"<Dispatcher {self.statistics()}>"

    def statistics(self) -> DispatchStatistics:
        """What is in memory, what waits, what was done in this epoch."""
        counts = self._turns, self._activations, self._passivations
        return DispatchStatistics(len(self._active), len(self._ready), len(self._backlog), *counts)

    def activations(self) -> list[Activation]:
        """The actors in memory, for any thread: a list is made of them in one go."""
        return list(self._active.values())

    # --- messages in ---

    def deliver(self, actor: ActorId, delivery: Delivery) -> None:
        """Take a message for an actor: whatever becomes of it, it is part of the open batch when this returns."""
        activation = self._active.get(actor) or self._activate(actor)
        envelope = delivery.envelope
        must_read = not activation.loaded or envelope.key is not None or envelope.kind in ENDING or envelope.is_of_letters
        if must_read or activation.wanted or activation.arrivals:
            activation.arrivals = activation.arrivals or deque()
            activation.arrivals.append(delivery)
            self.settlement.books.touch(activation, len(envelope.payload))
            self.loader.want(activation)
        else:
            self._enqueue(activation)  # first, so that the turn comes before the commit that the sender waits for: one commit, not two
            self._acceptance.accept(activation, delivery, None)

    def found_with_work(self, actor: ActorId) -> None:
        """Say, at start, that the store has messages in the actor's mailbox."""
        self._has_rows.add(actor)
        self._backlog.append(actor)
        self._schedule()

    def active(self, actor: ActorId) -> Activation | None:
        """The actor's activation, if it is in memory with all its records."""
        activation = self._active.get(actor)
        return activation if activation is not None and activation.loaded else None

    def has_messages(self, actor: ActorId) -> bool:
        """Whether something of the actor is on its way into memory, or waits there while it is not in it."""
        return actor in self._has_rows or actor in self._active

    def stage(self, batch: Batch) -> None:
        """Put everything that has changed since the last batch into this one."""
        books = self.settlement.books
        dirty, books.dirty = books.dirty, []
        for activation in dirty:
            if activation.dirty:
                activation.stage(batch, self._epoch)

    @property
    def crowded(self) -> bool:
        """Whether so many have work that whoever's work has waited for a host had better wait a little more."""
        waiting = self.loader.wanted + len(self._ready)
        return waiting > CROWD or self._epoch.commit.statistics().waiting_turns > UNCOMMITTED

    async def room(self) -> None:
        """Return once it is not crowded, or after a little while: what fell due has its share of a host whose callers never let up."""
        end = self._stopwatch() + PATIENCE
        while self._keeps_waiting(end):  # noqa: ASYNC110  a hundred thousand that fell due together do not come into memory together
            await asyncio.sleep(NAP)

    def _keeps_waiting(self, end: float) -> bool:
        return self.crowded and (self._stopwatch() < end or self._epoch.commit.saturated)

    # --- turns ---

    async def run(self) -> None:
        """Raise what a turn could not be settled for, if ever that happens: it is the end of the host."""
        await self._broken

    def _activate(self, actor: ActorId) -> Activation:
        activation = Activation(actor, self._epoch.registry.require(actor.type))
        self._active[actor] = activation
        self._activations += 1
        return activation

    def _loaded(self, activation: Activation) -> None:
        if not activation.wanted:
            self._enqueue(activation)

    def _enqueue(self, activation: Activation) -> None:
        if not activation.queued:
            activation.queued = True
            self._ready.append(activation)
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and not self._stopped:
            self._scheduled = True
            self._loop.call_soon(self._take_slice)

    def _take_slice(self) -> None:
        self._scheduled = False
        if self._stopped:
            return
        try:
            self._take_turns()
        except KeyboardInterrupt:
            self.stop()  # the next turn would cover up what this one says of itself in the breadcrumbs
            raise
        except Exception as error:  # noqa: BLE001  a defect of the host: a turn is half settled, and nothing that is staged may become durable
            self.stop()
            self._epoch.commit.abandon()
            settle(self._broken, error)

    def _take_turns(self) -> None:
        commit, ready, stopwatch = self._epoch.commit, self._ready, self._stopwatch
        end = stopwatch() + SLICE
        while ready:
            if commit.saturated:
                commit.when_space(self._schedule)
                return
            self._take_turn(ready.popleft())
            commit.breathe()
            if stopwatch() > end:
                self._summon()
                self._schedule()
                return
        self._summon()
        if self.idle:
            self._tell_idle()

    def _take_turn(self, activation: Activation) -> None:
        activation.queued = False
        if activation.wanted:
            return
        now = self._epoch.clock.now()
        if activation.snapshot is not None and activation.snapshot.standing is not None:
            self._see_to_timers(activation, now)
        if not activation.fitted and activation.status not in STANDING_BY:
            self.upgrades.fit(activation)
        item = activation.next_item(now)
        if item is None:
            self._rest(activation)
            return
        if activation.needs_replay:
            self.loader.want(activation)
            return
        if not self._performer.may_run(activation, item):
            activation.gate.when_open(partial(self._resume, activation.actor))
            return
        self._turns += 1
        activation.used = True
        self._performer.perform(activation, item)
        self._after_turn(activation)

    def _see_to_timers(self, activation: Activation, now: float) -> None:
        if self.fires and activation.failure is None and activation.snapshot is not None and activation.snapshot.next_due <= now:
            self.settlement.firing.fire(activation, now)

    def wake(self, actor: ActorId) -> None:
        """Look after an actor of which a timer is due."""
        if not self._stopped:
            try:
                activation = self._active.get(actor) or self._activate(actor)
            except UnknownActorType as unknown:
                logger.error("a timer of %s is due: %s", actor, unknown)
                return
            if activation.loaded:
                self._enqueue(activation)
            else:
                self.loader.want(activation)

    def _after_turn(self, activation: Activation) -> None:
        if activation.starved:
            self.loader.want(activation)
        elif activation.mailbox is not None and len(activation.mailbox):
            self._enqueue(activation)
        else:
            self._rest(activation)

    def _resume(self, actor: ActorId, error: BaseException | None) -> None:
        if error is None:
            self.wake(actor)  # by address: the activation that waited may have left memory, and another one be at work

    # --- rest and memory ---

    def _rest(self, activation: Activation) -> None:
        """The actor has nothing to do now: see to its back-off, and make room if there are too many in memory."""
        mailbox = activation.mailbox
        item = mailbox.events.head() if mailbox is not None else None
        if item is not None and activation.failure is None:
            due = activation.waits_until(item)  # 0.0 if it waits for the handler before it, whose end will be a turn
            if due:
                self._wake_at(activation.actor, due)
        if len(self._active) > self._epoch.max_active:
            self._make_room()

    def _wake_at(self, actor: ActorId, due: float) -> None:
        alarm = self._alarms.pop(actor, None)
        if alarm is not None:
            alarm.cancel()
        self._alarms[actor] = self._epoch.clock.call_at(due, partial(self._wake, actor))

    def _wake(self, actor: ActorId) -> None:
        self._alarms.pop(actor, None)
        self.wake(actor)

    def _make_room(self) -> None:
        """Passivate by the CLOCK rule (Corbató, 1968): the oldest goes, unless it was used since it was looked at last."""
        for _ in range(min(len(self._active), 8)):
            actor = next(iter(self._active))
            activation = self._active.pop(actor)
            if (activation.used and len(self._active) > 1) or not self._may_leave(activation):
                activation.used = False
                self._active[actor] = activation
            else:
                self._passivate(activation)
                if len(self._active) <= self._epoch.max_active:
                    return

    def _may_leave(self, activation: Activation) -> bool:
        return activation.loaded and not (activation.queued or activation.wanted or activation.arrivals or activation.asked)

    def _passivate(self, activation: Activation) -> None:
        if activation.dirty:
            activation.stage(self._epoch.commit.batch, self._epoch)
        activation.forget_instance()
        if len(activation.mailbox or ()) or activation.damaged:  # a damaged one's mailbox is not known, and looks empty
            self._has_rows.add(activation.actor)
        self._passivations += 1

    def _summon(self) -> None:
        if self._keeps_waiting(self._summoned + PATIENCE):
            if self._backlog and not (self._ready or self.loader.busy):
                self._epoch.commit.when_space(self._schedule)
            return  # else a slice follows, at the end of which there may be room
        self._summoned = self._stopwatch()
        for _ in range(min(len(self._backlog), SUMMON_AT_ONCE)):
            actor = self._backlog.popleft()
            if actor in self._has_rows:
                try:
                    self.loader.want(self._active.get(actor) or self._activate(actor))
                except UnknownActorType as unknown:
                    logger.error("messages for %s wait in the store: %s", actor, unknown)
        if self._backlog and not self.loader.busy:
            self._schedule()

    # --- the end ---

    @property
    def idle(self) -> bool:
        """Whether no actor has anything to do now; back-offs and commits apart."""
        return not (self._ready or self._backlog or self.loader.busy)

    async def settled(self) -> None:
        """Return once no actor has anything to do now."""
        if not (self.idle or self._stopped):
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._idle.append(waiter)
            await waiter

    def _tell_idle(self) -> None:
        waiters, self._idle = self._idle, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def stop(self) -> None:
        """Take no more turns."""
        self._stopped = True
        for alarm in self._alarms.values():
            alarm.cancel()
        self._alarms.clear()

    def abandon(self, reason: Exception) -> None:
        """Tell everybody who still waits that no answer will come from this epoch."""
        self.stop()
        for activation in self._active.values():
            waiting = [*(activation.arrivals or ()), *(d for deliveries in (activation.asked or {}).values() for d in deliveries)]
            for delivery in waiting:
                for future in (delivery.accepted, delivery.answered):
                    if future is not None and not future.done():
                        future.set_exception(fresh(reason))
        for future in (future for futures in self._epoch.awaiting.values() for future in futures):
            if not future.done():
                future.set_exception(fresh(reason))
        self._epoch.ended = reason
        for reader in (reader for readers in self._epoch.readers.values() for reader in readers):
            settle(reader, None)  # it looks for news again, and is told
        for activation in self._active.values():
            activation.forget_instance()
        self._active.clear()
        for waiter in self._idle:
            settle(waiter, reason)
