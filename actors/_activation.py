"""One actor in memory: its last snapshot, its mailbox, its instance, and who waits for it.

While an actor is active, memory is its truth; `stage` writes it into a batch, and until that batch is durable `gate` keeps what was
learned from it inside the host. The instance and its coroutines are always those of the last snapshot: a turn that fails drops them, and
they are decoded, or replayed, again.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from functools import partial
from typing import Final, final

import msgspec

from ..storage import Batch, Gate
from ._breadcrumb import Phase
from ._coroutines import Coroutines
from ._define import Definition
from ._envelope import Awaiter, Envelope
from ._epoch import Epoch
from ._errors import ActorQuarantined
from ._failure import Failure
from ._ids import ActorId, Incarnation, MessageId
from ._mailbox import Item, Mailbox
from ._persistence import StoredLetter, Table, arrival_key, due_key, key_digest, put_arrival, put_lane, put_snapshot, suffix_of
from ._records import NEVER, NOTHING, BackOff, ChildRow, Outcome, Snapshot, Standing, Status
from ._taking import revive
from ._turn import NO_SIGNALS, KeptSignal, Turn, TurnTrace

MAX_INTERRUPTED: Final = 3  # attempts in which the host died, before a message is put aside, or its actor quarantined

DURABLE: Final = Gate(0)  # the gate of what nobody has changed since it was read
DURABLE.let_pass(None)


@final
class Delivery:
    """A message on its way into a mailbox, and who wants to know what becomes of it.

    `accepted` learns that the message is safe in the mailbox, or why it is refused; `answered` learns the outcome. `row` is where the
    message stands while its actor is not in memory. `attached` is True for a repetition that shares the outcome of a message before it.
    """

    __slots__ = ("accepted", "answered", "attached", "envelope", "row")

    def __init__(
        self,
        envelope: Envelope,
        *,
        accepted: asyncio.Future[None] | None = None,
        answered: asyncio.Future[Outcome] | None = None,
        row: bytes | None = None,
    ) -> None:
        self.envelope = envelope
        self.accepted = accepted
        self.answered = answered
        self.row = row
        self.attached = False


@final
class Activation:
    """An actor's presence in memory. `loaded` is False until its records were read; until then messages wait in `arrivals`."""

    __slots__ = (
        "_instance",
        "_staged_retire",
        "_staged_status",
        "_staged_wake",
        "actor",
        "arrivals",
        "asked",
        "awaiters",
        "changed",
        "children",
        "coroutines",
        "damaged",
        "definition",
        "dirty",
        "failed",
        "failure",
        "fired",
        "fitted",
        "gate",
        "handled",
        "letters",
        "mailbox",
        "outstanding",
        "queued",
        "signals",
        "snapshot",
        "stands_for",
        "suffix",
        "trace",
        "unfit",
        "used",
        "wanted",
    )

    def __init__(self, actor: ActorId, definition: Definition) -> None:
        self.actor = actor
        self.suffix = suffix_of(actor)
        self.definition = definition
        self.fitted = True  # else another version is to go on with it as soon as nothing of it waits
        self.unfit: ActorQuarantined | None = None  # why no version can read the state of an actor that has ended
        self.snapshot: Snapshot | None = None  # None: the actor does not exist before its first turn
        self.mailbox: Mailbox | None = None
        self.failure: Failure | None = None  # why it is quarantined
        self.damaged = False  # and its records cannot be read: no use in trying again
        self.arrivals: deque[Delivery] | None = None
        self.asked: dict[int, list[Delivery]] | None = None  # who waits for the outcome of a message, by seq
        self.awaiters: set[Awaiter] | None = None  # beyond this process's memory, read for a deletion, which is to tell them all
        self.outstanding: list[MessageId] | None = None  # requests, read for what ends it without a replay, and gives them all up
        self.handled: tuple[int, Envelope] | None = None  # the event whose handler waits, read for what ends it without a replay
        self.children: dict[MessageId, ChildRow] | None = None  # in the order in which they were spawned
        self.letters: list[StoredLetter] | None = None  # its dead ones, read for a request about them, which is accepted next
        self.stands_for: dict[str, tuple[str, bytes]] | None = None  # what their idempotency keys are used for: handler, arguments
        self.gate = DURABLE
        self.dirty = False  # something is to be staged
        self.changed = False  # and the snapshot is part of it
        self.queued = False
        self.wanted = False  # the loader has it on its list
        self.used = True
        self.coroutines: Coroutines | None = None  # what of it waits, or has: what it keeps in its state may be bound to their loop
        self.signals: dict[str, list[KeptSignal]] | None = None  # that are kept, by name
        self.failed: tuple[int, int] = (0, 0)  # (seq, attempts) of a signal that is tried again at once
        self.trace: TurnTrace | None = None  # of that, once what waits is replayed
        self.fired = 0.0  # when the last firing was due, or new beginning, that was put into the mailbox
        self._instance: object | None = None
        self._staged_status: Status | None = None
        self._staged_wake = self._staged_retire = math.inf

    def __repr__(self) -> str:
        state = "loading" if self.mailbox is None else "quarantined" if self.failure else repr(self.mailbox)
        return f"<Activation {self.actor} {state}{' dirty' if self.dirty else ''}>"

    @property
    def loaded(self) -> bool:
        """Whether its records are in memory."""
        return self.mailbox is not None

    @property
    def decoding(self) -> MessageId:
        """What is charged if the host dies while the actor is decoded."""
        return MessageId(key_digest(str(self.actor)))

    @property
    def status(self) -> Status:
        """The status of the last snapshot; idle for an actor that does not exist yet."""
        if self.failure is not None:
            return Status.QUARANTINED
        return Status.IDLE if self.snapshot is None else self.snapshot.status

    @property
    def standing(self) -> Standing:
        """What it has besides its state."""
        return NOTHING if self.snapshot is None else self.snapshot.standing or NOTHING

    @property
    def needs_replay(self) -> bool:
        """Whether something of it waits, and is not in memory."""
        snapshot = self.snapshot
        return snapshot is not None and snapshot.status is Status.SUSPENDED and self.coroutines is None and self.failure is None

    @property
    def kept_signals(self) -> dict[str, list[KeptSignal]]:
        """The signals that are kept, by name."""
        return NO_SIGNALS if self.signals is None else self.signals  # type: ignore[return-value]

    def refusal(self) -> ActorQuarantined | None:
        """Why it answers nobody, if it is quarantined."""
        return None if self.failure is None else quarantined(self.actor, self.failure)

    def install(self, snapshot: Snapshot | None, failure: Failure | None) -> None:
        """Set what was read from the store."""
        self.snapshot = snapshot
        self.failure = failure
        self.changed = False
        self.signals = None
        self.children = None
        self._staged_status = None if snapshot is None else snapshot.status
        self._staged_wake, self._staged_retire = NEVER if snapshot is None else snapshot.dues
        self.mailbox = Mailbox(snapshot.event, snapshot.interrupt) if snapshot is not None else Mailbox(0, 0)

    def instance(self, epoch: Epoch, turn: Turn | None = None) -> object:
        """The object of the user's class, decoded or created when it is first needed, for a turn if not for a query.

        Raises what decoding raises, and what keeps the state from being read.
        """
        if self.unfit is not None:
            raise self.unfit
        if self._instance is None:
            epoch.breadcrumbs.enter(Phase.DECODE, self.decoding)
            try:
                instance = new_instance(self.definition, self.actor, self.snapshot, epoch, turn)
            finally:
                epoch.breadcrumbs.leave()
            if turn is None and not self.state:
                return instance  # the first turn makes its own, as a replay of it will
            self._instance = instance
        return self._instance

    def forget_instance(self) -> None:
        """Throw away an instance that may be half changed, and its coroutines."""
        self._instance = None
        if self.coroutines is not None:
            self.coroutines.evict()
            self.coroutines = None

    def adopt(self, instance: object, coroutines: Coroutines) -> None:
        """Take what a replay has rebuilt."""
        self._instance = instance
        self.coroutines = coroutines

    def next_item(self, now: float) -> Item | None:
        """The message to handle next, if there is one that may be handled now: interrupts first, then events unless in back-off."""
        mailbox = self.mailbox
        if mailbox is None or self.failure is not None:
            return None
        item = mailbox.interrupts.head()
        if item is not None:
            return item
        item = mailbox.events.head()
        if item is None or self.waits_until(item) > now or self.standing.is_waiting:
            return None
        if self.coroutines is not None and not self.coroutines.takes_events:
            return None
        return item

    def waits_until(self, item: Item) -> float:
        """When a message may be handled: later than now only for an event in back-off."""
        back_off = None if self.snapshot is None else self.snapshot.back_off
        return back_off.due if back_off is not None and back_off.seq == item.seq else 0.0

    @property
    def starved(self) -> bool:
        """Whether a lane's next message is in the store only."""
        mailbox = self.mailbox
        return mailbox is not None and self.failure is None and (mailbox.events.starved or mailbox.interrupts.starved)

    @property
    def state(self) -> bytes:
        """The state as of the last snapshot; empty for an actor that was never changed by a turn."""
        return b"" if self.snapshot is None else self.snapshot.state

    def take(self, item: Item) -> None:
        """The message is dealt with: take it out of its lane."""
        mailbox = self.mailbox
        assert mailbox is not None
        (mailbox.events if item.envelope.is_event else mailbox.interrupts).take()

    def move_on(self, turn: Turn, state: bytes, status: Status, standing: Standing | None) -> None:
        """A turn has ended, and its message been taken: let the snapshot say so."""
        before = self.snapshot
        back_off = before.back_off if before is not None else None
        if back_off is not None and self.mailbox is not None and back_off.seq <= self.mailbox.events.cursor:
            back_off = None
        self._set_snapshot(turn, turn.number, self.definition.version, state, back_off, status, standing)

    def stay(self, turn: Turn, standing: Standing | None) -> None:
        """A message was taken that changes nothing of the state."""
        version = self._version
        self.move_on(turn, self.state, Status.IDLE if self.snapshot is None else self.snapshot.status, standing)
        if version != self.definition.version and self.snapshot is not None:  # none of its code has run
            self.snapshot = msgspec.structs.replace(self.snapshot, version=version)

    def back_off(self, back_off: BackOff, turn: Turn) -> None:
        """The message's turn has failed, and it is tried again later.

        The next turn has the same number, since nothing of this one has happened.
        """
        status, standing = (Status.IDLE, None) if self.snapshot is None else (self.snapshot.status, self.snapshot.standing)
        self._set_snapshot(turn, turn.number - 1, self._version, self.state, back_off, status, standing)

    def begin_life(self, incarnation: Incarnation) -> None:
        """Another life begins, with the same state and whatever else it has."""
        assert self.snapshot is not None
        self.snapshot = msgspec.structs.replace(self.snapshot, incarnation=incarnation)
        self.changed = True

    def restart(self, incarnation: Incarnation, standing: Standing | None) -> None:
        """Another life begins, with a new state."""
        assert self.snapshot is not None
        self.snapshot = msgspec.structs.replace(
            self.snapshot, incarnation=incarnation, status=Status.IDLE, state=b"", back_off=None, standing=standing
        )
        self.changed = True
        self.fitted = False
        self.unfit = None

    def settle(self, status: Status, standing: Standing | None, now: float) -> None:
        """A life has ended, between two turns or after the last one."""
        assert self.snapshot is not None
        updated = max(self.snapshot.updated, now)
        self.snapshot = msgspec.structs.replace(self.snapshot, status=status, standing=standing, back_off=None, updated=updated)
        self.changed = True

    def rearm(self, standing: Standing) -> None:
        """What it has besides its state changes, between two turns."""
        assert self.snapshot is not None
        self.snapshot = msgspec.structs.replace(self.snapshot, standing=standing)
        self.changed = True

    def _set_snapshot(
        self, turn: Turn, number: int, version: int, state: bytes, back_off: BackOff | None, status: Status, standing: Standing | None
    ) -> None:
        mailbox = self.mailbox
        assert mailbox is not None
        self.snapshot = Snapshot(
            turn.incarnation,
            version,
            status,
            mailbox.events.cursor,
            mailbox.interrupts.cursor,
            number,
            turn.time if self.snapshot is None else self.snapshot.created,
            turn.time,
            state,
            back_off,
            standing,
        )
        self.changed = True

    @property
    def _version(self) -> int:
        """The version that has written the state."""
        return self.definition.version if self.snapshot is None else self.snapshot.version

    def stage(self, batch: Batch, epoch: Epoch) -> None:
        """Write what has changed since the last call."""
        if self.mailbox is not None:
            if self.changed and self.snapshot is not None:
                put_snapshot(batch, self.suffix, self.snapshot, self._staged_status)
                self._staged_status = self.snapshot.status
                self._stage_dues(batch, *self.snapshot.dues)
            for lane, queue in self.mailbox.lanes():
                if queue.ready is not None or queue.taken is not None or queue.fresh is not None:
                    put_lane(batch, self.suffix, lane, queue)
        for delivery in self.arrivals or ():
            self._stage_arrival(batch, epoch, delivery)
        for deliveries in (self.asked or {}).values():
            for delivery in deliveries:
                if delivery.attached and delivery.envelope.awaiter is not None:  # its caller may outlive this host
                    self._stage_arrival(batch, epoch, delivery)
        self.dirty = self.changed = False

    def _stage_dues(self, batch: Batch, wake: float, retire: float) -> None:
        if wake != self._staged_wake:
            self._stage_due(batch, Table.WAKE, self._staged_wake, wake)
            self._staged_wake = wake
        if retire != self._staged_retire:
            self._stage_due(batch, Table.RETENTION, self._staged_retire, retire)
            self._staged_retire = retire

    def _stage_due(self, batch: Batch, table: Table, before: float, due: float) -> None:
        if before != math.inf:
            batch.delete(due_key(table, before, self.suffix))
        if due != math.inf:
            batch.put(due_key(table, due, self.suffix), b"")

    def forget_dues(self, batch: Batch) -> None:
        """Remove what says when it has something to do, with everything else of an actor that is deleted."""
        self._stage_dues(batch, *NEVER)

    def _stage_arrival(self, batch: Batch, epoch: Epoch, delivery: Delivery) -> None:
        if delivery.row is None:
            epoch.arrivals += 1
            delivery.row = arrival_key(epoch.fence.epoch, epoch.arrivals)
            put_arrival(batch, delivery.row, self.actor, delivery.envelope)


def refuse_deadly(epoch: Epoch, activation: Activation) -> None:
    """Raise ActorQuarantined for an actor that hosts have died of, when they read its state."""
    charge = epoch.charges.get(activation.decoding)
    if charge is not None and charge.interrupted >= MAX_INTERRUPTED:
        raise ActorQuarantined(activation.actor, f"the host died {charge.interrupted} times while it read the actor's state")


def new_instance(definition: Definition, actor: ActorId, snapshot: Snapshot | None, epoch: Epoch, first: Turn | None = None) -> object:
    """An object of the user's class as of a snapshot, or a new one, made for its `first` turn. Raises what the class's own code raises."""
    incarnation = Incarnation(b"") if snapshot is None else snapshot.incarnation
    now = epoch.clock.now()
    if first is not None and (snapshot is None or not snapshot.state):  # as a replay of that turn will make it
        incarnation, now = first.incarnation, first.time
    turn = Turn(definition, actor, incarnation, 0, now, epoch, read_only=True)
    with epoch.spared() as coroutines:
        work = partial(revive, definition, b"" if snapshot is None else snapshot.state, turn, coroutines)
        return epoch.watchdog.guard((actor, "the way into memory"), work)


def quarantined(actor: ActorId, failure: Failure) -> ActorQuarantined:
    """The error for whoever wants something of an actor that stands still because of `failure`."""
    cause = failure.revive()
    return cause if isinstance(cause, ActorQuarantined) else ActorQuarantined(actor, f"{failure.type_name}: {failure.text}")
