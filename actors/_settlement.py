"""What follows from a turn: replies, messages, requests to the host; or, if it failed, another attempt, a dead letter, a quarantine.

Everything that is decided here goes into the open batch together with the actor's new snapshot; what leaves the host waits for that
batch's gate.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final, final

from ..storage import Gate
from ._activation import Activation, Delivery, quarantined
from ._books import Books
from ._deadlock import waits_for_actors_alone
from ._effects import PutAside, Send, Spawn
from ._endings import Ended, Ending
from ._envelope import STARTS, Kind
from ._epoch import Epoch
from ._errors import ActorCompleted, ActorQuarantined, HandlerInterrupted
from ._failure import Failure, innermost
from ._firing import Firing
from ._ids import ActorId
from ._lives import Lives
from ._mailbox import Item
from ._persistence import Table, delete_actor, delete_quarantine, put_quarantine
from ._records import OUTCOME, BackOff, DeadLetter, QuarantineRow, Raised, Status, Value
from ._standing import StandingDraft, log_too_long
from ._taking import Taken
from ._turn import KeptSignal, Turn

logger = logging.getLogger("perdure.actors")


@final
class Settlement:
    """Ends turns. `deliver` takes messages to other actors."""

    __slots__ = ("_epoch", "books", "firing", "lives")

    def __init__(self, epoch: Epoch, deliver: Callable[[ActorId, Delivery], None]) -> None:
        self._epoch = epoch
        self.books: Final = Books(epoch, deliver)
        self.lives: Final = Lives(self.books)
        self.firing: Final = Firing(self.books)

    # --- turns that ended well ---

    def succeed(self, activation: Activation, item: Item, taken: Taken, turn: Turn) -> None:
        """The turn ended well: its state, its effects and its replies become durable together."""
        before = activation.snapshot
        plain = not taken.suspended and taken.end is None and (before is None or before.standing is None)
        if not plain or any(type(effect) is not Send for effect in taken.effects):
            self._succeed_with_standing(activation, item, taken, turn)
        else:
            activation.take(item)
            activation.move_on(turn, taken.state, Status.IDLE, None)
            self.books.touch(activation, len(taken.state) + 100)
        for effect in taken.effects:
            if type(effect) is Send:
                self.books.deliver(effect.target, Delivery(effect.envelope))
            elif type(effect) is Spawn:
                self.books.deliver(ActorId(effect.row.type, effect.row.key), Delivery(effect.envelope))
            elif type(effect) is PutAside:
                letter = DeadLetter(effect.envelope, effect.failure, effect.failed, effect.interrupted, turn.time, partly=True)
                self.books.telling.put_dead_letter(activation.actor, self.books.telling.number_of_its_own(), letter)
        for ending in taken.endings:
            self._end_handler(activation, ending, turn)
        if taken.end is not None:
            self.lives.end(activation, taken.end, turn)
        if self.books.history is not None:
            self.books.touch(activation, self.books.history.note(activation, item, taken, turn, before))
        self.books.discharge(item.envelope.id)

    def _succeed_with_standing(self, activation: Activation, item: Item, taken: Taken, turn: Turn) -> None:
        """The same for an actor that has more than its state: something of it waits, or it has a workflow, timers, a stream."""
        draft = StandingDraft(activation, self._epoch.commit.batch)
        kind = item.envelope.kind
        if kind in STARTS:
            self.lives.note_beginning(activation, draft, item.envelope)
        elif kind is Kind.CHILD_EXIT or kind is Kind.ESCALATE:
            self.lives.families.dismiss(activation, draft, item.envelope)
        elif item.envelope.parent is not None and (kind is Kind.CANCEL or kind is Kind.RENEW):
            draft.parent = item.envelope.parent if kind is Kind.RENEW else None
        draft.apply(taken, turn)
        if taken.suspended:
            draft.log(item, taken, turn)
        else:
            draft.forget_log()
        before = activation.standing
        activation.take(item)
        activation.move_on(turn, taken.state, Status.SUSPENDED if taken.suspended else Status.IDLE, draft.record())
        if taken.suspended and not taken.asked and waits_for_actors_alone(activation.standing) and not waits_for_actors_alone(before):
            self._epoch.suspect(activation.actor)  # what it asked before is all that it waits for now
        self._hand_on(activation, draft, self.books.touch(activation, len(taken.state) + draft.size + 100))
        too_long = log_too_long(activation)
        if too_long is not None:
            self.quarantine(activation, too_long)

    def _hand_on(self, activation: Activation, draft: StandingDraft, gate: Gate) -> None:
        """What was asked for of the host begins once that is durable."""
        errands = self._epoch.errands
        for row in draft.begun:
            errands.begin(activation.actor, row, gate)
        for request in draft.ended:
            errands.end(request, gate)
        for request in draft.given_up:
            errands.give_up(request, gate)
        if activation.snapshot is not None and activation.snapshot.next_due != math.inf:
            self.books.set_alarm(activation)
        if self._epoch.readers:
            self.books.tell_readers(activation)

    def _end_handler(self, activation: Activation, ending: Ending, turn: Turn) -> None:
        self.books.end_handler(activation, ending, turn.time)
        if isinstance(ending.outcome, Raised) and not ending.envelope.ask and not ending.outcome.refused:
            self._be_poisoned(activation, ending.envelope.name, ending.outcome.failure, turn)

    # --- messages that the host handles itself ---

    def keep_signal(self, activation: Activation, item: Item, turn: Turn) -> None:
        """A declared signal that nobody waits for is kept; so is the call of a handler while none can be made."""
        draft = StandingDraft(activation, self._epoch.commit.batch)
        draft.keep(KeptSignal(item.seq, item.envelope))
        self.books.stay(activation, item, turn, draft.record())
        if item.envelope.wants_outcome:
            self.books.telling.conclude(activation, item.seq, item.envelope, Value(b""))

    def append(self, activation: Activation, item: Item, turn: Turn) -> None:
        """Append what a step has emitted to the actor's stream."""
        draft = StandingDraft(activation, self._epoch.commit.batch)
        draft.emit(item.envelope.name, item.envelope.payload, turn)
        self.books.stay(activation, item, turn, draft.record())
        self.books.tell_readers(activation)

    def turn_away(self, activation: Activation, item: Item, turn: Turn) -> None:
        """Take a message that came too late, as `Books.turn_away` says."""
        self.books.skip(activation, item, turn)
        self.books.turn_away(activation, item.seq, item.envelope, turn.time)
        self.books.discharge(item.envelope.id)

    # --- failures ---

    def fail(self, activation: Activation, item: Item, error: BaseException, turn: Turn, attempts: int) -> None:
        """The message failed, in so many attempts now, and was rolled back: it is tried again later, or put aside."""
        envelope = item.envelope
        back_off = activation.snapshot.back_off if activation.snapshot else None
        attempts += back_off.attempts if back_off is not None and back_off.seq == item.seq else 0
        if envelope.is_event and not envelope.ask and not isinstance(error, HandlerInterrupted):
            retry = activation.definition.retry
            delay = retry.delay(attempts, envelope.id) if retry.is_worth_it(error) or not isinstance(error, Exception) else None
            if delay is not None:
                activation.back_off(BackOff(item.seq, attempts, turn.time + delay), turn)
                self._note_failure(activation, item, turn, Failure.of(error))
                self.books.touch(activation, len(activation.state) + 100)
                logger.warning(
                    "%s: %s failed (attempt %d), again in %.1f s",
                    activation.actor,
                    envelope.name,
                    attempts,
                    delay,
                    exc_info=innermost(error),
                )
                return
        if activation.definition.on_poison == "quarantine" and not envelope.ask and envelope.kind not in STARTS:
            self.stand_still(activation, item, error, turn)
        else:
            self._put_aside(activation, item, Failure.of(error), turn, attempts)

    def stand_still(self, activation: Activation, item: Item, error: BaseException, turn: Turn) -> None:
        """The message failed, and the actor cannot go on without it: it is quarantined there."""
        self._note_failure(activation, item, turn, Failure.of(error))
        self.quarantine(activation, error)

    def _note_failure(self, activation: Activation, item: Item, turn: Turn, failure: Failure) -> None:
        if self.books.history is not None:
            self.books.touch(activation, self.books.history.note_failed(activation, item, turn, failure))

    def _put_aside(self, activation: Activation, item: Item, failure: Failure, turn: Turn, attempts: int) -> None:
        envelope = item.envelope
        self.books.skip(activation, item, turn)
        self._note_failure(activation, item, turn, failure)
        if envelope.wants_outcome:
            self.books.telling.conclude(activation, item.seq, envelope, Raised(failure))
        if envelope.kind is Kind.SPAWN:
            self.lives.families.tell_refused(activation.actor, envelope, Raised(failure))
        elif not envelope.ask:
            letter = DeadLetter(envelope, failure, attempts, self.books.interrupted(item), turn.time)
            self.books.telling.put_dead_letter(activation.actor, item.seq, letter)
            self._be_poisoned(activation, envelope.name, failure, turn)
        self.books.discharge(envelope.id)

    def _be_poisoned(self, activation: Activation, name: str, failure: Failure, turn: Turn) -> None:
        """A message could not be handled: what becomes of the actor is said by its type, or by its parent's supervision."""
        if activation.definition.on_poison == "quarantine":
            self.quarantine(activation, failure.revive())
        if activation.definition.on_poison != "stop":
            return
        parent = activation.standing.parent
        policy = (
            self._epoch.registry.require(parent.type).supervise if parent is not None and self.lives.families.is_judged(parent) else None
        )
        if policy is None or policy.directive(failure.revive()) != "resume":
            self.books.post(activation, Kind.POISONED, name, turn.time, payload=OUTCOME.pack(Raised(failure)))

    def end_poisoned(self, activation: Activation, item: Item, turn: Turn) -> None:
        """The actor fails with a message that it could not handle; nothing of it has to be asked to end first."""
        self.books.drop(activation, item, turn)
        self.lives.end_for_good(activation, Ended(OUTCOME.unpack(item.envelope.payload), Status.FAILED), turn.time)

    # --- verbs about an actor ---

    def delete(self, activation: Activation, *, keep: frozenset[Table] = frozenset()) -> None:
        """Forget the actor with all that is its own; whoever waits for an answer of it is told."""
        error = ActorCompleted(activation.actor)
        self.books.give_up_all(activation)
        self.lives.forget(activation, error)
        delete_actor(self._epoch.commit.batch, activation.actor, keep=keep)
        activation.forget_dues(self._epoch.commit.batch)
        self.books.discharge(activation.decoding)
        deliveries, awaiters = self.books.telling.waiting(activation)
        activation.forget_instance()
        activation.install(None, None)
        activation.damaged = activation.fitted = False
        activation.unfit = None
        self.books.touch(activation)
        self.books.tell_readers(activation)
        self.books.telling.answer_all(activation, deliveries, awaiters, error)
        if self._epoch.listener is not None:
            self._epoch.listener.quarantined(activation.actor, ended=True)

    def release(self, activation: Activation) -> None:
        """Let a quarantined actor go on, with the message that it stood still at."""
        delete_quarantine(self._epoch.commit.batch, activation.suffix)
        self.books.discharge(activation.decoding)
        if activation.mailbox is not None:
            for item in activation.mailbox.waiting():
                self.books.discharge(item.envelope.id)
        activation.failure = None
        activation.forget_instance()
        self.books.touch(activation)
        if self._epoch.listener is not None:
            self._epoch.listener.quarantined(activation.actor, ended=True)

    def quarantine(self, activation: Activation, error: BaseException) -> None:
        """The actor cannot go on: it stands still, its messages are kept, and asks are refused."""
        failure = Failure.of(error)
        says_so = isinstance(error, ActorQuarantined)
        logger.error("%s", failure.text if says_so else f"{activation.actor} is quarantined: {failure.type_name}: {failure.text}")
        activation.failure = failure
        activation.forget_instance()
        put_quarantine(self._epoch.commit.batch, activation.suffix, QuarantineRow(failure, self._epoch.clock.now()))
        self.books.touch(activation)
        if self._epoch.listener is not None:
            self._epoch.listener.quarantined(activation.actor)
        telling = self.books.telling
        telling.answer_all(activation, *telling.waiting(activation), quarantined(activation.actor, failure))
