"""What follows from a turn: its replies, its messages to others, or — if it failed — another attempt, a dead letter, a quarantine.

Everything that is decided here goes into the open batch together with the actor's new snapshot; what leaves the host waits for that
batch's gate.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final, final

from ..storage import Gate, PerdureError, fresh
from ._activation import Activation, Delivery, quarantined
from ._effects import Send
from ._envelope import Envelope, Kind
from ._epoch import Epoch
from ._errors import ActorCompleted, HandlerInterrupted
from ._failure import Failure
from ._ids import ActorId, MessageId
from ._info import DeadLetterInfo, dead_letter_info
from ._mailbox import Item
from ._persistence import (
    charge_key,
    delete_actor,
    delete_quarantine,
    key_digest,
    put_dead_letter,
    put_key_row,
    put_quarantine,
    put_reply,
    put_signal,
)
from ._records import BackOff, DeadLetter, KeyRow, Outcome, QuarantineRow, Raised, ReplyRow, Value
from ._turn import Taken, Turn

KEEP_REPLIES: Final = 86400.0  # seconds that an outcome waits for the client who asked, if that is away

ReplyTo = tuple[bytes, int]  # client, number

logger = logging.getLogger("perdure.actors")


@final
class Settlement:
    """Ends turns. `dirty` are the actors with something to stage; `deliver` takes messages to other actors."""

    __slots__ = ("_epoch", "deliver", "dirty")

    def __init__(self, epoch: Epoch, deliver: Callable[[ActorId, Delivery], None]) -> None:
        self._epoch = epoch
        self.deliver = deliver
        self.dirty: list[Activation] = []

    def touch(self, activation: Activation, size: int = 0) -> Gate:
        """Something of the actor changes with the open batch, about `size` bytes; returns that batch's gate."""
        activation.gate = gate = self._epoch.commit.stage(size)
        if not activation.dirty:
            activation.dirty = True
            self.dirty.append(activation)
        return gate

    def succeed(self, activation: Activation, item: Item, taken: Taken, turn: Turn) -> None:
        """The turn ended well: its state, its effects and its reply become durable together."""
        activation.move_on(item, turn, taken.state)
        self.touch(activation, len(taken.state) + 100)
        for effect in taken.effects:
            self._perform(effect)
        if taken.result is not None:
            self._conclude(activation, item, taken.result)
        self.discharge(item.envelope.id)

    def _perform(self, effect: Send) -> None:
        self.deliver(effect.target, Delivery(effect.envelope))

    def keep_signal(self, activation: Activation, item: Item, turn: Turn) -> None:
        """A declared signal that nobody waits for is kept."""
        put_signal(self._epoch.commit.batch, activation.suffix, item)
        activation.move_on(item, turn, activation.state)
        self.touch(activation, len(item.envelope.payload))
        if item.envelope.key is not None:
            self._conclude(activation, item, Value(b""))

    def fail(self, activation: Activation, item: Item, error: BaseException, turn: Turn, attempts: int) -> None:
        """The message failed, in so many attempts now, and was rolled back: it is tried again later, or put aside."""
        envelope = item.envelope
        back_off = activation.snapshot.back_off if activation.snapshot else None
        attempts += back_off.attempts if back_off is not None and back_off.seq == item.seq else 0
        if envelope.kind is Kind.EVENT and not envelope.ask and not isinstance(error, HandlerInterrupted):
            delay = activation.definition.retry.delay(attempts, envelope.id)
            if delay is not None:
                activation.back_off(BackOff(item.seq, attempts, turn.time + delay), turn)
                self.touch(activation, len(activation.state) + 100)
                logger.warning(
                    "%s: %s failed (attempt %d), again in %.1f s", activation.actor, envelope.name, attempts, delay, exc_info=error
                )
                return
        self._put_aside(activation, item, Failure.of(error), turn, attempts)

    def _put_aside(self, activation: Activation, item: Item, failure: Failure, turn: Turn, attempts: int) -> None:
        activation.move_on(item, turn, activation.state)
        self.touch(activation, len(activation.state) + 100)
        self._conclude(activation, item, Raised(failure))
        if not item.envelope.ask:
            letter = DeadLetter(item.envelope, failure, attempts, self.interrupted(item), turn.time)
            self._put_dead_letter(activation.actor, item.seq, letter)
        self.discharge(item.envelope.id)

    def delete(self, activation: Activation) -> None:
        """Forget the actor, its messages and its dead letters; whoever waits for an answer of it is told."""
        delete_actor(self._epoch.commit.batch, activation.actor)
        self.discharge(activation.decoding)
        deliveries, askers = self._waiting(activation)
        activation.install(None, None)
        activation.forget_instance()
        activation.damaged = False
        self.touch(activation)
        self._answer_all(activation, deliveries, askers, ActorCompleted(activation.actor))

    def release(self, activation: Activation) -> None:
        """Let a quarantined actor go on, with the message that it stood still at."""
        delete_quarantine(self._epoch.commit.batch, activation.suffix)
        self.discharge(activation.decoding)
        activation.failure = None
        activation.forget_instance()
        self.touch(activation)

    def quarantine(self, activation: Activation, error: BaseException) -> None:
        """The actor's records cannot be used: it stands still, with its messages kept, and asks are refused."""
        failure = Failure.of(error)
        logger.error("%s is quarantined: %s: %s", activation.actor, failure.type_name, failure.text)
        activation.failure = failure
        put_quarantine(self._epoch.commit.batch, activation.suffix, QuarantineRow(failure, self._epoch.clock.now()))
        self.touch(activation)
        self._answer_all(activation, *self._waiting(activation), quarantined(activation.actor, failure))

    def interrupted(self, item: Item) -> int:
        """How often a host has died while it handled the message."""
        charge = self._epoch.charges.get(item.envelope.id)
        return charge.interrupted if charge is not None else 0

    def answer(self, activation: Activation, delivery: Delivery, outcome: Outcome) -> None:
        """Tell an outcome to somebody who waits for it, once everything it may come from is durable."""
        if delivery.answered is not None:
            activation.gate.when_open(partial(_resolve, delivery.answered, outcome))
        if delivery.envelope.reply_to is not None:
            self._reply(delivery.envelope.reply_to, outcome)
        if delivery.row is not None:
            self._epoch.commit.batch.delete(delivery.row)
            self.touch(activation)

    def bury(self, actor: ActorId, envelope: Envelope, cause: Exception) -> None:
        """Deal with a message that got into no mailbox: whoever asks is told, and what was only sent goes into the dead letters."""
        if envelope.reply_to is not None:
            self._reply(envelope.reply_to, Raised(Failure.of(cause)))
            return
        self._epoch.arrivals += 1
        seq = self._epoch.fence.epoch << 40 | self._epoch.arrivals  # so that no two letters of one moment share a key
        self._put_dead_letter(actor, seq, DeadLetter(envelope, Failure.of(cause), 0, 0, self._epoch.clock.now()))

    def _put_dead_letter(self, actor: ActorId, seq: int, letter: DeadLetter) -> None:
        put_dead_letter(self._epoch.commit.batch, actor, seq, letter)
        gate = self._epoch.commit.stage(len(letter.envelope.payload))
        failure = letter.failure
        logger.error("%s: %s is in the dead letters: %s: %s", actor, letter.envelope.name, failure.type_name, failure.text)
        if self._epoch.on_dead_letter is not None:
            gate.when_open(partial(_call_hook, self._epoch.on_dead_letter, dead_letter_info(actor, seq, letter)))

    def _waiting(self, activation: Activation) -> tuple[list[Delivery], set[ReplyTo]]:
        """Whoever waits for an outcome of the actor: here, and in other processes, as far as their messages are known."""
        asked, activation.asked = activation.asked or {}, None
        askers, activation.askers = activation.askers or set(), None
        for item in activation.mailbox.waiting() if activation.mailbox is not None else ():
            if item.envelope.reply_to is not None:
                askers.add(item.envelope.reply_to)
        return [delivery for deliveries in asked.values() for delivery in deliveries], askers

    def _answer_all(self, activation: Activation, deliveries: list[Delivery], askers: set[ReplyTo], error: PerdureError) -> None:
        outcome = Raised(Failure.of(error))
        for delivery in deliveries:
            self.answer(activation, delivery, outcome)
        for reply_to in askers:
            self._reply(reply_to, outcome)

    def _conclude(self, activation: Activation, item: Item, outcome: Outcome) -> None:
        envelope = item.envelope
        if envelope.key is not None:
            expires = self._epoch.clock.now() + activation.definition.dedupe_for.total_seconds()
            row = KeyRow(envelope.name, envelope.key[1], item.seq, expires, outcome)
            put_key_row(self._epoch.commit.batch, activation.actor, key_digest(envelope.key[0]), row)
        if envelope.reply_to is not None:
            self._reply(envelope.reply_to, outcome)
        if activation.asked:
            for delivery in activation.asked.pop(item.seq, ()):
                self.answer(activation, delivery, outcome)
            activation.asked = activation.asked or None

    def _reply(self, reply_to: ReplyTo, outcome: Outcome) -> None:
        row = ReplyRow(outcome, self._epoch.clock.now() + KEEP_REPLIES)
        put_reply(self._epoch.commit.batch, reply_to, row)
        self._epoch.commit.stage(100).when_open(lambda error: None if error else self._epoch.reply(reply_to, outcome))

    def discharge(self, subject: MessageId) -> None:
        """What a host had died in is done: forget its interrupted attempts."""
        if self._epoch.charges and self._epoch.charges.pop(subject, None) is not None:
            self._epoch.commit.batch.delete(charge_key(subject))


def _resolve(answered: asyncio.Future[Outcome], outcome: Outcome, error: BaseException | None) -> None:
    if answered.done():
        return
    if error is None:
        answered.set_result(outcome)
    else:
        answered.set_exception(fresh(error))


def _call_hook(hook: Callable[[DeadLetterInfo], None], letter: DeadLetterInfo, error: BaseException | None) -> None:
    if error is not None:
        return
    try:
        hook(letter)
    except Exception:
        logger.exception("the on_dead_letter hook failed for %s", letter.actor)
