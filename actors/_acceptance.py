"""How a message gets into a mailbox: once for each idempotency key, within the limit, or not at all and somebody is told.

What is decided here was read from memory that may not be durable yet: the sender learns it only behind the actor's gate.
"""

from __future__ import annotations

from functools import partial
from typing import Final, final

from ..storage import PerdureError, settle
from ._activation import Activation, Delivery
from ._envelope import FORGETS, Envelope, Kind
from ._epoch import Epoch
from ._errors import ActorCompleted, ActorNotFound, IdempotencyMismatch, MailboxFull
from ._ids import ActorId
from ._letters import change_letters
from ._persistence import Table, due_key, key_digest, put_key_row
from ._records import KeyRow, Outcome, Value, refusal
from ._settlement import Settlement
from ._upgrades import Upgrades

FOR_THE_LIVING: Final = frozenset({Kind.EVENT, Kind.SIGNAL, Kind.DECLARED})  # what the workflow's end leaves nobody to take
OF_ONE_LIFE: Final = frozenset({Kind.OUTCOME, Kind.REPLY})
MAKING_NO_ACTOR: Final = frozenset({Kind.EMIT, Kind.CHILD_EXIT, Kind.RENEW, Kind.SETTLE, Kind.ORPHAN, Kind.RESULT})
KEPT_BEYOND: Final = frozenset({Table.KEY})  # an actor whose retention has passed
MAYBE_EARLY: Final = frozenset({Kind.RENEW, Kind.ORPHAN, Kind.RESULT})  # of those: whom they are for may be about to begin


@final
class Acceptance:
    """Puts deliveries into the mailboxes of actors that are in memory."""

    __slots__ = ("_epoch", "_settlement", "_upgrades")

    def __init__(self, epoch: Epoch, settlement: Settlement, upgrades: Upgrades) -> None:
        self._epoch = epoch
        self._settlement = settlement
        self._upgrades = upgrades

    def accept(self, activation: Activation, delivery: Delivery, known: KeyRow | None) -> KeyRow | None:
        """Deal with one delivery for good; `known` is what its idempotency key was used for before; returns what it stands for now."""
        refused = self._refusal(activation, delivery, known)
        if delivery.row is not None and not delivery.attached:
            self._epoch.commit.batch.delete(delivery.row)
            delivery.row = None
            self._settlement.books.touch(activation)
        if refused is not None:
            self._refuse(activation, delivery, refused)
        elif delivery.envelope.is_control:
            self._control(activation, delivery)
        elif known is not None:
            self._repeat(activation, delivery, known)
        else:
            return self._append(activation, delivery)
        return known

    def _refusal(self, activation: Activation, delivery: Delivery, known: KeyRow | None) -> PerdureError | None:
        envelope = delivery.envelope
        assert activation.mailbox is not None
        if known is not None:
            assert envelope.key is not None
            if (known.name, known.arguments) != (envelope.name, envelope.key[1]):
                return IdempotencyMismatch(activation.actor, envelope.key[0], known.name, envelope.name)
            if known.outcome is not None:
                return None
        if envelope.kind is Kind.TERMINATE and envelope.ask and activation.snapshot is None and activation.failure is not None:
            return activation.refusal()  # its first message, behind which it would wait, may never be handled
        if envelope.is_control and (envelope.kind in FORGETS or envelope.is_of_letters or not activation.damaged):
            return None
        if envelope.kind is Kind.CANCEL and activation.snapshot is None and not len(activation.mailbox):
            return ActorNotFound(activation.actor)
        return self._refusal_of_message(activation, envelope, known)

    def _refusal_of_message(self, activation: Activation, envelope: Envelope, known: KeyRow | None) -> PerdureError | None:
        if activation.status.is_end and known is None and envelope.kind in FOR_THE_LIVING:
            return ActorCompleted(activation.actor)
        if activation.failure is not None and (envelope.ask or activation.damaged):  # what the mailbox of a damaged one holds is not known
            return activation.refusal()
        limit = activation.definition.mailbox_limit
        if known is None and _is_beyond(limit, activation, envelope):
            return MailboxFull(activation.actor, limit)
        return None

    def _control(self, activation: Activation, delivery: Delivery) -> None:
        envelope = delivery.envelope
        if _is_ahead_of_its_cause(activation, envelope):
            self._append(activation, delivery)
            return
        outcome: Outcome = Value(b"")
        if envelope.is_of_letters:
            outcome = change_letters(self._epoch, self._settlement, activation, envelope, self._put_back)
        elif envelope.kind is Kind.DELETE:
            self._settlement.delete(activation)
        elif envelope.kind is Kind.RETIRE:
            self._retire(activation, envelope.due)
        elif envelope.kind is Kind.TERMINATE:
            outcome = self._settlement.lives.terminate(activation, envelope)
        else:
            outcome = self._upgrades.retry(activation)
        self._settlement.books.telling.answer(activation, delivery, outcome)

    def _retire(self, activation: Activation, due: float) -> None:
        """Forget an actor that has ended, unless it has begun anew meanwhile, or was deleted.

        While it still turns messages away it waits for a later sweep: their idempotency keys stay, and would never get an outcome.
        """
        if activation.standing.retire != due:
            self._epoch.commit.batch.delete(due_key(Table.RETENTION, due, activation.suffix))
        elif activation.status.is_end and not len(activation.mailbox or ()):
            self._settlement.delete(activation, keep=KEPT_BEYOND)

    def _put_back(self, activation: Activation, envelope: Envelope) -> bool:
        """Accept a message again that was put aside; False if there is no room for it."""
        if _is_beyond(activation.definition.mailbox_limit, activation, envelope):
            return False
        self._append(activation, Delivery(envelope))
        return True

    def _append(self, activation: Activation, delivery: Delivery) -> KeyRow | None:
        envelope, row = delivery.envelope, None
        assert activation.mailbox is not None
        if envelope.kind in OF_ONE_LIFE and not _is_of_this_life(activation, envelope):
            return None
        if (
            envelope.kind in MAKING_NO_ACTOR
            and activation.snapshot is None
            and (envelope.kind not in MAYBE_EARLY or not len(activation.mailbox))
        ):
            if envelope.kind is Kind.CHILD_EXIT:
                self._settlement.lives.families.disown(activation.actor, envelope)
            elif envelope.kind is Kind.RESULT:
                self._settlement.books.telling.answer(activation, delivery, self._settlement.lives.no_result(activation, envelope))
            return None  # it was deleted meanwhile
        seq = activation.mailbox.append(envelope)
        if delivery.answered is not None:
            activation.asked = activation.asked or {}
            activation.asked[seq] = [delivery]
        if envelope.key is not None:
            expires = self._epoch.clock.now() + activation.definition.dedupe_for.total_seconds()
            row = KeyRow(envelope.name, envelope.key[1], seq, expires)
            put_key_row(self._epoch.commit.batch, activation.actor, key_digest(envelope.key[0]), row)
        if envelope.asker is not None and activation.standing.holds:
            self._epoch.suspect(ActorId(*envelope.asker[:2]))
        gate = self._settlement.books.touch(activation, len(envelope.payload) + 100)
        if delivery.accepted is not None:
            gate.when_open(partial(settle, delivery.accepted))
        return row

    def _repeat(self, activation: Activation, delivery: Delivery, known: KeyRow) -> None:
        if delivery.accepted is not None:
            activation.gate.when_open(partial(settle, delivery.accepted))
        if known.outcome is not None:
            self._settlement.books.telling.answer(activation, delivery, known.outcome)
        elif delivery.answered is not None or delivery.envelope.awaiter is not None:
            delivery.attached = True
            activation.asked = activation.asked or {}
            activation.asked.setdefault(known.seq, []).append(delivery)
            self._settlement.books.touch(activation)

    def _refuse(self, activation: Activation, delivery: Delivery, refused: PerdureError) -> None:
        envelope = delivery.envelope
        accepted = delivery.accepted
        if accepted is not None:
            activation.gate.when_open(lambda error: settle(accepted, error or refused))
        elif envelope.kind in {Kind.CANCEL, Kind.TERMINATE} and not envelope.ask:
            return  # by an actor that has no interest in whether there is anything to end
        elif envelope.ask:
            self._settlement.books.telling.answer(activation, delivery, refusal(refused))
        else:
            self._settlement.books.telling.bury(activation.actor, envelope, refused)


def _is_of_this_life(activation: Activation, envelope: Envelope) -> bool:
    """Whether an outcome is meant for the life that the actor has now, and not for an earlier one."""
    return activation.snapshot is not None and envelope.id.startswith(activation.snapshot.incarnation)


def _is_ahead_of_its_cause(activation: Activation, envelope: Envelope) -> bool:
    """Whether it is to end what has not begun yet: then it waits behind the message that begins it."""
    if envelope.kind is not Kind.TERMINATE or activation.mailbox is None or not len(activation.mailbox.interrupts):
        return False
    parent = activation.standing.parent
    return activation.snapshot is None or (envelope.parent is not None and (parent is None or parent.id != envelope.parent.id))


def _is_beyond(limit: int, activation: Activation, envelope: Envelope) -> bool:
    """Whether the actor has as much to do as it may have; the call of a signal handler is taken if it can be made at the next turn."""
    assert activation.mailbox is not None
    if envelope.kind is Kind.EVENT:
        return len(activation.mailbox) >= limit
    is_kept = envelope.kind is Kind.SIGNAL and (activation.failure is not None or activation.standing.is_waiting)
    return (is_kept or envelope.kind is Kind.DECLARED) and activation.standing.kept + len(activation.mailbox.interrupts) >= limit
