"""The books: through them goes everything that is decided about an actor, into the open batch.

What leaves the host because of it waits for that batch's gate.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, final

from ..storage import Gate, settle
from ._activation import Activation, Delivery
from ._endings import Ending
from ._envelope import Envelope, Kind, Parent
from ._epoch import Epoch
from ._errors import ActorCompleted, UnknownActorType
from ._failure import Failure
from ._history import history_of
from ._ids import ActorId, MessageId
from ._mailbox import Item
from ._persistence import charge_key, delete_request
from ._records import DeadLetter, Raised, Standing
from ._telling import Telling
from ._turn import Turn

# They mean nothing to an actor that has ended.
UNMOURNED: Final = frozenset(
    {
        Kind.FIRING,
        Kind.OUTCOME,
        Kind.REPLY,
        Kind.TIMER,
        Kind.RESULT,
        Kind.CHILD_EXIT,
        Kind.CANCEL,
        Kind.RENEW,
        Kind.SETTLE,
        Kind.ORPHAN,
        Kind.POISONED,
    }
)


@final
class Books:
    """What every decision is written into. `dirty` are the actors with something to stage; `deliver` takes messages to other actors."""

    __slots__ = ("deliver", "dirty", "epoch", "history", "telling")

    def __init__(self, epoch: Epoch, deliver: Callable[[ActorId, Delivery], None]) -> None:
        self.epoch: Final = epoch
        self.deliver = deliver
        self.telling: Final = Telling(epoch, deliver)
        self.history: Final = history_of(epoch)
        self.dirty: list[Activation] = []

    def __repr__(self) -> str:
        return f"<Books, {len(self.dirty)} actors to stage>"

    def touch(self, activation: Activation, size: int = 0) -> Gate:
        """Something of the actor changes with the open batch, about `size` bytes; returns that batch's gate."""
        activation.gate = gate = self.epoch.commit.stage(size)
        if not activation.dirty:
            activation.dirty = True
            self.dirty.append(activation)
        return gate

    def stay(self, activation: Activation, item: Item, turn: Turn, standing: Standing | None) -> None:
        """The message is taken, and changes nothing of the actor's state."""
        activation.take(item)
        activation.stay(turn, standing)
        size = 0 if self.history is None else self.history.note_passed(activation, item, turn)
        self.touch(activation, size + 100)

    def skip(self, activation: Activation, item: Item, turn: Turn) -> None:
        """The message is taken, and changes nothing of the actor."""
        self.stay(activation, item, turn, activation.snapshot.standing if activation.snapshot is not None else None)

    def drop(self, activation: Activation, item: Item, turn: Turn) -> None:
        """A message that means nothing any more: an outcome that nobody waits for, a firing of what was set anew."""
        self.skip(activation, item, turn)
        self.discharge(item.envelope.id)

    def post(
        self,
        activation: Activation,
        kind: Kind,
        name: str,
        now: float,
        *,
        payload: bytes = b"",
        due: float = 0.0,
        asker: tuple[str, str, bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Put a message of the host's own into the actor's mailbox; `asker` is the actor that it is asked for."""
        assert activation.mailbox is not None
        message = MessageId(self.epoch.entropy.token())
        is_ask = asker is not None
        envelope = Envelope(
            id=message, kind=kind, name=name, payload=payload, ask=is_ask, headers=headers, sent_at=now, asker=asker, due=due
        )
        activation.mailbox.append(envelope)
        self.touch(activation, len(payload) + 100)

    def send(
        self, source: ActorId, target: ActorId, kind: Kind, name: str, parent: Parent, *, payload: bytes = b"", due: float = 0.0
    ) -> None:
        """Send what parents and children tell each other; `parent` says which child of which parent it is about."""
        now = self.epoch.clock.now()
        message = MessageId(self.epoch.entropy.token())
        told = Envelope(id=message, kind=kind, name=name, payload=payload, sender=str(source), sent_at=now, due=due, parent=parent)
        try:
            self.deliver(target, Delivery(told))
        except UnknownActorType as unknown:
            self.telling.bury(target, told, unknown)

    def turn_away(self, activation: Activation, seq: int, envelope: Envelope, now: float) -> None:
        """The actor has ended: whoever asks is told, and what was only sent goes into the dead letters."""
        failure = Failure.of(ActorCompleted(activation.actor))
        if envelope.wants_outcome:
            self.telling.conclude(activation, seq, envelope, Raised(failure))
        if not envelope.ask and envelope.kind not in UNMOURNED:
            self.telling.put_dead_letter(activation.actor, seq, DeadLetter(envelope, failure, 0, 0, now))

    def end_handler(self, activation: Activation, ending: Ending, now: float) -> None:
        """A handler has ended: whoever asked is told, and what failed and was only sent is put aside."""
        outcome = ending.outcome
        if outcome is not None:
            self.telling.conclude(activation, ending.seq, ending.envelope, outcome)
            if isinstance(outcome, Raised) and not ending.envelope.ask:
                letter = DeadLetter(ending.envelope, outcome.failure, 1, 0, now, ending.partly)
                self.telling.put_dead_letter(activation.actor, ending.seq or self.telling.number_of_its_own(), letter)

    def tell_readers(self, activation: Activation) -> None:
        """Whoever reads the actor's stream looks again, once what is staged now is durable."""
        for reader in self.epoch.readers.pop(activation.actor, ()):
            activation.gate.when_open(partial(settle, reader))

    def give_up_all(self, activation: Activation) -> None:
        """Nobody waits for what the actor has asked for any more: what is done for it ends, once that is durable."""
        requests = activation.coroutines.outcomes.requests() if activation.coroutines is not None else []
        for request in requests if activation.outstanding is None else activation.outstanding:
            delete_request(self.epoch.commit.batch, activation.suffix, request)
            self.epoch.errands.give_up(request, self.touch(activation))
        activation.outstanding = None

    def set_alarm(self, activation: Activation) -> None:
        """Have the actor looked at when the earliest of its timers is due."""
        if activation.snapshot is not None:
            self.epoch.set_alarm(activation.actor, activation.snapshot.next_due)

    def interrupted(self, item: Item) -> int:
        """How often a host has died while it handled the message."""
        charge = self.epoch.charges.get(item.envelope.id)
        return charge.interrupted if charge is not None else 0

    def discharge(self, subject: MessageId) -> None:
        """What a host had died in is done: forget its interrupted attempts."""
        if self.epoch.charges and self.epoch.charges.pop(subject, None) is not None:
            self.epoch.commit.batch.delete(charge_key(subject))
