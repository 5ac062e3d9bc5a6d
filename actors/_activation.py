"""One actor in memory: its last snapshot, its mailbox, its instance, and who waits for it.

While an actor is active, memory is its truth; `stage` writes it into a batch, and until that batch is durable `gate` keeps what was
learned from it inside the host. The instance is always that of the last snapshot: a turn that fails drops it, and the next one decodes it
again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import Final, final

from ..storage import Batch, Gate
from ._breadcrumb import Phase
from ._define import Definition
from ._envelope import Envelope
from ._epoch import Epoch
from ._errors import ActorQuarantined, VersionMismatch
from ._failure import Failure
from ._ids import ActorId, Incarnation, MessageId
from ._mailbox import Item, Mailbox
from ._persistence import arrival_key, key_digest, put_arrival, put_lane, put_snapshot, suffix_of
from ._records import BackOff, Outcome, Snapshot, Status
from ._turn import Turn, revive

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
        "_staged_status",
        "actor",
        "arrivals",
        "asked",
        "askers",
        "changed",
        "damaged",
        "definition",
        "dirty",
        "failure",
        "gate",
        "mailbox",
        "queued",
        "snapshot",
        "suffix",
        "used",
        "wanted",
    )

    def __init__(self, actor: ActorId, definition: Definition) -> None:
        self.actor = actor
        self.suffix = suffix_of(actor)
        self.definition = definition
        self.snapshot: Snapshot | None = None  # None: the actor does not exist before its first turn
        self.mailbox: Mailbox | None = None
        self.failure: Failure | None = None  # why it is quarantined
        self.damaged = False  # and its records cannot be read: no use in trying again
        self.arrivals: deque[Delivery] | None = None
        self.asked: dict[int, list[Delivery]] | None = None  # who waits for the outcome of a message, by seq
        self.askers: set[tuple[bytes, int]] | None = None  # in other processes, read for a deletion, which is to tell them all
        self.gate = DURABLE
        self.dirty = False  # something is to be staged
        self.changed = False  # and the snapshot is part of it
        self.queued = False
        self.wanted = False  # the loader has it on its list
        self.used = True
        self._instance: object | None = None
        self._staged_status: Status | None = None

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

    def refusal(self) -> ActorQuarantined | None:
        """Why it answers nobody, if it is quarantined."""
        return None if self.failure is None else quarantined(self.actor, self.failure)

    def mismatch(self) -> VersionMismatch | None:
        """What is wrong if its state was written by another version of its type."""
        stored, hosted = self.snapshot, self.definition.version
        return None if stored is None or stored.version == hosted else VersionMismatch(self.actor, stored.version, hosted)

    def install(self, snapshot: Snapshot | None, failure: Failure | None) -> None:
        """Set what was read from the store."""
        self.snapshot = snapshot
        self.failure = failure
        self.changed = False
        self._staged_status = None if snapshot is None else snapshot.status
        self.mailbox = Mailbox(snapshot.event, snapshot.interrupt) if snapshot is not None else Mailbox(0, 0)

    def instance(self, epoch: Epoch) -> object:
        """The object of the user's class, decoded or created when it is first needed. Raises what decoding raises."""
        if self._instance is None:
            epoch.breadcrumbs.enter(Phase.DECODE, self.decoding)
            try:
                self._instance = new_instance(self.definition, self.actor, self.snapshot, epoch)
            finally:
                epoch.breadcrumbs.leave()
        return self._instance

    def forget_instance(self) -> None:
        """Throw away an instance that may be half changed."""
        self._instance = None

    def next_item(self, now: float) -> Item | None:
        """The message to handle next, if there is one that may be handled now: interrupts first, then events unless in back-off."""
        mailbox = self.mailbox
        if mailbox is None or self.failure is not None:
            return None
        item = mailbox.interrupts.head()
        if item is not None:
            return item
        item = mailbox.events.head()
        if item is None or self.waits_until(item) > now:
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

    def move_on(self, item: Item, turn: Turn, state: bytes) -> None:
        """The message is dealt with: take it out, and let the snapshot say so."""
        mailbox, before = self.mailbox, self.snapshot
        assert mailbox is not None
        (mailbox.events if item.envelope.is_event else mailbox.interrupts).take()
        back_off = before.back_off if before is not None else None
        if back_off is not None and back_off.seq <= mailbox.events.cursor:
            back_off = None
        self._set_snapshot(turn, turn.number, state, back_off)

    def back_off(self, back_off: BackOff, turn: Turn) -> None:
        """The message's turn has failed, and it is tried again later.

        The next turn has the same number, since nothing of this one has happened.
        """
        self._set_snapshot(turn, turn.number - 1, self.state, back_off)

    def _set_snapshot(self, turn: Turn, number: int, state: bytes, back_off: BackOff | None) -> None:
        mailbox = self.mailbox
        assert mailbox is not None
        self.snapshot = Snapshot(
            turn.incarnation,
            self.definition.version,
            Status.IDLE,
            mailbox.events.cursor,
            mailbox.interrupts.cursor,
            number,
            turn.time if self.snapshot is None else self.snapshot.created,
            turn.time,
            state,
            back_off,
        )
        self.changed = True

    def stage(self, batch: Batch, epoch: Epoch) -> None:
        """Write what has changed since the last call."""
        if self.mailbox is not None:
            if self.changed and self.snapshot is not None:
                put_snapshot(batch, self.suffix, self.snapshot, self._staged_status)
                self._staged_status = self.snapshot.status
            for lane, queue in self.mailbox.lanes():
                if queue.ready is not None or queue.taken is not None or queue.fresh is not None:
                    put_lane(batch, self.suffix, lane, queue)
        for delivery in self.arrivals or ():
            self._stage_arrival(batch, epoch, delivery)
        for deliveries in (self.asked or {}).values():
            for delivery in deliveries:
                if delivery.attached and delivery.envelope.reply_to is not None:  # its caller may outlive this host
                    self._stage_arrival(batch, epoch, delivery)
        self.dirty = self.changed = False

    def _stage_arrival(self, batch: Batch, epoch: Epoch, delivery: Delivery) -> None:
        if delivery.row is None:
            epoch.arrivals += 1
            delivery.row = arrival_key(epoch.fence.epoch, epoch.arrivals)
            put_arrival(batch, delivery.row, self.actor, delivery.envelope)


def new_instance(definition: Definition, actor: ActorId, snapshot: Snapshot | None, epoch: Epoch) -> object:
    """An object of the user's class as of a snapshot, or a new one. Raises what the class's own code raises."""
    incarnation = Incarnation(b"") if snapshot is None else snapshot.incarnation
    turn = Turn(actor, incarnation, 0, epoch.clock.now(), epoch, read_only=True)
    work = partial(revive, definition, b"" if snapshot is None else snapshot.state, turn, epoch.loop)
    return epoch.watchdog.guard((actor, "the way into memory"), work)


def quarantined(actor: ActorId, failure: Failure) -> ActorQuarantined:
    """The error for whoever wants something of an actor that stands still because of `failure`."""
    cause = failure.revive()
    return cause if isinstance(cause, ActorQuarantined) else ActorQuarantined(actor, f"{failure.type_name}: {failure.text}")
