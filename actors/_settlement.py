"""What follows from a message: from its turn, or where the host deals with it alone (a result asked for, a timer due, a deletion).

Replies, messages to others and requests to the host; or, if its turn failed, another attempt, a dead letter, a quarantine.

Everything that is decided here goes into the open batch together with the actor's new snapshot; what leaves the host waits for that
batch's gate.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Final, final

import msgspec

from ..storage import Gate, settle
from ._activation import Activation, Delivery, quarantined
from ._coroutines import ContinueAsNew, Ending
from ._deadlock import waits_for_actors_alone
from ._define import Definition
from ._digest import digest
from ._effects import Send
from ._envelope import STARTS, Awaiter, Envelope, Form, Kind
from ._epoch import Epoch
from ._errors import ActorCompleted, HandlerInterrupted
from ._failure import Failure
from ._ids import ActorId, MessageId, continued, first_incarnation, sent_id
from ._mailbox import Item
from ._outcome_errors import ActorCancelled, WorkflowAlreadyStarted, WorkflowNotStarted
from ._persistence import charge_key, delete_actor, delete_quarantine, delete_request, put_quarantine
from ._records import BackOff, DeadLetter, NamedTimer, Outcome, QuarantineRow, Raised, RequestRow, Run, Status, Value, refusal
from ._standing import StandingDraft, log_too_long
from ._taking import Taken
from ._telling import Telling, resolve
from ._turn import KeptSignal, Turn

UNMOURNED: Final = frozenset(
    {Kind.FIRING, Kind.OUTCOME, Kind.REPLY, Kind.TIMER, Kind.RESULT}
)  # they mean nothing to an actor that has ended

logger = logging.getLogger("perdure.actors")


@final
class Settlement:
    """Ends turns. `dirty` are the actors with something to stage; `deliver` takes messages to other actors."""

    __slots__ = ("_epoch", "deliver", "dirty", "telling")

    def __init__(self, epoch: Epoch, deliver: Callable[[ActorId, Delivery], None]) -> None:
        self._epoch = epoch
        self.deliver = deliver
        self.telling = Telling(epoch, deliver)
        self.dirty: list[Activation] = []

    def touch(self, activation: Activation, size: int = 0) -> Gate:
        """Something of the actor changes with the open batch, about `size` bytes; returns that batch's gate."""
        activation.gate = gate = self._epoch.commit.stage(size)
        if not activation.dirty:
            activation.dirty = True
            self.dirty.append(activation)
        return gate

    def succeed(self, activation: Activation, item: Item, taken: Taken, turn: Turn) -> None:
        """The turn ended well: its state, its effects and its replies become durable together."""
        plain = not taken.suspended and taken.end is None and (activation.snapshot is None or activation.snapshot.standing is None)
        if not plain or any(type(effect) is not Send for effect in taken.effects):
            self._succeed_with_standing(activation, item, taken, turn)
        else:
            activation.take(item)
            activation.move_on(turn, taken.state, Status.IDLE, None)
            self.touch(activation, len(taken.state) + 100)
        for effect in taken.effects:
            if type(effect) is Send:
                self.deliver(effect.target, Delivery(effect.envelope))
        for ending in taken.endings:
            self._end_handler(activation, ending, turn)
        if taken.end is not None and taken.end.next is not None:
            self._continue(activation, taken.end.next, turn)
        self.discharge(item.envelope.id)

    def _succeed_with_standing(self, activation: Activation, item: Item, taken: Taken, turn: Turn) -> None:
        """The same for an actor that has more than its state: something of it waits, or it has a workflow, timers, a stream."""
        draft = StandingDraft(activation, self._epoch.commit.batch)
        begins = item.envelope.kind in STARTS and item.envelope.kind is not Kind.CONTINUE
        if begins:
            draft.run = Run(arguments_digest(activation.definition, item.envelope), None, draft.run.awaiters if draft.run else [])
        draft.apply(taken, turn)
        if taken.suspended:
            draft.log(item, taken, turn)
        else:
            draft.forget_log()
        ended = taken.end if taken.end is not None and taken.end.next is None else None
        awaiters = draft.run.awaiters if draft.run is not None else []
        signals = draft.end(ended.outcome) if ended is not None else []
        before = activation.standing
        activation.take(item)
        activation.move_on(turn, taken.state, _status(taken), draft.record())
        if taken.suspended and not taken.asked and waits_for_actors_alone(activation.standing) and not waits_for_actors_alone(before):
            self._epoch.suspect(activation.actor)  # what it asked before is all that it waits for now
        self._hand_on(activation, draft, self.touch(activation, len(taken.state) + draft.size + 100))
        too_long = log_too_long(activation)
        if too_long is not None:
            self.quarantine(activation, too_long)
        if ended is not None:
            self._tell_ended(activation, awaiters, ended.outcome)
            for signal in signals:
                self._turn_away(activation, signal.seq, signal.envelope, turn)

    def _hand_on(self, activation: Activation, draft: StandingDraft, gate: Gate) -> None:
        """What was asked for of the host begins once that is durable."""
        epoch, actor = self._epoch, activation.actor
        for row in draft.begun:
            gate.when_open(partial(_begin, epoch, actor, row))
        for request in draft.given_up:
            epoch.give_up(request)
            gate.when_open(partial(_cancel, epoch, request))
        if activation.snapshot is not None and activation.snapshot.next_due != math.inf:
            epoch.set_alarm(actor, activation.snapshot.next_due)
        if epoch.readers:
            self._tell_readers(activation, gate)

    def _tell_readers(self, activation: Activation, gate: Gate) -> None:
        for reader in self._epoch.readers.pop(activation.actor, ()):
            gate.when_open(partial(settle, reader))

    def _end_handler(self, activation: Activation, ending: Ending, turn: Turn) -> None:
        outcome = ending.outcome
        if outcome is not None:
            self.telling.conclude(activation, ending.seq, ending.envelope, outcome)
            if isinstance(outcome, Raised) and not ending.envelope.ask:
                letter = DeadLetter(ending.envelope, outcome.failure, 1, 0, turn.time, ending.partly)
                self.telling.put_dead_letter(activation.actor, ending.seq or self.telling.number_of_its_own(), letter)

    def _tell_ended(self, activation: Activation, awaiters: list[Awaiter], outcome: Outcome) -> None:
        for awaiter in awaiters:
            self.telling.tell(activation.actor, awaiter, outcome)
        for future in self._epoch.awaiting.pop(activation.actor, ()):
            activation.gate.when_open(partial(resolve, future, outcome))

    def _continue(self, activation: Activation, again: ContinueAsNew, turn: Turn) -> None:
        """Begin the workflow's next life with a message of its own, the first that this life takes."""
        envelope = Envelope(
            id=sent_id(turn.incarnation, turn.number, len(turn.effects)),
            kind=Kind.CONTINUE,
            name=activation.definition.require_workflow().name,
            payload=again.payload,
            sender=str(activation.actor),
            sent_at=turn.time,
        )
        activation.begin_life(continued(turn.incarnation))
        self.deliver(activation.actor, Delivery(envelope))

    def restart(self, activation: Activation, item: Item, turn: Turn) -> None:
        """Begin another life with nothing but the messages and signals that wait; the workflow is then begun by the message itself."""
        batch, snapshot = self._epoch.commit.batch, activation.snapshot
        assert snapshot is not None
        draft = StandingDraft(activation, batch)
        self._give_up_all(activation)
        handled = None if activation.coroutines is None else activation.coroutines.handled
        draft.forget_log()
        awaiters = draft.run.awaiters if draft.run is not None else []
        draft.run, draft.timers = None, []
        activation.forget_instance()
        activation.restart(first_incarnation(activation.actor, item.envelope.id), draft.record())
        self.touch(activation, 100)
        outcome = refusal(ActorCancelled(activation.actor, "it was started anew"))
        self._tell_ended(activation, awaiters, outcome)
        if handled is not None:
            self._end_handler(activation, Ending(*handled, outcome, partly=True), turn)

    def _give_up_all(self, activation: Activation) -> None:
        requests = activation.coroutines.requests() if activation.coroutines is not None else []
        for request in requests if activation.outstanding is None else activation.outstanding:
            delete_request(self._epoch.commit.batch, activation.suffix, request)
            self._epoch.give_up(request)
            self.touch(activation).when_open(partial(_cancel, self._epoch, request))

    # --- messages that the host handles itself ---

    def refuse_start(self, activation: Activation, item: Item, turn: Turn) -> bool:
        """Deal with a start of a workflow that has begun already, unless it is to begin again."""
        run = activation.standing.run
        if run is None or item.envelope.kind in {Kind.CONTINUE, Kind.RESTART}:
            return False
        try:
            same = run.arguments == arguments_digest(activation.definition, item.envelope)
        except Exception as error:  # noqa: BLE001  decoding runs the user's code
            self.fail(activation, item, error, turn, 0)
            return True
        outcome: Outcome = Value(b"")
        if item.envelope.kind is Kind.START_NEW or not same:
            outcome = refusal(WorkflowAlreadyStarted(activation.actor, activation.status.name.lower(), not same))
        self._skip(activation, item, turn)
        self.telling.conclude(activation, item.seq, item.envelope, outcome)
        return True

    def await_result(self, activation: Activation, item: Item, turn: Turn) -> None:
        """Tell the workflow's outcome to whoever asks for it, now or once it has ended."""
        run, envelope = activation.standing.run, item.envelope
        if run is None or run.outcome is not None:
            outcome = refusal(WorkflowNotStarted(activation.actor)) if run is None else run.outcome
            assert outcome is not None
            self._skip(activation, item, turn)
            self.telling.conclude(activation, item.seq, envelope, outcome)
            return
        standing = activation.standing
        if envelope.asker is not None or envelope.reply_to is not None:
            awaiters = [*run.awaiters, Awaiter(envelope.reply_to, envelope.asker)]
            if envelope.asker is not None:
                self._epoch.suspect(ActorId(*envelope.asker[:2]))
            standing = msgspec.structs.replace(standing, run=Run(run.arguments, None, awaiters))
        activation.take(item)
        activation.stay(turn, standing)
        self.touch(activation, 100)
        deliveries = (activation.asked or {}).pop(item.seq, ())
        activation.asked = activation.asked or None
        for delivery in deliveries:
            if delivery.answered is not None:
                waiting = [future for future in self._epoch.awaiting.get(activation.actor, ()) if not future.done()]
                self._epoch.awaiting[activation.actor] = [*waiting, delivery.answered]

    def keep_signal(self, activation: Activation, item: Item, turn: Turn) -> None:
        """A declared signal that nobody waits for is kept."""
        draft = StandingDraft(activation, self._epoch.commit.batch)
        draft.keep(KeptSignal(item.seq, item.envelope))
        activation.take(item)
        activation.stay(turn, draft.record())
        self.touch(activation, draft.size)
        if item.envelope.wants_outcome:
            self.telling.conclude(activation, item.seq, item.envelope, Value(b""))

    def append(self, activation: Activation, item: Item, turn: Turn) -> None:
        """Append what a step has emitted to the actor's stream."""
        draft = StandingDraft(activation, self._epoch.commit.batch)
        draft.emit(item.envelope.name, item.envelope.payload, turn)
        activation.take(item)
        activation.stay(turn, draft.record())
        self._tell_readers(activation, self.touch(activation, draft.size))

    def fire(self, activation: Activation, now: float) -> None:
        """Put what is due by now into the mailbox: the calls of named timers, and one firing for what the coroutines wait for."""
        standing = activation.standing
        if standing.wake is not None and standing.wake <= now and activation.fired != standing.wake:
            activation.fired = standing.wake
            self._post(activation, Kind.FIRING, "", standing.wake, now)
        due = [timer for timer in standing.timers if timer.due <= now]
        if not due:
            return
        for timer in due:
            self._post(activation, Kind.TIMER, timer.name, timer.due, now)
        timers = [timer for timer in standing.timers if timer.due > now]
        timers += [_next(timer, now) for timer in due if timer.every]
        activation.rearm(msgspec.structs.replace(standing, timers=timers))
        self.touch(activation, 100)
        if activation.snapshot is not None and activation.snapshot.next_due != math.inf:
            self._epoch.set_alarm(activation.actor, activation.snapshot.next_due)

    def _post(self, activation: Activation, kind: Kind, name: str, due: float, now: float) -> None:
        assert activation.mailbox is not None
        message = MessageId(self._epoch.entropy.token())
        payload = b"" if kind is Kind.FIRING else activation.definition.codec.encode(())
        activation.mailbox.append(Envelope(id=message, kind=kind, name=name, payload=payload, sent_at=now, due=due))
        self.touch(activation, 100)

    def drop(self, activation: Activation, item: Item, turn: Turn) -> None:
        """A message that means nothing any more: an outcome that nobody waits for, a firing of what was set anew."""
        self._skip(activation, item, turn)
        self.discharge(item.envelope.id)

    def turn_away(self, activation: Activation, item: Item, turn: Turn) -> None:
        """The actor has ended: whoever asks is told, and what was only sent goes into the dead letters."""
        self._skip(activation, item, turn)
        self._turn_away(activation, item.seq, item.envelope, turn)
        self.discharge(item.envelope.id)

    def _turn_away(self, activation: Activation, seq: int, envelope: Envelope, turn: Turn) -> None:
        failure = Failure.of(ActorCompleted(activation.actor))
        if envelope.wants_outcome:
            self.telling.conclude(activation, seq, envelope, Raised(failure))
        if not envelope.ask and envelope.kind not in UNMOURNED:
            self.telling.put_dead_letter(activation.actor, seq, DeadLetter(envelope, failure, 0, 0, turn.time))

    def _skip(self, activation: Activation, item: Item, turn: Turn) -> None:
        activation.take(item)
        activation.stay(turn, activation.snapshot.standing if activation.snapshot is not None else None)
        self.touch(activation, 100)

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
                self.touch(activation, len(activation.state) + 100)
                logger.warning(
                    "%s: %s failed (attempt %d), again in %.1f s", activation.actor, envelope.name, attempts, delay, exc_info=error
                )
                return
        self._put_aside(activation, item, Failure.of(error), turn, attempts)

    def _put_aside(self, activation: Activation, item: Item, failure: Failure, turn: Turn, attempts: int) -> None:
        self._skip(activation, item, turn)
        if item.envelope.wants_outcome:
            self.telling.conclude(activation, item.seq, item.envelope, Raised(failure))
        if not item.envelope.ask:
            letter = DeadLetter(item.envelope, failure, attempts, self.interrupted(item), turn.time)
            self.telling.put_dead_letter(activation.actor, item.seq, letter)
        self.discharge(item.envelope.id)

    def delete(self, activation: Activation) -> None:
        """Forget the actor, its messages and its dead letters; whoever waits for an answer of it is told."""
        delete_actor(self._epoch.commit.batch, activation.actor)
        activation.forget_wake(self._epoch.commit.batch)
        self.discharge(activation.decoding)
        self._give_up_all(activation)
        activation.outstanding = None
        run = activation.standing.run
        self._tell_ended(activation, run.awaiters if run is not None else [], refusal(ActorCompleted(activation.actor)))
        deliveries, awaiters = self.telling.waiting(activation)
        activation.forget_instance()
        activation.install(None, None)
        activation.damaged = False
        self._tell_readers(activation, self.touch(activation))
        self.telling.answer_all(activation, deliveries, awaiters, ActorCompleted(activation.actor))

    def release(self, activation: Activation) -> None:
        """Let a quarantined actor go on, with the message that it stood still at."""
        delete_quarantine(self._epoch.commit.batch, activation.suffix)
        self.discharge(activation.decoding)
        if activation.mailbox is not None:
            for item in activation.mailbox.waiting():
                self.discharge(item.envelope.id)
        activation.failure = None
        activation.forget_instance()
        self.touch(activation)

    def quarantine(self, activation: Activation, error: BaseException) -> None:
        """The actor cannot go on: it stands still, its messages are kept, and asks are refused."""
        failure = Failure.of(error)
        logger.error("%s is quarantined: %s: %s", activation.actor, failure.type_name, failure.text)
        activation.failure = failure
        activation.forget_instance()
        put_quarantine(self._epoch.commit.batch, activation.suffix, QuarantineRow(failure, self._epoch.clock.now()))
        self.touch(activation)
        self.telling.answer_all(activation, *self.telling.waiting(activation), quarantined(activation.actor, failure))

    def interrupted(self, item: Item) -> int:
        """How often a host has died while it handled the message."""
        charge = self._epoch.charges.get(item.envelope.id)
        return charge.interrupted if charge is not None else 0

    def discharge(self, subject: MessageId) -> None:
        """What a host had died in is done: forget its interrupted attempts."""
        if self._epoch.charges and self._epoch.charges.pop(subject, None) is not None:
            self._epoch.commit.batch.delete(charge_key(subject))


def arguments_digest(definition: Definition, envelope: Envelope) -> bytes:
    """What a workflow's arguments are known by: the same for equal ones; of what cannot be taken apart, its bytes."""
    run = definition.require_workflow()
    arguments = run.decode_json(envelope.payload) if envelope.form is Form.JSON else run.decode_call(envelope.payload)
    try:
        return digest(arguments)
    except (RecursionError, TypeError):
        return digest(envelope.payload)


def _status(taken: Taken) -> Status:
    if taken.end is None or taken.end.next is not None:
        return Status.SUSPENDED if taken.suspended else Status.IDLE
    if taken.end.cancelled:
        return Status.CANCELLED
    return Status.FAILED if isinstance(taken.end.outcome, Raised) else Status.COMPLETED


def _begin(epoch: Epoch, actor: ActorId, row: RequestRow, error: BaseException | None) -> None:
    if error is None:
        epoch.start(actor, row)


def _cancel(epoch: Epoch, request: MessageId, error: BaseException | None) -> None:
    if error is None:
        epoch.cancel(request)


def _next(timer: NamedTimer, now: float) -> NamedTimer:
    """A periodic timer's next time, in step with its first one: the next of all if it catches up, else the next that is to come."""
    if timer.catch_up:
        return msgspec.structs.replace(timer, due=timer.due + timer.every)
    periods = 1 + int(max(0.0, now - timer.due) // timer.every)
    due = timer.due + periods * timer.every
    return msgspec.structs.replace(timer, due=due if due > now else due + timer.every)
