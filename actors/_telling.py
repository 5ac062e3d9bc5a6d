"""Who is told what came of a message: callers here, clients in other processes, actors that ask, and the dead letters.

Nothing is told before everything that it may come from is durable.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, final

from ..storage import PerdureError, fresh
from ._activation import Activation, Delivery
from ._envelope import Awaiter, Envelope, Kind
from ._epoch import Epoch
from ._errors import UnknownActorType
from ._failure import Failure
from ._ids import ActorId, MessageId
from ._info import DeadLetterInfo, dead_letter_info
from ._persistence import key_digest, put_dead_letter, put_key_row, put_reply
from ._records import OUTCOME, DeadLetter, KeyRow, Outcome, ReplyRow, refusal

IN_NO_MAILBOX: Final = 1 << 40  # the numbers of letters that have been in none begin here
KEEP_REPLIES: Final = 86400.0  # seconds that an outcome waits for the client who asked, if that is away

logger = logging.getLogger("perdure.actors")


@final
class Telling:
    """Tells outcomes. `deliver` takes messages to other actors."""

    __slots__ = ("_deliver", "_epoch")

    def __init__(self, epoch: Epoch, deliver: Callable[[ActorId, Delivery], None]) -> None:
        self._epoch = epoch
        self._deliver = deliver

    def conclude(self, activation: Activation, seq: int, envelope: Envelope, outcome: Outcome) -> None:
        """The message's outcome is known: tell everybody who waits for it, and remember it for whoever uses its key again."""
        if envelope.key is not None:
            expires = self._epoch.clock.now() + activation.definition.dedupe_for.total_seconds()
            row = KeyRow(envelope.name, envelope.key[1], seq, expires, outcome)
            put_key_row(self._epoch.commit.batch, activation.actor, key_digest(envelope.key[0]), row)
        if envelope.reply_to is not None or envelope.asker is not None:
            self.tell(activation.actor, Awaiter(envelope.reply_to, envelope.asker), outcome)
        if activation.asked:
            for delivery in activation.asked.pop(seq, ()):
                self.answer(activation, delivery, outcome)
            activation.asked = activation.asked or None

    def answer(self, activation: Activation, delivery: Delivery, outcome: Outcome) -> None:
        """Tell an outcome to somebody who waits for it."""
        if delivery.answered is not None:
            activation.gate.when_open(partial(resolve, delivery.answered, outcome))
        awaiter = delivery.envelope.awaiter
        if awaiter is not None:
            self.tell(activation.actor, awaiter, outcome)
        if delivery.row is not None:
            self._epoch.commit.batch.delete(delivery.row)
            self._epoch.commit.stage(len(delivery.row))

    def answer_all(self, activation: Activation, deliveries: Iterable[Delivery], awaiters: Iterable[Awaiter], error: PerdureError) -> None:
        """Tell an error to all of them."""
        outcome = refusal(error)
        for delivery in deliveries:
            self.answer(activation, delivery, outcome)
        for awaiter in awaiters:
            self.tell(activation.actor, awaiter, outcome)

    def waiting(self, activation: Activation) -> tuple[list[Delivery], set[Awaiter]]:
        """Whoever waits for an outcome of the actor: here, and beyond, as far as their messages are known."""
        asked, activation.asked = activation.asked or {}, None
        awaiters, activation.awaiters = activation.awaiters or set(), None
        envelopes = [item.envelope for item in activation.mailbox.waiting()] if activation.mailbox is not None else []
        if activation.coroutines is not None and activation.coroutines.handled is not None:
            envelopes.append(activation.coroutines.handled[1])
        awaiters |= {awaiter for envelope in envelopes if (awaiter := envelope.awaiter) is not None}
        return [delivery for deliveries in asked.values() for delivery in deliveries], awaiters

    def tell(self, source: ActorId, awaiter: Awaiter, outcome: Outcome) -> None:
        """Tell an outcome to a client, or to an actor as a message."""
        if awaiter.reply_to is not None:
            self._reply(awaiter.reply_to, outcome)
        if awaiter.asker is not None:
            type_name, key, request = awaiter.asker
            payload = OUTCOME.pack(outcome)
            now = self._epoch.clock.now()
            reply = Envelope(id=MessageId(request), kind=Kind.REPLY, name="reply", payload=payload, sender=str(source), sent_at=now)
            asker = ActorId(type_name, key)
            try:
                self._deliver(asker, Delivery(reply))
            except UnknownActorType as unknown:
                self.bury(asker, reply, unknown)

    def _reply(self, reply_to: tuple[bytes, int], outcome: Outcome) -> None:
        row = ReplyRow(outcome, self._epoch.clock.now() + KEEP_REPLIES)
        put_reply(self._epoch.commit.batch, reply_to, row)
        self._epoch.commit.stage(100).when_open(lambda error: None if error else self._epoch.reply(reply_to, outcome))

    def bury(self, actor: ActorId, envelope: Envelope, cause: Exception) -> None:
        """Deal with a message that got into no mailbox: whoever asks is told, and what was only sent goes into the dead letters."""
        awaiter = envelope.awaiter
        if awaiter is not None:
            self.tell(actor, awaiter, refusal(cause))
            return
        self.put_dead_letter(actor, self.number_of_its_own(), DeadLetter(envelope, Failure.of(cause), 0, 0, self._epoch.clock.now()))

    def number_of_its_own(self) -> int:
        """A seq for a letter that has been in no mailbox: no two letters of one moment may share a key."""
        self._epoch.arrivals += 1
        return self._epoch.fence.epoch * IN_NO_MAILBOX + self._epoch.arrivals

    def put_dead_letter(self, actor: ActorId, seq: int, letter: DeadLetter) -> None:
        """Put a message aside that cannot be handled."""
        put_dead_letter(self._epoch.commit.batch, actor, seq, letter)
        gate = self._epoch.commit.stage(len(letter.envelope.payload))
        failure = letter.failure
        logger.error("%s: %s is in the dead letters: %s: %s", actor, letter.envelope.name, failure.type_name, failure.text)
        if self._epoch.listener is not None:
            self._epoch.listener.put_aside(actor, letter)
        if self._epoch.on_dead_letter is not None:
            gate.when_open(partial(_call_hook, self._epoch.on_dead_letter, dead_letter_info(actor, seq, letter)))


def resolve(answered: asyncio.Future[Outcome], outcome: Outcome, error: BaseException | None) -> None:
    """Give a caller its outcome, or what became of the batch that it was to come with."""
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
